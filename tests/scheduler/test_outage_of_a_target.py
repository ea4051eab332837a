"""A target that is down for an hour, in virtual time: what was due meanwhile does not fall upon it when it is back."""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest

from hopline_engine.core.changes import Changes
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.retry import Failure
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Failed, Outcome, Succeeded
from hopline_engine.queue.workers import Worker, Workers
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.ids import TimeOrderedIds
from tests.core.worlds import http_step, plan
from tests.simulation.loop import SimulationLoop

BEGAN = 1_800_000_000.0
OUTAGE_SECONDS = 3600.0
BUSY = Failure("HTTPError", "down", status=503)


class Clock:
    """The time of the loop, and randomness with a seed."""

    def __init__(self) -> None:
        self.random = Random("an outage").random

    def now(self) -> float:
        return BEGAN + asyncio.get_running_loop().time()


class Commits:
    """Durable at once."""

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        asyncio.get_running_loop().call_soon(done, None)


class Target:
    """In place of the dispatcher: a target that answers 503 as long as it is down; notes when it was called."""

    def __init__(self, clock: Clock) -> None:
        self.calls: list[float] = []
        self._clock = clock

    async def execute(self, task: LiveTask, worker: Worker | None) -> Outcome:
        self.calls.append(self._clock.now() - BEGAN)
        await asyncio.sleep(0.02)
        return Failed(BUSY) if self.calls[-1] < OUTAGE_SECONDS else Succeeded(b"1", 200)

    def in_each_second(self, since: float) -> Counter[int]:
        return Counter(int(at) for at in self.calls[bisect_left(self.calls, since) :])

    def most_within_a_second(self, since: float) -> int:
        """Return how many calls came within any second after a time."""
        calls = self.calls[bisect_left(self.calls, since) :]
        return max(bisect_left(calls, at + 1.0) - number for number, at in enumerate(calls))


def _outlived(runs: int, queue: Queue, *, jitter: str) -> Target:
    """Start *runs* runs of one step when the outage begins, and return the target once all have succeeded."""
    loop = SimulationLoop(1, most_turns=10_000_000)

    async def live() -> Target:
        clock = Clock()
        queue.limit(queue.max_dispatches_per_second, queue.max_burst_size, queue.max_concurrent_dispatches, clock.now())
        target = Target(clock)
        coordinator = Coordinator(
            commits=Commits(),
            admission=Admission(Workers(), queue),
            dispatcher=cast("Dispatcher", target),
            clock=clock,
            ids=TimeOrderedIds(clock, last_run=0, last_task=0),
            limits=Limits(),
            epoch=1,
            on_change=lambda *_: None,
        )
        called: dict[str, Any] = http_step("called", "http://target.test/")
        called["policy"]["retry"] = {
            "attempts": 10_000, "first": 1.0, "factor": 2.0, "max": 600.0, "jitter": jitter, "on": []
        }  # fmt: skip
        its_plan = plan([called])
        for _ in range(runs):
            run = LiveRun.fresh(coordinator.ids.next_run(), its_plan, b"{}", clock.now(), None)
            await coordinator.start(run)
        coordinator.sending.is_on = True
        coordinator.look_again()
        while coordinator.runs:  # noqa: ASYNC110 - virtual time: it costs nothing
            await asyncio.sleep(10)
        await coordinator.stop(0)
        return target

    try:
        return loop.run_until_complete(live())
    finally:
        loop.dismantle()


@pytest.mark.slow
def test_after_an_hour_of_outage_ten_thousand_tasks_are_sent_no_faster_than_their_queue_allows() -> None:
    rate, burst = 10.0, 5
    target = _outlived(10_000, Queue("default", rate, burst, 20), jitter="full")

    assert target.most_within_a_second(0) <= rate + burst
    assert target.most_within_a_second(OUTAGE_SECONDS) <= rate + burst
    taken = target.calls[-1] - OUTAGE_SECONDS
    assert taken < 1.1 * 10_000 / rate, "what was due did not go as fast as the queue allows"


@pytest.mark.parametrize(("jitter", "together"), [("full", False), ("equal", False), ("none", True)])
def test_tasks_that_failed_together_come_back_one_by_one_unless_their_policy_says_otherwise(
    jitter: str, together: bool
) -> None:
    tasks = 1000
    target = _outlived(tasks, Queue("default"), jitter=jitter)

    later = target.in_each_second(1200)  # the first retries are a few seconds apart, so they come close together
    assert (max(later.values()) > tasks / 20) is together
