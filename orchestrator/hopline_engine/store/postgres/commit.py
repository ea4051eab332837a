"""Group commit on Postgres: decisions queue up while a transaction is in flight, and the next one takes them all.

Everything runs on the loop: what waits is the network. A unit is kept until the server has taken or refused it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection

from hopline_engine.core.changes import Changes
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store.entries import GROUP_BYTES, GROUP_ENTRIES, Call, Decided, Entry, Outcome, settle, size_of
from hopline_engine.store.errors import OwnershipLostError, StoreClosedError
from hopline_engine.store.postgres.writer import PostgresWriter, Unit

_T = TypeVar("_T")

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 1.0
"""Waits are between half of these and these, so that nodes that lost the same server do not come back as one."""


class PostgresCommitter:
    """Commits for one node in groups."""

    def __init__(
        self,
        writer: PostgresWriter,
        *,
        say: Callable[[BaseException], str],
        random: Callable[[], float],
        on_trouble: Callable[[Exception | None], None],
    ) -> None:
        """Make a committer.

        Args:
            writer: of the units.
            say: returns what an error says, fit to be shown.
            random: returns numbers in ``[0, 1)``, for jitter.
            on_trouble: told of each error of the server, and when it was overcome.
        """
        self._writer = writer
        self._say = say
        self._random = random
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Entry] = deque()
        self._working: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None
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
            self._closing.set()
            self._closed = self._loop.create_task(self._close())
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        if self._working is not None:
            await self._working
        await self._writer.close()

    def _add(self, entry: Entry) -> None:
        if self._closing.is_set():
            raise StoreClosedError
        self._waiting.append(entry)
        # The task begins at the end of this turn of the loop, so that all that the turn decides goes into one group.
        if self._working is None:
            self._working = self._loop.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            entries = self._take()
            outcomes = await self._persist(entries)
            settle(self._loop, entries, outcomes)
            await asyncio.sleep(0)  # for what else this turn decides
        self._working = None

    def _take(self) -> Sequence[Decided] | Sequence[Call]:
        """Return the next call, or the decisions until then or until there are enough."""
        waiting = self._waiting
        first = waiting.popleft()
        if isinstance(first, Call):
            return [first]
        group, size = [first], size_of(first.changes)
        while waiting and len(group) < GROUP_ENTRIES and size < GROUP_BYTES:
            entry = waiting[0]
            if isinstance(entry, Call):
                break
            group.append(entry)
            size += size_of(entry.changes)
            waiting.popleft()
        return group

    async def _persist(self, entries: Sequence[Decided] | Sequence[Call]) -> Sequence[Outcome]:
        """Commit a unit however long the server makes it wait: nothing is lost, nothing acknowledged before."""
        unit = Unit(entries)
        delay, in_trouble = FIRST_RETRY_SECONDS, False
        while self._gave_up is None:
            is_last_try = in_trouble and self._closing.is_set()
            try:
                outcomes = await self._writer.run(unit)
            except OwnershipLostError as error:
                return [Outcome(error=error)] * len(entries)
            except Exception as error:  # noqa: BLE001 - the unit is kept, and readiness tells of it
                in_trouble = True
                trouble = StoreUnavailableError(reason=self._say(error))
                trouble.__cause__ = error
                self._on_trouble(trouble)
                if is_last_try:
                    self._gave_up = trouble
                else:
                    await self._pause(delay * (1 + self._random()) / 2)
                    delay = min(delay * 2, LAST_RETRY_SECONDS)
                continue
            if in_trouble:
                self._on_trouble(None)
            return outcomes
        # What follows builds on what was not written, so it must not be written either.
        return [Outcome(error=self._gave_up)] * len(entries)

    async def _pause(self, seconds: float) -> None:
        """Return after so many seconds, or when the store is to be closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return
