"""Reading: queries on connections of their own that cannot write, in a few threads beside the loop."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, QueuePool, create_engine, event

from hopline_engine import clock
from hopline_engine.store.dialect import SQLITE_NOW
from hopline_engine.store.errors import ReadTimeoutError

_T = TypeVar("_T")

READERS: Final = 4
READ_SECONDS: Final = 30.0
"""A query that takes longer is stopped, so that no caller waits for ever."""

_STEPS_BETWEEN_LOOKS: Final = 50_000
"""Steps of SQLite's machine after which it is asked whether to go on; about a millisecond."""


class Readers:
    """Runs query functions, each in one snapshot of the store."""

    def __init__(self, path: Path, now: Callable[[], float], seconds: float = READ_SECONDS) -> None:
        """Make readers of the file at *path*, on which queries find *now* as the database's clock."""
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="hopline-read")
        self._engine = create_engine(
            "sqlite://", creator=lambda: _connect(path, now), poolclass=QueuePool, pool_size=READERS, max_overflow=0
        )
        event.listen(self._engine, "begin", _begin)

    async def run(self, function: Callable[[Connection], _T]) -> _T:
        """Return what *function* returns.

        Raises:
            ReadTimeoutError: it took too long.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, function)

    def _run(self, function: Callable[[Connection], _T]) -> _T:
        end = clock.monotonic() + self._seconds
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.set_progress_handler(lambda: clock.monotonic() > end, _STEPS_BETWEEN_LOOKS)
            try:
                return function(connection)
            except Exception as error:
                if _was_stopped(error):
                    raise ReadTimeoutError(self._seconds) from None
                raise

    def close(self) -> None:
        """Wait for queries that run and close the connections."""
        self._threads.shutdown()
        self._engine.dispose()


def _connect(path: Path, now: Callable[[], float]) -> sqlite3.Connection:
    raw = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    raw.execute("PRAGMA query_only = ON")
    raw.create_function(SQLITE_NOW, 0, now)
    return raw


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _was_stopped(error: Exception) -> bool:
    cause = getattr(error, "orig", error)
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
