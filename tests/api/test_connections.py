"""Connections that clients keep to an engine."""

from pathlib import Path

import httpx
import pytest

from hopline_engine.bootstrap import open_engine
from hopline_engine.settings import Settings

pytestmark = pytest.mark.anyio


async def test_engine_keeps_connections_longer_than_clients_do(tmp_path: Path) -> None:
    """Of two that close it after the same time, one may send on what the other is closing: that request is lost."""
    async with open_engine(Settings(state_dir=tmp_path)) as installation:
        await installation.serve(0)
        server = installation._server
        kept_by_clients = httpx.Limits().keepalive_expiry
        assert server is not None
        assert kept_by_clients is not None
        assert server.config.timeout_keep_alive > 10 * kept_by_clients
