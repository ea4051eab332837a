"""Foreign text cannot steer the terminal; what is shown is short and still true."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_cli.errors import UsageError
from hopline_cli.text import json_text, one_line, printable
from hopline_cli.when import ago, duration, since, unix

ESCAPES = [
    "\x1b]0;new title\x07",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "\x08\x08\x08safe",
    "over\rwritten",
    "abc\u202edef",
    "\u2066hidden\u2069",
    "tag\U000e0041",
    "\ud800",
    "\x00",
    "\x7f",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_escapes_of_terminals_and_bidi_controls_become_visible(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().isascii()


def test_newlines_and_tabs_of_logs_stay() -> None:
    assert printable("a\tb\r\nc\n") == "a\tb\nc\n"


@given(st.text())
def test_printable_text_is_printable_already(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert "\n" not in line
    assert len(line) <= limit


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_json_text_is_the_same_json_and_safe_to_show(value: Any) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert printable(text) == text


@pytest.mark.parametrize("text", ESCAPES)
def test_escapes_in_json_stay_json(text: str) -> None:
    assert json.loads(json_text({"k": text})) == {"k": text}
    assert json_text(text).isprintable()


@given(st.floats(0, 1e9))
def test_durations_and_ages_are_short(seconds: float) -> None:
    assert len(duration(seconds)) <= 14
    assert len(ago(seconds)) <= 11


def test_age_and_time_are_both_taken_as_since() -> None:
    now = unix("2026-11-20T12:00:00Z")
    assert since("1d12h", now) == "2026-11-19T00:00:00.000Z"
    assert since("2026-11-19T01:00:00+01:00", now) == "2026-11-19T00:00:00.000Z"
    assert since("2026-11-19", now) == "2026-11-19T00:00:00.000Z"


@pytest.mark.parametrize(
    "text", ["", "yesterday", "24", "3 weeks", "h", "24hours", "99999999999d", "0001-01-01T00:00+14:00"]
)
def test_what_is_neither_age_nor_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither an age nor a time"):
        since(text, 0.0)
