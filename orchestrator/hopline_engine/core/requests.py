"""The requests of HTTP steps: compiled once, and bound to the values of one step run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from hopline_engine.core.binding import (
    Array,
    BindingError,
    Expression,
    Literal,
    Object,
    Ref,
    Scope,
    Secret,
    Text,
    compile_expression,
    decoded,
)
from hopline_engine.core.definition import RequestSpec

_encode = msgspec.json.Encoder().encode


class BoundRequest(NamedTuple):
    """What an HTTP step sends, before the engine's own headers."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """The request of an HTTP step with expressions in it."""

    method: str
    url: Text
    params: tuple[tuple[str, Expression], ...]
    headers: tuple[tuple[str, Text], ...]
    body: Expression | None
    cancel: Text | None = None
    """Where to post when the run is cancelled while the request is out."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets in it, each once."""

    def bind(self, scope: Scope) -> BoundRequest:
        """Return the request with its values.

        Raises:
            BindingError: as of ``Expression.render``, or a header value would break out of its line.
        """
        url = self.url.url(scope)
        query = [pair for name, value in self.params for pair in _query(name, decoded(value, scope))]
        if query:
            base, _, _ = url.partition("#")  # a fragment is never sent
            url = base + ("&" if "?" in base else "?") + urlencode(query)
        headers = tuple((name, _header(name, value.text(scope))) for name, value in self.headers)
        return BoundRequest(self.method, url, headers, self.body.render(scope) if self.body else None)

    def expressions(self) -> Iterator[Expression]:
        """Yield all that has values in it."""
        yield self.url
        if self.cancel:
            yield self.cancel
        for _, value in (*self.params, *self.headers):
            yield value
        if self.body:
            yield self.body

    def sources(self) -> Iterator[str]:
        """Yield the sources of everything in the request."""
        for expression in self.expressions():
            yield from expression.sources()


def compile_request(spec: RequestSpec) -> RequestTemplate:
    """Return the request that a definition describes.

    Raises:
        ValueError: an expression in it is malformed, or not a text where one is needed.
    """
    template = RequestTemplate(
        method=spec.method,
        url=_as_text(compile_expression(spec.url)),
        params=tuple((name, compile_expression(value)) for name, value in spec.params.items()),
        headers=tuple((name, _as_text(compile_expression(value))) for name, value in spec.headers.items()),
        body=compile_expression(spec.json) if spec.has_json else None,
        cancel=_as_text(compile_expression(spec.cancel)) if spec.cancel is not None else None,
    )
    names = dict.fromkeys(_secrets_in(template.expressions()))
    return replace(template, secrets=tuple(names)) if names else template


def _secrets_in(expressions: Iterable[Expression]) -> Iterator[str]:
    for expression in expressions:
        match expression:
            case Secret(name):
                yield name
            case Text(parts):
                yield from (part.name for part in parts if isinstance(part, Secret))
            case Array(items):
                yield from _secrets_in(items)
            case Object(members):
                yield from _secrets_in(value for _, value in members)


def _as_text(expression: Expression) -> Text:
    match expression:
        case Text():
            return expression
        case Ref() | Secret():
            return Text((expression,))
        case Literal(raw=raw) if raw.startswith(b'"'):
            return Text((msgspec.json.decode(raw),))
    raise ValueError("a URL or header must be a text")


def _query(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the pairs of one parameter: none for null, one for each item of a list."""
    for item in value if isinstance(value, list) else [value]:
        if item is not None:
            yield name, item if isinstance(item, str) else _encode(item).decode()


def _header(name: str, value: str) -> str:
    if any((character < " " and character != "\t") or character == "\x7f" for character in value):
        raise BindingError(f"the value of header {name!r} has control characters")
    return value
