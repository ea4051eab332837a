"""Steps in the process of the test: the real worker's application, with its steps called in place."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import httpx

from hopline import Step, Workflow
from hopline.compiler import steps_of
from hopline_engine.core.plan import OF_WORKERS
from hopline_engine.queue.workers import Worker, routes_of
from hopline_engine.worker.app import WorkerApp
from hopline_engine.worker.beating import Line
from hopline_engine.worker.execute import Runtime, Served

T = TypeVar("T")

URL = "http://steps.test"
TOKEN = "test"  # noqa: S105 - of a worker that nobody else can reach
CONCURRENCY = 10_000


class InPlace(Generic[T]):
    """In place of threads: a call is made when it is submitted."""

    are_all_busy = False

    def submit(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Make the call, and return a future that is done."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        future.set_result(call())
        return future

    def withdraw(self, _: "asyncio.Future[T]") -> bool:
        """Return that it is too late."""
        return False


class InProcessWorker:
    """Serves all steps that workflows of a test may call."""

    def __init__(
        self, steps: Mapping[str, Step[..., Any]], result_max_bytes: int, now: Callable[[], float], line: Line
    ) -> None:
        served = Served.every(steps)
        self._routes = [(step.name, step.signature.decode()) for step in served]
        app = WorkerApp(
            served,
            token=TOKEN,
            concurrency=CONCURRENCY,
            runtime=partial(Runtime, threads=InPlace(), now=now, line=line),
        )
        app.limit_results(result_max_bytes)
        self.transport = httpx.ASGITransport(app)

    def as_registered(self, now: float) -> Worker:
        """Return it as the engine keeps workers."""
        return Worker(
            id="in this process",
            url=URL,
            token=TOKEN,
            concurrency=CONCURRENCY,
            routes=routes_of(self._routes),
            pid=None,
            host=None,
            seen_at=now,
        )


def python_steps(workflows: Iterable[Workflow[..., Any]]) -> dict[str, Step[..., Any]]:
    """Return the steps that workers execute for these workflows, by name."""
    found: dict[str, Step[..., Any]] = {}
    for workflow in workflows:
        for step in (*steps_of(workflow), *_beside(workflow)):
            if step.kind in OF_WORKERS:
                found.setdefault(step.name, step)
    return found


def _beside(workflow: Workflow[..., Any]) -> Iterator[Step[..., Any]]:
    """Yield the steps that stand in the same module or function: a graph that is made at run time may call them."""
    function = workflow.fn
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    for value in (*function.__globals__.values(), *cells):
        if type(value) is not type and isinstance(value, Step):
            yield value
