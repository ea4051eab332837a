"""The key that signs callback tokens, where the nodes of a store share it."""

from typing import Final

from sqlalchemy import Connection, select

from hopline_engine import clock
from hopline_engine.store.dialect import insert_missing
from hopline_engine.store.tables import meta

_NAME: Final = "signing_key"


def signing_key(connection: Connection) -> bytes:
    """Return the key of this store, making it when there is none; part of a transaction that may write."""
    insert_missing(connection, meta, [{"key": _NAME, "value": clock.token(32)}])
    found: str = connection.execute(select(meta.c.value).where(meta.c.key == _NAME)).scalar_one()
    return found.encode()
