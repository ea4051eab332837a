"""The coordinator between a decision and its commit, which a test can hold back."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import pytest

from hopline_engine.clock import SystemClock
from hopline_engine.core.changes import Changes
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import RunState, StepState
from hopline_engine.core.plan import Plan
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Outcome, Succeeded, Unserved
from hopline_engine.queue.workers import Worker, Workers
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.ids import TimeOrderedIds
from tests.core.worlds import choice, http_step, plan, ref, step
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PLAN = plan([http_step("call", "http://service.example")])
CALL = http_step("call", "http://service.example")
KEYED = plan([{**CALL, "policy": {**CALL["policy"], "key": "one"}}], name="keyed")
RACE = plan(
    [
        http_step("a", "http://service.example"),
        http_step("b", "http://service.example"),
        http_step("other", "http://service.example"),
        choice("first", "won", [{"value": ref(name), "steps": [name]} for name in "ab"]),
    ],
    name="race",
)


class HeldCommits:
    """Makes nothing durable until it is told to."""

    def __init__(self) -> None:
        self._held: deque[Callable[[BaseException | None], None]] = deque()

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        self._held.append(done)

    def release(self) -> None:
        """Make durable what was submitted so far, and what follows from it at once."""
        while self._held:
            self._held.popleft()(None)


class Answering:
    """A dispatcher whose targets all answer at once."""

    def __init__(self) -> None:
        self.sent: list[LiveTask] = []
        self.batches: list[list[int]] = []
        self.refusals = 0
        """How many attempts from now on reach nobody."""

    async def execute(self, task: LiveTask, worker: Worker | None) -> Outcome:
        self.sent.append(task)
        if self.refusals:
            self.refusals -= 1
            return Unserved("a test says so")
        if task.node.id == "other":
            await asyncio.Event().wait()
        return Succeeded(b"1", 200)

    async def execute_batch(self, tasks: list[LiveTask], worker: Worker) -> list[Outcome]:
        self.sent += tasks
        self.batches.append([task.item for task in tasks])
        return [Succeeded(b"%d" % task.item, 200) for task in tasks]


@pytest.fixture
def commits() -> HeldCommits:
    return HeldCommits()


@pytest.fixture
def dispatcher() -> Answering:
    return Answering()


@pytest.fixture
async def coordinator(commits: HeldCommits, dispatcher: Answering) -> Coordinator:
    """A coordinator whose queue lets one task out at a time."""
    clock = SystemClock()
    coordinator = Coordinator(
        commits=commits,
        admission=Admission(Workers(), Queue("default", max_concurrent_dispatches=1)),
        dispatcher=cast("Dispatcher", dispatcher),
        clock=clock,
        ids=TimeOrderedIds(clock, last_run=0, last_task=0),
        limits=Limits(),
        epoch=1,
        on_change=lambda _run, _nodes: None,
    )
    coordinator.sending.is_on = True
    return coordinator


def started(coordinator: Coordinator, of: Plan = PLAN) -> LiveRun:
    run = LiveRun.fresh(coordinator.ids.next_run(), of, b"{}", 0.0, None)
    coordinator.start(run)
    return run


async def test_nothing_is_sent_before_its_lease_is_durable(
    coordinator: Coordinator, commits: HeldCommits, dispatcher: Answering
) -> None:
    run = started(coordinator)
    await until(lambda: run.id in coordinator.runs, "the run is known")
    assert dispatcher.sent == []
    commits.release()
    await until(lambda: dispatcher.sent, "the task is sent")


async def test_place_of_a_task_that_is_cancelled_before_its_lease_is_durable_goes_to_the_next(
    coordinator: Coordinator, commits: HeldCommits, dispatcher: Answering
) -> None:
    first, second = started(coordinator), started(coordinator)
    coordinator.cancel(first)
    commits.release()

    def second_has_ended() -> bool:
        commits.release()
        return second.state is RunState.SUCCEEDED

    await until(second_has_ended, "the second run gets the place of the first")
    assert [task.run for task in dispatcher.sent] == [second]


async def test_task_that_reached_nobody_goes_again_before_the_others_of_its_key(
    coordinator: Coordinator, commits: HeldCommits, dispatcher: Answering
) -> None:
    runs = [started(coordinator, KEYED) for _ in range(3)]
    dispatcher.refusals = 1

    def all_have_ended() -> bool:
        commits.release()
        return all(run.state is RunState.SUCCEEDED for run in runs)

    await until(all_have_ended, "the runs have ended")
    assert [task.run for task in dispatcher.sent] == [runs[0], *runs]


async def test_paused_run_whose_task_reached_nobody_lets_the_others_of_its_key_go(
    coordinator: Coordinator, commits: HeldCommits, dispatcher: Answering
) -> None:
    first, second = (started(coordinator, KEYED) for _ in range(2))
    dispatcher.refusals = 1
    coordinator.pause(first)

    def second_has_ended() -> bool:
        commits.release()
        return second.state is RunState.SUCCEEDED

    await until(second_has_ended, "the other run goes on")
    assert first.state is RunState.RUNNING


async def test_nothing_is_sent_when_a_lease_becomes_durable_after_the_engine_has_stopped(
    coordinator: Coordinator, commits: HeldCommits, dispatcher: Answering
) -> None:
    started(coordinator)
    await coordinator.stop(0)
    commits.release()
    await until(lambda: not coordinator.admission.queues["default"].in_flight, "the place is given back")
    assert dispatcher.sent == []


async def test_answer_of_a_step_that_lost_a_race_whose_end_is_not_durable_yet_changes_nothing(
    coordinator: Coordinator, commits: HeldCommits, dispatcher: Answering
) -> None:
    coordinator.admission.queues["default"].limit(None, None, 3, 0.0)
    run = LiveRun.fresh(coordinator.ids.next_run(), RACE, b"{}", 0.0, None)
    coordinator.start(run)
    await until(lambda: run.id in coordinator.runs, "the run is known")
    commits.release()
    await until(lambda: coordinator.admission.queues["default"].in_flight == 1, "both racers have answered")
    won, lost = (run.nodes[RACE.by_id[name].index] for name in "ab")
    assert {won.state, lost.state} == {StepState.SUCCEEDED, StepState.CANCELLED}
    assert run.open_nodes == 1
    assert run.state is RunState.RUNNING


async def test_elements_of_a_batch_take_one_place_and_are_sent_in_one_call(
    coordinator: Coordinator, commits: HeldCommits, dispatcher: Answering
) -> None:
    node = step("m", {"x": list(range(5))}, over="x")
    node["policy"]["batch"] = 2
    batched = plan([node], ref("m"), name="batched")
    coordinator.admission.workers.add(
        Worker(
            id="w",
            url="http://127.0.0.1:1",
            token="t",
            concurrency=1,
            routes=batched.routes,
            pid=None,
            host=None,
            seen_at=0.0,
        )
    )
    run = LiveRun.fresh(coordinator.ids.next_run(), batched, b"{}", 0.0, None)
    coordinator.start(run)

    def has_ended() -> bool:
        commits.release()
        return run.state is RunState.SUCCEEDED

    await until(has_ended, "the map is done")
    assert dispatcher.batches == [[0, 1], [2, 3]]
    assert [task.item for task in dispatcher.sent] == [0, 1, 2, 3, 4]
    assert coordinator.admission.queues["default"].in_flight == 0
    assert coordinator.admission.in_flight == set()
