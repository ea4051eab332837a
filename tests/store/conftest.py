"""Fixtures: a store of each database, and what a test does with it.

Everything in this folder that takes ``store`` is the conformance suite of ``hopline_engine.store.interface``: another
database joins it by a line in ``OPENERS``. What takes ``sqlite_store`` is about the file, and what takes
``postgres_store`` about the server.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from hopline_engine.store.interface import Store
from hopline_engine.store.postgres.store import PostgresStore
from hopline_engine.store.sqlite import SQLiteStore
from tests.store.opened import opened_postgres, opened_sqlite, with_definition
from tests.support.postgres import database, empty_database


@asynccontextmanager
async def _in_new_database(_: Path) -> AsyncIterator[Store]:
    async with database() as url, opened_postgres(url) as store:
        yield store


OPENERS: Final[dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]]] = {
    "sqlite": opened_sqlite,
    "postgres": _in_new_database,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=OPENERS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Return a new store that knows ``rows.DEFINITION``."""
    async with OPENERS[request.param](tmp_path) as store:
        await with_definition(store)
        yield store


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """Return a new store in a file that knows ``rows.DEFINITION``."""
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        yield store


@pytest.fixture
async def postgres_url() -> AsyncIterator[str]:
    """Return the URL of a database that is a store without runs."""
    async with database() as url:
        yield url


@pytest.fixture
async def empty_postgres_url() -> AsyncIterator[str]:
    """Return the URL of a database with nothing in it."""
    async with empty_database() as url:
        yield url


@pytest.fixture
async def postgres_store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    """Return a new store in a database that knows ``rows.DEFINITION``."""
    async with opened_postgres(postgres_url) as store:
        await with_definition(store)
        yield store
