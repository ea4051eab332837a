"""Public names are one to one with what they name."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.core.model import WHOLE, RunId
from hopline_engine.core.names import idempotency_key, parse_step_name, public_id, run_id, step_name

numbers = st.integers(0, 2**50 - 1).map(RunId)
nodes = st.from_regex(r"[^\W\d]\w*", fullmatch=True)
items = st.integers(0, 10**8)


@given(numbers)
def test_public_id_names_one_run(number: RunId) -> None:
    assert run_id(public_id(number)) == number


@given(st.text(string.digits + "abcdefghjkmnpqrstvwxyz", min_size=10, max_size=10))
def test_every_text_of_the_alphabet_is_the_public_id_of_one_run(digits: str) -> None:
    number = run_id(f"r_{digits}")
    assert number is not None
    assert public_id(number) == f"r_{digits}"
    assert run_id(digits) == number


@given(numbers)
def test_public_id_is_short_and_can_be_typed(number: RunId) -> None:
    public = public_id(number)
    assert public.startswith("r_")
    assert len(public) == 12
    assert public.isascii()
    assert public == public.lower()


@pytest.mark.parametrize(
    "text",
    ["", "r_", "r_123", "r_123456789", "r_12345678901", "r_abcdefghi!", "r_ABCDEFGHJK", "x_abcdefghjk", "r_iiiiiiiiii"],
)
def test_what_is_no_public_id_names_no_run(text: str) -> None:
    assert run_id(text) is None


@given(st.text(max_size=15))
def test_any_text_is_the_id_of_a_run_or_of_none(text: str) -> None:
    number = run_id(text)
    assert number is None or public_id(number) == "r_" + text.removeprefix("r_")


def test_first_characters_tell_recent_runs_apart() -> None:
    begun = 1_763_700_000_000 * 256
    prefixes = {public_id(RunId(begun + number))[:6] for number in range(200)}
    assert len(prefixes) == 200


@given(nodes, items)
def test_step_name_and_its_parts_are_one_to_one(node: str, item: int) -> None:
    assert parse_step_name(step_name(node, item)) == (node, item)
    assert parse_step_name(step_name(node, WHOLE)) == (node, WHOLE)


@given(st.text(max_size=20))
def test_any_text_can_be_taken_for_a_step_name(text: str) -> None:
    node, item = parse_step_name(text)
    assert item >= WHOLE
    assert item != WHOLE or node == text


@pytest.mark.parametrize("text", ["m[-1]", "m[]", "m[x]", "m[1]x", "m[٣]", "m[²]", "[1]", "m[ 1]", f"m[{'9' * 5000}]"])
def test_element_is_a_plain_number(text: str) -> None:
    assert parse_step_name(text) == (text, WHOLE)


@given(nodes, nodes, items, items)
def test_idempotency_keys_of_different_step_runs_differ(a: str, b: str, x: int, y: int) -> None:
    places = {(node, item) for node in (a, b) for item in (x, y, WHOLE)}
    assert len({idempotency_key("r_1", *place) for place in places}) == len(places)
