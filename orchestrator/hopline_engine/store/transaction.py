"""One transaction on the connection that does all writing of a SQLite store: how a group of decisions becomes durable.

No threads and no waiting here; ``commit`` decides who calls when. Whoever calls must be alone with the connection.
"""

import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from hopline_engine.core.changes import Changes
from hopline_engine.store.entries import Decided, Entry, Outcome, refused
from hopline_engine.store.errors import OwnershipLostError, RowsMissingError
from hopline_engine.store.statements import compile_writes

_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""Results of SQLite that say something of the machine and nothing of the rows: the same group may go through later."""


_WRITTEN = Outcome()
_Given = TypeVar("_Given")


def is_trouble(error: BaseException) -> bool:
    """Return whether an error is the machine's (disk full, I/O, locked, memory) and not that of what was written."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    return isinstance(cause, MemoryError) or (code is not None and code & 0xFF in _TROUBLE)


class Writer:
    """Writes groups through one connection.

    *raw* is in autocommit mode, and *connection* is SQLAlchemy's view of the same one.
    """

    def __init__(self, raw: sqlite3.Connection, connection: Connection, node: str, epoch: int) -> None:
        self.raw = raw
        self._connection = connection
        self._owner = (node, epoch)
        self._writes = compile_writes(sqlite.dialect(paramstyle="qmark"))
        self._may_be_there = False
        """Whether the last commit failed, and what it was for may be on the disk all the same."""

    def write(self, batch: Sequence[Changes]) -> None:
        """Begin a transaction and write all of *batch* in it; the caller commits, or rolls back when this raises."""
        self._begin()
        self._apply(batch)

    def commit(self) -> None:
        """Make durable what was written; returns after the disk has it."""
        try:
            self.raw.execute("COMMIT")
        except BaseException:
            self._may_be_there = self._may_be_there or not self.raw.in_transaction
            raise
        self._may_be_there = False

    def rollback(self) -> None:
        """Undo what was written since the last commit, if anything."""
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")

    def run(self, group: Sequence[Entry]) -> list[Outcome]:
        """Write and commit *group* in one transaction and return what became of each entry.

        An entry that cannot be written is left out and gets its error; the others are not affected. Calls see all
        that was given before them. Of a group that may be there, since a commit of it failed, no decision is written if
        one cannot be: those that only move rows would move them back.

        Raises:
            OwnershipLostError: the store is not ours any more; nothing was written.
            Exception: trouble of the machine (``is_trouble``); nothing was written, and it may be tried again.
        """
        try:
            return self._run(group, self._together)
        except OwnershipLostError:
            raise
        except Exception as error:
            if is_trouble(error):
                raise
            none = [refused(error)]
        return self._run(group, (lambda batch: none * len(batch)) if self._may_be_there else self._one_by_one)

    def _run(self, group: Sequence[Entry], write: Callable[[Sequence[Decided]], list[Outcome]]) -> list[Outcome]:
        try:
            self._begin()
            outcomes: list[Outcome] = []
            batch: list[Decided] = []
            for entry in group:
                if isinstance(entry, Decided):
                    batch.append(entry)
                else:
                    outcomes += write(batch)
                    batch = []
                    outcomes.append(self._alone(entry.function, self._connection))
            outcomes += write(batch)
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return outcomes

    def _begin(self) -> None:
        self.raw.execute("BEGIN IMMEDIATE")
        if not self.raw.execute("SELECT 1 FROM node WHERE id = ? AND epoch = ?", self._owner).fetchall():
            raise OwnershipLostError(*self._owner)

    def _apply(self, batch: Sequence[Changes]) -> None:
        for write in self._writes:
            rows = list(chain.from_iterable(map(write.rows, batch)))
            if rows:
                found = self.raw.executemany(write.sql, rows).rowcount
                if write.counted and found != len(rows):
                    raise RowsMissingError(write.kind, len(rows), found)

    def _together(self, batch: Sequence[Decided]) -> list[Outcome]:
        self._apply([entry.changes for entry in batch])
        return [_WRITTEN] * len(batch)

    def _one_by_one(self, batch: Sequence[Decided]) -> list[Outcome]:
        outcomes = [self._alone(self._apply, (entry.changes,)) for entry in batch]
        return [refused(outcome.error) if outcome.error else outcome for outcome in outcomes]

    def _alone(self, function: Callable[[_Given], object], given: _Given) -> Outcome:
        """Call *function* so that its failing undoes what it did and nothing else."""
        self.raw.execute("SAVEPOINT alone")
        try:
            outcome = Outcome(function(given))
        except Exception as error:
            if is_trouble(error):
                raise
            self.raw.execute("ROLLBACK TO alone")
            outcome = Outcome(error=error)
        self.raw.execute("RELEASE alone")
        return outcome
