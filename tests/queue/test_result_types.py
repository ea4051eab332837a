"""Values of users are checked as pydantic checks them, which takes patterns that Python does not; and at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import StringConstraints

from hopline import Request, http, workflow
from hopline_engine.errors import InvalidInputError
from hopline_engine.queue.results import InvalidResultError, ResultType
from hopline_engine.testing import Engine

Name = Annotated[str, StringConstraints(pattern=r"^\p{Lu}\p{L}*$")]
URL = "https://names.example"


@http
def name_of(number: int) -> Request[Name]:
    return http.get(f"{URL}/{number}")


@workflow
def renamed(name: Name) -> Name:
    return name


@workflow
def named(number: int) -> str:
    return renamed(name_of(number))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path)
    yield opened
    opened.close()


def test_pattern_that_only_pydantic_can_read_is_checked_everywhere(engine: Engine) -> None:
    server = engine.server(URL)
    server.get("/1").reply(json="Özge")
    server.get("/2").reply(json="özge")
    assert engine.start(named, 1).result() == "Özge"
    refused = engine.start(named, 2)
    assert refused.error is not None
    assert "'özge' does not match" in refused.error.message
    assert engine.start(renamed, "Ömer").result() == "Ömer"
    with pytest.raises(InvalidInputError, match="'ömer' does not match"):
        engine.start(renamed, "ömer")


@pytest.mark.parametrize(
    ("pattern", "fits", "text"),
    [
        (r"^(a+)+$", False, "a" * 60 + "!"),  # a pattern for which Python would need years
        (r"^a(?=b)", True, "ab"),  # of Python only
        (r"^a(?=b)", False, "ac"),
        (r"(", True, "anything"),  # of neither
    ],
)
def test_whatever_the_pattern_a_text_is_checked_at_once(pattern: str, text: str, fits: bool) -> None:
    result = ResultType({"type": "string", "pattern": pattern}, 1000)
    if fits:
        result.check(text)
    else:
        with pytest.raises(InvalidResultError, match="does not match"):
            result.check(text)


def test_number_that_no_float_can_hold_is_no_multiple_of_one() -> None:
    result = ResultType({"type": "number", "multipleOf": 0.5}, 1000)
    result.check(1.5)
    with pytest.raises(InvalidResultError, match=r"^10000"):
        result.check(10**400)


def test_keys_with_patterns_are_checked_too() -> None:
    result = ResultType({"type": "object", "patternProperties": {r"^\p{L}+$": {"type": "integer"}}}, 1000)
    result.check({"ö": 1, "1": "one"})
    with pytest.raises(InvalidResultError, match=r"\['ö'\]: 'one' is not of type 'integer'"):
        result.check({"ö": "one"})
