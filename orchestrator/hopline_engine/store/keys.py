"""The keys that the nodes of a store share: what signs callback tokens, and identity tokens."""

from typing import Final

from sqlalchemy import Connection, select

from hopline_engine import clock
from hopline_engine.store.dialect import insert_missing
from hopline_engine.store.tables import meta

_SIGNING: Final = "signing_key"
_IDENTITY: Final = "identity_key"
_BLOBS: Final = "blobs_mark"


def signing_key(connection: Connection) -> bytes:
    """Return the key of this store, making it when there is none; part of a transaction that may write."""
    return _kept(connection, _SIGNING, clock.token(32)).encode()


def known_identity_key(connection: Connection) -> str | None:
    """Return the private key that signs identity tokens, as PEM, if there is one."""
    found: str | None = connection.execute(select(meta.c.value).where(meta.c.key == _IDENTITY)).scalar_one_or_none()
    return found


def identity_key(connection: Connection, offered: str) -> str:
    """Return the private key that signs identity tokens; *offered*, if there was none."""
    return _kept(connection, _IDENTITY, offered)


def blobs_mark(connection: Connection, offered: str) -> str:
    """Return what the place of this store's large values is marked with; *offered*, if nothing was known."""
    return _kept(connection, _BLOBS, offered)


def _kept(connection: Connection, name: str, offered: str) -> str:
    insert_missing(connection, meta, [{"key": name, "value": offered}])
    found: str = connection.execute(select(meta.c.value).where(meta.c.key == name)).scalar_one()
    return found
