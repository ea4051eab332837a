"""``hopline serve`` as one of several nodes: real processes on one Postgres."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.postgres import database, run_sql, server_url
from tests.support.processes import EngineProcess
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shared() -> AsyncIterator[str]:
    """Return the URL of a database without nodes."""
    async with database() as url:
        yield url


async def shards(url: str) -> dict[str, int]:
    """Return how many shards each node holds, by its URL."""
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch("SELECT url, count(*) FROM node JOIN shard ON node = node.id GROUP BY url")
        return {row["url"]: row["count"] for row in found}
    finally:
        await connection.close()


async def test_servers_share_the_shards_and_one_that_is_killed_leaves_them_to_the_other(
    shared: str, tmp_path: Path
) -> None:
    servers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        environment = {"HOPLINE_STORE": shared, "HOPLINE_NODE_SILENCE_SECONDS": "2"}
        servers.append(EngineProcess(tmp_path / name, environment))
    first, second = servers
    try:
        for server in servers:
            server.start()
            await server.ready()

        async def shared_evenly() -> bool:
            return await shards(shared) == {first.url: 32, second.url: 32}

        await until_seen(shared_evenly, "both hold half of the shards")
        first.kill()

        async def taken_over() -> bool:
            return await shards(shared) == {second.url: 64}

        await until_seen(taken_over, "the other one holds all")
        first.start()
        await until_seen(shared_evenly, "it is a node again")
        assert await second.stop() == 0

        async def left() -> bool:
            return await shards(shared) == {first.url: 64}

        await until_seen(left, "the one that stays holds all")
    finally:
        for server in servers:
            server.kill()


async def test_server_that_was_taken_for_dead_joins_again(shared: str, tmp_path: Path) -> None:
    server = EngineProcess(tmp_path, {"HOPLINE_STORE": shared, "HOPLINE_NODE_SILENCE_SECONDS": "2"})
    server.start()
    try:
        await server.ready()

        async def whole() -> bool:
            return await shards(shared) == {server.url: 64}

        await until_seen(whole, "it holds all shards")
        await run_sql(shared, "DELETE FROM node")
        await until_seen(whole, "it holds all shards again")
        assert "it joins them again" in server.told()
        await server.ready()
        assert await server.stop() == 0
    finally:
        server.kill()


async def test_server_that_is_taken_for_dead_before_its_first_heartbeat_joins_again(
    shared: str, tmp_path: Path
) -> None:
    await run_sql(
        shared,
        "CREATE TABLE struck AS SELECT 1",
        "CREATE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT FROM struck) THEN DELETE FROM struck; DELETE FROM node; END IF; RETURN NULL; END $$",
        "CREATE TRIGGER strike AFTER INSERT ON node EXECUTE FUNCTION strike()",
    )
    server = EngineProcess(tmp_path, {"HOPLINE_STORE": shared, "HOPLINE_NODE_SILENCE_SECONDS": "2"})
    server.start()
    try:
        await server.ready()
        assert "it joins them again" in server.told()
        assert await server.stop() == 0
    finally:
        server.kill()


async def test_server_that_was_taken_for_dead_and_cannot_join_tries_until_it_can(shared: str, tmp_path: Path) -> None:
    name = urlsplit(shared).path.removeprefix("/")
    server = EngineProcess(tmp_path, {"HOPLINE_STORE": shared, "HOPLINE_NODE_SILENCE_SECONDS": "2"})
    server.start()
    inside = await asyncpg.connect(shared)
    try:
        await server.ready()
        await run_sql(server_url(), f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await inside.execute("DELETE FROM node")
        await until(lambda: "cannot join them yet" in server.told() or not server.is_up, "it cannot join")
        await run_sql(server_url(), f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await server.ready()
        assert await server.stop() == 0
    finally:
        server.kill()
        await inside.close()
