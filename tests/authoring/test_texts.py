"""Results in f-strings, and user text that looks like our own marks."""

import copy
import functools
from collections.abc import Callable
from datetime import date
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline import DefinitionError, secret, step, workflow
from hopline.definition import canonical, references
from hopline.expressions import is_literal, literal_value
from hopline.markers import ResultMark, Secret, split
from tests.authoring.refused import refused


@step
def who() -> dict[str, str]:
    return {"name": "a"}


@step
def when() -> date:
    return date(2026, 11, 20)


@step
def amount() -> float:
    return 1.5


@step
def consume(value: Any) -> None: ...


def expr(fn: Callable[[], object]) -> Any:
    @workflow
    def wired() -> None:
        consume(fn())

    return wired.compile().nodes["consume"].inputs["value"]


def part(node: str, *path: str | int, spec: str = "") -> dict[str, Any]:
    return {"$ref": node, "path": list(path), "format": spec}


def test_f_string_is_a_text_of_literals_and_references() -> None:
    assert expr(lambda: f"a {who()['name']} b {when()}") == {"$text": ["a ", part("who", "name"), " b ", part("when")]}


def test_text_of_one_result_is_a_text_still() -> None:
    assert expr(lambda: f"{when()}") == {"$text": [part("when")]}


def test_format_spec_is_carried_along() -> None:
    assert expr(lambda: f"{amount():.2f} EUR") == {"$text": [part("amount", spec=".2f"), " EUR"]}
    assert expr(lambda: f"{who()['name']:>10}") == {"$text": [part("who", "name", spec=">10")]}
    assert expr(lambda: format(amount(), ",")) == {"$text": [part("amount", spec=",")]}


def test_format_that_the_json_value_does_not_know_is_refused() -> None:
    @workflow
    def dated() -> None:
        consume(f"{when():%Y}")  # refused

    refused(dated, match=r"when cannot be formatted with '%Y': in the run it is text")


def test_format_that_is_a_result_is_refused() -> None:
    with pytest.raises(DefinitionError, match="the format of amount is a result itself"):
        expr(lambda: f"{amount():{who()['name']}}")


def test_texts_join_like_texts() -> None:
    assert expr(lambda: "/".join(["a", f"{when()}", "b"])) == {"$text": ["a/", part("when"), "/b"]}
    assert expr(lambda: f"{when()}" + f"{when()}") == {"$text": [part("when"), part("when_2")]}


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.lower,
        str.title,
        str.capitalize,
        str.swapcase,
        lambda text: text[:4],
        lambda text: text[3:],
        lambda text: text[::-1],
        lambda text: text.replace("\0", ""),
        quote,
        repr,
        ascii,
        lambda text: urljoin("https://a.example.com/", text),
    ],
)
def test_text_changed_after_a_result_was_put_in_is_refused(change: Callable[[str], str]) -> None:
    @workflow
    def changed() -> None:
        consume(change(f"{when()}"))  # refused

    error = refused(changed, match="a text that was changed")
    assert "\0" not in str(error)


def test_repr_of_a_result_in_a_text_is_refused() -> None:
    for make in (lambda: f"{when()!r}", lambda: f"{[when()]}", lambda: f"{ {'day': when()} }"):
        with pytest.raises(DefinitionError, match="a text that was changed"):
            expr(make)


def test_result_in_the_key_of_an_object_is_refused() -> None:
    with pytest.raises(DefinitionError, match="a key with a result"):
        expr(lambda: {f"{when()}": 1})


def test_error_of_the_body_shows_no_marks() -> None:
    def fail() -> object:
        raise ValueError(f"no {when()} here")

    with pytest.raises(DefinitionError, match=r"raised ValueError: no <result> here"):
        expr(fail)


def test_secret_outside_a_request_is_refused() -> None:
    for make in (lambda: secret("TOKEN"), lambda: [f"x {secret('TOKEN')}"], lambda: {"a": secret("TOKEN")}):
        with pytest.raises(DefinitionError, match=r"holds secret\('TOKEN'\), but only requests"):
            expr(make)


