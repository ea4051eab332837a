"""The requests that are under way: begun for leased tasks, cut off, and each answer handed on.

Only what a durable lease covers is sent. Every task that was given to ``send`` comes back exactly once: with an
outcome, or by its place being free again.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence

from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunState, TaskId, TaskState
from hopline_engine.queue.admission import Admission
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Lost, Outcome, Succeeded
from hopline_engine.queue.workers import Worker
from hopline_engine.scheduler.pinning import Pinned, Pinning

log = logging.getLogger(__name__)

OnAnswers = Callable[[Sequence[LiveTask], Sequence[Outcome | Pinned]], None]
"""Takes the tasks of one request with their outcomes, in the same order."""


class Sending:
    """Sends each task by a request of its own, and elements of a batch by one."""

    def __init__(
        self, dispatcher: Dispatcher, admission: Admission, on_answers: OnAnswers, on_freed: Callable[[], None]
    ) -> None:
        """Make one that is off.

        Args:
            dispatcher: makes the requests.
            admission: has the places of tasks that are not sent after all.
            on_answers: told of each answer.
            on_freed: called when such a place is free again, as nothing else may come that lets the next task go.
        """
        self.is_on = False
        """Whether tasks are sent at all."""
        self.pinning: Pinning | None = None
        """Reads the graphs that workers trace."""
        self.under_way: dict[TaskId, asyncio.Task[None]] = {}
        self._dispatcher = dispatcher
        self._admission = admission
        self._on_answers = on_answers
        self._on_freed = on_freed
        self._loop = asyncio.get_running_loop()

    def send(self, leased: list[LiveTask]) -> None:
        """Send tasks whose leases are durable; elements of a batch stand behind each other."""
        batch: list[LiveTask] = []
        for task in leased:
            if task.node.batch == 1:
                self._send(task)
                continue
            if not self._admission.is_companion(task):
                self._send_batch(batch)
                batch = []
            batch.append(task)
        self._send_batch(batch)

    def cut_off(self, task: LiveTask) -> None:
        """Give up the request of a task, if one is out."""
        exchange = self.under_way.get(task.id)
        if exchange is None:
            return
        exchange.cancel()
        if inspect.getcoroutinestate(exchange.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
            del self.under_way[task.id]  # it never runs, so nobody else gives the place back
            self.give_back(task)

    def give_back(self, task: LiveTask) -> None:
        """Free the place of a task that is not sent after all."""
        self._admission.release(task.id)
        self._loop.call_soon(self._on_freed)

    async def drain(self, grace_seconds: float) -> None:
        """Send nothing more, and wait a while for the answers to what is under way."""
        self.is_on = False
        if self.under_way:
            await asyncio.wait(list(self.under_way.values()), timeout=grace_seconds)

    async def cut_off_all(self) -> None:
        """Give up every request."""
        exchanges = list(self.under_way.values())
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)

    def _send(self, task: LiveTask) -> None:
        may_go = task.state is TaskState.LEASED and task.run.state is RunState.RUNNING
        if not (may_go and self.is_on):  # cancelled, or stopped, while the commit was under way
            self.give_back(task)
            return
        self.under_way[task.id] = self._loop.create_task(self._exchange(task))

    def _send_batch(self, batch: list[LiveTask]) -> None:
        if len(batch) < 2 or not (self.is_on and batch[0].run.state is RunState.RUNNING):
            for task in batch:
                self._send(task)
            return
        exchange = self._loop.create_task(self._exchange_batch(batch))
        self.under_way.update(dict.fromkeys((task.id for task in batch), exchange))

    async def _exchange(self, task: LiveTask) -> None:
        worker = self._admission.worker_of(task)
        try:
            outcome = await self._outcome(task, worker)
        except asyncio.CancelledError:
            self.give_back(task)
            raise
        except Exception as error:
            log.exception("dispatching task %s failed", task.id)
            outcome = _broken(error)
        finally:
            self.under_way.pop(task.id, None)
        self._on_answers((task,), (outcome,))

    async def _outcome(self, task: LiveTask, worker: Worker | None) -> Outcome | Pinned:
        outcome = await self._dispatcher.execute(task, worker)
        if task.node.kind == "dynamic" and isinstance(outcome, Succeeded) and self.pinning is not None:
            return await self.pinning.read(outcome)
        return outcome

    async def _exchange_batch(self, batch: list[LiveTask]) -> None:
        worker = self._admission.worker_of(batch[0])
        assert worker is not None, "only workers are sent batches"
        outcomes: list[Outcome]
        try:
            outcomes = await self._dispatcher.execute_batch(batch, worker)
        except asyncio.CancelledError:
            for task in batch:
                self.give_back(task)
            raise
        except Exception as error:
            log.exception("dispatching a batch of %d failed", len(batch))
            outcomes = [_broken(error)] * len(batch)
        finally:
            for task in batch:
                self.under_way.pop(task.id, None)
        self._on_answers(batch, outcomes)


def _broken(error: Exception) -> Lost:
    return Lost(f"the dispatcher failed: {error!r}")
