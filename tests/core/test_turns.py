"""Runs that begin with their turn and go on from others: they wait for it, and keep all that these had."""

from typing import Any

from hopline_engine.core.model import RunState
from tests.core.small_worlds import failing, world
from tests.core.worlds import loop_step, ref, step

TURN = step("turn", {"limit": 1}) | {"kind": "turn", "signature": ""}


def first_step(name: str, **more: Any) -> dict[str, Any]:
    return step(name, after=["turn"], **more)


def test_steps_after_those_that_are_kept_wait_for_the_turn_too() -> None:
    w = world(TURN, first_step("a"), step("b", {"x": ref("a")}), result=ref("b"), execute=failing("b"))
    first = w.start()
    w.happen(w.task("turn"))
    w.finish()
    assert w.state(first) is RunState.FAILED
    second = w.start(earlier=w.earlier(first.id))
    assert w.open_steps() == ["turn"]
    w.happen(w.task("turn", second))
    assert w.open_steps() == ["b"]


def test_elements_that_are_kept_are_not_made_again_after_the_turn() -> None:
    for crashes in (False, True):
        every = step("m", {"x": [0, 1, 2]}, over="x", after=["turn"], max_parallel=1)
        w = world(TURN, every, result=ref("m"), execute=failing("m[1]"))
        first = w.start()
        w.happen(w.task("turn"))
        w.finish()
        w.execute = failing()
        second = w.start(earlier=w.earlier(first.id))
        if crashes:
            w.crash()
        w.happen(w.task("turn"))
        assert w.open_steps() == ["m[1]"]
        w.finish()
        assert w.result(second) == [{"x": 0}, {"x": 1}, {"x": 2}]


def test_laps_that_are_kept_are_not_made_again_after_the_turn() -> None:
    w = world(TURN, loop_step(after=["turn"]), result=ref("l"))
    first = w.start()
    w.happen(w.task("turn"))
    w.run_step("l[0]")
    w.execute = failing("l[1]")
    w.finish()
    w.start(earlier=w.earlier(first.id))
    w.happen(w.task("turn"))
    assert w.open_steps() == ["l[1]"]
