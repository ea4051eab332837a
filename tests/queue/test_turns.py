"""Priorities and keys in one queue: who has the next turn, for how long nobody is passed over, and what that costs."""

from collections import Counter
from collections.abc import Iterable
from time import perf_counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import WHOLE, RunId, TaskId
from hopline_engine.queue.admission import Admission, Hindrance, Queue
from hopline_engine.queue.workers import Workers
from tests.core.worlds import http_step, plan

NOW = 1000.0


def node(name: str, *, priority: int = 0, key_limit: int | None = None, queue: str = "default") -> dict[str, Any]:
    """Return an HTTP step of a priority, and with keys if they are limited; which ones, the tests say."""
    made = http_step(name, "http://x")
    keyed = {} if key_limit is None else {"key": "some", "key_limit": key_limit}
    return {**made, "policy": {**made["policy"], "priority": priority, "queue": queue, **keyed}}


class Due:
    """An admission, and due tasks that are offered to it."""

    def __init__(self, *nodes: dict[str, Any], concurrent: int | None = None) -> None:
        self.admission = Admission(Workers(), Queue("default", max_concurrent_dispatches=concurrent))
        self._plan = plan(list(nodes))
        self._last = 0

    def offer(self, name: str, key: str | None = None, *, of_run: int = 0) -> LiveTask:
        self._last += 1
        run = LiveRun.fresh(RunId(1), self._plan, b"{}", NOW, None, of_run)
        task = LiveTask(TaskId(self._last), run, self._plan.by_id[name], WHOLE, None)
        task.key = key
        self.admission.offer(task)
        return task

    def admit(self) -> list[LiveTask]:
        return [task for task in self.admission.admit(NOW) if isinstance(task, LiveTask)]

    def end(self, task: LiveTask) -> None:
        self.admission.release(task.id)
        if task.key is not None:
            self.admission.release_key(task)


def words(tasks: Iterable[LiveTask]) -> list[str]:
    return [f"{task.node.id}{task.key or ''}" for task in tasks]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_as_many_of_one_key_are_sent_as_its_limit_says_and_the_next_in_the_order_in_which_they_came() -> None:
    due = Due(node("s", key_limit=2))
    tasks = [due.offer("s", "a") for _ in range(4)]
    other = due.offer("s", "b")
    assert due.admit() == [tasks[0], other, tasks[1]]
    assert due.admission.hindrance(tasks[2]) is Hindrance.KEY
    assert due.admission.keys.holders(tasks[2]) == [f"run {tasks[0].run.public_id} step s"] * 2
    due.end(tasks[1])
    assert due.admit() == [tasks[2]]
    due.end(tasks[0])
    assert due.admit() == [tasks[3]]


def test_key_is_one_for_all_steps_of_a_queue_and_another_in_another_queue() -> None:
    due = Due(node("s", key_limit=1), node("t", key_limit=1), node("u", key_limit=1, queue="other"))
    first, second, third = due.offer("s", "a"), due.offer("t", "a"), due.offer("u", "a")
    assert due.admit() == [first, third]
    due.end(first)
    assert due.admit() == [second]


def test_task_that_is_withdrawn_lets_the_next_have_its_key() -> None:
    due = Due(node("s", key_limit=1), concurrent=1)
    running, first, second, third = due.offer("s", "x"), due.offer("s", "a"), due.offer("s", "a"), due.offer("s", "a")
    assert due.admit() == [running]
    due.admission.withdraw(second)
    due.admission.withdraw(first)
    due.end(running)
    assert due.admit() == [third]
    assert not due.admission.is_waiting(first)


def test_task_in_flight_that_is_withdrawn_keeps_its_key() -> None:
    due = Due(node("s", key_limit=1))
    first, second = due.offer("s", "a"), due.offer("s", "a")
    due.admit()
    due.admission.withdraw(first)
    assert due.admit() == []
    assert list(due.admission.waiting(due.admission.queues["default"])) == [second]
    assert due.admission.keys.waiting_in["default"] == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "three"]), st.booleans())), st.data())
def test_no_more_than_the_limit_hold_a_key_and_each_key_keeps_its_order(
    steps: list[tuple[str, str, bool]], data: st.DataObject
) -> None:
    due = Due(node("one", key_limit=1), node("three", key_limit=3), concurrent=4)
    out: list[LiveTask] = []
    sent: list[LiveTask] = []

    def admit() -> None:
        for task in due.admit():
            others = sum(other.key == task.key for other in out)
            assert task.node.order is not None
            assert others < task.node.order.key_limit
            out.append(task)
            sent.append(task)

    for key, name, ends in steps:
        due.offer(name, key)
        if ends and out:
            due.end(out.pop(data.draw(st.integers(0, len(out) - 1))))
        admit()
    while out:
        due.end(out.pop(0))
        admit()
    assert len(sent) == len(steps), "nobody is forgotten"
    for key in "abc":
        numbers = [task.id for task in sent if task.key == key]
        assert numbers == sorted(numbers)
    assert not due.admission.keys.are_wanted


# --- fairness ---------------------------------------------------------------------------------------------------------


