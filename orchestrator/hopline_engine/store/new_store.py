"""The schema of a SQLite store that is made now: one script, which does at once what all migrations do one by one.

Without it, whoever starts for the first time waits 0.4 s for alembic, and a server that made its store keeps the 10 MB
of it for as long as it runs. The script is written from the migrations, and a test compares.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("migrations") / "new_store.sql"


def make(raw: sqlite3.Connection) -> bool:
    """Make the schema in one transaction, if the database is empty; return whether it was."""
    raw.execute("BEGIN IMMEDIATE")
    try:
        (is_used,) = raw.execute("SELECT EXISTS (SELECT * FROM sqlite_master)").fetchone()
        if not is_used:
            for statement in _statements(SCRIPT.read_text(encoding="utf-8")):
                raw.execute(statement)
        raw.execute("COMMIT")
    except BaseException:
        raw.execute("ROLLBACK")
        raise
    return not is_used


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, in each of which a line ends; ``executescript`` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
