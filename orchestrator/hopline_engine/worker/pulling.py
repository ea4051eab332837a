"""Feeds a worker from pull queues: leases tasks, runs a step for each, and keeps the lease while the step runs.

A task whose step succeeds is acknowledged. One whose step fails is let go for a while that grows with its attempts,
and one whose worker dies comes back by itself when its lease ends; how often, the queue's ``maxAttempts`` says.
"""

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, get_type_hints

import msgspec

from hopline import Context, Step, durations
from hopline.errors import ArgumentError
from hopline_engine import clock
from hopline_engine.worker.app import WorkerApp
from hopline_engine.worker.exchange import NoAnswerError
from hopline_engine.worker.execute import Answer, Served, encode
from hopline_engine.worker.leasing import Leased, LeaseLostError, PullQueue, QueueRefusedError
from hopline_engine.worker.parent import say
from hopline_engine.worker.problems import LoadError

POLL_SECONDS: Final = 1.0
"""How often an empty queue is asked; all workers together may ask ten times a second."""
PAUSE_SECONDS: Final = 0.15
"""Between two questions of a worker that is busy, for the same reason."""
MOST_AT_ONCE: Final = 1000
FIRST_WAIT_SECONDS: Final = 1
LONGEST_WAIT_SECONDS: Final = 300
LONGEST_RETRY_AFTER: Final = 86_400.0
RENEWED_AFTER: Final = 1 / 3
"""Of a lease: the server may be silent for a while before the task is another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """A queue that a worker was told to take tasks from."""

    queue: str
    step: str | None
    """The step that runs; ``None`` for the one that each task's tag names."""

    @classmethod
    def parse(cls, text: str) -> "Pull":
        """Return what ``QUEUE`` or ``QUEUE=STEP`` means.

        >>> Pull.parse("mail=send")
        Pull(queue='mail', step='send')
        """
        queue, _, step = text.partition("=")
        return cls(queue=queue, step=step or None)


def unknown_steps(pulls: Sequence[str], steps: "Mapping[str, Step[..., Any]]") -> list[LoadError]:
    """Return what is wrong with the steps that a worker was told to run for queues."""
    return [
        LoadError(
            code="step-not-found",
            message=f"--pull {text}: the files have no step {pull.step!r}",
            hint=f"they have {', '.join(sorted(steps)) or 'none'}; without =STEP, the tag of each task names its step",
        )
        for text in pulls
        if (pull := Pull.parse(text)).step is not None and pull.step not in steps
    ]


class _Error(msgspec.Struct):
    type: str
    message: str
    traceback: str | None = None
    retry_after: float | None = None
    final: bool = False


class _Told(msgspec.Struct):
    error: _Error | None = None
    logs: str | None = None


_read: Final = msgspec.json.Decoder(_Told).decode


