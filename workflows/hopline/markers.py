"""Marks that symbolic values leave in the text of an f-string, to be found again when the text is compiled.

A mark stands between two NUL characters, which no other text in a definition may hold, so nothing a user writes can
be taken for one. A text that was changed after a result was put in is refused and not stored half changed: ``upper``,
``lower``, ``title``, ``capitalize`` and ``swapcase`` all spoil the letters of a mark, and where quoting has changed the
NULs (``quote``, ``json.dumps``, ``repr``) the letters remain to be seen.
"""

import re
from typing import NamedTuple, cast

from hopline.errors import definition_error

NUL = "\0"
_WRITTEN_NUL = r"\x00"
_LETTERS = "hOpLiNe"
_NAME = r"(?:(?:env|store):)?[A-Za-z_][A-Za-z0-9_]{0,99}|file:/?(?:[A-Za-z0-9_.-]{1,100}/){0,9}[A-Za-z0-9_.-]{1,100}"
_SECRET_NAME = re.compile(_NAME, re.ASCII)
_MARK = re.compile(rf"\0{_LETTERS}(?:(?P<wiring>\d+)\.(?P<number>\d+)|:(?P<secret>{_NAME}))\0", re.ASCII)


class ResultMark(NamedTuple):
    """The place of a result: the *number*-th that was put in a text while *wiring* was traced."""

    wiring: int
    number: int

    def __str__(self) -> str:
        return f"{NUL}{_LETTERS}{self.wiring}.{self.number}{NUL}"


class Secret:
    """The name of a secret; the engine puts the value in when it sends the request."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not _SECRET_NAME.fullmatch(str(name)):
            raise definition_error(
                f"{name!r} is not a name of a secret",
                'use letters, digits and "_", the first not a digit; before it "env:", "file:" or "store:" may stand',
            )
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Secret, self.name))

    def __repr__(self) -> str:
        return f"secret({self.name!r})"

    def __str__(self) -> str:
        return f"{NUL}{_LETTERS}:{self.name}{NUL}"

    def __format__(self, spec: str) -> str:
        if spec:
            raise definition_error(f"secret({self.name!r}) cannot be formatted with {spec!r}", "put it in as it is")
        return str(self)

    def __add__(self, other: str) -> str:
        return str(self) + other

    def __radd__(self, other: str) -> str:
        return other + str(self)


def secret(name: str) -> str:
    """Return a stand-in for the secret *name*: ``headers={"Authorization": secret("TOKEN")}``.

    For requests of HTTP steps, whole or in a text: ``f"Bearer {secret('TOKEN')}"``. Definitions hold the name alone;
    ``env:TOKEN``, ``file:TOKEN`` and ``store:TOKEN`` also say where the value is, and otherwise it is looked for there.
    """
    return cast("str", Secret(name))


def split(text: str) -> list[str | ResultMark | Secret] | None:
    """Return the parts of *text* in order, or None when some of it was a mark once and is none now."""
    parts: list[str | ResultMark | Secret] = []
    end = 0
    for match in _MARK.finditer(text):
        parts.append(text[end : match.start()])
        name = match["secret"]
        parts.append(Secret(name) if name else ResultMark(int(match["wiring"]), int(match["number"])))
        end = match.end()
    parts.append(text[end:])
    if any(isinstance(part, str) and (NUL in part or _LETTERS in part) for part in parts):
        return None
    return [part for part in parts if part != ""]


def may_hold_marks(text: str) -> bool:
    """Return whether there can be anything but plain text in *text*."""
    return NUL in text or _LETTERS in text


def readable(text: str) -> str:
    """Return *text* for a message, its marks written out as what they stand for."""
    text = text.replace(_WRITTEN_NUL, NUL)  # as repr() leaves it in the messages of others' exceptions
    return _MARK.sub(lambda match: f"<secret {match['secret']}>" if match["secret"] else "<result>", text).replace(
        NUL, ""
    )
