"""An event loop in virtual time: what happens takes no time, and when nothing can happen the clock jumps.

No sockets and no threads: whatever would block is called in place. Nothing runs by itself; who owns the loop lets time
pass up to a moment.
"""

import asyncio
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class DeadlockError(Exception):
    """Nothing will ever happen again, and somebody waits."""


class KilledError(Exception):
    """Everything ended while somebody waited."""


class VirtualLoop(base_events.BaseEventLoop):
    """See the module."""

    _ready: "deque[asyncio.Handle]"
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[dict[str, Any]] = []
        """What nobody caught, as asyncio tells it."""
        self._time = 0.0
        self._limit = 0.0
        self._selector = _Turns(self)
        # What is added to the time must change it: after a hundred years, floats are half a microsecond apart.
        self._clock_resolution = 1e-6
        self._is_over = False
        self._buried: list[object] = []
        """What was in hand when everything ended. Kept: to be collected would run ``finally`` blocks."""
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    # --- for whoever owns it

    def run_to(self, time: float) -> None:
        """Let everything happen that happens up to a time, that instant included."""
        self._limit = time
        self.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Return what a coroutine returns, letting as much time pass as it takes.

        Raises:
            DeadlockError: it would wait for ever.
            KilledError: there is no result, since everything ended.
        """
        task = self.create_task(coroutine)
        task.add_done_callback(lambda _: self.stop())
        self.run_to(float("inf"))
        if not task.done():
            raise KilledError
        return task.result()

    def halt(self) -> None:
        """Let nothing happen any more, not even ``finally``; to be called from within what happens."""
        for handle in (*self._ready, *self._scheduled):
            self._bury(handle)
        self.stop()

    def _bury(self, handle: asyncio.Handle) -> None:
        inside: Any = handle
        self._buried.append((inside._callback, inside._args, inside._context))  # noqa: SLF001 - nobody else has them
        handle.cancel()

    def dismantle(self) -> None:
        """Take apart what is left, without letting it do anything."""
        self._is_over = True
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - the only way
            try:
                task.get_coro().close()
            except RuntimeError:  # it waits in a ``finally``
                self._buried.append(task)
        self._ready.clear()
        self._scheduled.clear()
        self._buried.clear()
        self.close()

    # --- what a loop does

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._time

    def turn(self, timeout: float | None) -> None:
        """Let time pass if nothing can happen now; stop where the limit comes first."""
        if self._ready or timeout == 0:
            return
        if timeout is None and self._limit == float("inf"):
            raise DeadlockError
        if timeout is None or self._time + timeout > self._limit + self._clock_resolution:
            self._time = max(self._time, self._limit)
            self.stop()
            return
        self._time += timeout

    def run_in_executor(  # type: ignore[override]
        self, _: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a function that would block, here and now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits
            future.set_exception(error)
        return future

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Have something happen next, unless all is over."""
        if self._is_over:
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Have something happen at a time, unless all is over."""
        if self._is_over:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads."""


class _Turns:
    """In place of a selector: asks for the next turn where others wait for sockets."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.turn(timeout)
        return []

    def close(self) -> None:
        """Do nothing."""
