"""Secrets that the store keeps; their values are encrypted before they come here."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from hopline_engine.store.dialect import insert_or_update
from hopline_engine.store.tables import secret


class StoredSecret(NamedTuple):
    """A secret."""

    name: str
    sealed: bytes
    created_at: float
    updated_at: float


def all_secrets(connection: Connection) -> list[StoredSecret]:
    """Return all secrets, by name."""
    return [StoredSecret._make(row) for row in connection.execute(_ALL.order_by(secret.c.name))]


def by_names(connection: Connection, names: Collection[str]) -> list[StoredSecret]:
    """Return those of the secrets that are kept."""
    return [StoredSecret._make(row) for row in connection.execute(_ALL.where(secret.c.name.in_(names)))]


def put(connection: Connection, rows: Collection[StoredSecret]) -> None:
    """Keep secrets; of those that are kept already, the time at which they were made stays."""
    known = {kept.name: kept.created_at for kept in by_names(connection, [row.name for row in rows])}
    insert_or_update(
        connection, secret, [row._replace(created_at=known.get(row.name, row.created_at))._asdict() for row in rows]
    )


def replace(connection: Connection, rows: Collection[StoredSecret], before: Mapping[str, bytes]) -> None:
    """Change what is stored of secrets, where it still is what it was *before*, by name."""
    for row in rows:
        connection.execute(
            update(secret)
            .where(secret.c.name == row.name, secret.c.sealed == before[row.name])
            .values(sealed=row.sealed)
        )


def remove(connection: Connection, name: str) -> bool:
    """Forget a secret; return whether it was kept."""
    return connection.execute(delete(secret).where(secret.c.name == name)).rowcount > 0


_ALL = select(*(secret.c[name] for name in StoredSecret._fields))
