"""Expressions of a definition, compiled once, and bound to the values of one run.

A value is JSON bytes as they were received; binding splices bytes into bytes and decodes only where an expression
looks inside a value.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from hopline_engine.core.references import MARK, as_references, as_texts, has_marked_texts, is_reference

INPUT: Final = "$input"
ITEM: Final = "$item"
FAILURE: Final = "$failure"
"""Why the run failed, for the step that is told of it."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class BindingError(Exception):
    """An expression cannot be bound to the values at hand; the message names the value and the path."""


class Value:
    """A JSON value: its bytes, decoded at most once."""

    __slots__ = ("_decoded", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._decoded: Any = _UNDECODED

    @property
    def decoded(self) -> Any:
        """The value as Python objects; shared, not to be changed.

        Raises:
            BindingError: it is no JSON: whoever executed the step did not keep to the protocol.
        """
        if self._decoded is _UNDECODED:
            try:
                self._decoded = _decode(self.raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BindingError(f"a value cannot be read: {error}") from None
        return self._decoded


_UNDECODED: Final = object()


class Scope(Protocol):
    """The values of one step run that expressions refer to."""

    def value(self, source: str) -> Value:
        """Return the input of the run, the current item, or the result of a node."""
        ...

    def whole(self, raw: bytes) -> bytes:
        """Return a value with all that it refers to in place.

        Raises:
            BindingError: something of it is gone.
        """
        ...

    def secret(self, name: str) -> str:
        """Return a secret.

        Raises:
            BindingError: it is not set.
        """
        ...


class Expression(Protocol):
    """Something of a definition that has a value in a scope."""

    def render(self, scope: Scope) -> bytes:
        """Return the value as JSON bytes.

        Raises:
            BindingError: a path does not exist in the value, or a secret is not set.
        """
        ...

    def sources(self) -> Iterator[str]:
        """Yield the nodes (and ``$input``, ``$item``) whose values are needed."""
        ...


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that stands in the definition."""

    raw: bytes

    def render(self, scope: Scope) -> bytes:  # noqa: ARG002  # the same in every scope
        """Return the value."""
        return self.raw

    def sources(self) -> Iterator[str]:
        """Yield nothing."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of a node, or a part of it."""

    source: str
    path: tuple[str | int, ...] = ()
    format: str = ""

    def resolve(self, scope: Scope) -> Any:
        """Return the value as Python objects."""
        value = scope.value(self.source)
        if MARK in value.raw:
            return Value(scope.whole(self._referring(value.raw, scope))).decoded
        found = value.decoded
        for depth in range(len(self.path)):
            found = self._below(found, depth)
        return found

    def render(self, scope: Scope) -> bytes:
        """Return the bytes of the value as they are, or of the part that the path names."""
        if not self.path:
            return scope.value(self.source).raw
        raw = scope.value(self.source).raw
        return self._referring(raw, scope) if MARK in raw else _encode(self.resolve(scope))

    def _below(self, found: Any, depth: int) -> Any:
        try:
            return found[self.path[depth]]
        except (KeyError, IndexError, TypeError):
            where = "".join(f"[{part!r}]" for part in self.path[: depth + 1])
            raise BindingError(f"the value of {self.source!r} has no {where}") from None

    def _referring(self, raw: bytes, scope: Scope) -> bytes:
        """Return the part that the path names of a value with references; those in it stay, others are not followed."""
        if has_marked_texts(raw):  # they cannot be told from references that are read as texts
            raw = scope.whole(raw)
        found = Value(as_texts(raw)).decoded
        for depth in range(len(self.path)):
            if isinstance(found, str) and is_reference(found):
                found = Value(scope.whole(found.encode())).decoded
                for rest in range(depth, len(self.path)):
                    found = self._below(found, rest)
                return _encode(found)
            found = self._below(found, depth)
        return _encode(found) if MARK not in raw else as_references(_encode(found))

    def sources(self) -> Iterator[str]:
        """Yield the source."""
        yield self.source

    def text(self, scope: Scope) -> str:
        """Return the value as it stands in a text: strings as they are, everything else as JSON."""
        value = self.resolve(scope)
        if self.format:
            try:
                return format(value, self.format)
            except (TypeError, ValueError, OverflowError) as error:
                raise BindingError(f"cannot format the value of {self.source!r}: {error}") from None
        return value if isinstance(value, str) else _encode(value).decode()


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, known only where the request is made."""

    name: str

    def render(self, scope: Scope) -> bytes:
        """Return the secret as a JSON string."""
        return _encode(scope.secret(self.name))

    def sources(self) -> Iterator[str]:
        """Yield nothing: a secret is not a step."""
        return iter(())

    def text(self, scope: Scope) -> str:
        """Return the secret."""
        return scope.secret(self.name)


@dataclass(frozen=True, slots=True)
class Text:
    """A text with values in it."""

    parts: tuple[str | Ref | Secret, ...]

    def text(self, scope: Scope) -> str:
        """Return the text with its values."""
        return "".join(part if isinstance(part, str) else part.text(scope) for part in self.parts)

    def url(self, scope: Scope) -> str:
        """Return the text as a URL: values are percent-encoded, but for one that begins it (a base URL).

        Raises:
            BindingError: as of ``text``, or a value would lead out of its place in the path.
        """
        url = ""
        for index, part in enumerate(self.parts):
            if isinstance(part, str):
                url += part
                continue
            value = part.text(scope)
            if index and value in {".", ".."} and "?" not in url:
                raise BindingError(f"{value!r} cannot be put into the path of a URL")
            url += quote(value, safe="") if index else value
        return url

    def render(self, scope: Scope) -> bytes:
        """Return the text as a JSON string."""
        return _encode(self.text(scope))

    def sources(self) -> Iterator[str]:
        """Yield the sources of the values in the text."""
        for part in self.parts:
            if isinstance(part, Ref):
                yield part.source


@dataclass(frozen=True, slots=True)
class Array:
    """A list with expressions in it."""

    items: tuple[Expression, ...]

    def render(self, scope: Scope) -> bytes:
        """Return the list."""
        return b"[" + b",".join(item.render(scope) for item in self.items) + b"]"

    def sources(self) -> Iterator[str]:
        """Yield the sources of the items."""
        for item in self.items:
            yield from item.sources()


@dataclass(frozen=True, slots=True)
class Object:
    """A JSON object with expressions as values; also the arguments of a step."""

    members: tuple[tuple[bytes, Expression], ...]
    """Pairs of the encoded key with its colon, and the value."""

    def render(self, scope: Scope) -> bytes:
        """Return the object."""
        return b"{" + b",".join(key + value.render(scope) for key, value in self.members) + b"}"

    def sources(self) -> Iterator[str]:
        """Yield the sources of the values."""
        for _, value in self.members:
            yield from value.sources()


def compile_object(members: Mapping[str, Any]) -> Object:
    """Return the expression for a mapping of names to expressions.

    Raises:
        ValueError: a marker is malformed.
    """
    return Object(tuple((_encode(key) + b":", compile_expression(value)) for key, value in members.items()))


def compile_expression(value: Any) -> Expression:
    """Return the expression that a JSON value of a definition describes.

    Raises:
        ValueError: a marker (an object with one key that starts with ``$``) is malformed.
    """
    if isinstance(value, list):
        compiled = tuple(compile_expression(item) for item in value)
        is_constant = all(isinstance(item, Literal) for item in compiled)
        return Literal(_encode(value)) if is_constant and not _has_marker(value) else Array(compiled)
    if not isinstance(value, dict):
        return Literal(_encode(value))
    marker = next((key for key in value if key.startswith("$")), None)
    if marker is not None:
        return _compile_marker(marker, value)
    whole = compile_object(value)
    is_constant = all(isinstance(member, Literal) for _, member in whole.members)
    return Literal(_encode(value)) if is_constant and not _has_marker(value) else whole


def _has_marker(value: Any) -> bool:
    """Return whether a ``$literal`` is somewhere inside: its wrapping is not part of the value."""
    if isinstance(value, dict):
        return any(key.startswith("$") or _has_marker(member) for key, member in value.items())
    return isinstance(value, list) and any(_has_marker(item) for item in value)


def _compile_marker(marker: str, value: dict[str, Any]) -> Expression:
    expected = {"$ref", "path", "format"} if marker == "$ref" else {marker}
    if not value.keys() <= expected:
        raise ValueError(f"{marker} stands beside {sorted(value.keys() - expected)}")
    match value:
        case {"$ref": str(source), **rest} if isinstance(rest.get("format", ""), str):
            return Ref(source, _path(rest.get("path", [])), rest.get("format", ""))
        case {"$text": list(parts)}:
            return Text(tuple(_compile_part(part) for part in parts))
        case {"$secret": str(name)}:
            return Secret(name)
        case {"$literal": literal}:
            return Literal(_encode(literal))
    raise ValueError(f"unknown or malformed {marker}")


def _path(value: Any) -> tuple[str | int, ...]:
    if isinstance(value, list) and all(type(key) in {str, int} for key in value):
        return tuple(value)
    raise ValueError(f"a path is a list of names and positions, not {value!r}")


def _compile_part(part: Any) -> str | Ref | Secret:
    compiled = part if isinstance(part, str) else compile_expression(part)
    if isinstance(compiled, str | Ref | Secret):
        return compiled
    raise ValueError("a text is made of strings, references and secrets")


def decoded(expression: Expression, scope: Scope) -> Any:
    """Return the value of an expression as Python objects.

    Raises:
        BindingError: as of ``render``.
    """
    raw = expression.render(scope)
    return Value(scope.whole(raw) if MARK in raw else raw).decoded


def items_of(expression: Expression, scope: Scope) -> list[bytes]:
    """Return the bytes of each item of the list that an expression is.

    Raises:
        BindingError: as of ``render``, or it is not a list.
    """
    raw = expression.render(scope)
    return decode_items(scope.whole(raw) if MARK in raw else raw)


def decode_items(raw: bytes) -> list[bytes]:
    """Return the bytes of each item of a JSON list.

    Raises:
        BindingError: it is not a list.
    """
    try:
        return [bytes(item) for item in _decode_list(raw)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BindingError("the value to map over is not a list") from None


_decode_list: Callable[[bytes], list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode
