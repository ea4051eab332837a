"""Which due task goes next: limits are exact, turns are fair, and nobody waits behind what cannot go."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import WHOLE, RunId, TaskId
from hopline_engine.core.plan import Route
from hopline_engine.queue.admission import Admission, Hindrance, Queue, Queued
from hopline_engine.queue.workers import Worker, Workers
from tests.core.worlds import http_step, plan, step

NOW = 1000.0


def route(name: str) -> Route:
    return Route(name, "s")


class Tasks:
    """Makes due tasks of steps of one run."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self._plan = plan(list(nodes))
        self._run = LiveRun.fresh(RunId(1), self._plan, b"{}", NOW, None)
        self._last = 0

    def task(self, name: str) -> LiveTask:
        self._last += 1
        return LiveTask(TaskId(self._last), self._run, self._plan.by_id[name], WHOLE, None)


def worker(name: str, *routes: Route, concurrency: int = 1000) -> Worker:
    return Worker(
        id=name,
        url="http://127.0.0.1:1",
        token="t",
        concurrency=concurrency,
        routes=frozenset(routes),
        pid=None,
        host=None,
        seen_at=NOW,
    )


def admission(*workers: Worker, concurrent: int | None = None) -> Admission:
    pool = Workers()
    for one in workers:
        pool.add(one)
    return Admission(pool, Queue("default", max_concurrent_dispatches=concurrent))


def offered(to: Admission, source: Tasks, names: Iterable[str]) -> list[LiveTask]:
    tasks = [source.task(name) for name in names]
    for task in tasks:
        to.offer(task)
    return tasks


def of_steps(tasks: Iterable[Queued]) -> list[LiveTask]:
    steps = [task for task in tasks if isinstance(task, LiveTask)]
    assert steps == list(tasks)
    return steps


def names(tasks: Iterable[Queued]) -> list[str]:
    return [task.node.id for task in of_steps(tasks)]


# --- limits ---------------------------------------------------------------------------------------------------------


def test_tasks_go_first_in_first_out() -> None:
    a = admission(worker("w", route("s")))
    tasks = offered(a, Tasks(step("s")), ["s"] * 3)
    assert a.admit(NOW) == tasks
    assert a.admit(NOW) == []


def test_task_that_was_read_again_goes_and_not_what_was_known_of_it_before() -> None:
    steps = Tasks(step("a"))
    queues = admission(worker("w", route("a")))
    before, after = steps.task("a"), steps.task("a")
    after.id = before.id
    queues.offer(before)

    queues.withdraw(before)
    queues.offer(after)

    assert queues.admit(NOW) == [after]
    queues.release(after.id)
    assert queues.admit(NOW) == []


def test_no_more_tasks_are_in_flight_than_the_queue_allows() -> None:
    a = admission(worker("w", route("s")), concurrent=2)
    tasks = offered(a, Tasks(step("s")), ["s"] * 5)
    assert a.admit(NOW) == tasks[:2]
    assert a.admit(NOW) == []
    assert a.hindrance(tasks[2]) is Hindrance.CONCURRENCY
    a.release(tasks[1].id)
    assert a.admit(NOW) == [tasks[2]]
    a.release(tasks[0].id)
    a.release(tasks[2].id)
    assert a.admit(NOW) == tasks[3:]


def test_limit_that_is_raised_lets_more_go_and_one_that_is_lowered_cuts_nothing_off() -> None:
    a = admission(worker("w", route("s")), concurrent=1)
    tasks = offered(a, Tasks(step("s")), ["s"] * 6)
    queue = a.queues["default"]
    a.admit(NOW)
    queue.limit(None, None, 3, NOW)
    assert a.admit(NOW) == tasks[1:3]
    queue.limit(None, None, 1, NOW)
    for task in tasks[:2]:
        a.release(task.id)
        assert a.admit(NOW) == []
    assert queue.in_flight == 1
    a.release(tasks[2].id)
    assert a.admit(NOW) == [tasks[3]]


def test_no_more_tasks_go_than_there_are_tokens() -> None:
    a = admission(worker("w", route("s")))
    a.queues["default"].limit(2.0, 3, None, NOW)
    tasks = offered(a, Tasks(step("s")), ["s"] * 6)
    assert a.next_token_at() is None
    assert a.admit(NOW) == tasks[:3]
    assert a.hindrance(tasks[3]) is Hindrance.RATE
    assert a.next_token_at() == NOW + 0.5
    assert a.admit(NOW + 0.25) == []
    assert a.admit(NOW + 0.5) == [tasks[3]]
    assert a.admit(NOW + 100.0) == tasks[4:]
    assert a.next_token_at() is None


