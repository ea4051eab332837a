"""``loop`` while compiling and as a plain call."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import (
    DefinitionError,
    Err,
    Queue,
    Request,
    any_of,
    branch,
    dynamic,
    http,
    loop,
    step,
    workflow,
)
from hopline.errors import LoopLimitError
from tests.authoring.refused import refused

erp = Queue("erp", max_concurrent=2)


class Job(BaseModel):
    id: str
    done: bool = False
    looks: int = 0


@step
def look(job: Job) -> Job:
    return Job(id=job.id, looks=job.looks + 1, done=job.looks >= 2)


@step(queue=erp)
def note(job: Job, text: str) -> Job:
    return job


@step
def first(name: str) -> Job:
    return Job(id=name)


@http
def ask(job: Job) -> Request[Job]:
    return http.get(f"https://jobs.example.com/{job.id}", params={"looks": job.looks})


@workflow
def twice(job: Job) -> Job:
    return look(look(job))


@dynamic
def sometimes(job: Job) -> Job:
    return look(job) if job.looks else job


def done(job: Job) -> bool:
    return job.done


# --- compiled ---------------------------------------------------------------------------------------------------------


def test_loop_over_a_step_is_one_node() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look, job, until=lambda one: one.done, limit=10, every="30s")

    definition = wired.compile()
    node = definition.nodes["look"]
    assert (node.kind, node.over) == ("loop", None)
    assert node.inputs == {"job": {"$ref": "$input", "path": ["job"]}}
    until = {"$ref": "$item", "path": ["done"]}
    assert node.loop == {"kind": "python", "over": "job", "until": until, "limit": 10, "every": 30.0}
    assert definition.result == {"$ref": "look", "path": []}


def test_condition_compares_the_result_of_a_lap_also_with_other_results() -> None:
    @workflow
    def wired(job: Job) -> Job:
        start = first("a")
        return loop(look, job, until=lambda one: any_of(one.done, one.looks > start.looks), limit=10)

    definition = wired.compile()
    node = definition.nodes["look"]
    assert node.loop is not None
    assert node.loop["until"]["args"][1]["args"] == [
        {"$ref": "$item", "path": ["looks"]},
        {"$ref": "first", "path": ["looks"]},
    ]
    assert node.upstream() == ["first"]
    assert "every" not in node.loop


BODIES = [(look, "python"), (ask, "http"), (twice, "workflow"), (sometimes, "dynamic")]


@pytest.mark.parametrize(("body", "kind"), BODIES)
def test_every_kind_of_step_can_be_repeated(body: Callable[[Job], Job], kind: str) -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(body, job, until=done, limit=10)

    (node,) = wired.compile().nodes.values()
    assert node.loop is not None
    assert node.loop["kind"] == kind


def test_request_of_a_repeated_http_step_is_made_from_what_the_lap_is_given() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(ask, job, until=done, limit=10)

    node = wired.compile().nodes["ask"]
    assert node.inputs == {"job": {"$ref": "$input", "path": ["job"]}}
    assert node.request is not None
    assert node.request["params"] == {"looks": {"$ref": "$item", "path": ["looks"]}}


def test_function_as_body_becomes_a_workflow_of_its_own() -> None:
    @workflow
    def wired(job: Job, text: str) -> Job:
        other = first("b")
        return loop(lambda one: note(look(one), f"{text} {other.id}"), job, until=done, limit=10)

    definition = wired.compile()
    node = definition.nodes["loop"]
    (child,) = definition.children.values()
    assert node.workflow == {"name": "wired.loop", "digest": child.digest}
    assert node.inputs == {
        "lap": {"$ref": "$input", "path": ["job"]},
        "outer_1": {"$ref": "$input", "path": ["text"]},
        "outer_2": {"$ref": "first", "path": ["id"]},
    }
    assert list(child.nodes) == ["look", "note"]
    assert child.nodes["look"].inputs == {"job": {"$ref": "$input", "path": ["lap"]}}
    assert child.nodes["note"].inputs["text"] == {
        "$text": [
            {"$ref": "$input", "path": ["outer_1"], "format": ""},
            " ",
            {"$ref": "$input", "path": ["outer_2"], "format": ""},
        ]
    }
    assert [queue["name"] for queue in definition.queues] == ["erp"]


def test_value_from_around_is_brought_once() -> None:
    @workflow
    def wired(job: Job, text: str) -> Job:
        return loop(lambda one: note(note(one, text), text), job, until=done, limit=10)

    assert list(wired.compile().nodes["loop"].inputs) == ["lap", "outer_1"]


def test_loops_and_choices_nest() -> None:
    @workflow
    def wired(job: Job, text: str) -> Job:
        def lap(one: Job) -> Job:
            seen = branch(one.looks > 1, then=lambda: note(one, text), otherwise=lambda: look(one))
            return loop(lambda two: note(look(two), f"{text}{seen.id}"), seen, until=done, limit=2)

        return loop(lap, job, until=done, limit=10)

    definition = wired.compile()
    outer = next(child for child in definition.children.values() if child.name == "wired.loop")
    inner = next(child for child in definition.children.values() if child.name == "wired.loop.loop")
    assert definition.nodes["loop"].inputs["outer_1"] == {"$ref": "$input", "path": ["text"]}
    assert outer.nodes["loop"].inputs["outer_1"] == {"$ref": "$input", "path": ["outer_1"]}
    assert list(inner.nodes) == ["look", "note"]


def test_definitions_without_one_do_not_mention_it() -> None:
    assert "loop" not in twice.compile().nodes["look"].to_json()


def test_result_of_a_loop_has_the_type_of_a_lap() -> None:
    @workflow
    def wired(job: Job) -> Job:
        last: Any = loop(look, job, until=done, limit=2)
        return note(last, last.ids)  # refused

    assert refused(wired, match="look has no 'ids'").hint == "did you mean 'id'?"


# --- refused ----------------------------------------------------------------------------------------------------------


def test_loop_without_a_limit_is_refused() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look, job, until=done)  # refused

    error = refused(wired, match="has no limit")
    assert error.hint == "say how many laps there may be at most: limit=100"


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3", 10**9])
def test_limit_is_a_number_of_laps(limit: Any) -> None:
    with pytest.raises(DefinitionError, match="limit is"):
        loop(look, Job(id="a"), until=done, limit=limit)


@pytest.mark.parametrize("every", ["", "0s", "often", 5])
def test_rest_is_a_duration(every: Any) -> None:
    with pytest.raises(DefinitionError, match="every is"):
        loop(look, Job(id="a"), until=done, limit=2, every=every)


def test_body_that_does_not_return_what_it_takes_is_refused() -> None:
    @step
    def count(job: Job) -> int:
        return 1

    @workflow
    def wired(job: Job) -> Any:
        body: Any = count
        return loop(body, job, until=done, limit=2)  # refused

    refused(wired, match=r"the result of count\(\) cannot be what its next lap is given")


def test_start_that_does_not_fit_is_refused() -> None:
    @workflow
    def wired(text: str) -> Any:
        start: Any = text
        return loop(look, start, until=done, limit=2)  # refused

    refused(wired, match=r"look\(\): job does not fit its type")


def test_step_in_a_condition_is_refused() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look, job, until=lambda one: look(one).done, limit=2)  # refused

    refused(wired, match="calls a step")


def test_condition_that_needs_the_value_is_refused() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look, job, until=lambda one: one.looks + 1 > 2, limit=2)  # refused

    refused(wired, match="arithmetic needs the value")


@pytest.mark.parametrize("until", [None, 5, look])
def test_condition_is_a_function(until: Any) -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look, job, until=until, limit=2)  # refused

    refused(wired, match="not a function")


def test_condition_known_before_the_run_is_refused() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look, job, until=lambda _: True, limit=2)  # refused

    refused(wired, match="known before the run")


@pytest.mark.parametrize("body", [None, 5, "look"])
def test_body_is_a_function(body: Any) -> None:
    @workflow
    def wired(job: Job) -> Any:
        return loop(body, job, until=done, limit=2)  # refused

    refused(wired, match="as its body")


def test_body_without_a_step_is_refused() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(lambda one: one, job, until=done, limit=2)  # refused

    refused(wired, match="calls no step")


def test_unused_result_in_a_body_is_refused() -> None:
    @workflow
    def wired(job: Job) -> Job:
        def lap(one: Job) -> Job:
            look(one)  # refused
            return note(one, "a")

        return loop(lap, job, until=done, limit=2)

    refused(wired, match=r"nothing uses the result of look in wired\.loop")


def test_step_without_parameters_is_refused() -> None:
    @step
    def nothing() -> int:
        return 1

    @workflow
    def wired() -> Any:
        body: Any = nothing
        return loop(body, 1, until=lambda n: n > 1, limit=2)  # refused

    refused(wired, match="has no parameter")


def test_batch_of_a_loop_is_refused() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look.using(batch=3), job, until=done, limit=2)  # refused

    refused(wired, match="called for one value")


# --- plain ------------------------------------------------------------------------------------------------------------


def test_plain_loop_calls_its_body_until_the_condition_holds() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(lambda one: note(look(one), "x"), job, until=lambda one: one.done, limit=10, every="30s")

    assert wired(Job(id="a")) == Job(id="a", done=True, looks=3)


def test_plain_loop_at_its_limit_fails() -> None:
    with pytest.raises(LoopLimitError, match="after 2 laps"):
        loop(look, Job(id="a"), until=done, limit=2)


def test_limit_is_a_failure_of_an_element_like_others() -> None:
    @workflow
    def wired(job: Job) -> Job:
        return loop(look, job, until=done, limit=2)

    (outcome,) = wired.map_settled([Job(id="a")])
    assert isinstance(outcome, Err)
    assert outcome.type == "hopline.errors.LoopLimitError"
