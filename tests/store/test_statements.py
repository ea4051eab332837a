"""The hot statements and the rows they are given fit each other."""

import dataclasses
import inspect
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from sqlalchemy import Update, bindparam, create_engine, update
from sqlalchemy.dialects import sqlite

from hopline_engine.core import model
from hopline_engine.core.changes import Changes, QueueMoved
from hopline_engine.store import statements
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.statements import ROW_TYPES, RowType, StatementError, Write, compile_writes
from hopline_engine.store.tables import queue

DIALECT = sqlite.dialect(paramstyle="qmark")
WRITES = {write.kind: write for write in compile_writes(DIALECT)}
KINDS: dict[str, tuple[str, ...]] = {
    "definitions_added": model.DefinitionAdded._fields,
    "runs_added": model.RunAdded._fields,
    "steps_ended": model.StepEnded._fields,
    "attempts_ended": model.AttemptEnded._fields,
    "tasks_added": model.TaskAdded._fields,
    "tasks_moved": model.TaskMoved._fields,
    "tasks_removed": model.TaskRemoved._fields,
    "runs_parked": model.RunParked._fields,
    "runs_woken": model.RunWoken._fields,
    "waits_added": model.WaitAdded._fields,
    "waits_removed": model.WaitRemoved._fields,
    "approvals_added": model.ApprovalAdded._fields,
    "approvals_decided": model.ApprovalDecided._fields,
    "events_added": model.EventAdded._fields,
    "queues_moved": QueueMoved._fields,
    "keys_released": model.KeyReleased._fields,
    "runs_moved": model.RunMoved._fields,
    "runs_ended": model.RunEnded._fields,
}


def _finds(row: RowType) -> bool:
    """Return whether rows of a kind change others and are not new."""
    return row.counted or row.may_lack


@pytest.fixture
def raw() -> Iterator[sqlite3.Connection]:
    """Return a database with the tables."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        METADATA.create_all(connection)
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        yield driver
    engine.dispose()


def test_changes_are_written_in_the_order_of_their_fields() -> None:
    assert [row.kind for row in ROW_TYPES] == [field.name for field in dataclasses.fields(Changes)] == list(KINDS)


def test_every_row_of_the_model_has_a_statement() -> None:
    rows = [
        fields for _, each in inspect.getmembers(model, inspect.isclass) if (fields := getattr(each, "_fields", ()))
    ]

    assert {*rows, QueueMoved._fields} == set(KINDS.values())


@pytest.mark.parametrize("row", ROW_TYPES, ids=lambda row: row.kind)
def test_a_statement_takes_the_fields_of_its_row(row: RowType, raw: sqlite3.Connection) -> None:
    assert row.fields == KINDS[row.kind]
    assert WRITES[row.kind].sql.count("?") == len(row.fields)
    raw.execute(f"EXPLAIN {WRITES[row.kind].sql}", [None] * len(row.fields))


@pytest.mark.parametrize("row", [row for row in ROW_TYPES if not _finds(row)], ids=lambda row: row.kind)
def test_what_is_added_has_a_field_for_every_column_that_must_have_a_value(row: RowType) -> None:
    required = {column.name for column in row.table.c if not column.nullable}

    assert required <= set(row.fields)


@pytest.mark.parametrize("row", [row for row in ROW_TYPES if _finds(row)], ids=lambda row: row.kind)
def test_what_changes_rows_finds_them_by_their_key(row: RowType, raw: sqlite3.Connection) -> None:
    plan = raw.execute(f"EXPLAIN QUERY PLAN {WRITES[row.kind].sql}", [None] * len(row.fields)).fetchall()

    assert [detail for *_, detail in plan if "SCAN" in detail] == []
    assert row.fields[-1:] == tuple(column.name for column in row.table.primary_key)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_each_kind_of_rows_is_taken_from_its_field(write: Write) -> None:
    changes = Changes()

    assert write.rows(changes) is getattr(changes, write.kind)


class Stranger(NamedTuple):
    """A row with a field that no table has."""

    colour: str
    name: str


class Swapped(NamedTuple):
    """A row whose key is not last."""

    name: str
    state: str


@pytest.mark.parametrize(("row", "reason"), [(Stranger, "has no colour"), (Swapped, "parameters are")])
def test_rows_that_do_not_fit_their_table_are_found_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, row: type[Stranger] | type[Swapped], reason: str
) -> None:
    def move(*_: object) -> Update:
        return update(queue).where(queue.c.name == bindparam("row_name")).values(state=bindparam("row_state"))

    wrong = RowType("queues_moved", row._fields, queue, move, counted=True)
    monkeypatch.setattr(statements, "ROW_TYPES", (wrong,))

    with pytest.raises(StatementError, match=reason):
        compile_writes(DIALECT)
