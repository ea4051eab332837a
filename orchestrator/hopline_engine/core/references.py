"""References to values that are too large for rows, and stand for them where the value would be.

A reference begins and ends with a byte that JSON does not have anywhere, so it can stand inside of JSON, and nothing
that a user sends can be taken for one.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

MARK: Final = b"\x01"
_REFERENCE: Final = re.compile(rb"\x01([0-9]{8}/[0-9a-f]{64}):([0-9]{1,18})\x01")
_TEXT: Final = re.compile(rb'"\\u0001([0-9]{8}/[0-9a-f]{64}:[0-9]{1,18})\\u0001"')


class Reference(NamedTuple):
    """Where a value is, and what it is."""

    location: str
    """The day on which it was kept, and the SHA-256 of its JSON."""
    size: int
    """Bytes of its JSON."""

    @property
    def digest(self) -> str:
        """The SHA-256 of its JSON."""
        return self.location.rpartition("/")[2]

    def raw(self) -> bytes:
        """Return what stands for the value."""
        return b"\x01%b:%d\x01" % (self.location.encode(), self.size)


Contents = Callable[[Reference], bytes]
"""Returns the JSON that a reference stands for; raises ``BindingError`` when it is gone."""


def references_in(raw: bytes) -> Iterator[Reference]:
    """Yield the references in a value.

    >>> one = Reference("20261121/" + "0" * 64, 300_000)
    >>> list(references_in(b'{"a":' + one.raw() + b"}")) == [one]
    True
    """
    for found in _REFERENCE.finditer(raw):
        yield _read(found)


def filled(raw: bytes, contents: Contents) -> bytes:
    """Return a value with everything in place that it refers to."""
    return _REFERENCE.sub(lambda found: contents(_read(found)), raw)


def has_marked_texts(raw: bytes) -> bool:
    """Return whether a text in a value may have the byte of references in it, escaped."""
    return rb"\u0001" in raw


def as_texts(raw: bytes) -> bytes:
    """Return a value as JSON in which each reference is a text."""
    return _REFERENCE.sub(lambda found: b'"\\u0001%b\\u0001"' % found[0][1:-1], raw)


def as_references(raw: bytes) -> bytes:
    r"""Return a value that was read with its references as texts, and written again, as it was.

    >>> one = Reference("20261121/" + "0" * 64, 5).raw()
    >>> as_references(as_texts(b"[" + one + b"]")) == b"[" + one + b"]"
    True
    """
    return _TEXT.sub(lambda found: b"\x01%b\x01" % found[1], raw)


def is_reference(text: str) -> bool:
    """Return whether a text is a reference that was read as one."""
    return _REFERENCE.fullmatch(text.encode(errors="replace")) is not None


def shown(raw: bytes) -> bytes:
    """Return a value as JSON in which references can be seen.

    >>> shown(Reference("20261121/" + "0" * 64, 5).raw())[:40]
    b'{"$blob":{"sha256":"00000000000000000000'
    """
    if MARK not in raw:
        return raw
    return filled(raw, lambda one: b'{"$blob":{"sha256":"%b","size":%d}}' % (one.digest.encode(), one.size))


def _read(found: re.Match[bytes]) -> Reference:
    return Reference(found[1].decode(), int(found[2]))
