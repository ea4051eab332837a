"""Graphs that are traced in the course of a run: pinned with the end of the trace, and never traced again."""

from typing import Any

import msgspec
import pytest

from hopline_engine.core import advance
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, Traced
from hopline_engine.core.model import DefinitionAdded, Digest, RunState, StepState
from hopline_engine.core.plan import Route
from hopline_engine.core.retry import Failure
from tests.core.small_worlds import BROKEN, failing, identity, world
from tests.core.worlds import World, definition, plan, ref, step

GRAPH = definition("one", [step("a", {"x": ref("$input", "a", "x")}), step("b", {"x": ref("a")})], ref("b"))
PLAN = plan(GRAPH["nodes"], GRAPH["result"], name="one")
ROW = DefinitionAdded(Digest("one"), "one", 1000.0, msgspec.json.encode(GRAPH))


def call(name: str = "one", x: Any = 1, **more: Any) -> dict[str, Any]:
    """Return a step that calls a dynamic workflow."""
    return {**step(name, {"x": x}, **more), "kind": "dynamic"}


def traced(x: Any = 1) -> Traced:
    return Traced(PLAN, msgspec.json.encode({"a": {"x": x}}), [ROW])


def dynamic_world(*nodes: dict[str, Any], **more: Any) -> World:
    w = world(*nodes, **more)
    w.plans["one"] = PLAN
    return w


def pin(w: World, name: str, graph: Traced | None = None) -> LiveRun:
    """Let a worker trace the graph of a step; return the run that begins with it."""
    w.lease(w.task(name))
    task = w.task(name)
    with w.event() as decision:
        advance.pin(task, graph or traced(), decision)
    return decision.began[0]


def test_step_goes_to_workers_that_trace_it() -> None:
    w = dynamic_world(call())
    assert w.plans["w"].routes == {Route("one", "s")}
    w.start()
    assert w.open_steps() == ["one"]


def test_traced_graph_is_stored_in_the_commit_that_ends_the_trace_and_begins_its_run() -> None:
    w = dynamic_world(call())
    w.start()
    w.lease(w.task("one"))
    task = w.task("one")
    with w.event() as decision:
        advance.pin(task, traced(), decision)
    rows = decision.rows
    assert rows.definitions_added == [ROW]
    assert [(run.digest, run.parent_id) for run in rows.runs_added] == [("one", task.run.id)]
    assert [attempt.state for attempt in rows.attempts_ended] == ["succeeded"]
    assert [removed.id for removed in rows.tasks_removed] == [task.id]
    assert [added.node for added in rows.tasks_added] == [0]


def test_result_of_the_graph_is_the_result_of_the_step() -> None:
    w = dynamic_world(call(), step("after", {"x": ref("one")}), result=ref("after"))
    run = w.start()
    pin(w, "one")
    assert w.open_steps() == ["a"]
    w.finish()
    assert w.result(run) == 1
    assert w.step_state(run, "one") is StepState.SUCCEEDED


@pytest.mark.parametrize("turns", range(5))
def test_after_a_crash_a_pinned_graph_goes_on_and_is_not_traced_again(turns: int) -> None:
    w = dynamic_world(call(), result=ref("one"))
    run = w.start()
    pin(w, "one")
    for _ in range(turns):
        w.crash()
        w.turn()
    w.crash()
    w.finish()
    assert w.result(run) == 1
    assert [sent.step for sent in w.sent if sent.step == "one"] == []
    assert w.attempts(run, "one") == ["succeeded"]


def test_crash_before_the_commit_forgets_the_trace() -> None:
    w = dynamic_world(call(), result=ref("one"))
    run = w.start()
    w.lease(w.task("one"))
    task = w.task("one")
    w.dies_at_commit = True
    with w.event() as decision:
        advance.pin(task, traced(), decision)
    assert w.open_steps() == ["one"]
    assert list(w.rows.runs) == [run.id]
    pin(w, "one")
    w.finish()
    assert w.attempts(run, "one") == ["lost", "succeeded"]


def test_failed_trace_fails_the_step() -> None:
    w = dynamic_world(call())
    run = w.start()
    w.lease(w.task("one"))
    w.fail(w.task("one"), Failure("DefinitionError", "bad (file.py:3)", ("DefinitionError",), final=True))
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["message"] == "bad (file.py:3)"


def test_failed_graph_fails_the_step_without_another_trace() -> None:
    w = dynamic_world(call(attempts=3), execute=failing("b"))
    run = w.start()
    pin(w, "one")
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.attempts(run, "one") == ["succeeded"]
    assert BROKEN.message in w.error(run)["message"]


def test_each_element_of_a_map_has_its_own_graph() -> None:
    w = dynamic_world(call("m", [1, 2], over="x"), result=ref("m"))
    run = w.start()
    for item in range(2):
        pin(w, f"m[{item}]", traced(item + 10))
    w.crash()
    w.finish()
    assert w.result(run) == [10, 11]


def test_settled_map_takes_failed_traces_and_failed_graphs() -> None:
    w = dynamic_world({**call("m", [1, 2, 3], over="x"), "settled": True}, result=ref("m"))
    run = w.start()
    w.lease(w.task("m[0]"))
    w.fail(w.task("m[0]"), BROKEN._replace(type="DefinitionError", final=True))
    broken = pin(w, "m[1]")
    pin(w, "m[2]")
    w.execute = lambda task, arguments: (failing("a") if task.run.id == broken.id else identity)(task, arguments)
    w.finish()
    first, second, third = w.result(run)
    assert (first["err"]["type"], second["err"]["type"], third) == ("DefinitionError", "ValueError", {"ok": 1})


def test_cancel_ends_a_pinned_graph_too() -> None:
    w = dynamic_world(call())
    run = w.start()
    below = pin(w, "one")
    w.cancel(run)
    assert w.state(below) is RunState.CANCELLED
    assert w.rows.tasks == {}


def test_graph_without_steps_ends_at_once() -> None:
    empty = plan([], ref("$input", "$result"), name="empty")
    w = dynamic_world(call(), result=ref("one"))
    w.plans["empty"] = empty
    run = w.start()
    pin(w, "one", Traced(empty, b'{"$result":7}', []))
    assert w.result(run) == 7


def test_dynamic_workflow_that_calls_itself_for_ever_comes_to_an_end() -> None:
    again = plan([call()], ref("one"), name="again")
    w = dynamic_world(call(), limits=Limits(nesting=3))
    w.plans["again"] = again
    run = w.start()
    while w.live:
        w.lease(w.task("one"))
        task = w.task("one")
        with w.event() as decision:
            advance.pin(task, Traced(again, b'{"x":1}', [ROW]), decision)
    assert w.state(run) is RunState.FAILED
    assert "3 runs are nested in each other" in w.error(run)["message"]
