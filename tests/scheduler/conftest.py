"""Fixtures: a whole engine in this process, and nodes that share a store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scheduler.several_nodes import Node, Nodes, several_nodes
from tests.support.postgres import STORES
from tests.support.running_engine import RunningEngine, running_engine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Return the setting of a new store of each kind."""
    async with STORES[request.param]() as setting:
        yield setting


@pytest.fixture
async def engine(tmp_path: Path, store: str) -> AsyncIterator[RunningEngine]:
    """Return an engine that listens; it has no worker."""
    async with running_engine(tmp_path, store=store) as engine:
        yield engine


@pytest.fixture(params=["sqlite", "postgres"])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Nodes]:
    """Return a store without nodes."""
    async with several_nodes(request.param, tmp_path) as nodes:
        yield nodes


@pytest.fixture
async def node(nodes: Nodes) -> Node:
    """Return the only node, which knows the workflows ``call`` and ``held``."""
    node = await nodes.join()
    await node.beat()
    await node.define("call", "held")
    return node
