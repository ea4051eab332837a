"""``.map_settled`` while compiling and as a plain call, and ``Ok`` and ``Err`` as JSON."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from hopline import Err, Ok, Request, http, step, workflow
from hopline.errors import ArgumentError, NotStubbedError, ResultError
from hopline.schema import arguments, dump_result, parameters_schema, result_schema
from hopline.testing import stub
from tests.authoring.refused import refused


class Thumb(BaseModel):
    url: str
    width: int = 1


@step
def resize(url: str, width: int = 1) -> Thumb:
    if url.startswith("bad"):
        raise OSError(f"{url} is broken")
    return Thumb(url=url, width=width)


@step
def count(results: list[Ok[Thumb] | Err]) -> int:
    return sum(isinstance(result, Ok) for result in results)


@step
def note(text: str) -> None: ...


@http
def fetch(url: str) -> Request[Thumb]:
    return http.get(f"https://pictures.example.com/{url}")


@workflow
def album(urls: list[str]) -> int:
    return count(resize.map_settled(urls, 3))


OUTCOMES: TypeAdapter[list[Ok[Thumb] | Err]] = TypeAdapter(list[Ok[Thumb] | Err])
BOTH: list[Ok[Thumb] | Err] = [Ok(Thumb(url="a")), Err("OSError", "broken", 404)]
BOTH_AS_JSON = [{"ok": {"url": "a", "width": 1}}, {"err": {"type": "OSError", "message": "broken", "status": 404}}]

# --- compiled ---------------------------------------------------------------------------------------------------------


def test_settled_map_is_a_map_that_says_so() -> None:
    node = album.compile().nodes["resize"]
    assert (node.over, node.settled) == ("url", True)
    assert node.to_json()["settled"] is True
    assert node.result == result_schema(resize.fn), "what one call gives is checked as ever"


def test_definitions_without_one_do_not_mention_it() -> None:
    @workflow
    def wired(urls: list[str]) -> list[Thumb]:
        return resize.map(urls)

    assert "settled" not in wired.compile().nodes["resize"].to_json()


def test_settled_map_does_not_fit_where_plain_results_are_expected() -> None:
    @step
    def thumbs(results: list[Thumb]) -> None: ...

    @workflow
    def wired(urls: list[str]) -> None:
        results: Any = resize.map_settled(urls)
        thumbs(results)  # refused

    refused(wired, match="results does not fit its type: in each element")


def test_plain_map_does_not_fit_where_outcomes_are_expected() -> None:
    @workflow
    def wired(urls: list[str]) -> int:
        results: Any = resize.map(urls)
        return count(results)  # refused

    refused(wired, match="results does not fit its type")


def test_value_of_an_outcome_is_a_path() -> None:
    @workflow
    def wired(urls: list[str]) -> None:
        first: Any = resize.map_settled(urls)[0]
        note(first.value.url)

    assert wired.compile().nodes["note"].inputs == {"text": {"$ref": "resize", "path": [0, "ok", "url"]}}


def test_path_into_a_value_is_checked() -> None:
    @workflow
    def wired(urls: list[str]) -> None:
        first: Any = resize.map_settled(urls)[0]
        note(first.value.size)  # refused

    refused(wired, match="has no 'size'")


def test_isinstance_of_an_outcome_in_a_body_is_refused() -> None:
    @workflow
    def wired(urls: list[str]) -> int:
        results = resize.map_settled(urls)
        return 1 if isinstance(results[0], Ok) else 2  # refused

    refused(wired, match=r"isinstance\(\) needs the value")


def test_map_over_outcomes_takes_each_of_them() -> None:
    @step
    def words(result: Ok[Thumb] | Err) -> str:
        return ""

    @workflow
    def wired(urls: list[str]) -> list[str]:
        return words.map(resize.map_settled(urls))

    assert wired.compile().nodes["words"].over == "result"


def test_http_steps_and_workflows_are_settled_too() -> None:
    @workflow
    def wired(urls: list[str], albums: list[list[str]]) -> list[Any]:
        return [fetch.map_settled(urls), album.map_settled(albums)]

    nodes = wired.compile().nodes
    assert (nodes["fetch"].settled, nodes["album"].settled) == (True, True)


def test_outcomes_can_be_the_result_of_a_workflow() -> None:
    @workflow
    def wired(urls: list[str]) -> list[Ok[Thumb] | Err]:
        return resize.map_settled(urls)

    assert wired.compile().result == {"$ref": "resize", "path": []}


# --- plain ------------------------------------------------------------------------------------------------------------


def test_plain_call_gives_what_became_of_each() -> None:
    assert resize.map_settled(["a", "bad", "c"], 2) == [
        Ok(Thumb(url="a", width=2)),
        Err("OSError", "bad is broken"),
        Ok(Thumb(url="c", width=2)),
    ]
    assert album(["a", "bad"]) == 1


def test_stub_that_raises_makes_an_err() -> None:
    def answer(url: str) -> Thumb:
        raise ConnectionError(url)

    with stub(fetch, calls=answer):
        assert fetch.map_settled(["x"]) == [Err("ConnectionError", "x")]


def test_missing_stub_is_no_outcome() -> None:
    with pytest.raises(NotStubbedError):
        fetch.map_settled(["x"])


# --- as JSON ----------------------------------------------------------------------------------------------------------


def test_outcomes_have_one_form_in_json() -> None:
    assert json.loads(OUTCOMES.dump_json(BOTH, by_alias=True)) == BOTH_AS_JSON
    assert OUTCOMES.validate_python(BOTH_AS_JSON) == BOTH


def test_step_takes_and_returns_outcomes() -> None:
    def passed(results: list[Ok[Thumb] | Err]) -> list[Ok[Thumb] | Err]:
        return results

    given = arguments(passed, json.dumps({"results": BOTH_AS_JSON}).encode())
    assert given == {"results": BOTH}
    assert json.loads(dump_result(passed, given["results"])) == BOTH_AS_JSON


def test_value_of_an_outcome_is_checked() -> None:
    def given() -> Ok[int]:
        wrong: Any = "no number"
        return Ok(wrong)

    with pytest.raises(ResultError, match="value: Input should be a valid integer"):
        dump_result(given, given())
    with pytest.raises(ArgumentError, match="url: Field required"):
        arguments(count.fn, b'{"results": [{"ok": {}}]}')


def test_schema_says_what_is_written() -> None:
    schema = parameters_schema(count.fn)
    ok, err = schema["properties"]["results"]["items"]["anyOf"]
    ok = schema["$defs"][ok["$ref"].removeprefix("#/$defs/")]
    assert (ok["required"], ok["additionalProperties"]) == (["ok"], False)
    assert (err["required"], err["properties"]["err"]["required"]) == (["err"], ["message", "type"])


def test_outcomes_compare_and_print_as_values() -> None:
    assert Ok(1) == Ok(1) != Ok(2)
    assert repr(Err("OSError", "broken")) == "Err(type='OSError', message='broken', status=None)"
