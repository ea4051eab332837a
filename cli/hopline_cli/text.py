"""Text that is safe and short enough to show: escaped control characters, one-liners, near misses.

Names, logs and error messages come from other people's programs. Printed raw, they could move the cursor, retitle
the window, write to the clipboard or reorder what is read; so everything foreign passes through ``printable`` first.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

# Bidirectional controls, line separators, invisible tags and halves of surrogate pairs.
_TRICKY = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f"
_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TRICKY}]")
_UNSAFE_IN_JSON = re.compile(f"[\x7f-\x9f{_TRICKY}]")


def printable(text: str) -> str:
    r"""Return *text* with every control character but newline and tab written as an escape.

    >>> printable("\x1b[31mred\x1b[0m\tand a line\r\n")
    '\\x1b[31mred\\x1b[0m\tand a line\n'
    """
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str, limit: int | None = None) -> str:
    r"""Return *text* as one printable line, cut at *limit* characters.

    >>> one_line("bad row:\n  no price", 12)
    'bad row: no…'
    """
    line = printable(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: max(limit - 1, 0)].rstrip() + "…"


def json_text(value: Any, *, indent: int | None = 2) -> str:
    r"""Return *value* as JSON that is readable, valid and safe to show on a terminal.

    >>> json_text({"name": "Zoë\u202e"}, indent=None)
    '{"name": "Zoë\\u202e"}'
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _UNSAFE_IN_JSON.sub(lambda match: json.dumps(match[0])[1:-1], text.replace("\x7f", "\\u007f"))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean X?" when something known is close to *word*.

    >>> did_you_mean("foldr", ["folder", "top"])
    'did you mean folder?'
    """
    close = get_close_matches(word, list(known), n=2)
    return f"did you mean {' or '.join(map(printable, close))}?" if close else None


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "step"), count(1200, "step")
    ('1 step', '1,200 steps')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listing(names: Iterable[str], limit: int = 3) -> str:
    """Return the first *limit* names and how many more there are.

    >>> listing(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    every = [printable(name) for name in names]
    shown = ", ".join(every[:limit])
    return shown if len(every) <= limit else f"{shown} and {len(every) - limit} more"
