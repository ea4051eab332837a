"""Group commit on SQLite: decisions queue up while a transaction is in flight, and the next one takes them all.

The loop decides what is written when; a thread does what may wait for the disk. A group of plain changes is written
to the connection on the loop and only committed, that is flushed, in the thread: a statement of a few microseconds in
a thread costs several times as much in hand-overs of the interpreter lock, and when the loop is busy, milliseconds
(measured: 35 against 15 us a step). Calls, large groups and whatever did not go through at once are left to the thread.

The connection belongs to the thread between ``_start`` and ``_settle``, and to the loop otherwise.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

from sqlalchemy import Connection

from hopline_engine.core.changes import Changes
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store.errors import OwnershipLostError, StoreClosedError
from hopline_engine.store.transaction import Call, Decided, Entry, Outcome, Writer
from hopline_engine.store.wal import WriteAheadLog

_T = TypeVar("_T")
_Job = Callable[[], list[Outcome]]

GROUP_ENTRIES: Final = 512
"""Most entries of one transaction; more would make the first of them wait for the last."""

GROUP_BYTES: Final = 16 * 2**20
"""A transaction takes no further entry once those it has bring so many bytes."""

LOOP_BYTES: Final = 256 * 2**10
"""A group with more is written in the thread, since it would hold up the loop."""

ROW_BYTES: Final = 100
"""What a row counts besides the values of users in it."""

IDLE_SECONDS: Final = 0.005
"""How long nobody must have waited before the log is copied."""

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 1.0


class GroupCommitter:
    """Commits to one SQLite file in groups. Everything but ``_work`` and what it calls runs on the loop."""

    def __init__(self, writer: Writer, log: WriteAheadLog, on_trouble: Callable[[Exception | None], None]) -> None:
        self._writer = writer
        self._log = log
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Entry] = deque()
        self._scheduled = False
        self._busy = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None
        self._closing = threading.Event()
        self._gave_up: StoreUnavailableError | None = None
        self._jobs: SimpleQueue[tuple[_Job, Sequence[Entry]] | None] = SimpleQueue()
        # A daemon: a process that dies without closing must not wait for it, and the file can bear it.
        self._thread = threading.Thread(target=self._work, name="hopline-commit", daemon=True)
        self._thread.start()

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        """See ``Committer.submit``."""
        self._add(Decided(changes, done))

    async def execute(self, function: Callable[[Connection], _T]) -> _T:
        """See ``Committer.execute``."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._add(Call(function, future))
        return await future

    async def close(self) -> None:
        """See ``Committer.close``."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            self._closing.set()
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._stop_if_done()
        await asyncio.shield(self._closed)

    # --- on the loop ----------------------------------------------------------------------------------------------

    def _add(self, entry: Entry) -> None:
        if self._closed is not None:
            raise StoreClosedError
        self._waiting.append(entry)
        self._schedule()

    def _schedule(self) -> None:
        # At the end of this turn of the loop, so that all that this turn decides goes into one group.
        if not (self._busy or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        group, size, has_calls = self._take()
        if self._gave_up is not None:
            # What follows builds on what was not written, so it must not be written either.
            self._settle(group, [Outcome(error=self._gave_up)] * len(group))
            return
        if has_calls or size > LOOP_BYTES:
            self._start(partial(self._persist, group), group)
            return
        try:
            self._writer.write([entry.changes for entry in group if isinstance(entry, Decided)])
        except Exception:  # noqa: BLE001 - the thread finds out which entry it was, or waits until it goes away
            self._start(partial(self._persist_again, group), group)
        else:
            self._start(partial(self._commit, group), group)

    def _take(self) -> tuple[list[Entry], int, bool]:
        """Return the next group, how many bytes its users' values have, and whether it has calls."""
        group: list[Entry] = []
        size, has_calls = 0, False
        waiting = self._waiting
        while waiting and len(group) < GROUP_ENTRIES and size < GROUP_BYTES:
            entry = waiting.popleft()
            group.append(entry)
            if isinstance(entry, Decided):
                size += _size(entry.changes)
            else:
                has_calls = True
        return group, size, has_calls

    def _start(self, job: _Job, group: Sequence[Entry]) -> None:
        self._busy = True
        self._jobs.put((job, group))

    def _settle(self, group: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        """Tell the members of a group what became of them, in the order in which they came."""
        for entry, outcome in zip(group, outcomes, strict=True):
            try:
                entry.settle(outcome)
            except Exception as error:  # noqa: BLE001 - one listener's failure must not keep the others from hearing
                self._loop.call_exception_handler({"message": "after a commit", "exception": error})
        self._busy = False
        # Not twice in a row: if the log cannot be copied, it is the commits that tell of the trouble.
        self._next(may_copy=bool(group) and self._closed is None)

    def _next(self, *, may_copy: bool) -> None:
        if may_copy and self._log.must_be_copied():
            self._start(self._copy_log, ())
        elif self._waiting:
            self._schedule()
        elif self._closed is not None:
            self._stop_if_done()
        elif may_copy and self._idle_timer is None and self._log.is_worth_copying():
            self._idle_timer = self._loop.call_later(IDLE_SECONDS, self._copy_if_idle)

    def _copy_if_idle(self) -> None:
        self._idle_timer = None
        if not (self._busy or self._waiting):
            self._start(self._copy_log, ())

    def _stop_if_done(self) -> None:
        if self._closed is not None and not (self._busy or self._waiting or self._closed.done()):
            self._jobs.put(None)
            self._thread.join()
            self._log.close()
            self._closed.set_result(None)

    # --- in the thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            job, group = work
            self._tell(partial(self._settle, group, job()))

    def _tell(self, callback: Callable[[], object]) -> None:
        # The loop may have been closed without closing the store; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _commit(self, group: Sequence[Entry]) -> list[Outcome]:
        try:
            self._writer.commit()
        except Exception:  # noqa: BLE001 - whatever it was, the group is tried again from the start
            return self._persist_again(group)
        return [Outcome()] * len(group)

    def _persist_again(self, group: Sequence[Entry]) -> list[Outcome]:
        with contextlib.suppress(Exception):
            self._writer.rollback()
        return self._persist(group)

    def _persist(self, group: Sequence[Entry]) -> list[Outcome]:
        """Commit a group however long the machine makes it wait: nothing is lost, nothing acknowledged before."""
        delay = FIRST_RETRY_SECONDS
        in_trouble = is_last_try = False
        while True:
            try:
                outcomes = self._writer.run(group)
            except OwnershipLostError as error:
                outcomes = [Outcome(error=error)] * len(group)
            except Exception as error:  # noqa: BLE001 - the group is kept, and readiness tells of it
                in_trouble = True
                self._tell(partial(self._on_trouble, error))
                if is_last_try:
                    self._gave_up = StoreUnavailableError(reason=str(error))
                    return [Outcome(error=self._gave_up)] * len(group)
                is_last_try = self._closing.wait(delay)
                delay = min(delay * 2, LAST_RETRY_SECONDS)
                continue
            if in_trouble:
                self._tell(partial(self._on_trouble, None))
            return outcomes

    def _copy_log(self) -> list[Outcome]:
        # A failed copy loses nothing: the log stays as it is, and the next commit tells of the same trouble.
        with contextlib.suppress(Exception):
            self._log.copy()
        return []


def _size(changes: Changes) -> int:
    """Return about how many bytes the changes bring."""
    tasks = len(changes.tasks_added) + len(changes.tasks_moved) + len(changes.tasks_removed)
    size = ROW_BYTES * (len(changes.steps_ended) + len(changes.attempts_ended) + tasks)
    for step in changes.steps_ended:
        if step.result is not None:
            size += len(step.result)
    for attempt in changes.attempts_ended:
        if attempt.logs is not None:
            size += len(attempt.logs)
    for added in changes.runs_added:
        size += len(added.input)
    for ended in changes.runs_ended:
        if ended.result is not None:
            size += len(ended.result)
    return size
