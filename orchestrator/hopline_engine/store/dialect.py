"""Where the databases differ in what SQLAlchemy's general statements cannot say."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Connection, Double, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


def insert_missing(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert those rows whose key is not there yet."""
    given = [dict(row) for row in rows]
    if given:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), given)


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row, unless one with its key, or with anything else that must be unique, is there; return whether."""
    return connection.execute(_insert(connection, table).on_conflict_do_nothing(), dict(row)).rowcount > 0


def insert_or_update(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows; where the key is there already, set the other columns."""
    given = [dict(row) for row in rows]
    if given:
        statement = _insert(connection, table)
        key = [column.name for column in table.primary_key]
        others = {name: statement.excluded[name] for name in given[0] if name not in key}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=others), given)


def _insert(connection: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # 2 MB that a process on SQLite does not need

    return postgresql.insert(table)


class _Now(FunctionElement[float]):
    type = Double()
    inherit_cache = True


SQLITE_NOW: Final = "hopline_now"
"""A function of no arguments that every connection to a SQLite file has: the clock that the store was opened with."""


def now() -> ColumnElement[float]:
    """Return the database's clock in Unix seconds, in which everything is said that nodes compare.

    It is the time of the look, and not that at which the transaction began.
    """
    return _Now()


@compiles(_Now, "sqlite")
def _now_on_sqlite(*_: Any, **__: Any) -> str:
    return f"{SQLITE_NOW}()"


@compiles(_Now, "postgresql")
def _now_on_postgres(*_: Any, **__: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
