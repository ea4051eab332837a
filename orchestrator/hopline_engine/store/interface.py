"""What the rest of the engine may rely on in a store, whatever database is behind it.

The query functions of ``definitions``, ``queues``, ``runs``, ``steps``, ``tasks``, ``nodes`` and ``recovery`` take a
connection and neither begin nor end a transaction: ``read`` and ``execute`` do that around them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from hopline_engine.core.changes import Changes

_T = TypeVar("_T")

Transaction = Connection
"""What functions are given that ``execute`` and ``read`` run, by its name outside the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """As whom this process has the store open."""

    store_id: str
    """Random, made with the store; the same for all processes and for ever."""
    node: str
    """Random for each start of a process."""
    epoch: int
    """Greater than that of every process that had the store open before."""
    alone: bool
    """Whether no other node can have the store open: then this one holds all shards, and memory says everything."""


class Committer(Protocol):
    """Makes decisions durable, many at a time. All methods are called on the loop."""

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        """Make *changes* durable: all of them, or none.

        *changes* must not be touched afterwards. Changes are committed in the order in which they are submitted, and
        those that were submitted before others are durable no later than those. *done* is called on the loop, exactly
        once, in that order too:

        - with ``None`` when the disk has them;
        - with a ``ChangesRefusedError`` when they cannot be written as they are: a row exists already, a row that is to
          change is not there or its run has ended, a value that the database cannot hold. Changes of others in the same
          transaction are not affected, not even if they were decided on the strength of these: who is refused must
          drop what it believes of the run and read it again;
        - with ``OwnershipLostError`` when another process has taken over; then nothing that this one submits counts;
        - with ``StoreUnavailableError`` if the store is closed while it cannot write.

        Trouble of the machine (disk full, I/O error, locked) is none of these: the changes are kept and tried again
        until they are written, *done* is not called before, and ``on_trouble`` is told.

        Within one transaction all rows are added before any are moved, removed or ended. Changes that rely on another
        order must not be submitted before the earlier ones are done; an owner that decides in memory never needs to.

        Raises:
            StoreClosedError: the store is closed.
        """
        ...

    async def execute(self, function: Callable[[Connection], _T]) -> _T:
        """Run *function* inside a transaction and return its result when that is durable.

        It comes in order with what is submitted, and sees all that was submitted before. It runs in another thread
        (SQLite) or on the loop (Postgres), so it must wait for nothing but *connection*. It must fetch what it selects,
        must not commit, and may be run again if the transaction could not be committed.
        What it raises is raised here, and what it had written is undone, without effect on others.

        Raises:
            OwnershipLostError: another process has taken over.
            StoreUnavailableError: the store was closed while it could not write.
            StoreClosedError: the store is closed.
        """
        ...

    async def close(self) -> None:
        """Commit what was submitted, then refuse everything.

        In trouble, try once more and give up: that decision and all that follow it, which may build on it.
        """
        ...


class Reads(Protocol):
    """Looks into a store."""

    async def read(self, function: Callable[[Connection], _T]) -> _T:
        """Return what *function* returns; it sees one state of the store, with everything that was acknowledged.

        It runs where ``execute`` runs functions, cannot write and must fetch what it selects. It may be run again.

        Raises:
            ReadTimeoutError: it took too long.
            StoreUnavailableError: the database cannot be reached.
        """
        ...


class Store(Committer, Reads, Protocol):
    """A store that this process has open."""

    @property
    def owner(self) -> Owner:
        """As whom; rows that name another epoch are from before."""
        ...
