"""What goes wrong in one simulation, and how often; and a connection on which commits go wrong."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any, Protocol

from hopline_engine.store.transaction import Writer
from tests.simulation.ledger import Write

CALM_SHARE = 0.2


@dataclass
class Faults:
    """Shares of one, unless said otherwise. All zero in a calm simulation and after it is healed."""

    request_lost: float = 0.0
    request_refused: float = 0.0
    request_repeated: float = 0.0
    answer_lost: float = 0.0
    answer_bad: float = 0.0
    """The target answers 500, or the worker that it does not take the step."""
    slow: float = 0.0
    """Of executions that take up to half a minute."""
    callback_lost: float = 0.0
    callback_late: float = 0.0
    callback_doubled: float = 0.0
    callback_forged: float = 0.0
    call_lost: float = 0.0
    """Of requests to the API."""
    call_answer_lost: float = 0.0
    call_repeated: float = 0.0
    commit_failed: float = 0.0
    commit_unknown: float = 0.0
    """Of commits that succeed and report an error."""
    killed_at_commit: float = 0.0
    """Of commits after which the node dies before it hears of them."""
    disk_tail: float = 0.0
    kills: float = 0.0
    """A virtual minute."""
    holds: float = 0.0
    """A virtual minute: a node stands still for some seconds."""
    worker_kills: float = 0.0
    worker_silences: float = 0.0
    full_disks: float = 0.0
    clock_jumps: float = 0.0
    skew: float = 0.0
    """Seconds."""
    stops: float = 0.0
    """A virtual minute: a node is stopped as by an operator and started again."""

    @classmethod
    def draw(cls, random: Random) -> "Faults":
        """Draw faults: each of them is there in about every second simulation, so that they also come alone."""
        drawn = cls()
        for field in fields(cls):
            if random.random() < 0.5:
                setattr(drawn, field.name, random.random() * _MOST[field.name])
        return drawn

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        for field in fields(self):
            setattr(self, field.name, 0.0)


_MOST = {
    "request_lost": 0.1,
    "request_refused": 0.1,
    "request_repeated": 0.1,
    "answer_lost": 0.1,
    "answer_bad": 0.15,
    "slow": 0.15,
    "callback_lost": 0.2,
    "callback_late": 0.3,
    "callback_doubled": 0.5,
    "callback_forged": 0.5,
    "call_lost": 0.15,
    "call_answer_lost": 0.15,
    "call_repeated": 0.2,
    "commit_failed": 0.1,
    "commit_unknown": 0.06,
    "killed_at_commit": 0.02,
    "disk_tail": 0.1,
    "kills": 12.0,
    "holds": 4.0,
    "worker_kills": 8.0,
    "worker_silences": 3.0,
    "full_disks": 2.0,
    "clock_jumps": 2.0,
    "skew": 20.0,
    "stops": 2.0,
}


class Committing(Protocol):
    """What a connection tells of its commits."""

    def may_commit(self) -> None:
        """Raise what keeps a commit from succeeding, if anything does."""
        ...

    def committed(self, writes: list[Write]) -> None:
        """Take note of a commit; raise what it reports although it succeeded, if anything."""
        ...

    def refused(self, writes: list[Write]) -> None:
        """Take note of a decision, or a call, that cannot be written, and of what of it could."""
        ...


class FaultyConnection:
    """The connection that does all writing of one store: every commit passes through here."""

    def __init__(self, writer: Writer, committing: Committing) -> None:
        self._raw = writer.raw
        self._kinds = {write.sql: write.kind for write in writer._writes}
        self._committing = committing
        self._writes: list[Write] = []
        self._alone: list[Write] | None = None

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        match sql:
            case "BEGIN IMMEDIATE":
                self._writes = []
            case "SAVEPOINT alone":
                self._alone = list(self._writes)
            case "ROLLBACK TO alone":
                assert self._alone is not None
                refused, self._writes = self._writes[len(self._alone) :], self._alone
                self._committing.refused(refused)
            case "COMMIT":
                self._committing.may_commit()
                cursor = self._raw.execute(sql)
                self._committing.committed(self._writes)
                return cursor
        return self._raw.execute(sql, parameters)

    def executemany(self, sql: str, rows: Sequence[Any]) -> sqlite3.Cursor:
        self._writes.append((self._kinds[sql], rows))
        return self._raw.executemany(sql, rows)

    def close(self) -> None:
        self._raw.close()


def trouble(message: str, code: int = sqlite3.SQLITE_IOERR) -> sqlite3.OperationalError:
    """Return an error as SQLite raises it when the machine fails."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error
