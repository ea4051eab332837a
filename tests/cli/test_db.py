"""``hopline db``: what the store is, bringing it up to date, and copies that are stores themselves."""

import asyncio
import json
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hopline_engine.store import schema
from hopline_engine.store.interface import Store
from hopline_engine.store.postgres.store import upgrade
from tests.cli.conftest import Cli
from tests.store.committing import ended
from tests.store.opened import FILE, commit, opened_postgres, opened_sqlite, with_definition
from tests.store.rows import started
from tests.support.postgres import binaries, database_for_threads

RUNS = "SELECT id FROM run ORDER BY id"


async def fill_file(folder: Path) -> None:
    """Make a store with two runs."""
    async with opened_sqlite(folder) as store:
        await with_definition(store)
        await commit(store, started(1), started(2))


async def fill_database(url: str) -> None:
    """Add two runs to a store."""
    async with opened_postgres(url) as store:
        await with_definition(store)
        await commit(store, started(1), started(2))


@pytest.fixture
def file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a store with two runs."""
    asyncio.run(fill_file(folder))
    monkeypatch.setenv("HOPLINE_STORE", FILE)
    return folder / FILE


@pytest.fixture
def url(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a database with two runs; the setting has a password, which the server does not ask for."""
    with database_for_threads() as made:
        asyncio.run(fill_database(made))
        monkeypatch.setenv("HOPLINE_STORE", made.replace("postgres@", "postgres:secret@"))
        yield made


# --- pruning ----------------------------------------------------------------------------------------------------------


async def end_runs(store: Store) -> None:
    """End one of the two runs, which was begun in 1970."""
    await commit(store, ended(1))


def test_what_ended_long_ago_is_counted_and_then_deleted_from_a_file(cli: Cli, file: Path) -> None:
    async def end() -> None:
        async with opened_sqlite(file.parent) as store:
            await end_runs(store)

    asyncio.run(end())
    assert cli("db", "prune", "--older-than", "30d", "--dry-run").out == (
        "would delete 1 runs, 1 steps, 1 attempts, 0 ticks\n"
    )
    with closing(sqlite3.connect(file)) as raw:
        assert raw.execute(RUNS).fetchall() == [(1,), (2,)]
        told = json.loads(cli("db", "prune", "--older-than", "30d", "--json").out)
        assert (told["deleted"], told["runs"], told["steps"]) == (True, 1, 1)
        assert raw.execute(RUNS).fetchall() == [(2,)]
    assert cli("db", "prune", "--older-than", "30d").out == "deleted 0 runs, 0 steps, 0 attempts, 0 ticks\n"


def test_a_file_is_pruned_while_a_server_has_it_open(cli: Cli, file: Path) -> None:
    async def both() -> str:
        async with opened_sqlite(file.parent) as store:
            await end_runs(store)
            pruned = await asyncio.to_thread(cli, "db", "prune", "--older-than", "1d")
            await commit(store, started(3))
            return pruned.out

    assert asyncio.run(both()) == "deleted 1 runs, 1 steps, 1 attempts, 0 ticks\n"


@pytest.mark.parametrize("age", ["", "month", "-3d", "30"])
def test_an_age_that_is_no_duration_is_refused(cli: Cli, file: Path, age: str) -> None:
    refused = cli("db", "prune", "--older-than", age)
    assert refused.code == 2
    assert "--older-than" in refused.err
    assert "1d" in refused.err


def test_a_store_that_is_not_there_is_not_made_by_pruning(cli: Cli, folder: Path) -> None:
    assert cli("db", "prune", "--older-than", "30d").out == "deleted 0 runs, 0 steps, 0 attempts, 0 ticks\n"
    assert not list(folder.rglob("*.db"))


def test_what_ended_long_ago_is_deleted_from_a_database(cli: Cli, url: str) -> None:
    async def end() -> None:
        async with opened_postgres(url) as store:
            await end_runs(store)

    asyncio.run(end())
    assert cli("db", "prune", "--older-than", "30d", "--dry-run").out == (
        "would delete 1 runs, 1 steps, 1 attempts, 0 ticks\n"
    )
    assert cli("db", "prune", "--older-than", "30d").out == "deleted 1 runs, 1 steps, 1 attempts, 0 ticks\n"


# --- SQLite -----------------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_is_new_and_looking_at_it_makes_nothing(cli: Cli, folder: Path) -> None:
    told = json.loads(cli("db", "status", "--json").out)

    assert (told["state"], told["schema"], told["newest_schema"], told["size_bytes"]) == ("new", None, schema.HEAD, 0)
    assert list(folder.iterdir()) == []