def test_tokens_are_stored_with_the_tasks_that_took_them() -> None:
    a = admission(worker("w", route("s"), route("t")))
    a.queues["default"].limit(1.0, 3, None, NOW)
    source = Tasks(step("s"), step("t", queue="free"))
    offered(a, source, ["s", "s", "t"])
    admitted = a.admit(NOW)
    assert [tuple(row) for row in a.moved_queues(admitted)] == [("running", 1.0, NOW, "default")]
    assert a.moved_queues([]) == []


def test_new_limits_keep_the_tokens_that_are_there_and_those_that_came_since() -> None:
    queue = Queue("q")
    queue.limit(10.0, 5, None, NOW)
    assert queue.bucket is not None
    for _ in range(5):
        assert queue.bucket.take(NOW)
    queue.limit(1.0, 4, None, NOW + 0.2)
    assert queue.bucket is not None
    assert queue.bucket.tokens == pytest.approx(2.0)
    queue.limit(1.0, 1, None, NOW + 0.2)
    assert queue.bucket.tokens == 1.0
    queue.limit(None, None, None, NOW)
    assert queue.bucket is None


def test_new_limits_give_no_free_burst() -> None:
    queue = Queue("q")
    queue.limit(1.0, 1, None, NOW)
    assert queue.bucket is not None
    assert queue.bucket.take(NOW)
    queue.limit(1.0, 100, None, NOW)
    assert not queue.bucket.take(NOW)


def test_queue_that_was_never_described_is_limited_like_the_default_but_by_itself() -> None:
    a = admission(worker("w", route("s"), route("t")), concurrent=1)
    source = Tasks(step("s"), step("t", queue="other"))
    offered(a, source, ["s", "s", "t", "t"])
    assert names(a.admit(NOW)) == ["s", "t"]
    assert set(a.queues) == {"default", "other"}


def test_no_more_tasks_go_to_a_worker_than_it_has_slots() -> None:
    w = worker("w", route("s"), concurrency=2)
    a = admission(w)
    tasks = offered(a, Tasks(step("s")), ["s"] * 3)
    assert a.admit(NOW) == tasks[:2]
    assert a.hindrance(tasks[2]) is Hindrance.WORKER_BUSY
    assert a.worker_of(tasks[0]) is w
    assert a.release(tasks[0].id) is w
    assert a.admit(NOW) == [tasks[2]]


def test_http_steps_need_no_worker() -> None:
    a = admission()
    tasks = offered(a, Tasks(http_step("h", "http://x/")), ["h"])
    assert a.hindrance(tasks[0]) is None
    assert a.admit(NOW) == tasks
    assert a.worker_of(tasks[0]) is None
    assert a.release(tasks[0].id) is None


# --- pause and withdraw ---------------------------------------------------------------------------------------------


def test_paused_queue_sends_nothing_and_others_go_on() -> None:
    a = admission(worker("w", route("s"), route("t")))
    tasks = offered(a, Tasks(step("s"), step("t", queue="other")), ["s", "t"])
    a.queues["default"].is_paused = True
    assert names(a.admit(NOW)) == ["t"]
    assert a.hindrance(tasks[0]) is Hindrance.QUEUE_PAUSED
    a.queues["default"].is_paused = False
    assert names(a.admit(NOW)) == ["s"]


def test_row_of_a_queue_says_whether_it_is_paused() -> None:
    queue = Queue("q", is_paused=True)
    assert tuple(queue.row()) == ("paused", 0.0, 0.0, "q")


def test_paused_queue_waits_for_no_token() -> None:
    a = admission(worker("w", route("s")))
    queue = a.queues["default"]
    queue.limit(1.0, 1, None, NOW)
    offered(a, Tasks(step("s")), ["s", "s"])
    a.admit(NOW)
    assert a.next_token_at() == NOW + 1.0
    queue.is_paused = True
    assert a.next_token_at() is None


def test_withdrawn_task_is_passed_over() -> None:
    a = admission(worker("w", route("s")))
    tasks = offered(a, Tasks(step("s")), ["s"] * 3)
    a.withdraw(tasks[0])
    a.withdraw(tasks[2])
    assert not a.is_waiting(tasks[0])
    assert list(a.waiting(a.queues["default"])) == [tasks[1]]
    assert a.queues["default"].ready == 1
    assert a.admit(NOW) == [tasks[1]]
    assert a.queues["default"].ready == 0
    assert a.queues["default"].lanes == {}, "nothing is kept of what has gone"


