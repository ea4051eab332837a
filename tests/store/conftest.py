"""Fixtures: a store of each database, and what a test does with it.

Everything in this folder that takes ``store`` is the conformance suite of ``hopline_engine.store.interface``: another
database joins it by a line in ``OPENERS``. What takes ``sqlite_store`` is about the file.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import pytest

from hopline_engine.store.interface import Store
from hopline_engine.store.sqlite import SQLiteStore
from tests.store.opened import opened_sqlite, with_definition

OPENERS: Final[dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]]] = {"sqlite": opened_sqlite}


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
