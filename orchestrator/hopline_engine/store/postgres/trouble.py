"""Errors of Postgres: those that say something of the server and nothing of the rows, and what to tell people."""

import ssl
from socket import gaierror
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_TROUBLE_CLASSES: Final = frozenset(
    {
        "08",  # connection
        "28",  # not let in (any more)
        "3D",  # the database is not there (any more)
        "40",  # deadlock, serialization
        "53",  # disk full, memory, connections
        "55",  # locked, not in this state
        "57",  # shutdown, crash, cancelled
        "58",  # I/O
        "XX",  # internal, corrupted
    }
)
_TROUBLE_STATES: Final = frozenset(
    {
        "25006",  # read-only: a standby, or set so because the disk is nearly full
        "25P03",  # idle in transaction for too long
        "25P04",  # transaction took too long
        "42501",  # a right is missing
    }
)
"""By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html): the same may go through later."""


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error in that of SQLAlchemy, if it is one."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def is_trouble(error: BaseException) -> bool:
    """Return whether an error is the server's or the way's to it, and not that of what was written or asked."""
    cause = cause_of(error)
    if isinstance(cause, asyncpg.PostgresError):
        state: str = getattr(cause, "sqlstate", None) or ""
        return state[:2] in _TROUBLE_CLASSES or state in _TROUBLE_STATES
    if isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return not isinstance(cause, ValueError)  # asyncpg.DataError: a value that cannot be sent
    return isinstance(cause, OSError | PoolTimeoutError | MemoryError)  # timeouts are OSErrors


def reason_of(error: BaseException) -> str:
    """Return what happened, in a line.

    >>> reason_of(TimeoutError())
    'the server does not answer'
    """
    cause = cause_of(error)
    if isinstance(cause, TimeoutError):
        return "the server does not answer"
    if isinstance(cause, PoolTimeoutError):
        return "all connections are in use"
    return " ".join(str(cause).split()) or type(cause).__name__


def refusal(error: Exception, database: str | None) -> tuple[str, str]:
    """Return why a connection could not be made, and what to do."""
    for kind, reason, hint in _REFUSALS:
        if isinstance(error, kind):
            return reason or reason_of(error), hint.format(database=database or "NAME")
    return reason_of(error), "check its address, its log, and the name and password of the user"


_REFUSALS: Final[tuple[tuple[type[Exception], str | None, str], ...]] = (
    (gaierror, "there is no host of this name", "check the host in HOPLINE_STORE"),
    (ConnectionRefusedError, "nobody listens there", "start Postgres, or check host and port in HOPLINE_STORE"),
    (TimeoutError, "the server does not answer", "check host and port in HOPLINE_STORE, and firewalls between"),
    (ssl.SSLError, None, "check sslmode and sslrootcert in HOPLINE_STORE"),
    (asyncpg.InvalidPasswordError, None, "check user and password in HOPLINE_STORE"),
    (asyncpg.InvalidAuthorizationSpecificationError, None, "check the user in HOPLINE_STORE, and pg_hba.conf"),
    (asyncpg.InvalidCatalogNameError, None, "createdb {database}"),
    (asyncpg.TooManyConnectionsError, None, "raise max_connections; each node takes up to 6"),
    (asyncpg.CannotConnectNowError, None, "try again when the server has started"),
    (asyncpg.InsufficientPrivilegeError, None, "the user needs CREATE on the schema: let it own the database"),
    (asyncpg.ReadOnlySQLTransactionError, None, "name the primary server, or set target_session_attrs=read-write"),
    (asyncpg.LockNotAvailableError, "another process is changing its tables", "try again when it is done"),
)