def starts_of_b(ahead: int, own: int, slots: int) -> tuple[float, float]:
    """Return when the last of the tasks of B starts that come behind *ahead* of A, and how long its own take alone.

    Each takes a second, and the slots of the queue come free evenly over a second, as those of a busy queue do.
    """
    due = Due(node("s", key_limit=10**9), concurrent=slots)
    for _ in range(ahead):
        due.offer("s", "A")
    out = due.admit()
    assert len(out) == slots
    left = {due.offer("s", "B") for _ in range(own)}
    turns = 0
    while left:
        turns += 1
        due.end(out.pop(0))
        began = due.admit()
        out += began
        left -= set(began)
    return turns / slots, -(-own // slots)


def test_who_comes_with_little_starts_within_twice_its_own_time_behind_who_came_with_much() -> None:
    for slots in (1, 3, 10, 16):
        last, own = starts_of_b(1000, 10, slots)
        assert last <= 2 * own


def test_a_hundred_thousand_ahead_make_no_difference_and_each_costs_the_same() -> None:
    began = perf_counter()
    last, own = starts_of_b(100_000, 10, 10)
    assert last <= 2 * own
    due = Due(node("s", key_limit=10**9), concurrent=1)
    for number in range(100_000):
        due.offer("s", f"key-{number % 50_000}")
    out = due.admit()
    for _ in range(100_000 - 1):
        due.end(out.pop())
        out = due.admit()
    assert perf_counter() - began < 250  # 2 s on an idle machine; a look at all keys for each would take hours


@given(st.lists(st.sampled_from("abcd"), min_size=1))
def test_keys_that_have_work_take_turns(keys: list[str]) -> None:
    due = Due(node("s", key_limit=10**9), concurrent=1)
    for key in keys:
        due.offer("s", key)
    left, sent = Counter(keys), Counter[str]()
    out = due.admit()
    while out:
        key = out[0].key or ""
        sent[key] += 1
        for other in left:
            if other != key and sent[other] < left[other]:
                assert sent[key] <= sent[other] + 1, "none has two turns more than another that has work"
        due.end(out[0])
        out = due.admit()
    assert sent == left


# --- priorities -------------------------------------------------------------------------------------------------------


def test_higher_priority_goes_first_and_those_of_one_priority_in_the_order_in_which_they_came() -> None:
    due = Due(node("low", priority=-5), node("normal"), node("high", priority=5), concurrent=1)
    first = [due.offer(name) for name in ("low", "normal", "high", "normal", "high")]
    order = words(all_of(due))
    assert order[:2] == ["high", "normal"]
    assert sorted(order) == sorted(words(first))
    for _ in range(2):
        due.offer("normal")
    (running,) = due.admit()
    urgent = due.offer("high")
    due.end(running)
    assert due.admit() == [urgent]


def all_of(due: Due) -> list[LiveTask]:
    """Return what waits in the order in which it is sent, one at a time."""
    sent = []
    while out := due.admit():
        sent += out
        due.end(out[0])
    return sent


@given(
    st.dictionaries(st.integers(-5, 5), st.integers(1, 60), min_size=2, max_size=4),
    st.data(),
)
def test_no_priority_waits_for_more_turns_of_a_higher_one_than_the_bound(
    counts: dict[int, int], data: st.DataObject
) -> None:
    of_runs = {priority: data.draw(st.integers(max(-5, priority - 5), min(5, priority + 5))) for priority in counts}
    due = Due(*(node(f"p{each}", priority=each - of_runs[each]) for each in counts), concurrent=1)
    waiting = [priority for priority, count in counts.items() for _ in range(count)]
    for priority in data.draw(st.permutations(waiting)):
        due.offer(f"p{priority}", of_run=of_runs[priority])
    order = [task.priority for task in all_of(due)]
    assert Counter(order) == Counter(counts)
    for low in counts:
        for high in counts:
            if high > low:
                bound = 2 ** (high - low) + 1
                last = len(order) - 1 - order[::-1].index(low)
                between = 0
                for priority in order[: last + 1]:
                    between = 0 if priority == low else between + (priority == high)
                    assert between <= bound


def test_priority_of_a_run_is_added_to_those_of_its_steps_up_to_the_highest_and_down_to_the_lowest() -> None:
    due = Due(node("low", priority=-4), node("normal"), node("high", priority=4))
    added = {(name, of): due.offer(name, of_run=of).priority for name in ("low", "normal", "high") for of in (-3, 0, 3)}
    assert list(added.values()) == [-5, -4, -1, -3, 0, 3, 1, 4, 5]


def test_flood_of_the_highest_priority_leaves_the_lowest_one_turn_in_1025() -> None:
    due = Due(node("low", priority=-5), node("high", priority=5), concurrent=1)
    low = due.offer("low")
    due.offer("high")
    out, turns = due.admit(), 0
    while out != [low]:
        turns += 1
        due.offer("high")
        due.end(out[0])
        out = due.admit()
    assert turns <= 2**10 + 1


def test_priority_that_had_no_work_saves_no_turns_up() -> None:
    due = Due(node("low", priority=-1), node("high", priority=1), concurrent=1)
    for _ in range(100):
        due.offer("high")
    out = due.admit()
    for _ in range(80):
        due.end(out[0])
        out = due.admit()
    for _ in range(20):
        due.offer("low")
    due.end(out[0])
    order = words(all_of(due))
    assert order[:5].count("low") <= 2


def test_priorities_do_not_matter_once_the_queue_has_run_empty() -> None:
    due = Due(node("normal"), node("high", priority=1))
    due.offer("high")
    assert words(due.admit()) == ["high"]
    due.admit()
    assert due.admission.queues["default"].levels is None
    assert due.admission.queues["default"].lanes == {}
