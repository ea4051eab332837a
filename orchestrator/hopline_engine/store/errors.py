"""What the store refuses or cannot do.

StoreError                    hopline.errors.HoplineError
├── StoreLockedError          another process has the store open
├── CannotOpenError           the system does not let us open or make the file
├── MissingDriverError        what talks to the database is not installed
├── CannotConnectError        the database does not let us in, or is none that we can use
├── NetworkFileSystemError    the file lies where SQLite's locks cannot be trusted
├── NotAStoreError            it is something else
├── UnknownSchemaError        it was written by a newer Hopline
├── OutdatedSchemaError       it is older than what is to be done with it needs
├── OwnershipLostError        another process has taken the store over
├── BackupError               a copy could not be made
├── StoreClosedError          it was closed while the call waited, or before
├── ReadTimeoutError          a query took too long
└── ChangesRefusedError       changes cannot be written as they are
    └── RowsMissingError      they name rows that are not there, or not in the state they must be in
"""

from pathlib import Path

from hopline.errors import HoplineError


class StoreError(HoplineError):
    """The store refuses or cannot do something."""

    code = "store-error"


class StoreLockedError(StoreError):
    """Another process has the store open."""

    code = "store-locked"

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(
            f"the store {path} is in use by {f'process {pid}' if pid else 'another process'}",
            hint=f"talk to the server that runs on it, stop {f'process {pid}' if pid else 'it'}, or name another store",
        )
        self.path = path
        self.pid = pid
        """Of the other process, if it could be found out."""


class CannotOpenError(StoreError):
    """The system does not let us open, make or use the file."""

    code = "store-cannot-open"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"the store {path} cannot be opened: {reason}", hint="check the path, its permissions and the disk"
        )
        self.path = path
        self.reason = reason


class MissingDriverError(StoreError):
    """What talks to the database is not installed."""

    code = "store-driver"

    def __init__(self, module: str) -> None:
        super().__init__(
            f"a store on Postgres needs {module}, which is not installed", hint="pip install 'hopline[postgres]'"
        )
        self.module = module


class CannotConnectError(StoreError):
    """The database does not let us in, or is none that we can use."""

    code = "store-cannot-connect"

    def __init__(self, shown: str, reason: str, hint: str) -> None:
        super().__init__(f"the store {shown} cannot be opened: {reason}", hint=hint)
        self.shown = shown
        """Its URL, without password and options."""
        self.reason = reason


class NetworkFileSystemError(StoreError):
    """The file lies on a file system on which SQLite's write-ahead log cannot work."""

    code = "store-on-network"

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(
            f"the store {path} lies on a network file system ({kind}), where SQLite can lose or damage data",
            hint="name a store on a local disk",
        )
        self.path = path
        self.kind = kind


class NotAStoreError(StoreError):
    """The file or database has something in it that is not a store of Hopline."""

    code = "not-a-store"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is not a Hopline store", hint="name another one; nothing in this one was changed")
        self.path = path


class UnknownSchemaError(StoreError):
    """The schema of the store has a revision that this version does not know."""

    code = "unknown-schema"

    def __init__(self, path: str, revision: str, known: str) -> None:
        super().__init__(
            f"the store {path} has schema {revision}; this version of Hopline knows up to {known}",
            hint="use the version of Hopline that wrote the store last, or a newer one; nothing was changed",
        )
        self.revision = revision


class OutdatedSchemaError(StoreError):
    """The schema is older than what is to be done with it needs."""

    code = "outdated-schema"

    def __init__(self, store: str) -> None:
        super().__init__(f"the schema of {store} is not the newest", hint='run "hopline db upgrade" first')


class OwnershipLostError(StoreError):
    """Another process has taken the store over; nothing that this one decides counts any more."""

    code = "ownership-lost"

    def __init__(self, node: str, epoch: int) -> None:
        super().__init__(f"node {node} no longer owns the store (epoch {epoch})", hint="stop this process")
        self.node = node
        self.epoch = epoch


class BackupError(StoreError):
    """A copy of the store could not be made."""

    code = "backup"

    def __init__(self, target: str, reason: str, hint: str) -> None:
        super().__init__(f"the store was not copied to {target}: {reason}", hint=hint)
        self.target = target
        self.reason = reason


class StoreClosedError(StoreError):
    """The store was closed."""

    code = "store-closed"

    def __init__(self) -> None:
        super().__init__("the store is closed")


class ReadTimeoutError(StoreError):
    """A query took longer than it may."""

    code = "read-timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a query of the store took more than {seconds:g} s", hint="ask for less")
        self.seconds = seconds


class ChangesRefusedError(StoreError):
    """Changes cannot be written as they are: a row exists already, or the database cannot hold a value."""

    code = "changes-refused"

    def __init__(self, reason: str) -> None:
        super().__init__(f"changes were refused: {reason}")
        self.reason = reason


class RowsMissingError(ChangesRefusedError):
    """Changes name rows that are not there, or not in the state they must be in: they were decided on a stale view."""

    code = "rows-missing"

    def __init__(self, kind: str, expected: int, found: int) -> None:
        super().__init__(f"{kind}: {expected} rows were to change, {found} did")
        self.kind = kind
