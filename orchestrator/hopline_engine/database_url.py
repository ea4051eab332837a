"""The URL of a Postgres database: what it says, and how it is shown without what is secret.

A password with characters that mean something in a URL makes one that reads differently than its author thinks. So
what is not certainly a part of a well-formed URL is never shown.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from hopline.errors import HoplineError

SCHEMES: Final = ("postgresql", "postgres")

STATEMENT_CACHE_SIZE: Final = "statement_cache_size"
"""Our own option; the others are libpq's."""

_HOST: Final = r"(?:[\w.%~-]+|\[[0-9A-Fa-f:.%]+\])?(?::\d{1,5})?"
_HOSTS: Final = re.compile(f"{_HOST}(?:,{_HOST})*", re.ASCII)
_DATABASE: Final = re.compile(r"/?[^/@:]*")
_SECRET_OPTIONS: Final = frozenset({"password", "sslpassword"})


class DatabaseUrlError(HoplineError):
    """The URL of a database cannot be read; the message shows nothing of it, since it may hold a password."""

    code = "database-url"

    def __init__(self, reason: str, hint: str | None = None) -> None:
        otherwise = "write characters of a password that mean something in a URL as %40 for @, %2F for /, %23 for #"
        super().__init__(f"the URL of the store cannot be read: {reason}", hint=hint or otherwise)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """A URL that was read."""

    dsn: str = field(repr=False)
    """For asyncpg, which takes what is missing from libpq's variables and password file."""
    shown: str
    """For people: without password and options."""
    database: str | None
    """``None`` for the one that libpq would take."""
    caches_statements: bool
    """Whether statements may stay prepared; behind an old PgBouncer they must not."""
    secrets: tuple[str, ...] = field(repr=False)

    def redacted(self, text: str) -> str:
        """Return *text* without the passwords of the URL."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def is_database_url(store: str) -> bool:
    """Return whether a setting names a Postgres database, and not a file.

    >>> is_database_url("postgres://db/hopline"), is_database_url("hopline.db")
    (True, False)

    Raises:
        DatabaseUrlError: it names a database of another kind.
    """
    scheme, is_url, _ = store.partition("://")
    if not is_url or scheme.lower() == "sqlite":
        return False
    if scheme.lower() not in SCHEMES:
        reason = "it begins neither with postgresql:// nor with sqlite:///"
        raise DatabaseUrlError(reason, hint="name a Postgres database by its URL, or a SQLite file by its path")
    return True


def parse(store: str) -> DatabaseUrl:
    """Read the URL of a database.

    >>> parse("postgres://me:secret@db.example/hopline?sslmode=require").shown
    'postgresql://me@db.example/hopline'

    Raises:
        DatabaseUrlError: it cannot be read; the message shows nothing of it that could be secret.
    """
    parts = _split(store)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options = _options(parts.query)
    cached = options.pop(STATEMENT_CACHE_SIZE, None)
    if cached not in (None, "0"):
        raise DatabaseUrlError(f"{STATEMENT_CACHE_SIZE} can only be 0", hint="leave it out to have statements cached")
    secrets = {password, unquote(password), *(options[name] for name in _SECRET_OPTIONS & options.keys())} - {""}
    user = options.get("user", unquote(user))
    shown_hosts = hosts or options.get("host", "")
    database = options.get("database") or options.get("dbname") or unquote(parts.path.lstrip("/")) or None
    return DatabaseUrl(
        dsn=urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), "")),
        shown=f"postgresql://{f'{user}@' if user else ''}{shown_hosts}/{database or ''}",
        database=database,
        caches_statements=cached is None,
        secrets=tuple(sorted(secrets, key=len, reverse=True)),
    )


def _split(store: str) -> SplitResult:
    try:
        parts = urlsplit(store)
    except ValueError:
        raise DatabaseUrlError("it is not a URL") from None
    _, _, hosts = parts.netloc.rpartition("@")
    if parts.fragment or not (_HOSTS.fullmatch(hosts) and _DATABASE.fullmatch(parts.path)):
        raise DatabaseUrlError("it is not postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return parts


def _options(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError:
        raise DatabaseUrlError("what follows its question mark is not NAME=VALUE&NAME=VALUE") from None
