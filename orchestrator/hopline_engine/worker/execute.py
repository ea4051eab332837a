"""One attempt at a step: bind its arguments, run it, keep what it printed, and make the answer.

Everything that runs users' code runs inside the attempt's context, validators of arguments and results included; sync
steps do all of it in one thread, async steps on the loop. Whatever users' code raises becomes an answer.
"""

import asyncio
import contextvars
import inspect
import math
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import msgspec

from hopline import Context, Dynamic, Pending, Step, schema
from hopline.context import cancel, connect, entered, extend
from hopline.errors import ResultError
from hopline_engine import clock
from hopline_engine.core import strict_json
from hopline_engine.worker.beating import Beats, Line
from hopline_engine.worker.capture import Capture, current
from hopline_engine.worker.deadlines import Deadlines
from hopline_engine.worker.failure import describe, describe_late
from hopline_engine.worker.leaving import Leaving
from hopline_engine.worker.threads import Threads
from hopline_engine.worker.tracing import dump_graph, tracer

RESULT_MAX_BYTES = 1_048_576
"""Until the engine has said what it takes."""

encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """Status and JSON body of an HTTP answer."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A step as the worker calls it."""

    name: str
    signature: bytes
    fn: Callable[..., Any]
    is_async: bool
    is_deferred: bool
    """Whether it may end before there is a result."""
    arguments: Callable[[bytes], dict[str, Any]]
    dump_result: Callable[[Any], bytes]

    @classmethod
    def every(cls, steps: "Mapping[str, Step[..., Any]]") -> "list[Served]":
        """Prepare all that a worker serves, dynamic workflows with the steps beside them."""
        return [cls.of_graph(step, steps) if isinstance(step, Dynamic) else cls.of(step) for step in steps.values()]

    @classmethod
    def of_graph(cls, workflow: "Dynamic[..., Any]", steps: "Mapping[str, Step[..., Any]]") -> "Served":
        """Prepare *workflow*, which is called to be traced."""
        return replace(cls.of(workflow), fn=tracer(workflow, steps), dump_result=dump_graph)

    @classmethod
    def of(cls, step: "Step[..., Any]") -> "Served":
        """Prepare *step*."""
        codec = schema.codec(step.fn)
        return cls(
            name=step.name,
            signature=step.signature.encode(),
            fn=step.fn,
            is_async=inspect.iscoroutinefunction(step.fn),
            is_deferred=codec.is_deferred,
            arguments=codec.arguments,
            dump_result=codec.dump_result,
        )


class Calls(Protocol):
    """What runs sync functions for the loop; see ``Threads``."""

    @property
    def are_all_busy(self) -> bool:
        """Whether a call may have to wait until another one ends."""
        ...

    def submit(self, call: Callable[[], Answer], /) -> "asyncio.Future[Answer]":
        """Run a call, which does not raise."""
        ...

    def withdraw(self, future: "asyncio.Future[Answer]", /) -> bool:
        """Take back a call that was not begun; return whether that was so."""
        ...


class Runtime:
    """What the attempts of one worker share."""

    __slots__ = ("deadlines", "leaving", "line", "loop", "now", "result_max_bytes", "threads")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        concurrency: int,
        result_max_bytes: int,
        *,
        threads: Calls | None = None,
        now: Callable[[], float] = clock.now,
        line: Line | None = None,
    ) -> None:
        """Make it for attempts on *loop*, whose heartbeats go over *line*.

        Tests have *threads* of their own, and a clock, in Unix seconds.
        """
        self.loop = loop
        self.line = line
        self.threads: Calls = threads or Threads(loop, concurrency)
        self.now = now
        self.deadlines = Deadlines(loop, now)
        self.leaving = Leaving(loop)
        self.result_max_bytes = result_max_bytes


