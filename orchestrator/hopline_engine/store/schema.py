"""Which schema a store has, and bringing it up to the one this version works with.

Alembic takes 0.3 s to import, so a store that is current is recognised by one plain SELECT.
"""

from typing import Final, NamedTuple

from sqlalchemy import Connection, Select, Text, column, inspect, select, table

from hopline_engine.store.errors import NotAStoreError, UnknownSchemaError

REVISIONS: Final = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
)
"""Every revision of the history in ``migrations``, oldest first; a test compares."""

HEAD: Final = REVISIONS[-1]

_VERSION: Final[Select[str]] = select(column("version_num", Text)).select_from(table("alembic_version"))


class Seen(NamedTuple):
    """What is seen of a database from outside."""

    database: str
    """Name and version."""
    revision: str | None
    size_bytes: int


def is_current(connection: Connection, name: str) -> bool:
    """Return whether the schema is the newest one; false for an empty database or an older revision.

    Raises:
        StoreError: as ``known_revision``.
    """
    return known_revision(connection, name) == HEAD


def known_revision(connection: Connection, name: str) -> str | None:
    """Return the revision of the schema, which is one of ours; ``None`` for an empty database.

    Args:
        connection: of the database to look at; nothing is written.
        name: what to call the database in errors.

    Raises:
        NotAStoreError: there are tables, and none of them says a revision.
        UnknownSchemaError: the revision is not part of this version's history.
    """
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise NotAStoreError(name)
        return None
    found = connection.execute(_VERSION).scalar()
    if found is not None and found not in REVISIONS:
        raise UnknownSchemaError(name, found, HEAD)
    return found


def upgrade(connection: Connection) -> None:
    """Apply the revisions that are missing: in the transaction that has begun, or else each in one of its own.

    Transactions of *connection* must cover DDL. Killed in between, it leaves a whole revision or none, and can be run
    again.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "hopline_engine.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
