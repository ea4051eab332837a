"""Which large values rows refer to. Rows that do are in indexes of their own, so that others are not looked through."""

from typing import Final

from sqlalchemy import Column, Connection, select, text

from hopline_engine.core.references import references_in
from hopline_engine.store.columns import REFERS
from hopline_engine.store.tables import run, step_run

_COLUMNS: Final[tuple[Column[bytes], ...]] = (step_run.c.result, run.c.input, run.c.result)


def referred_to(connection: Connection) -> dict[str, int]:
    """Return the location and the size of every large value that a row refers to."""
    found: dict[str, int] = {}
    for column in _COLUMNS:
        refers = text(REFERS[connection.dialect.name].format(column=column.name))
        for (value,) in connection.execute(select(column).where(refers)):
            found.update((one.location, one.size) for one in references_in(value))
    return found