class Attempt:
    """One attempt at *step* with the JSON arguments *body*; to be run once."""

    __slots__ = (
        *("_beats", "_body", "_call", "_capture", "_context", "_limit", "_runtime", "_seconds", "_step", "_task"),
        *("_thread", "deadline"),
    )

    def __init__(self, step: Served, body: bytes, context: Context, deadline: float, runtime: Runtime) -> None:
        self._step = step
        self._body = body
        self._context = context
        self.deadline = deadline
        """Unix seconds; ``math.inf`` for none."""
        self._runtime = runtime
        self._capture = Capture()
        self._call: asyncio.Future[Answer] | None = None
        self._thread: int | None = None
        """The thread that is in the step now."""
        self._task: asyncio.Task[Any] | None = None
        """The task that is in the step now, when the step is async."""
        self._limit: asyncio.Timeout | None = None
        """What ends that at the deadline."""
        self._seconds = math.inf
        """How long it may take, and then again from each heartbeat on."""
        self._beats: Beats | None = None

    async def run(self, gone: Callable[[], Awaitable[object]]) -> Answer | None:
        """Run the step and return the answer. Raises nothing but the cancellation of its own task.

        At the deadline the answer says where the step is then. An async step is cancelled. A sync one cannot be: it
        runs to its end in its thread, which is free for another attempt only then. When *gone* returns, nobody waits
        for the answer any more: an async step is cancelled, a sync one sees it in its context, one that waits for a
        thread by then is not run, and there is no answer.
        """
        leaving = self._runtime.leaving
        connect(self._context, self)
        try:
            if not self._step.is_async and self._runtime.threads.are_all_busy:
                return await self._run_sync(gone)
            leaving.add(self, gone)
            return await (self._run_async() if self._step.is_async else self._run_sync(None))
        finally:
            leaving.remove(self)
            connect(self._context, None)
            if self._beats is not None:
                self._beats.stop()

    def beat(self, progress: str | None) -> None:
        """Pass on that the step goes on; in any thread."""
        line = self._runtime.line
        if line is None or self._context.callback_token is None:  # of a task that a worker pulls, the lease is renewed
            return
        if self._beats is None:
            self._beats = Beats(self, self._context, self._seconds, line, self._runtime.loop)
        self._beats.beat(progress)

    def extend(self, deadline: datetime) -> None:
        """Let it last until a later time; on the loop."""
        self.deadline = deadline.timestamp()
        extend(self._context, deadline)
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._runtime.loop.time() + self.deadline - self._runtime.now())

    def leave(self) -> None:
        """Tell the step that nobody waits for it any more."""
        cancel(self._context)
        if self._task is not None:
            self._task.cancel()

    async def _run_async(self) -> Answer | None:
        token = current.set(self._capture)
        self._task = task = asyncio.current_task()
        try:
            return await self._run_on_loop()
        except asyncio.CancelledError:
            if not self._context.cancelled:
                raise
            return None
        finally:
            self._task = None
            if self._context.cancelled and task is not None:
                task.uncancel()
            current.reset(token)

    async def _run_sync(self, gone: Callable[[], Awaitable[object]] | None) -> Answer | None:
        threads, deadlines = self._runtime.threads, self._runtime.deadlines
        # A copy for each attempt: context variables that a step sets do not reach the thread's next attempt.
        self._call = call = threads.submit(partial(contextvars.copy_context().run, self._run_in_thread))
        deadlines.add(self)
        try:
            return await (call if gone is None else self._unless_gone(call, gone))
        finally:
            deadlines.remove(self)

    async def _unless_gone(
        self, call: "asyncio.Future[Answer]", gone: Callable[[], Awaitable[object]]
    ) -> Answer | None:
        """Return the answer of *call*, or ``None`` when nobody waits for it any more before it has begun.

        An engine that was started again makes another attempt, which may complete the step while this one stands in
        line.
        """
        watching = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((call, watching), return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                self.leave()
                if self._runtime.threads.withdraw(call):
                    return None
            return await call
        finally:
            watching.cancel()

    def _run_in_thread(self) -> Answer:
        current.set(self._capture)
        self._thread = threading.get_ident()
        try:
            with entered(self._context):
                if self._is_late():
                    return self._not_begun()
                return self._succeeded(self._step.fn(**self._step.arguments(self._body)))
        except BaseException as error:  # noqa: BLE001 - SystemExit in a step must not end the worker
            return self._failed(error)
        finally:
            self._thread = None

    def give_up(self) -> None:
        """Answer now: the deadline has passed, and the thread that is in the step, or was to be, cannot be stopped."""
        call = self._call
        if call is None or call.done():
            return
        cancel(self._context)
        if self._runtime.threads.withdraw(call):
            call.set_result(self._not_begun())
        elif (stack := self._stack()) is not None:
            call.set_result(self._late(describe_late(stack, self._step.fn)))

    def _stack(self) -> traceback.StackSummary | None:
        """Return where the step is now; ``None`` when it has just ended and its answer is on its way."""
        frame = sys._current_frames().get(self._thread or 0)  # noqa: SLF001 - the way to another thread's stack
        # Looked at after the frame was taken: by then the thread might have been in another attempt.
        if frame is None or self._thread is None:
            return None
        return traceback.StackSummary.extract(reversed(list(traceback.walk_stack(frame))))

    async def _run_on_loop(self) -> Answer:
        if self._is_late():
            return self._not_begun()
        limit = asyncio.timeout(None if self.deadline == math.inf else self._seconds)
        self._limit = limit
        try:
            with entered(self._context):
                async with limit:
                    return self._succeeded(await self._step.fn(**self._step.arguments(self._body)))
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the server gives up on this request; the step itself did not ask for it
            cut_off = error.__cause__ or error.__context__  # early versions of Python 3.11 name no cause
            if limit.expired() and isinstance(error, TimeoutError) and cut_off is not None:
                stack = traceback.extract_tb(cut_off.__traceback__)
                return self._late(describe_late(stack, self._step.fn))
            return self._failed(error)

    def _is_late(self) -> bool:
        """Return whether the deadline has passed: another attempt may have been made, and have completed the step."""
        self._seconds = self.deadline - self._runtime.now()
        return self._seconds <= 0

    def _succeeded(self, value: Any) -> Answer:
        if isinstance(value, Pending) and self._step.is_deferred:
            return Answer(HTTPStatus.ACCEPTED, b"{}")
        result = self._step.dump_result(value)
        limit = self._runtime.result_max_bytes
        if len(result) > limit:
            raise ResultError(
                f"the result of {self._step.name} is {len(result)} bytes of JSON; at most {limit} are kept"
                " (store it elsewhere and return where it is)"
            )
        try:
            strict_json.check(result)
        except strict_json.StrictJsonError as error:
            raise ResultError(f"{self._step.name}() returned what cannot be stored: {error}") from None
        return Answer(200, b'{"result":%b,"logs":%b}' % (result, encode(self._capture.text())))

    def _failed(self, error: BaseException) -> Answer:
        return Answer(500, encode({"error": describe(error), "logs": self._capture.text()}))

    def _not_begun(self) -> Answer:
        return self._late(describe_late(None, self._step.fn))

    def _late(self, error: dict[str, Any]) -> Answer:
        return Answer(HTTPStatus.GATEWAY_TIMEOUT, encode({"error": error, "logs": self._capture.text()}))
