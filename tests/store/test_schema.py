"""The schema: what migrations make is what the tables say, and ended things stay as they are."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, create_engine, inspect

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import RunState
from hopline_engine.store import new_store, schema
from hopline_engine.store.errors import NotAStoreError, UnknownSchemaError
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.sqlite import SQLiteStore
from tests.store.opened import FILE, column, commit, looking_into, opened_sqlite, with_definition
from tests.store.rows import attempt_ended, run_added, run_ended, step_ended
from tests.store.write_new_store import migrated as from_migrations
from tests.store.write_new_store import script_of

pytestmark = pytest.mark.anyio


async def make(folder: Path) -> None:
    """Make a store and close it."""
    async with opened_sqlite(folder) as store:
        await with_definition(store)


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[Connection]:
    """Return a connection to the file of a store that was made and closed."""
    asyncio.run(make(tmp_path))
    engine = create_engine(f"sqlite:///{tmp_path / FILE}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_alembic_finds_no_difference_between_migrations_and_tables(migrated: Connection) -> None:
    context = MigrationContext.configure(migrated, opts={"compare_type": True, "compare_server_default": True})

    assert compare_metadata(context, METADATA) == []


def described(inspector: Inspector, table: str) -> dict[str, Any]:
    """Return all that the database knows of a table; in order what has one, by name what has none."""

    def by_name(found: list[Any]) -> list[Any]:
        return sorted(found, key=lambda each: each["name"])

    return {
        "columns": [{**each, "type": str(each["type"])} for each in inspector.get_columns(table)],
        "key": inspector.get_pk_constraint(table),
        "references": inspector.get_foreign_keys(table),
        "unique": by_name(inspector.get_unique_constraints(table)),
        "checks": by_name(inspector.get_check_constraints(table)),
        "indexes": by_name(
            [
                {**each, "dialect_options": {name: str(of) for name, of in each.get("dialect_options", {}).items()}}
                for each in inspector.get_indexes(table)
            ]
        ),
    }


@pytest.mark.parametrize("table", sorted(METADATA.tables))
def test_migrations_make_what_the_tables_say(migrated: Connection, table: str) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        METADATA.create_all(connection)
        expected = described(inspect(connection), table)
    engine.dispose()

    assert described(inspect(migrated), table) == expected


def test_script_of_a_new_store_is_what_the_migrations_make() -> None:
    written = new_store.SCRIPT.read_text(encoding="utf-8")

    assert written == from_migrations(), "write it again: python tests/store/write_new_store.py"
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        assert new_store.make(raw)
        assert script_of(raw) == written


def test_a_database_that_is_not_empty_is_left_to_the_migrations() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        assert not new_store.make(raw)
        assert column(raw, "SELECT name FROM sqlite_master") == ["alembic_version"]


def test_every_revision_of_the_history_is_known(migrated: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "hopline_engine.store:migrations")
    config.set_main_option("path_separator", "os")
    history = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]

    assert tuple(reversed(history)) == schema.REVISIONS
    assert schema.is_current(migrated, "it")


def test_an_empty_database_is_not_current() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        assert not schema.is_current(connection, "it")
    engine.dispose()


def test_a_database_whose_first_migration_was_killed_is_not_current() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        assert not schema.is_current(connection, "it")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('0000')")
        with pytest.raises(UnknownSchemaError, match="0000"):
            schema.is_current(connection, "it")
    engine.dispose()


def test_somebody_s_database_is_not_a_store() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE song (title)")
        with pytest.raises(NotAStoreError, match=r"songs\.db"):
            schema.is_current(connection, "songs.db")
    engine.dispose()


async def test_a_store_that_was_killed_before_its_first_migration_is_made_anew(tmp_path: Path) -> None:
    with looking_into(tmp_path) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")

    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)


# --- ended things stay as they are ------------------------------------------------------------------------------------


@pytest.fixture
async def ended(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """Return a store with run 1, which runs, and runs 2 to 4, which ended in each of the ways."""
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        finals = [RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED]
        await commit(
            store,
            Changes(runs_added=[run_added(number) for number in (1, 2, 3, 4)]),
            Changes(steps_ended=[step_ended(1)], attempts_ended=[attempt_ended(1)]),
            Changes(runs_ended=[run_ended(number, state) for number, state in enumerate(finals, 2)]),
        )
        yield store


UPDATES = [
    *[f"UPDATE run SET state = '{state}' WHERE id = {run}" for run in (2, 3, 4) for state in RunState],
    "UPDATE run SET result = NULL WHERE id = 2",
    "UPDATE run SET ended_at = ended_at + 1 WHERE id = 2",
    "UPDATE run SET input = x'7b7d' WHERE id = 3",
    "UPDATE step_run SET state = 'failed'",
    "UPDATE step_run SET result = x'32'",
    "UPDATE attempt SET state = 'lost'",
    "UPDATE attempt SET logs = NULL",
]


@pytest.mark.parametrize("update", UPDATES)
async def test_what_has_ended_changes_no_more_whoever_tries(ended: SQLiteStore, tmp_path: Path, update: str) -> None:
    with looking_into(tmp_path) as raw, pytest.raises(sqlite3.IntegrityError, match="has ended"):
        raw.execute(update)


async def test_a_run_that_runs_may_change(ended: SQLiteStore, tmp_path: Path) -> None:
    with looking_into(tmp_path) as raw:
        raw.execute("UPDATE run SET state = 'failed', ended_at = 1 WHERE id = 1")
        assert column(raw, "SELECT state FROM run WHERE id = 1") == ["failed"]


@pytest.mark.parametrize(
    "update",
    [
        "UPDATE run SET state = 'failed' WHERE id = 1",
        "UPDATE run SET ended_at = 1 WHERE id = 1",
        "UPDATE run SET state = 'resting', ended_at = 1 WHERE id = 1",
    ],
)
async def test_a_run_has_ended_exactly_if_it_says_when(ended: SQLiteStore, tmp_path: Path, update: str) -> None:
    with looking_into(tmp_path) as raw, pytest.raises(sqlite3.IntegrityError, match="CHECK constraint"):
        raw.execute(update)
