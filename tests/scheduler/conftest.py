"""Fixtures: a whole engine in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.running_engine import RunningEngine, running_engine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RunningEngine]:
    """Return an engine that listens; it has no worker."""
    async with running_engine(tmp_path) as engine:
        yield engine
