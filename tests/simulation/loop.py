"""An event loop in virtual time, on which several processes live and die.

Everything that asyncio leaves open is decided by the seed: how long I/O takes, and in which order processes have their
turns. Within one process callbacks run in the order in which they were scheduled, as asyncio promises. What happens
takes no time, and when nothing can happen the clock jumps to the next timer.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from hopline_engine.testing.virtual_loop import DeadlockError, VirtualLoop

_T = TypeVar("_T")


@dataclass(eq=False)
class Process:
    """What may be killed or held as a whole: all callbacks that were scheduled from within it."""

    name: str
    is_alive: bool = True
    is_held: bool = False
    held: list[asyncio.Handle] = field(default_factory=list)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class OutOfTimeError(Exception):
    """The simulation went on for longer than it may."""


@dataclass
class Delays:
    """How long I/O takes: short at most times, and with a heavy tail."""

    mean: float = 0.002
    tail: float = 0.0
    """How often it takes long."""
    longest: float = 0.0

    def draw(self, random: Random) -> float:
        delay = random.expovariate(1 / self.mean)
        if self.tail and random.random() < self.tail:
            delay += random.uniform(0, self.longest)
        return delay


class SimulationLoop(VirtualLoop):
    """Virtual time, seeded; see the module."""

    _timer_cancelled_count: int

    def __init__(self, seed: int, *, most_turns: int = 2_000_000) -> None:
        super().__init__()
        self.random = Random(f"loop {seed}")
        self.disk = Delays()
        self.reads = self.disk
        """Of what is not written; what is, or is flushed, may take longer."""
        self.turns = 0
        self._most_turns = most_turns

    # --- processes

    def spawn(self, process: Process | None, coroutine: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """Start a task as part of a process; ``None`` is the world around them, which never dies."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(coroutine, context=context)

    def call_in(self, process: Process | None, callback: Callable[..., object], *args: object) -> None:
        """Schedule a callback as part of a process."""
        context = copy_context()
        context.run(PROCESS.set, process)
        self.call_soon(callback, *args, context=context)

    def kill(self, process: Process) -> None:
        """End a process at once: nothing of it runs any more, not even ``finally``."""
        process.is_alive = False
        for handle in (*self._ready, *process.held):
            if _process_of(handle) is process:
                self._bury(handle)
        process.held.clear()

    def hold(self, process: Process, seconds: float) -> None:
        """Stop a process for a while, as SIGSTOP or a machine that swaps does."""
        process.is_held = True
        context = copy_context()
        context.run(PROCESS.set, None)
        self.call_later(seconds, self._release, process, context=context)

    def _release(self, process: Process) -> None:
        process.is_held = False
        self._ready.extend(process.held)
        process.held.clear()

    # --- what a loop does

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a function that would block after a while, and tell of it after another while."""
        future = self.create_future()
        self._buried.append(future)
        self.call_later(self.reads.draw(self.random), self._run_job, func, args, future)
        return future

    def _run_job(self, func: Callable[..., Any], args: tuple[Any, ...], future: "asyncio.Future[Any]") -> None:
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits
            self.call_later(self.reads.draw(self.random), _settle, future, None, error)
        else:
            self.call_later(self.reads.draw(self.random), _settle, future, result, None)

    def turn(self, timeout: float | None) -> None:
        """Let time pass if nothing can happen now, and put in order what happens next."""
        self.turns += 1
        ready = self._ready
        if not ready:
            if timeout is None:
                raise DeadlockError
            self._time += timeout
        if self.turns > self._most_turns:
            raise OutOfTimeError(f"at {self._time:.3f} s")
        self._take_due()
        if len(ready) > 1 or (ready and _process_of(ready[0]) is not None):
            self._order(ready)

    def _take_due(self) -> None:
        end = self._time + self._clock_resolution
        scheduled = self._scheduled
        while scheduled and scheduled[0].when() < end:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            if not handle._cancelled:
                self._ready.append(handle)
            else:
                self._timer_cancelled_count -= 1

    def _order(self, ready: "deque[asyncio.Handle]") -> None:
        """Mix the processes and keep the order within each of them; leave out those that are dead or held."""
        lanes: dict[Process | None, deque[asyncio.Handle]] = {}
        for handle in ready:
            lanes.setdefault(_process_of(handle), deque()).append(handle)
        ready.clear()
        for process in [process for process in lanes if process is not None]:
            if not process.is_alive:
                for handle in lanes.pop(process):
                    self._bury(handle)
            elif process.is_held:
                process.held.extend(lanes.pop(process))
        waiting = list(lanes.values())
        while len(waiting) > 1:
            lane = self.random.choice(waiting)
            ready.append(lane.popleft())
            if not lane:
                waiting.remove(lane)
        for lane in waiting:
            ready.extend(lane)


class SimulatedBackground:
    """In place of the thread that flushes commits: a job runs after a while, and is told after another while."""

    def __init__(self, loop: SimulationLoop) -> None:
        self._loop = loop
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._busy = False

    def start(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._jobs.append((job, done))
        if not self._busy:
            self._next()

    def stop(self) -> None:
        """Do nothing: all that was started is done."""
        assert not self._busy

    def _next(self) -> None:
        self._busy = True
        job, done = self._jobs.popleft()
        self._loop.call_later(self._loop.disk.draw(self._loop.random), self._run, job, done)

    def _run(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        result = job()
        self._loop.call_later(self._loop.disk.draw(self._loop.random), self._tell, done, result)

    def _tell(self, done: Callable[[Any], None], result: Any) -> None:
        self._busy = False
        if self._jobs:
            self._next()
        done(result)


def _process_of(handle: asyncio.Handle) -> Process | None:
    return handle._context.get(PROCESS) if handle._context is not None else None  # type: ignore[attr-defined]


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
