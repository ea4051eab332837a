"""One attempt at a step: bind its arguments, run it, keep what it printed, and make the answer.

Everything that runs users' code runs inside the attempt's context, validators of arguments and results included; sync
steps do all of it in one thread, async steps on the loop. Whatever users' code raises becomes an answer.
"""

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec

from hopline import Context, Step, schema
from hopline.context import entered
from hopline.errors import ResultError
from hopline_engine import clock
from hopline_engine.core import strict_json
from hopline_engine.worker.capture import Capture, current
from hopline_engine.worker.failure import describe
from hopline_engine.worker.threads import Threads

RESULT_MAX_BYTES = 1_048_576

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
    arguments: Callable[[bytes], dict[str, Any]]
    dump_result: Callable[[Any], bytes]

    @classmethod
    def of(cls, step: "Step[..., Any]") -> "Served":
        """Prepare *step*."""
        codec = schema.codec(step.fn)
        return cls(
            name=step.name,
            signature=step.signature.encode(),
            fn=step.fn,
            is_async=inspect.iscoroutinefunction(step.fn),
            arguments=codec.arguments,
            dump_result=codec.dump_result,
        )


class Attempt:
    """One attempt at *step* with the JSON arguments *body*; to be run once."""

    __slots__ = ("_body", "_capture", "_context", "_deadline", "_step")

    def __init__(self, step: Served, body: bytes, context: Context, deadline: float | None) -> None:
        self._step = step
        self._body = body
        self._context = context
        self._deadline = deadline
        self._capture = Capture()

    async def run(self, threads: Threads[Answer], gone: Callable[[], Awaitable[object]]) -> Answer | None:
        """Run the step and return the answer. Raises nothing but the cancellation of its own task.

        An async step is cancelled at the deadline. A sync one cannot be: it runs to its end in its thread, which is
        free for another attempt only then. When *gone* returns, nobody waits for the answer any more; a step that
        waits for a thread by then is not run, and there is no answer.
        """
        if not self._step.is_async:
            # A copy for each attempt: context variables that a step sets do not reach the thread's next attempt.
            call = threads.submit(partial(contextvars.copy_context().run, self._run_in_thread))
            return await (_unless_gone(call, threads, gone) if threads.are_all_busy else call)
        token = current.set(self._capture)
        try:
            return await self._run_on_loop()
        finally:
            current.reset(token)

    def _run_in_thread(self) -> Answer:
        current.set(self._capture)
        try:
            with entered(self._context):
                self._check_deadline("a free thread of the worker")
                return self._succeeded(self._step.fn(**self._step.arguments(self._body)))
        except BaseException as error:  # noqa: BLE001 - SystemExit in a step must not end the worker
            return self._failed(error)

    async def _run_on_loop(self) -> Answer:
        try:
            with entered(self._context):
                self._check_deadline("the worker's loop")
                async with asyncio.timeout(self._seconds_left()):
                    return self._succeeded(await self._step.fn(**self._step.arguments(self._body)))
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the server gives up on this request; the step itself did not ask for it
            return self._failed(error)

    def _check_deadline(self, waited_for: str) -> None:
        """Raise if the deadline has passed: another attempt may have been made, and have completed the step."""
        if (left := self._seconds_left()) is not None and left <= 0:
            raise TimeoutError(f"the deadline passed while the attempt waited for {waited_for}")

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else self._deadline - clock.now()

    def _succeeded(self, value: Any) -> Answer:
        result = self._step.dump_result(value)
        if len(result) > RESULT_MAX_BYTES:
            raise ResultError(
                f"the result of {self._step.name} is {len(result)} bytes of JSON; at most {RESULT_MAX_BYTES} are kept"
                " (store it elsewhere and return where it is)"
            )
        try:
            strict_json.check(result)
        except strict_json.StrictJsonError as error:
            raise ResultError(f"{self._step.name}() returned what cannot be stored: {error}") from None
        return Answer(200, b'{"result":%b,"logs":%b}' % (result, encode(self._capture.text())))

    def _failed(self, error: BaseException) -> Answer:
        return Answer(500, encode({"error": describe(error), "logs": self._capture.text()}))


async def _unless_gone(
    call: "asyncio.Future[Answer]", threads: Threads[Answer], gone: Callable[[], Awaitable[object]]
) -> Answer | None:
    """Return the answer of *call*, or ``None`` when nobody waits for it any more before it has begun.

    An engine that was started again makes another attempt, which may complete the step while this one stands in line.
    """
    watching = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((call, watching), return_when=asyncio.FIRST_COMPLETED)
        if not call.done() and threads.withdraw(call):
            return None
        return await call
    finally:
        watching.cancel()
