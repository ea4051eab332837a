"""A store in one SQLite file, owned by one process."""

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, NullPool, StaticPool, create_engine, event

from hopline_engine.core.changes import Changes
from hopline_engine.store import nodes, schema
from hopline_engine.store.commit import GroupCommitter
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


async def open_store(
    path: Path,
    *,
    node: str,
    now: float,
    url: str | None = None,
    on_trouble: Callable[[Exception | None], None] = lambda _: None,
) -> "SQLiteStore":
    """Open the store at *path* for this process alone, making or upgrading it if need be.

    Args:
        path: of the file; a folder that is missing is made. Both are readable by their owner only.
        node: names this process; random for each start.
        now: Unix seconds.
        url: where other nodes reach this one.
        on_trouble: called on the loop with the error each time a commit has to be tried again, and with ``None`` when
            it went through.

    Raises:
        StoreLockedError: another process has it open.
        UnknownSchemaError: a newer version of Hopline wrote it.
        NotAStoreError: the file is something else.
        NetworkFileSystemError: it lies on a network file system.
        CannotOpenError: the system refuses.
    """
    files = await asyncio.to_thread(_open, path, node, now, url)
    return SQLiteStore(files, on_trouble)


class SQLiteStore:
    """See ``Store``; made by ``open_store``."""

    def __init__(self, files: "_Opened", on_trouble: Callable[[Exception | None], None]) -> None:
        self._files = files
        self._is_closed = False
        self._committer = GroupCommitter(files.writer, files.log, on_trouble)
        self._readers = Readers(files.path)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What is held while a store is open."""

    path: Path
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


def _open(path: Path, node: str, now: float, url: str | None) -> _Opened:
    path = path.expanduser().resolve()
    refuse_network(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = ProcessLock(path)
    except OSError as error:
        raise CannotOpenError(path, error.strerror or str(error)) from error
    try:
        return _open_locked(path, lock, node, now, url)
    except (OSError, sqlite3.Error) as error:
        lock.release()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise NotAStoreError(str(path)) from None
        raise CannotOpenError(path, str(error)) from error
    except BaseException:
        lock.release()
        raise


def _open_locked(path: Path, lock: ProcessLock, node: str, now: float, url: str | None) -> _Opened:
    path.touch(mode=0o600)
    raw = _connect(path)
    try:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        connection = engine.connect()
        is_current = schema.is_current(connection, str(path))
        _make_private(path)  # only now that it is known to be ours
        if not is_current:
            _upgrade(path)
        _configure(raw)
        owner = _take_over(raw, connection, node, now, url)
        return _Opened(
            path=path,
            lock=lock,
            engine=engine,
            connection=connection,
            writer=Writer(raw, connection, owner.node, owner.epoch),
            log=WriteAheadLog(raw, path),
            owner=owner,
        )
    except BaseException:
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


def _configure(raw: sqlite3.Connection) -> None:
    (mode,) = raw.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"the file system allows no write-ahead log (journal mode {mode})")
    for pragma in _PRAGMAS:
        raw.execute(pragma)


def _upgrade(path: Path) -> None:
    engine = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    schema.upgrade(engine)


def _take_over(raw: sqlite3.Connection, connection: Connection, node: str, now: float, url: str | None) -> Owner:
    raw.execute("BEGIN IMMEDIATE")
    owner = nodes.take_over(connection, node_id=node, url=url, now=now)
    raw.execute("COMMIT")
    return owner