def test_secret_as_result_of_a_workflow_is_refused() -> None:
    @workflow
    def leaking() -> str:  # refused
        return secret("TOKEN")

    refused(leaking, match="only requests")


@pytest.mark.parametrize("name", ["", "1A", "a-b", "a b", "ä", "A\n"])
def test_secret_has_the_name_of_a_variable(name: str) -> None:
    with pytest.raises(DefinitionError, match="is not a name of a secret"):
        secret(name)


def test_secret_takes_no_format() -> None:
    with pytest.raises(DefinitionError, match="cannot be formatted"):
        f"{secret('A'):>10}"


@pytest.mark.parametrize(
    "text", ["{{who.name}}", "{who}", "$ref", "${who}", "$text", "%00", "\\u0000", "\\0", "ä\U0001f600", "hopline1.0"]
)
def test_text_that_looks_like_a_template_is_plain_text(text: str) -> None:
    assert expr(lambda: text) == text
    assert expr(lambda: [text, f"{text}{when()}"]) == [text, {"$text": [text, part("when")]}]


@pytest.mark.parametrize("text", ["\0", "a\0b", "\0hOpLiNe1.0", "\ud800", "a\udfffb"])
def test_text_that_cannot_be_stored_is_refused(text: str) -> None:
    for value in (text, [text], {"a": text}, {text: 1}):
        with pytest.raises(DefinitionError, match=r"NUL|surrogate"):
            expr(functools.partial(copy.copy, value))


def test_object_with_our_key_is_wrapped() -> None:
    assert expr(lambda: {"$ref": "who", "path": []}) == {"$literal": {"$ref": "who", "path": []}}
    assert expr(lambda: [{"a": {"$secret": "X"}}, when()]) == [
        {"a": {"$literal": {"$secret": "X"}}},
        {"$ref": "when", "path": []},
    ]
    assert expr(lambda: {"$literal": {"$literal": 1}}) == {"$literal": {"$literal": {"$literal": 1}}}


def test_object_with_our_key_beside_a_result_is_refused() -> None:
    with pytest.raises(DefinitionError, match="a key that starts with '\\$'"):
        expr(lambda: {"$set": {"day": when()}})


plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["$ref", "$text", "$secret", "$literal", "path", "a"])
            | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(plain_json)
def test_any_json_of_the_user_comes_out_as_it_went_in(value: Any) -> None:
    encoded = expr(lambda: value)
    assert list(references(encoded)) == []
    assert is_literal(encoded)
    assert canonical(literal_value(encoded)) == canonical(value)


@given(
    st.lists(
        st.text() | st.builds(ResultMark, st.integers(0, 99), st.integers(0, 99)) | st.builds(Secret, st.just("A"))
    )
)
def test_marks_are_found_between_any_text(parts: list[str | ResultMark | Secret]) -> None:
    text = "".join(map(str, parts))
    found = split(text)
    if any(isinstance(one, str) and "\0" in one for one in parts):
        assert found is None or "".join(map(str, found)) == text
        return
    assert found is not None
    assert [one for one in found if not isinstance(one, str)] == [one for one in parts if not isinstance(one, str)]
    assert "".join(map(str, found)) == text


def with_holes(value: Any, hole: Any) -> Any:
    """Return *value* with *hole* where it says ``"hole"``."""
    if isinstance(value, dict):
        return {key: with_holes(member, hole) for key, member in value.items()}
    if isinstance(value, list):
        return [with_holes(member, hole) for member in value]
    return hole if value == "hole" else value


structures = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["hole", "text"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=4),
    max_leaves=10,
)


@given(structures)
def test_results_are_found_at_every_depth_and_nowhere_else(value: Any) -> None:
    @workflow
    def wired() -> None:
        day = when()
        consume.after(day)(with_holes(value, day))

    encoded = wired.compile().nodes["consume"].inputs["value"]
    assert encoded == with_holes(value, {"$ref": "when", "path": []})
    assert len(list(references(encoded))) == repr(value).count("'hole'")
