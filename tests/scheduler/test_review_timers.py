"""Timers hold the tasks that wait, and not those that once waited."""

import pytest

from hopline_engine.clock import SystemClock
from hopline_engine.core import advance
from hopline_engine.core.decision import Decision, Limits
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import RunId
from hopline_engine.scheduler.ids import TimeOrderedIds
from hopline_engine.scheduler.timers import LEAST_SWEPT, Timed, Timers
from tests.core.worlds import plan, step

pytestmark = pytest.mark.anyio

PLAN = plan([step("a")])
CLOCK = SystemClock()


def waiting_task() -> LiveTask:
    run = LiveRun.fresh(RunId(1), PLAN, b"{}", 0.0, None)
    ids = TimeOrderedIds(CLOCK, last_run=0, last_task=0)
    decision = Decision(CLOCK.now(), CLOCK.random, ids, Limits())
    advance.begin(run, decision)
    (task,) = decision.opened
    return task


async def test_tasks_that_ended_long_before_their_deadline_are_let_go() -> None:
    timers = Timers(CLOCK, lambda _: None)
    open_tasks = [waiting_task() for _ in range(10)]
    for task in open_tasks:
        timers.add(CLOCK.now() + 86_400, task)
    ids = TimeOrderedIds(CLOCK, last_run=0, last_task=0)
    for _ in range(5 * LEAST_SWEPT):
        task = waiting_task()
        timers.add(CLOCK.now() + 86_400, task)
        advance.cancel(task.run, Decision(CLOCK.now(), CLOCK.random, ids, Limits()))
    assert len(timers) <= LEAST_SWEPT
    timers.stop()


async def test_task_that_waits_is_fired_although_others_were_let_go() -> None:
    fired: list[Timed] = []
    timers = Timers(CLOCK, fired.extend)
    task = waiting_task()
    timers.add(CLOCK.now() - 1, task)
    ids = TimeOrderedIds(CLOCK, last_run=0, last_task=0)
    for _ in range(2 * LEAST_SWEPT):
        over = waiting_task()
        timers.add(CLOCK.now() + 86_400, over)
        advance.cancel(over.run, Decision(CLOCK.now(), CLOCK.random, ids, Limits()))
    timers._wake()
    assert fired == [task]
    timers.stop()


async def test_nothing_is_fired_after_the_stop_whatever_comes_in() -> None:
    timers = Timers(CLOCK, lambda _: pytest.fail("fired"))
    timers.stop()
    timers.add(CLOCK.now() - 1, waiting_task())
    timers._wake()
    assert len(timers) == 0