def test_withdraw_of_a_task_that_does_not_wait_changes_nothing() -> None:
    a = admission(worker("w", route("s")))
    (task,) = offered(a, Tasks(step("s")), ["s"])
    a.admit(NOW)
    a.withdraw(task)
    a.withdraw(task)
    assert (a.queues["default"].ready, a.queues["default"].in_flight) == (0, 1)


def test_task_that_is_offered_again_after_a_withdrawal_goes_once() -> None:
    a = admission(worker("w", route("s")))
    first, second = offered(a, Tasks(step("s")), ["s", "s"])
    a.withdraw(first)
    a.offer(first)
    assert sorted(task.id for task in a.admit(NOW)) == [first.id, second.id]
    assert a.queues["default"].ready == 0


def test_task_that_is_offered_twice_goes_once() -> None:
    a = admission(worker("w", route("s")), concurrent=10)
    (task,) = offered(a, Tasks(step("s")), ["s"])
    a.offer(task)
    assert a.queues["default"].ready == 1
    assert a.admit(NOW) == [task]
    assert a.admit(NOW) == []
    assert (a.queues["default"].ready, a.queues["default"].in_flight) == (0, 1)


def test_task_that_came_back_waits_behind_the_others() -> None:
    a = admission(worker("w", route("s")), concurrent=1)
    first, second = offered(a, Tasks(step("s")), ["s", "s"])
    assert a.admit(NOW) == [first]
    a.release(first.id)
    a.offer(first)
    assert a.admit(NOW) == [second]


# --- turns ----------------------------------------------------------------------------------------------------------


def one_by_one(a: Admission, count: int) -> list[str]:
    """Return the steps of the tasks that are admitted where there is room for one, in their order."""
    order = []
    for _ in range(count):
        (task,) = of_steps(a.admit(NOW))
        order.append(task.node.id)
        a.release(task.id)
    return order


def test_lanes_of_a_queue_take_turns() -> None:
    a = admission(worker("w", route("s"), route("t")), concurrent=1)
    offered(a, Tasks(step("s"), step("t")), ["s"] * 4 + ["t"] * 2)
    assert one_by_one(a, 6) == ["s", "t", "s", "t", "s", "s"]


def test_queues_that_share_a_worker_take_turns() -> None:
    a = admission(worker("w", route("s"), route("t"), concurrency=1))
    offered(a, Tasks(step("s"), step("t", queue="other")), ["s"] * 4 + ["t"] * 2)
    assert one_by_one(a, 6) == ["s", "t", "s", "t", "s", "s"]


def test_queues_take_turns_within_one_admission() -> None:
    a = admission(worker("w", route("s"), route("t"), concurrency=4))
    offered(a, Tasks(step("s"), step("t", queue="other")), ["s"] * 10 + ["t"] * 10)
    assert sorted(names(a.admit(NOW))) == ["s", "s", "t", "t"]


def test_step_without_a_worker_holds_up_nobody() -> None:
    a = admission(worker("w", route("s")), concurrent=2)
    offered(a, Tasks(step("s"), step("t"), http_step("h", "http://x/")), ["t", "t", "s", "h"])
    assert names(a.admit(NOW)) == ["s", "h"]
    assert a.queues["default"].ready == 2


def test_step_of_a_busy_worker_holds_up_nobody() -> None:
    a = admission(worker("w", route("s"), concurrency=1), worker("v", route("t")))
    offered(a, Tasks(step("s"), step("t")), ["s", "s", "s", "t"])
    assert names(a.admit(NOW)) == ["s", "t"]


def test_other_signature_of_a_step_needs_a_worker_of_its_own() -> None:
    old = step("s") | {"signature": "old"}
    a = admission(worker("w", route("s")))
    (task,) = offered(a, Tasks(old), ["s"])
    assert a.admit(NOW) == []
    assert a.hindrance(task) is Hindrance.NO_WORKER


def test_task_that_waited_for_a_worker_goes_when_one_comes() -> None:
    a = admission()
    (task,) = offered(a, Tasks(step("s")), ["s"])
    assert a.admit(NOW) == []
    a.workers.add(worker("w", route("s")))
    assert a.hindrance(task) is None
    assert a.admit(NOW) == [task]


