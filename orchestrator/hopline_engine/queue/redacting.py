"""Secrets taken out of what targets say, before anything is made of it.

Found are a secret as it is, and in the forms in which programs echo it: in JSON, percent-encoded, in HTML, in
hexadecimal, and in base64, also where it is a part of what was encoded.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus

import msgspec

from hopline_engine.core.retry import Failure

SHORTEST: Final = 4
"""Characters of the shortest secret that is looked for; less is found in too much that is none."""


class Redactor:
    """Takes the values of some secrets out of texts."""

    __slots__ = ("_forms", "_names", "_pattern", "_raw")

    def __init__(self, values: Mapping[str, str]) -> None:
        self._names = {form: name for name, value in values.items() if len(value) >= SHORTEST for form in _forms(value)}
        self._forms = sorted(self._names, key=len, reverse=True)
        self._raw = [form.encode() for form in self._forms]
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None

    def text(self, text: str) -> str:
        """Return a text with the names of secrets in place of their values."""
        return self._pattern.sub(self._replacement, text) if self._pattern is not None else text

    def body(self, body: bytes) -> bytes:
        """Return what a target sent, without secrets; what was JSON still is."""
        if self._pattern is None or not (b"\\" in body or any(form in body for form in self._raw)):
            return body
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self.text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        clean = self._clean(value)
        return body if clean == value else msgspec.json.encode(clean)

    def failure(self, failure: Failure) -> Failure:
        """Return a failure without secrets."""
        return failure._replace(type=self.text(failure.type), message=self.text(failure.message))

    def _replacement(self, match: re.Match[str]) -> str:
        return f"[secret {self._names[match[0]]}]"

    def _clean(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case list():
                return [self._clean(member) for member in value]
            case dict():
                return {self.text(key): self._clean(member) for key, member in value.items()}
            case bool() | None:
                return value
        return self.text(str(value)) if str(value) in self._names else value


@lru_cache(maxsize=256)
def _forms(value: str) -> frozenset[str]:
    """Return the forms in which a secret is looked for: one encoding of it, or one of another.

    As where it stands percent-encoded in a URL, which an answer has in base64.
    """
    lines = value.splitlines()
    once = {form for each in {value, *(lines if len(lines) > 1 else ())} for form in (each, *_encodings(each))}
    forms = once.union(*(set(_encodings(form)) for form in once))
    return frozenset(form for form in forms if len(form) >= SHORTEST)


def _encodings(text: str) -> Iterator[str]:
    for quoted in (quote(text), quote(text, safe=""), quote_plus(text)):
        yield quoted
        yield re.sub("%..", lambda code: code[0].lower(), quoted)
    for is_ascii in (True, False):
        yield json.dumps(text, ensure_ascii=is_ascii)[1:-1]
    yield html.escape(text)
    raw = text.encode()
    yield raw.hex()
    yield raw.hex().upper()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode()
        yield from _inside_base64(raw, encode)


def _inside_base64(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """Yield what of *raw* is the same wherever in a longer text it is encoded, as after ``user:``."""
    for offset, skipped in enumerate((0, 2, 3)):
        text = encode(bytes(offset) + raw).decode().rstrip("=")
        yield text[skipped:] if (offset + len(raw)) % 3 == 0 else text[skipped:-1]
