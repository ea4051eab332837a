"""A SQLite file looked after from outside: what it is, its schema, a copy of it, and changes while it is in use."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, StaticPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from hopline_engine.disk import flush
from hopline_engine.store import schema
from hopline_engine.store.errors import BackupError, CannotOpenError, NotAStoreError
from hopline_engine.store.lock import ProcessLock
from hopline_engine.store.schema import Seen
from hopline_engine.store.sqlite import connected, upgrade_file

_T = TypeVar("_T")

_DATABASE = f"SQLite {sqlite3.sqlite_version}"


def look(path: Path) -> Seen:
    """Return what is in a file; one that is not there is a store without schema."""
    if not path.exists():
        return Seen(_DATABASE, None, 0)
    with _reading(path) as raw:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        with engine.connect() as connection:
            revision = schema.known_revision(connection, str(path))
        ((size,),) = raw.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchall()
    return Seen(_DATABASE, revision, size)


def upgrade(path: Path) -> None:
    """Bring the schema of a file up to date; nobody else may have it open."""
    path = path.expanduser().resolve()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = ProcessLock(path)
    except OSError as error:
        raise CannotOpenError(path, error.strerror or str(error)) from error
    try:
        if look(path).revision != schema.HEAD:
            path.touch(mode=0o600)
            upgrade_file(path)
    except (OSError, sqlite3.Error) as error:
        raise CannotOpenError(path, str(error)) from error
    finally:
        lock.release()


def backup(path: Path, target: Path) -> None:
    """Copy a file, with what is in its log, as one state; writers are not held up."""
    if look(path).revision is None:
        raise BackupError(str(target), f"there is no store at {path}", hint="check HOPLINE_STORE")
    if target.exists():
        raise BackupError(str(target), "it exists already", hint="name a new file")
    draft = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        with _reading(path) as source, closing(sqlite3.connect(draft)) as copy:
            source.backup(copy)
            # A copy is opened by whoever restores it, and may lie where there can be no log beside it.
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        flush(draft)
        target.hardlink_to(draft)  # fails if somebody was faster
        flush(target.parent)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BackupError(str(target), reason, hint="check the folder and the disk") from error
    finally:
        draft.unlink(missing_ok=True)


def change(path: Path, function: Callable[[Connection], _T]) -> _T:
    """Have a function change a file in transactions that it ends itself; a server that has it open waits for each."""
    try:
        with connected(path) as connection:
            return function(connection)
    except (sqlite3.Error, SQLAlchemyError) as error:
        raise CannotOpenError(path, str(getattr(error, "orig", error))) from error


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"file:{quote(str(path.expanduser().resolve()))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)) as raw:
            raw.execute("PRAGMA schema_version").fetchone()
            yield raw
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise NotAStoreError(str(path)) from None
        raise CannotOpenError(path, str(error)) from error
