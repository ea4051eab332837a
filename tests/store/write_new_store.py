"""Writes the script of a new SQLite store from the migrations: ``python tests/store/write_new_store.py``."""

import sqlite3
from contextlib import closing

from sqlalchemy import StaticPool, create_engine

from hopline_engine.store import new_store, schema


def migrated() -> str:
    """Return what all migrations make of an empty database, as a script."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        with engine.connect() as connection:
            schema.upgrade(connection)
        return script_of(raw)


def script_of(raw: sqlite3.Connection) -> str:
    """Return a database as the statements that make it, without those of the transaction."""
    return "".join(f"{statement}\n" for statement in raw.iterdump() if not statement.startswith(("BEGIN", "COMMIT")))


if __name__ == "__main__":
    new_store.SCRIPT.write_text(migrated(), encoding="utf-8")
