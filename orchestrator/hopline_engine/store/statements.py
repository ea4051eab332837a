"""The hot statements: one for each kind of row in ``Changes``, compiled once from the tables to SQL text.

A row of the core is handed to the driver as it is, so the order of a statement's parameters must be the order of the
row's fields. It is so by construction, and checked when the statements are compiled.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import Dialect, Table, Text, Update, bindparam, column, delete, insert, literal_column, table, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import TableClause

from hopline_engine.core.changes import Changes, QueueMoved
from hopline_engine.core.model import (
    ApprovalAdded,
    ApprovalDecided,
    AttemptEnded,
    DefinitionAdded,
    EventAdded,
    KeyReleased,
    RunAdded,
    RunEnded,
    RunMoved,
    RunParked,
    RunWoken,
    StepEnded,
    TaskAdded,
    TaskMoved,
    TaskRemoved,
    WaitAdded,
    WaitRemoved,
)
from hopline_engine.store import tables

Given = Callable[[str], Any]
"""Returns what stands for the value of a field: a parameter, or a column of the rows that are given."""

_PREFIX: Final = "row_"
"""Parameters called like columns would be taken for values that SQLAlchemy adds by itself."""


class RowType(NamedTuple):
    """What is known of a kind of row besides its statement."""

    kind: str
    """Its field in ``Changes``."""
    fields: tuple[str, ...]
    table: Table
    build: "Callable[[TableClause, Given], UpdateBase]"
    """Makes the statement for a table of the row's fields, given what stands for the value of each."""
    counted: bool
    """Whether each row must find exactly one row to change; an insert fails by itself."""
    may_exist: bool = False
    """Whether a row that is there already is left as it is; its statement is SQLite's own, and Postgres has another."""
    may_lack: bool = False
    """Whether a row that is to change need not be there."""


class Write(NamedTuple):
    """One hot statement, ready to be run with the rows of any number of decisions."""

    kind: str
    rows: Callable[[Changes], Sequence[tuple[Any, ...]]]
    sql: str
    counted: bool


class StatementError(TypeError):
    """A statement and its row type do not fit each other; the tables and the core disagree."""


def _parameter(name: str) -> Any:
    return bindparam(_PREFIX + name)


def _insert(target: TableClause, given: Given) -> UpdateBase:
    return insert(target).values({column.name: given(column.name) for column in target.c})


def _update(target: TableClause, given: Given) -> Update:
    """Set every field but the last, which is the key."""
    *others, key = target.c
    values = {column.name: given(column.name) for column in others}
    return update(target).where(key == given(key.name)).values(values)


def _end_run(target: TableClause, given: Given) -> UpdateBase:
    return _update(target, given).where(target.c.state == literal_column("'running'", Text))


def _decide(target: TableClause, given: Given) -> UpdateBase:
    return _update(target, given).where(target.c.decided_at.is_(None))


def _delete(target: TableClause, given: Given) -> UpdateBase:
    (key,) = target.c
    return delete(target).where(key == given(key.name))


def _insert_missing(target: TableClause, given: Given) -> UpdateBase:
    values = {column.name: given(column.name) for column in target.c}
    return sqlite.insert(target).values(values).on_conflict_do_nothing()


ROW_TYPES: Final = (
    RowType(
        "definitions_added", DefinitionAdded._fields, tables.definition, _insert_missing, counted=False, may_exist=True
    ),
    RowType("runs_added", RunAdded._fields, tables.run, _insert, counted=False),
    RowType("steps_ended", StepEnded._fields, tables.step_run, _insert, counted=False),
    RowType("attempts_ended", AttemptEnded._fields, tables.attempt, _insert, counted=False),
    RowType("tasks_added", TaskAdded._fields, tables.task, _insert, counted=False),
    RowType("tasks_moved", TaskMoved._fields, tables.task, _update, counted=True),
    RowType("tasks_removed", TaskRemoved._fields, tables.task, _delete, counted=True),
    RowType("runs_parked", RunParked._fields, tables.parked_run, _insert, counted=False),
    RowType("runs_woken", RunWoken._fields, tables.parked_run, _delete, counted=True),
    RowType("waits_added", WaitAdded._fields, tables.wait, _insert, counted=False),
    RowType("waits_removed", WaitRemoved._fields, tables.wait, _delete, counted=True),
    RowType("approvals_added", ApprovalAdded._fields, tables.approval, _insert, counted=False),
    RowType("approvals_decided", ApprovalDecided._fields, tables.approval, _decide, counted=True),
    RowType("events_added", EventAdded._fields, tables.event, _insert, counted=False),
    RowType("queues_moved", QueueMoved._fields, tables.queue, _update, counted=True),
    RowType("keys_released", KeyReleased._fields, tables.key_claim, _delete, counted=False, may_lack=True),
    RowType("runs_moved", RunMoved._fields, tables.run, _update, counted=True),
    RowType("runs_ended", RunEnded._fields, tables.run, _end_run, counted=True),
)
"""In the order in which a transaction writes them: that of the fields of ``Changes``."""


def compile_writes(dialect: Dialect) -> tuple[Write, ...]:
    """Return the hot statements for a dialect with positional parameters.

    Raises:
        StatementError: a row has a field that its table lacks, or a statement takes its parameters in another order.
    """
    return tuple(Write(row.kind, attrgetter(row.kind), _compile(row, dialect), row.counted) for row in ROW_TYPES)


def target_of(row: RowType) -> TableClause:
    """Return the row's table with the row's fields only, in their order, in which SQLAlchemy then writes them.

    Raises:
        StatementError: the row has a field that its table lacks.
    """
    missing = [name for name in row.fields if name not in row.table.c]
    if missing:
        raise StatementError(f"{row.kind}: table {row.table.name} has no {', '.join(missing)}")
    return table(row.table.name, *[column(name, row.table.c[name].type) for name in row.fields])


def _compile(row: RowType, dialect: Dialect) -> str:
    compiled = row.build(target_of(row), _parameter).compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    order = tuple(name.removeprefix(_PREFIX) for name in compiled.positiontup or ())
    if order != row.fields:
        raise StatementError(f"{row.kind}: parameters are {order}, the row is {row.fields}")
    return str(compiled)
