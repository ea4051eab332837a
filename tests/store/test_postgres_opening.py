"""Opening a store in a database: by several nodes, only if it is one, and with errors that say what to do."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from hopline_engine.clock import SystemClock
from hopline_engine.database_url import parse
from hopline_engine.settings import Settings
from hopline_engine.store import keys, opening, schema
from hopline_engine.store.errors import (
    CannotConnectError,
    MissingDriverError,
    NotAStoreError,
    StoreError,
    UnknownSchemaError,
)
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.postgres.store import PostgresStore, open_store, upgrade
from tests.store.opened import commit, opened_postgres, outcomes, with_definition
from tests.store.rows import started
from tests.support.postgres import at_database, postgres, run_sql, server_url

pytestmark = pytest.mark.anyio


async def opened(url: str, node: str = "n_test", **options: Any) -> PostgresStore:
    """Open a store as one of several nodes."""
    return await open_store(url, node=node, random=lambda: 0.0, **options)


async def refusal(url: str) -> StoreError:
    """Return why a store cannot be opened; whatever it is, it shows no password."""
    with pytest.raises(StoreError) as refused:
        await opened(url)
    assert "secret" not in f"{refused.value} {refused.value.hint} {refused.value!r}"
    return refused.value


def with_password(url: str) -> str:
    """Return a URL with a password, which a server that trusts everybody does not ask for."""
    return url.replace("postgres@", "postgres:secret@")


async def fetch(url: str, query: str) -> list[Any]:
    """Return the first column of what a query finds."""
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(query)]
    finally:
        await connection.close()


# --- nodes ------------------------------------------------------------------------------------------------------------


async def test_several_nodes_open_one_store_each_with_an_epoch_of_its_own(empty_postgres_url: str) -> None:
    stores = await asyncio.gather(*[opened(empty_postgres_url, f"n_{number}") for number in range(4)])
    try:
        assert sorted(store.owner.epoch for store in stores) == [1, 2, 3, 4]
        assert len({store.owner.store_id for store in stores}) == 1
        assert not any(store.owner.alone for store in stores)
        assert await fetch(empty_postgres_url, "SELECT version_num FROM alembic_version") == [schema.HEAD]
        await with_definition(stores[0])
        await asyncio.gather(*[commit(store, started(number)) for number, store in enumerate(stores, 1)])
        assert await fetch(empty_postgres_url, "SELECT id FROM run ORDER BY id") == [1, 2, 3, 4]
    finally:
        await asyncio.gather(*[store.close() for store in stores])


async def test_who_opens_it_alone_ends_the_others(postgres_url: str) -> None:
    other = await opened(postgres_url, "n_other")
    async with opened_postgres(postgres_url) as store:
        await with_definition(store)
        assert store.owner.alone

        (error,) = await outcomes(other, started(1))

        assert type(error).__name__ == "OwnershipLostError"
        assert await fetch(postgres_url, "SELECT DISTINCT node FROM shard") == [store.owner.node]
    await other.close()


async def test_nodes_share_the_key_that_signs_callbacks(postgres_url: str) -> None:
    first, second = [await opened(postgres_url, node) for node in ("n_1", "n_2")]
    try:
        found = await asyncio.gather(*[store.execute(keys.signing_key) for store in (first, second, first)])
    finally:
        await asyncio.gather(first.close(), second.close())

    assert len(set(found)) == 1
    assert len(found[0]) == 64


async def test_the_settings_say_which_store_is_opened(postgres_url: str, tmp_path: Path) -> None:
    store = await opening.open_store(Settings.load(store=postgres_url), node="n_1", clock=SystemClock())
    await store.close()
    other = await opening.open_store(Settings.load(state_dir=tmp_path), node="n_1", clock=SystemClock())
    await other.close()

    assert isinstance(store, PostgresStore)
    assert (tmp_path / "hopline.db").exists()


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_a_database_that_is_not_there_is_named_with_how_to_make_it() -> None:
    error = await refusal(with_password(at_database(server_url(), "nowhere")))

    assert isinstance(error, CannotConnectError)
    assert 'database "nowhere" does not exist' in str(error)
    assert error.hint == "createdb nowhere"


async def test_a_port_nobody_listens_on_and_a_host_that_is_none_are_told_apart() -> None:
    closed = await refusal("postgresql://me:secret@127.0.0.1:1/hopline")
    unknown = await refusal("postgresql://me:secret@nowhere.invalid/hopline")

    assert "nobody listens there" in str(closed)
    assert "no host of this name" in str(unknown)


async def test_a_wrong_password_is_told_and_not_shown() -> None:
    with postgres(password="other") as server:
        error = await refusal(server.url.replace(":other@", ":secret@"))
        store = await opened(server.url)
        await store.close()

    assert "password authentication failed" in str(error)
    assert "HOPLINE_STORE" in (error.hint or "")


async def test_a_server_that_never_answers_is_given_up(postgres_url: str) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    url = f"postgresql://me:secret@127.0.0.1:{port}/hopline"

    with pytest.raises(CannotConnectError, match="does not answer"):
        await Connector(parse(url), connect_seconds=0.2).check()

    listener.close()
    await listener.wait_closed()


async def test_a_database_with_something_else_in_it_is_refused_and_unchanged(empty_postgres_url: str) -> None:
    await run_sql(empty_postgres_url, "CREATE TABLE song (title text)")

    assert isinstance(await refusal(with_password(empty_postgres_url)), NotAStoreError)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert await fetch(empty_postgres_url, tables) == ["song"]


async def test_a_store_of_a_newer_version_is_refused(postgres_url: str) -> None:
    await run_sql(postgres_url, "UPDATE alembic_version SET version_num = '9999'")

    error = await refusal(with_password(postgres_url))

    assert isinstance(error, UnknownSchemaError)
    assert error.revision == "9999"


async def test_an_encoding_that_cannot_hold_every_text_is_refused() -> None:
    await run_sql(server_url(), "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        error = await refusal(at_database(server_url(), "latin"))
    finally:
        await run_sql(server_url(), "DROP DATABASE latin")

    assert "LATIN1" in str(error)
    assert "createdb --encoding=UTF8" in (error.hint or "")


async def test_a_user_who_may_not_make_tables_is_told_so(empty_postgres_url: str) -> None:
    await run_sql(server_url(), "CREATE ROLE poor LOGIN")
    try:
        error = await refusal(empty_postgres_url.replace("postgres@", "poor:secret@"))
    finally:
        await run_sql(server_url(), "DROP ROLE poor")

    assert "permission denied" in str(error)
    assert "own the database" in (error.hint or "")


async def test_without_the_driver_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        opening, "find_spec", lambda name: None if name == "asyncpg" else importlib.util.find_spec(name)
    )

    with pytest.raises(MissingDriverError) as refused:
        await opening.open_store(Settings.load(store="postgresql://db/x"), node="n", clock=SystemClock())

    assert refused.value.hint == "pip install 'hopline[postgres]'"


# --- the schema -------------------------------------------------------------------------------------------------------


async def test_migrations_make_what_the_tables_say(postgres_store: PostgresStore) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, METADATA))

    assert await postgres_store.read(differences) == []


async def test_an_older_store_is_upgraded_when_it_is_opened(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(schema, "HEAD", "0001")
        await upgrade(empty_postgres_url)
    await run_sql(empty_postgres_url, "INSERT INTO definition VALUES ('d', 'old', 1, '')")

    async with opened_postgres(empty_postgres_url) as store:
        await with_definition(store)
        await commit(store, started(1))

    assert await fetch(empty_postgres_url, "SELECT version_num FROM alembic_version") == [schema.HEAD]
    assert await fetch(empty_postgres_url, "SELECT name FROM definition ORDER BY name") == ["old", "report"]


@pytest.fixture
async def ended(postgres_store: PostgresStore, postgres_url: str) -> AsyncIterator[str]:
    """Return the URL of a store with a run, a step and an attempt that have ended."""
    await commit(postgres_store, started(1), started(2))
    await run_sql(
        postgres_url,
        "UPDATE run SET state = 'failed', ended_at = 1 WHERE id = 1",
        "INSERT INTO step_run VALUES (1, 0, -1, 'failed', 1, 0, 1, NULL, NULL)",
        "INSERT INTO attempt VALUES (1, 0, -1, 1, 'failed', 500, 0, 1, NULL, NULL)",
    )
    yield postgres_url


@pytest.mark.parametrize(
    "update",
    [
        "UPDATE run SET state = 'running', ended_at = NULL WHERE id = 1",
        "UPDATE run SET result = '\\x01' WHERE id = 1",
        "UPDATE step_run SET state = 'succeeded'",
        "UPDATE attempt SET logs = 'x'",
    ],
)
async def test_what_has_ended_changes_no_more_whoever_tries(ended: str, update: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="has ended"):
        await run_sql(ended, update)


async def test_the_hot_tables_are_cleaned_up_by_how_much_there_is_to_clean(postgres_store: PostgresStore) -> None:
    options = text("SELECT reloptions FROM pg_class WHERE relname = 'task'")

    found = await postgres_store.read(lambda connection: connection.execute(options).scalar())

    assert "autovacuum_vacuum_scale_factor=0" in (found or ())
