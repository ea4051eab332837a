"""Group commit on SQLite: decisions queue up while a transaction is in flight, and the next one takes them all.

The loop decides what is written when; a thread does what may wait for the disk. A group of plain changes is written
to the connection on the loop and only committed, that is flushed, in the thread: a statement of a few microseconds in
a thread costs several times as much in hand-overs of the interpreter lock, and when the loop is busy, milliseconds
(measured: 35 against 15 us a step). Calls, large groups and whatever did not go through at once are left to the thread.

The connection belongs to the thread between ``_start`` and ``_settle``, and to the loop otherwise.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from hopline_engine.core.changes import Changes
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store.background import Background
from hopline_engine.store.entries import GROUP_BYTES, GROUP_ENTRIES, Call, Decided, Entry, Outcome, settle, size_of
from hopline_engine.store.errors import OwnershipLostError, StoreClosedError
from hopline_engine.store.transaction import Writer
from hopline_engine.store.wal import WriteAheadLog

_T = TypeVar("_T")
_Result = Sequence[Outcome] | Exception
"""What became of each entry of a group; or what keeps the machine from writing it, and none of it is."""

LOOP_BYTES: Final = 256 * 2**10
"""A group with more is written in the thread, since it would hold up the loop."""

IDLE_SECONDS: Final = 0.005
"""How long nobody must have waited before the log is copied."""

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 1.0


class GroupCommitter:
    """Commits to one SQLite file in groups. Everything but the jobs of the background runs on the loop."""

    def __init__(
        self,
        writer: Writer,
        log: WriteAheadLog,
        background: Background,
        on_trouble: Callable[[Exception | None], None],
        *,
        on_loop: bool = True,
    ) -> None:
        """Commit by *writer*; nothing is written on the loop unless *on_loop*, for others may have locked the file."""
        self._writer = writer
        self._log = log
        self._background = background
        self._on_trouble = on_trouble
        self._loop_bytes = LOOP_BYTES if on_loop else -1
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Entry] = deque()
        self._scheduled = False
        self._busy = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None
        self._in_trouble: Sequence[Entry] = ()
        """The group that is tried again and again."""
        self._retry_timer: asyncio.TimerHandle | None = None
        self._retry_delay = FIRST_RETRY_SECONDS
        self._is_last_try = False
        self._gave_up: StoreUnavailableError | None = None

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
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            if self._retry_timer is not None:
                self._try_again()
            self._stop_if_done()
        await asyncio.shield(self._closed)

    def abandon(self) -> None:
        """Let go of the file, with nothing more written."""
        self._log.close()

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
        if has_calls or size > self._loop_bytes:
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
                size += size_of(entry.changes)
            else:
                has_calls = True
        return group, size, has_calls

    def _start(self, job: Callable[[], _Result], group: Sequence[Entry]) -> None:
        self._busy = True
        self._background.start(job, partial(self._settle, group))

    def _settle(self, group: Sequence[Entry], result: _Result) -> None:
        """Tell the members of a group what became of them, in the order in which they came."""
        if isinstance(result, Exception):
            self._hold(group, result)
            return
        if self._in_trouble:
            self._in_trouble = ()
            self._retry_delay = FIRST_RETRY_SECONDS
            self._on_trouble(None)
        settle(self._loop, group, result)
        self._busy = False
        # Not twice in a row: if the log cannot be copied, it is the commits that tell of the trouble.
        self._next(may_copy=bool(group) and self._closed is None)

    def _hold(self, group: Sequence[Entry], error: Exception) -> None:
        """Keep a group however long the machine makes it wait: nothing is lost, nothing acknowledged before."""
        self._on_trouble(error)
        if self._is_last_try:
            self._in_trouble = ()
            self._gave_up = StoreUnavailableError(reason=str(error))
            self._settle(group, [Outcome(error=self._gave_up)] * len(group))
            return
        self._in_trouble = group
        if self._closed is not None:
            self._try_again()
            return
        self._retry_timer = self._loop.call_later(self._retry_delay, self._try_again)
        self._retry_delay = min(self._retry_delay * 2, LAST_RETRY_SECONDS)

    def _try_again(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        self._is_last_try = self._closed is not None
        self._start(partial(self._persist, self._in_trouble), self._in_trouble)

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
            self._background.stop()
            self._log.close()
            self._closed.set_result(None)

    # --- in the background ----------------------------------------------------------------------------------------

    def _commit(self, group: Sequence[Entry]) -> _Result:
        try:
            self._writer.commit()
        except Exception:  # noqa: BLE001 - whatever it was, the group is tried again from the start
            return self._persist_again(group)
        return [Outcome()] * len(group)

    def _persist_again(self, group: Sequence[Entry]) -> _Result:
        with contextlib.suppress(Exception):
            self._writer.rollback()
        return self._persist(group)

    def _persist(self, group: Sequence[Entry]) -> _Result:
        try:
            return self._writer.run(group)
        except OwnershipLostError as error:
            return [Outcome(error=error)] * len(group)
        except Exception as error:  # noqa: BLE001 - the group is kept, and readiness tells of it
            return error

    def _copy_log(self) -> _Result:
        # A failed copy loses nothing: the log stays as it is, and the next commit tells of the same trouble.
        with contextlib.suppress(Exception):
            self._log.copy()
        return []
