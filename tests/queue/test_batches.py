"""Elements of a map that are sent together: what they take of limits, and what becomes of each."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec
import pytest

from hopline_engine.blobs.blobs import Blobs
from hopline_engine.clock import SystemClock
from hopline_engine.core.live import LiveMap, LiveRun, LiveTask
from hopline_engine.core.model import RunId, TaskId
from hopline_engine.core.plan import Node
from hopline_engine.queue import dispatcher as dispatching
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Accepted, Failed, Lost, Outcome, Succeeded, Unsendable, Unserved
from hopline_engine.queue.secrets import Secrets
from hopline_engine.queue.signing import Signer
from hopline_engine.queue.target import Answer, AnswerHeaders, Endpoint, ExchangeFailed, Target
from hopline_engine.queue.workers import Worker, Workers
from tests.core.worlds import plan, ref, step

NOW = 1000.0


def batched(of: int = 3, **more: Any) -> dict[str, Any]:
    node = step("m", {"x": ref("$input", "xs"), "y": ref("$item", "y")}, over="x", **more)
    node["policy"]["batch"] = of
    return node


PLAN = plan([batched()])


class Elements:
    """Makes due tasks of the elements of one map."""

    def __init__(self, number: int = 1, *elements: Any) -> None:
        items = [msgspec.json.encode(element) for element in elements or [{"y": place} for place in range(10)]]
        self._run = LiveRun.fresh(RunId(number), PLAN, b"{}", NOW, None)
        self._run.nodes[0].map = LiveMap(len(items), items, [None] * len(items))

    def task(self, item: int) -> LiveTask:
        return LiveTask(TaskId(self._run.id * 100 + item), self._run, self.node, item, None)

    @property
    def node(self) -> Node:
        return PLAN.nodes[0]


def worker(concurrency: int = 10) -> Worker:
    return Worker(
        id="w",
        url="http://127.0.0.1:1",
        token="t",
        concurrency=concurrency,
        routes=PLAN.routes,
        pid=None,
        host=None,
        seen_at=NOW,
    )


# --- limits -----------------------------------------------------------------------------------------------------------


def admission(*, concurrency: int = 10, concurrent: int | None = None) -> Admission:
    workers = Workers()
    workers.add(worker(concurrency))
    return Admission(workers, Queue("default", max_concurrent_dispatches=concurrent))


def offered(to: Admission, tasks: Iterable[LiveTask]) -> list[LiveTask]:
    every = list(tasks)
    for task in every:
        to.offer(task)
    return every


def test_batch_takes_one_place_of_its_queue_and_one_slot_of_its_worker() -> None:
    queue = admission(concurrency=2, concurrent=2)
    tasks = offered(queue, map(Elements().task, range(7)))
    assert queue.admit(NOW) == tasks[:6]
    assert queue.queues["default"].in_flight == 2
    assert [queue.is_companion(task) for task in tasks[:6]] == [False, True, True, False, True, True]
    assert {queue.worker_of(task) for task in tasks[:6]} == set(queue.workers)
    for task in tasks[:3]:
        queue.release(task.id)
    assert queue.admit(NOW) == tasks[6:]
    for task in tasks[3:]:
        queue.release(task.id)
    assert queue.queues["default"].in_flight == 0
    assert [one.in_flight for one in queue.workers] == [0]
    assert not queue.in_flight


def test_batch_takes_one_token() -> None:
    queue = admission()
    queue.queues["default"].limit(1.0, 2, None, NOW)
    tasks = offered(queue, map(Elements().task, range(9)))
    assert queue.admit(NOW) == tasks[:6]


def test_elements_of_different_runs_are_not_sent_together() -> None:
    queue = admission()
    ours, theirs = Elements(1), Elements(2)
    offered(queue, [ours.task(0), theirs.task(0), theirs.task(1), ours.task(1)])
    admitted = [task for task in queue.admit(NOW) if isinstance(task, LiveTask)]
    assert [(task.run.id, queue.is_companion(task)) for task in admitted] == [
        (1, False),
        (2, False),
        (2, True),
        (1, False),
    ]


def test_withdrawn_element_is_passed_over() -> None:
    queue = admission()
    tasks = offered(queue, map(Elements().task, range(4)))
    queue.withdraw(tasks[1])
    assert queue.admit(NOW) == [tasks[0], tasks[2], tasks[3]]
    assert queue.queues["default"].ready == 0


def test_batch_that_is_not_sent_gives_back_its_token_once() -> None:
    queue = admission()
    queue.queues["default"].limit(1.0, 2, None, NOW)
    tasks = offered(queue, map(Elements().task, range(3)))
    queue.admit(NOW)
    for task in tasks:
        queue.take_back(task.id)
    bucket = queue.queues["default"].bucket
    assert bucket is not None
    assert bucket.tokens == pytest.approx(2.0)


# --- answers ----------------------------------------------------------------------------------------------------------


class Workshop:
    """Stands in for the target that workers are: answers a batch, and keeps what was asked."""

    def __init__(self, answer: Callable[[list[Any]], Answer]) -> None:
        self._answer = answer
        self.asked: list[Any] = []

    async def exchange_raw(
        self,
        endpoint: Endpoint,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - as of Target
        limit: asyncio.Timeout,
    ) -> Answer:
        assert dict(headers)[b"Hopline-Batch"] == b"%d" % len(msgspec.json.decode(body))
        self.asked = msgspec.json.decode(body)
        return self._answer(self.asked)


def saying(*answers: Any, status: int = 200) -> Callable[[list[Any]], Answer]:
    return lambda _: Answer(status, AnswerHeaders([]), msgspec.json.encode(list(answers)))


def failing(kind: Any) -> Callable[[list[Any]], Answer]:
    def answer(_: list[Any]) -> Answer:
        raise ExchangeFailed(kind, ("ConnectionError",), "it broke")

    return answer


def dispatcher_of(workshop: Workshop) -> Dispatcher:
    target = cast("Target", workshop)
    return Dispatcher(
        target=target,
        workers=target,
        signer=Signer(b"k" * 32),
        secrets=Secrets({}),
        blobs=Blobs(None, SystemClock(), inline_bytes=1),
        clock=SystemClock(),
        attempt_timeout=10.0,
        result_max_bytes=100,
    )


async def outcomes(workshop: Workshop, *elements: Any) -> list[Outcome]:
    source = Elements(1, *elements)
    return await dispatcher_of(workshop).execute_batch([source.task(item) for item in range(len(elements))], worker())


@pytest.mark.anyio
async def test_each_element_has_the_outcome_that_it_would_have_alone() -> None:
    error = {"type": "ValueError", "message": "no", "types": ["ValueError"]}
    workshop = Workshop(
        saying(
            {"status": 200, "answer": {"result": [1], "logs": "hello"}},
            {"status": 500, "answer": {"error": error}},
            {"status": 504, "answer": {"error": error}},
            {"status": 202, "answer": {}},
            {"status": 200, "answer": {"result": "x" * 200}},
        )
    )
    first, second, third, fourth, fifth = await outcomes(workshop, *[{"y": place} for place in range(5)])
    assert first == Succeeded(b"[1]", 200, "hello")
    assert isinstance(second, Failed)
    assert not second.timed_out
    assert isinstance(third, Failed)
    assert third.timed_out
    assert fourth == Accepted()
    assert isinstance(fifth, Failed)
    assert fifth.failure.type == "InvalidResult"
    assert [part["arguments"] for part in workshop.asked] == [{"y": place, "x": {"y": place}} for place in range(5)]
    assert [part["headers"]["hopline-step"] for part in workshop.asked] == [f"m[{item}]" for item in range(5)]


@pytest.mark.anyio
async def test_element_that_cannot_be_bound_fails_alone() -> None:
    first, second = await outcomes(Workshop(saying({"status": 200, "answer": {"result": 1}})), {}, {"y": 1})
    assert isinstance(first, Unsendable)
    assert second == Succeeded(b"1", 200)


@pytest.mark.anyio
async def test_elements_without_an_answer_were_not_begun() -> None:
    first, second = await outcomes(Workshop(saying({"status": 200, "answer": {"result": 1}})), {"y": 0}, {"y": 1})
    assert first == Succeeded(b"1", 200)
    assert isinstance(second, Unserved)
    assert second.may_be_asked


@pytest.mark.anyio
async def test_elements_that_are_too_large_together_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hopline_engine.queue.dispatcher.BATCH_BYTES", 60)
    workshop = Workshop(lambda asked: saying(*[{"status": 200, "answer": {"result": 1}}] * len(asked))(asked))
    found = await outcomes(workshop, *[{"y": "a" * 20}] * 3)
    assert [type(outcome) for outcome in found] == [Succeeded, Unserved, Unserved]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (failing("refused"), Unserved),
        (failing("network"), Lost),
        (failing("timeout"), Failed),
        (saying(status=503), Unserved),
        (lambda _: Answer(200, AnswerHeaders([]), b"nonsense"), Lost),
    ],
)
async def test_worker_that_gives_no_answers_gives_none_for_all(answer: Any, expected: type[Outcome]) -> None:
    found = await outcomes(Workshop(answer), {"y": 0}, {"y": 1})
    assert [type(outcome) for outcome in found] == [expected, expected]


# --- declared results -------------------------------------------------------------------------------------------------


def test_types_of_results_of_plans_that_never_come_again_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "MOST_RESULT_TYPES", 3)
    dispatcher = dispatcher_of(Workshop(saying()))
    plans = [plan([step("s", {})], name=f"w{number}") for number in range(10)]
    first = dispatcher.result_type(plans[0], plans[0].nodes[0])
    assert dispatcher.result_type(plans[0], plans[0].nodes[0]) is first
    for each in plans:
        dispatcher.result_type(each, each.nodes[0])
    assert len(dispatcher._result_types) <= 3