class Feed:
    """What one queue gives a worker."""

    def __init__(
        self,
        queue: PullQueue,
        step_of: Callable[[Leased], "Step[..., Any] | None"],
        app: WorkerApp,
        *,
        lease_seconds: int,
        echoes: bool,
        random: Callable[[], float],
    ) -> None:
        """Make a feed that does nothing before ``keep``.

        Args:
            queue: where tasks are.
            step_of: returns the step that a task is for.
            app: runs steps, those of workflows too.
            lease_seconds: how soon a task comes back whose worker died.
            echoes: whether what steps print is shown while they print it.
            random: returns numbers in ``[0, 1)``, for jitter.
        """
        self._queue = queue
        self._step_of = step_of
        self._app = app
        self._lease_seconds = lease_seconds
        self._echoes = echoes
        self._random = random
        self._served: dict[str, Served] = {}
        self._room = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._trouble = ""

    async def keep(self) -> None:
        """Take tasks until cancelled; those that were taken by then are still worked on."""
        while True:
            most = min(self._app.free_slots, MOST_AT_ONCE)
            # What was leased while it is cancelled is this worker's all the same.
            taken = await asyncio.shield(asyncio.ensure_future(self._take(most))) if most else 0
            if most and taken < most:
                await asyncio.sleep(POLL_SECONDS * (0.5 + self._random() / 2))
                continue
            self._room.clear()
            if not self._app.free_slots:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._room.wait()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _take(self, most: int) -> int:
        self._app.began()  # a worker that stops waits for the answer
        try:
            leased = await self._queue.lease(most, self._lease_seconds)
            self._say_once("")
        except (NoAnswerError, QueueRefusedError) as error:
            self._say_once(str(error))
            leased = []
        for task in leased:
            self._app.began()
            running = asyncio.create_task(self._work(_Lease(self._queue, task, self._lease_seconds)))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        self._app.ended()
        return len(leased)

    def _say_once(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            say(f"takes nothing from {self._queue.name}: {trouble}")
        self._trouble = trouble

    async def _work(self, lease: "_Lease") -> None:
        step = self._step_of(lease.task)
        try:
            if self._app.is_draining:
                await lease.end(0)
            elif step is None:
                problem = f"its tag {lease.task.tag!r} names no step of this worker"
                await self._fail(lease, lease.task.name, _Error(type="StepNotServed", message=problem, final=True))
            else:
                await self._run(lease, step)
        except LeaseLostError as error:
            say(f"{lease.task.name} is not this worker's any more: {error}")
        finally:
            self._app.ended()
            self._room.set()

    async def _run(self, lease: "_Lease", step: "Step[..., Any]") -> None:
        keeping = asyncio.create_task(lease.keep())
        try:
            answer = await self._attempt(lease.task, step)
        finally:
            lease.is_over.set()
            await keeping
        told = _read(answer.body)
        if told.logs and not self._echoes:
            os.write(2, told.logs.encode("utf-8", "replace"))
        if answer.status == HTTPStatus.OK:
            await lease.acknowledge()
        elif told.error is not None:
            await self._fail(lease, f"{step.name} of {lease.task.name}", told.error)

    async def _attempt(self, task: Leased, step: "Step[..., Any]") -> Answer:
        served = self._served.get(step.name)
        if served is None:
            served = self._served[step.name] = fed(step)
        seconds = math.inf if step.policy.timeout is None else durations.parse(step.policy.timeout)
        deadline = clock.now() + seconds
        context = Context(
            run_id=task.name,
            step=step.name,
            attempt=task.attempt,
            deadline=None if deadline == math.inf else datetime.fromtimestamp(deadline, UTC),
            idempotency_key=task.name,
        )
        return await self._app.attempt(served, task.payload, context, deadline)

    async def _fail(self, lease: "_Lease", what: str, error: "_Error") -> None:
        wait = _wait(lease.task.attempt, error)
        trace = f"\n{error.traceback.rstrip()}" if error.traceback else ""
        again = f"again in {wait} s" if wait else "again at once"
        say(f"{what} failed, attempt {lease.task.attempt}: {error.type}: {error.message}; {again}{trace}")
        await lease.end(wait)


class _Lease:
    """The lease of one task, while it is worked on."""

    def __init__(self, queue: PullQueue, task: Leased, seconds: int) -> None:
        self.task = task
        self.is_over = asyncio.Event()
        """The step has ended: the lease is not renewed any more."""
        self._queue = queue
        self._seconds = seconds
        self._until = clock.monotonic() + seconds

    async def keep(self) -> None:
        """Renew it until it is over, or lost."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds * RENEWED_AFTER):
                    await self.is_over.wait()
                return
            begun = clock.monotonic()
            try:
                self.task = await self._queue.renew(self.task, self._seconds)
            except NoAnswerError:
                continue
            except LeaseLostError:
                return  # acknowledging it will tell
            self._until = begun + self._seconds

    async def acknowledge(self) -> None:
        """Delete the task; try again as long as the lease holds.

        Raises:
            LeaseLostError: it was lost before the server heard of it.
        """
        await self._insist(lambda: self._queue.acknowledge(self.task))

    async def end(self, seconds: int) -> None:
        """Let the task be leased again *seconds* from now; try again as long as the lease holds.

        Raises:
            LeaseLostError: it was lost before the server heard of it.
        """
        await self._insist(lambda: self._queue.renew(self.task, seconds))

    async def _insist(self, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
        while True:
            try:
                await call()
            except NoAnswerError as error:
                if clock.monotonic() >= self._until:
                    raise LeaseLostError(str(error)) from error
            else:
                return
            await asyncio.sleep(POLL_SECONDS / 2)


def fed(step: "Step[..., Any]") -> Served:
    """Return a step as it runs for tasks of a queue: its arguments come from a payload, its result is not kept.

    A step with one parameter gets the whole payload: as ``bytes``, as ``str``, or read from JSON as any other type. For
    one with several, or none, the payload is a JSON object with an argument for each.
    """
    served = Served.of(step)
    if len(step.parameters) != 1:
        arguments = served.arguments
    else:
        (name,) = step.parameters
        kind = get_type_hints(step.fn)[name]
        arguments = partial(_READERS.get(kind, _from_json), name, served.arguments)
    return replace(served, arguments=arguments, dump_result=lambda _: b"null")


Arguments = dict[str, Any]
_OfBody = Callable[[bytes], Arguments]


def _from_bytes(name: str, _: _OfBody, payload: bytes) -> Arguments:
    return {name: payload}


def _from_text(name: str, _: _OfBody, payload: bytes) -> Arguments:
    try:
        return {name: payload.decode()}
    except UnicodeDecodeError as error:
        raise ArgumentError(f"the payload is not UTF-8: {error}") from None


def _from_json(name: str, of_body: _OfBody, payload: bytes) -> Arguments:
    return of_body(encode({name: msgspec.Raw(payload or b"null")}))


_READERS: Final[Mapping[Any, Callable[[str, _OfBody, bytes], Arguments]]] = {bytes: _from_bytes, str: _from_text}


def _wait(attempt: int, error: _Error) -> int:
    """Return the whole seconds until a task comes again that has failed in so many attempts.

    >>> [_wait(attempt, _Error("ValueError", "")) for attempt in (1, 2, 3, 20)]
    [1, 2, 4, 300]
    """
    if error.retry_after is not None:
        return math.ceil(max(0.0, min(error.retry_after, LONGEST_RETRY_AFTER)))
    if error.final:
        return LONGEST_WAIT_SECONDS
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS << min(attempt - 1, 16))
