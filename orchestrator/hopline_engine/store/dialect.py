"""Where the databases differ in what SQLAlchemy's general statements cannot say."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite

_INSERT: Final = {"sqlite": sqlite.insert}


def insert_missing(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert those rows whose key is not there yet."""
    given = [dict(row) for row in rows]
    if given:
        connection.execute(_INSERT[connection.dialect.name](table).on_conflict_do_nothing(), given)


def insert_or_update(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows; where the key is there already, set the other columns."""
    given = [dict(row) for row in rows]
    if given:
        statement = _INSERT[connection.dialect.name](table)
        key = [column.name for column in table.primary_key]
        others = {name: statement.excluded[name] for name in given[0] if name not in key}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=others), given)
