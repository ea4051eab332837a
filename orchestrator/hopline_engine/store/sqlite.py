"""A store in one SQLite file, for one node alone."""

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, NullPool, StaticPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from hopline_engine.core.changes import Changes
from hopline_engine.store import new_store, nodes, schema
from hopline_engine.store.background import Background, BackgroundThread
from hopline_engine.store.commit import GroupCommitter
from hopline_engine.store.dialect import SQLITE_NOW
from hopline_engine.store.errors import CannotOpenError, NotAStoreError, StoreClosedError
from hopline_engine.store.interface import Owner
from hopline_engine.store.lock import ProcessLock, refuse_network
from hopline_engine.store.reading import Readers
from hopline_engine.store.transaction import Writer
from hopline_engine.store.wal import WriteAheadLog

_T = TypeVar("_T")

_PRAGMAS: Final = (
    # An acknowledgement means that a power cut does not undo it; group commit pays for the flushes.
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
    # The loop must not wait here. Nobody else writes, so being locked is trouble like a full disk.
    "PRAGMA busy_timeout = 0",
)
_SHARED_PRAGMAS: Final = ("PRAGMA busy_timeout = 5000",)
"""Where there are other nodes nothing is written on the loop, so that it is the thread that waits for them."""


async def open_store(
    path: Path,
    *,
    node: str,
    clock: Callable[[], float],
    url: str | None = None,
    alone: bool = True,
    on_trouble: Callable[[Exception | None], None] = lambda _: None,
    background: Callable[[str], Background] = BackgroundThread,
) -> "SQLiteStore":
    """Open the store at *path* for this node alone, making or upgrading it if need be.

    Args:
        path: of the file; a folder that is missing is made. Both are readable by their owner only.
        node: names this process; random for each start.
        clock: returns Unix seconds; also called by the store's threads, as the clock of the database.
        url: where other nodes reach this one.
        alone: refuse all others that would open it. Several nodes on one file are for tests and simulations: they
            learn what it is to share a store, and gain nothing from it.
        on_trouble: called on the loop with the error each time a commit has to be tried again, and with ``None`` when
            it went through.
        background: makes what flushes commits, by name; a simulation has one of its own.

    Raises:
        StoreLockedError: another process has it open.
        UnknownSchemaError: a newer version of Hopline wrote it.
        NotAStoreError: the file is something else.
        NetworkFileSystemError: it lies on a network file system.
        CannotOpenError: the system refuses.
    """
    files = await asyncio.to_thread(_open, path, _Joining(node, clock, url, alone))
    return SQLiteStore(files, background("hopline-commit"), on_trouble)


class SQLiteStore:
    """See ``Store``; made by ``open_store``."""

    def __init__(
        self, files: "_Opened", background: Background, on_trouble: Callable[[Exception | None], None]
    ) -> None:
        self._files = files
        self._is_closed = False
        self._committer = GroupCommitter(files.writer, files.log, background, on_trouble, on_loop=files.owner.alone)
        self._readers = Readers(files.path, files.clock)

    @property
    def owner(self) -> Owner:
        """See ``Store.owner``."""
        return self._files.owner

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        """See ``Committer.submit``."""
        self._committer.submit(changes, done)

    async def execute(self, function: Callable[[Connection], _T]) -> _T:
        """See ``Committer.execute``."""
        return await self._committer.execute(function)

    async def read(self, function: Callable[[Connection], _T]) -> _T:
        """See ``Store.read``."""
        if self._is_closed:
            raise StoreClosedError
        return await self._readers.run(function)

    async def close(self) -> None:
        """See ``Committer.close``; afterwards another process may open the file."""
        if not self._is_closed:
            self._is_closed = True
            await self._committer.close()
            await asyncio.to_thread(self._readers.close)
            await asyncio.to_thread(self._files.close)

    def abandon(self) -> None:
        """Close the files as the system does when a process is killed: nothing more is committed."""
        if not self._is_closed:
            self._is_closed = True
            self._committer.abandon()
            self._readers.close()
            self._files.close()


class _Joining(NamedTuple):
    """As what a store is to be opened."""

    node: str
    clock: Callable[[], float]
    url: str | None
    alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What is held while a store is open."""

    path: Path
    clock: Callable[[], float]
    lock: ProcessLock
    engine: Engine
    connection: Connection
    writer: Writer
    log: WriteAheadLog
    owner: Owner

    def close(self) -> None:
        self.connection.close()
        # The last connection to be closed copies the log into the database and removes it.
        self.writer.raw.close()
        self.engine.dispose()
        self.lock.release()


def _open(path: Path, joining: _Joining) -> _Opened:
    path = path.expanduser().resolve()
    refuse_network(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = ProcessLock(path, shared=not joining.alone)
    except OSError as error:
        raise CannotOpenError(path, error.strerror or str(error)) from error
    try:
        return _open_locked(path, lock, joining)
    except (OSError, sqlite3.Error, DBAPIError) as error:
        lock.release()
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise NotAStoreError(str(path)) from None
        raise CannotOpenError(path, str(cause)) from error
    except BaseException:
        lock.release()
        raise


def _open_locked(path: Path, lock: ProcessLock, joining: _Joining) -> _Opened:
    path.touch(mode=0o600)
    raw = _connect(path)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    connection = engine.connect()
    try:
        is_current = schema.is_current(connection, str(path))
        _make_private(path)  # only now that it is known to be ours
        if not is_current:
            upgrade_file(path)
        _configure(raw, _PRAGMAS if joining.alone else _PRAGMAS + _SHARED_PRAGMAS)
        raw.create_function(SQLITE_NOW, 0, joining.clock)
        owner = _join(raw, connection, joining)
        return _Opened(
            path=path,
            clock=joining.clock,
            lock=lock,
            engine=engine,
            connection=connection,
            writer=Writer(raw, connection, owner.node, owner.epoch),
            log=WriteAheadLog(raw, path),
            owner=owner,
        )
    except BaseException:
        connection.close()
        raw.close()
        raise


def _make_private(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Fails if the file is not a database, before SQLAlchemy would say so at greater length.
    raw.execute("PRAGMA schema_version").fetchone()
    return raw


def _configure(raw: sqlite3.Connection, pragmas: Iterable[str]) -> None:
    (mode,) = raw.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"the file system allows no write-ahead log (journal mode {mode})")
    for pragma in pragmas:
        raw.execute(pragma)


@contextmanager
def connected(path: Path) -> Iterator[Connection]:
    """Yield a connection to a file, whose transactions may write from their beginning."""
    engine = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.connect() as connection:
        yield connection


def upgrade_file(path: Path) -> None:
    """Bring the schema of a file up to date; nobody else may have it open."""
    with closing(_connect(path)) as raw:
        new_store.make(raw)
    with connected(path) as connection:
        if schema.is_current(connection, str(path)):
            return
        connection.rollback()  # looking began a transaction, and each revision is to have its own
        schema.upgrade(connection)


def _join(raw: sqlite3.Connection, connection: Connection, joining: _Joining) -> Owner:
    raw.execute("BEGIN IMMEDIATE")
    owner = nodes.join(connection, node_id=joining.node, url=joining.url, alone=joining.alone)
    raw.execute("COMMIT")
    return owner