def test_missing_worker_uses_up_no_tokens() -> None:
    a = admission(worker("w", route("s")))
    a.queues["default"].limit(1.0, 1, None, NOW)
    offered(a, Tasks(step("s"), step("t")), ["t", "t", "s"])
    assert names(a.admit(NOW)) == ["s"]


@pytest.mark.parametrize(
    ("hindrance", "text"),
    [
        (Hindrance.QUEUE_PAUSED, "queue_paused"),
        (Hindrance.NO_WORKER, "no_worker"),
        (Hindrance.WORKER_BUSY, "worker_busy"),
        (Hindrance.CONCURRENCY, "concurrency"),
        (Hindrance.RATE, "rate"),
    ],
)
def test_hindrances_are_named_as_the_api_names_them(hindrance: Hindrance, text: str) -> None:
    assert str(hindrance) == text


# --- anything in any order ------------------------------------------------------------------------------------------

NODES = (step("a"), step("b"), step("c", queue="erp"), http_step("h", "http://x/"))
ROUTES = (route("a"), route("b"), route("c"))


class AdmissionMachine(RuleBasedStateMachine):
    """Offers, withdraws, admits and releases in any order, beside a model that only counts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.admission = admission()
        self.source = Tasks(*NODES)
        self.waiting: dict[int, LiveTask] = {}
        self.flying: dict[int, LiveTask] = {}
        self.workers = [worker("w0", *ROUTES, concurrency=2), worker("w1", ROUTES[0], concurrency=1)]

    @rule(name=st.sampled_from("abch"))
    def offer(self, name: str) -> None:
        task = self.source.task(name)
        self.admission.offer(task)
        self.waiting[task.id] = task

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def offer_again(self, data: st.DataObject) -> None:
        self.admission.offer(data.draw(st.sampled_from(list(self.waiting.values()))))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(list(self.waiting.values())))
        self.admission.withdraw(task)
        del self.waiting[task.id]

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), comes_back=st.booleans())
    def release(self, data: st.DataObject, comes_back: bool) -> None:
        task = data.draw(st.sampled_from(list(self.flying.values())))
        expected = self.admission.worker_of(task)
        assert self.admission.release(task.id) is expected
        del self.flying[task.id]
        if comes_back:
            self.admission.offer(task)
            self.waiting[task.id] = task

    @rule(which=st.integers(0, 1), there=st.booleans())
    def move_worker(self, which: int, there: bool) -> None:
        moved = self.workers[which]
        if there:
            self.admission.workers.add(moved)
        else:
            self.admission.workers.remove(moved.id)

    @rule(queue=st.sampled_from(["default", "erp"]), paused=st.booleans())
    def pause(self, queue: str, paused: bool) -> None:
        self.admission.queues.setdefault(queue, Queue(queue)).is_paused = paused

    @rule(
        queue=st.sampled_from(["default", "erp"]),
        rate=st.sampled_from([None, 1.0, 10.0]),
        concurrent=st.sampled_from([None, 1, 3]),
    )
    def limit(self, queue: str, rate: float | None, concurrent: int | None) -> None:
        self.admission.queues.setdefault(queue, Queue(queue)).limit(rate, None, concurrent, self.now)

    @rule(seconds=st.floats(0, 5))
    def admit(self, seconds: float) -> None:
        self.now += seconds
        before = {name: queue.in_flight for name, queue in self.admission.queues.items()}
        for task in of_steps(self.admission.admit(self.now)):
            del self.waiting[task.id]
            self.flying[task.id] = task
            assert not self.admission.queue_of(task).is_paused
        for name, queue in self.admission.queues.items():
            limit = queue.max_concurrent_dispatches
            assert limit is None or queue.in_flight <= max(limit, before.get(name, 0))
        for task in self.waiting.values():
            assert self.admission.hindrance(task) is not None, "it could have gone"

    @invariant()
    def counts_are_right(self) -> None:
        for name, queue in self.admission.queues.items():
            waiting = [task for task in self.waiting.values() if task.node.queue == name]
            assert queue.ready == len(waiting)
            assert {task.id for task in self.admission.waiting(queue)} == {task.id for task in waiting}
            assert queue.in_flight == sum(task.node.queue == name for task in self.flying.values())
        for one in self.workers:
            held = [task for task in self.flying.values() if self.admission.worker_of(task) is one]
            assert one.in_flight == len(held) <= one.concurrency
        for task in self.waiting.values():
            assert self.admission.is_waiting(task)
        for task in self.flying.values():
            assert not self.admission.is_waiting(task)


TestAdmissionInAnyOrder = AdmissionMachine.TestCase
TestAdmissionInAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