def test_status_shows_the_database_and_its_schema(cli: Cli, file: Path) -> None:
    told = cli("db", "status")

    assert told.code == 0
    lines = dict(line.split(maxsplit=1) for line in told.out.splitlines())
    assert lines["store"] == FILE
    assert lines["database"] == f"SQLite {sqlite3.sqlite_version}"
    assert (lines["schema"], lines["state"]) == (schema.HEAD, "current")


def test_upgrade_makes_a_store_and_says_so(cli: Cli, folder: Path) -> None:
    told = cli("db", "upgrade", "--json")

    assert json.loads(told.out)["state"] == "current"
    assert f"upgraded from nothing to {schema.HEAD}" in told.err
    assert cli("db", "upgrade").err == ""


def test_upgrade_is_refused_while_a_server_has_the_file(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOPLINE_STORE", FILE)

    async def meanwhile() -> int:
        async with opened_sqlite(folder):
            return (await asyncio.to_thread(cli, "db", "upgrade")).code

    assert asyncio.run(meanwhile()) == 1


def test_a_backup_is_a_store_with_all_that_was_committed_though_a_server_goes_on(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOPLINE_STORE", FILE)

    async def meanwhile() -> None:
        async with opened_sqlite(folder) as store:
            await with_definition(store)
            await commit(store, started(1), started(2))
            told = await asyncio.to_thread(cli, "db", "backup", "copy.db", "--json")
            assert json.loads(told.out)["size_bytes"] == (folder / "copy.db").stat().st_size
            await commit(store, started(3))

    asyncio.run(meanwhile())

    assert stat.S_IMODE((folder / "copy.db").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.glob("copy*")) == ["copy.db"]
    with closing(sqlite3.connect(folder / "copy.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute(RUNS).fetchall() == [(1,), (2,)]
    monkeypatch.setenv("HOPLINE_STORE", "copy.db")
    assert json.loads(cli("db", "status", "--json").out)["state"] == "current"


def test_a_backup_replaces_no_file(cli: Cli, file: Path, folder: Path) -> None:
    (folder / "copy.db").write_text("mine")

    told = cli("db", "backup", "copy.db")

    assert (told.code, told.out) == (1, "")
    assert "error[backup]" in told.err
    assert (folder / "copy.db").read_text() == "mine"


def test_where_there_is_no_store_nothing_is_copied(cli: Cli, folder: Path) -> None:
    told = cli("db", "backup", "copy.db")

    assert told.code == 1
    assert "there is no store" in told.err
    assert list(folder.iterdir()) == []


def test_what_is_no_store_is_refused(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "notes.db").write_text("no database at all\n" * 400)
    monkeypatch.setenv("HOPLINE_STORE", "notes.db")

    for command in (("status",), ("upgrade",), ("backup", "copy.db")):
        told = cli("db", *command)
        assert told.code == 1
        assert "error[not-a-store]" in told.err


# --- Postgres ---------------------------------------------------------------------------------------------------------


def test_status_of_a_database_shows_no_password(cli: Cli, url: str) -> None:
    told = cli("db", "status", "--json")

    answer = json.loads(told.out)
    assert answer["store"] == url
    assert answer["database"].startswith("PostgreSQL ")
    assert (answer["state"], answer["size_bytes"] > 0) == ("current", True)
    assert "secret" not in told.out + told.err


def test_upgrade_brings_a_database_up_to_date(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with database_for_threads(empty=True) as made:
        monkeypatch.setenv("HOPLINE_STORE", made)
        with monkeypatch.context() as older:
            older.setattr(schema, "HEAD", "0001")
            asyncio.run(upgrade(made))
        assert json.loads(cli("db", "status", "--json").out)["state"] == "outdated"

        told = cli("db", "upgrade", "--json")

        assert json.loads(told.out)["state"] == "current"
        assert f"upgraded from 0001 to {schema.HEAD}" in told.err


def test_a_database_is_copied_by_pg_dump(cli: Cli, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(binaries()))

    told = cli("db", "backup", "copy.dump")

    assert (told.code, told.err) == (0, "")
    listed = subprocess.run([binaries() / "pg_restore", "--list", "copy.dump"], capture_output=True, check=True)
    assert b"TABLE DATA public run" in listed.stdout
    assert [path.name for path in folder.glob("copy*")] == ["copy.dump"]


def test_without_pg_dump_it_is_said_what_to_run(
    cli: Cli, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))

    told = cli("db", "backup", "copy.dump")

    assert told.code == 1
    assert f"pg_dump --format=custom --file=copy.dump '{url}'" in told.err
    assert "secret" not in told.err


def test_what_pg_dump_complains_of_is_told_without_the_password(
    cli: Cli, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(binaries()))
    monkeypatch.setenv("HOPLINE_STORE", "postgresql://me:secret@127.0.0.1:1/hopline")

    told = cli("db", "backup", "copy.dump")

    assert told.code == 1
    assert "refused" in told.err
    assert "secret" not in told.err
    assert list(folder.glob("copy*")) == []
