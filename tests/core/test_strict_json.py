"""The strict reader agrees with a slow and obvious one on every text, and names what is wrong."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hopline_engine.core.strict_json import MAX_DEPTH, MAX_DIGITS, StrictJsonError, check, parse


class Refused(Exception):
    """The obvious reader refuses the text."""


def obvious(body: bytes) -> Any:
    """Read *body* as ``parse`` promises, token by token."""
    try:
        value = json.loads(
            body.decode(),
            parse_constant=refuse,
            parse_int=checked_integer,
            parse_float=lambda token: float(checked_number(token)),
            object_pairs_hook=without_repeats,
        )
    except (ValueError, RecursionError) as error:
        raise Refused from error
    check_value(value, MAX_DEPTH)
    return value


def refuse(token: str) -> None:
    raise Refused(token)


def checked_integer(token: str) -> int:
    if len(token) > MAX_DIGITS:
        raise Refused(token)
    return int(token)


def checked_number(token: str) -> str:
    if any(len(digits) > MAX_DIGITS for digits in re.findall("[0-9]+", token)):
        raise Refused(token)
    if any(int(exponent) < -9999 for exponent in re.findall("[eE](.+)", token)):
        raise Refused(token)
    return token


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Refused("repeated key")
    return dict(pairs)


def check_value(value: Any, levels: int) -> None:
    match value:
        case str():
            if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
                raise Refused(value)
        case float():
            if value in (float("inf"), float("-inf")):
                raise Refused(value)
        case list():
            check_container(value, levels)
        case dict():
            check_container([*value, *value.values()], levels)


def check_container(values: list[Any], levels: int) -> None:
    if levels == 0:
        raise Refused("too deep")
    for value in values:
        check_value(value, levels - 1)


CHARACTERS = ["a", ":", "[", "}", "{", "ä", "\U0001f600", "e-12345", "u0000", "u003a"]
ESCAPES = [r"\"", r"\\", r"\/", r"\n", r"\u0000", r"\u003a", r"\u003A", r"\u0061"]
SURROGATES = [r"\ud83d\ude00", r"\ud800", r"\udc00"]
string_parts = st.lists(st.sampled_from(CHARACTERS + ESCAPES + SURROGATES), max_size=4)
strings = string_parts.map(lambda parts: '"' + "".join(parts) + '"')
few_digits = st.one_of(st.sampled_from(["0", "1", "00"]), st.integers(0, 99999).map(str))
many_digits = st.builds(
    lambda digit, length: digit * length,
    st.sampled_from("07"),
    st.sampled_from([MAX_DIGITS, MAX_DIGITS + 1, 2 * MAX_DIGITS]),
)
digits = few_digits | many_digits
signs = st.sampled_from(["", "", "-", "+"])
numbers = st.builds(
    "{}{}{}{}".format,
    signs,
    digits,
    st.just("") | digits.map(lambda text: "." + text),
    st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), signs, digits),
)
space = st.sampled_from(["", "", " ", "\n"])
leaves = st.one_of(strings, numbers, st.sampled_from(["null", "true", "false", "NaN", "-Infinity"]))


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.builds(lambda key, gap, value: f"{key}{gap}:{gap}{value}", strings, space, inner)
    return st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(pairs, max_size=3).map(lambda items: "{" + ", ".join(items) + "}"),
        st.builds(lambda text, depth: "[" * depth + text + "]" * depth, inner, st.sampled_from([1, 30, 63, 64, 65])),
    )


texts = st.recursive(leaves, containers, max_leaves=12)


def agree(body: bytes) -> None:
    try:
        expected = obvious(body)
    except Refused:
        with pytest.raises(StrictJsonError):
            parse(body)
    else:
        assert json.dumps(parse(body)) == json.dumps(expected)


@given(texts)
@example("-" + "7" * MAX_DIGITS)
@example(r'{"a": 1, "\u0061": 2}')
@example(r'{":": 1, "\u003a": 2}')
@example(r'{"a": "\u003a", "a": 2}')
@example(r'{"a": "\u003a", "b": 2}')
@example(r'"\\u0000"')
@example(json.dumps("[" * 100))
@example(json.dumps({"a": "1" * 9000, "b": "2e-99999"}))
def test_reader_agrees_with_the_obvious_reader_on_json_like_texts(text: str) -> None:
    agree(text.encode("utf-8", "surrogatepass"))


@given(texts, st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3))
def test_reader_agrees_with_the_obvious_reader_on_damaged_texts(text: str, at: int, removed: int, added: bytes) -> None:
    body = text.encode("utf-8", "surrogatepass")
    agree(body[:at] + added + body[at + removed :])


@given(st.binary(max_size=40))
def test_reader_agrees_with_the_obvious_reader_on_any_bytes(body: bytes) -> None:
    agree(body)


@given(st.integers(0, 3 * MAX_DIGITS), st.integers(MAX_DIGITS - 1, MAX_DIGITS + 2), st.integers(0, 3 * MAX_DIGITS))
def test_long_number_is_found_wherever_it_stands(before: int, length: int, after: int) -> None:
    body = b"[" + b" " * before + b"0." + b"3" * length + b" " * after + b"]"
    agree(body)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "truncated"),
        (b"\xff", "malformed"),
        (b'"\xff"', "not UTF-8"),
        (b"NaN", "JSON is malformed"),
        (b"1e999", "out of range"),
        (b"9" * 5000, "out of range"),
        (b"0." + b"9" * 5000, "more than 4300 digits"),
        (b"1e-10000", "exponent below"),
        (rb'"a\u0000"', "NUL"),
        (rb'"\udc00"', "surrogate"),
        (b'{"a":1,"a":2}', 'the key "a" appears twice'),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
    ],
)
def test_refusal_says_what_is_wrong(body: bytes, problem: str) -> None:
    with pytest.raises(StrictJsonError, match=problem):
        check(body)


def test_deepest_allowed_nesting_passes() -> None:
    check(b"[" * 64 + b"]" * 64)
