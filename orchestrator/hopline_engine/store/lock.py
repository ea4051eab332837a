"""One process a store: a lock that dies with its holder, and a look at the file system below."""

import fcntl
import os
import re
from pathlib import Path
from typing import Final

from hopline_engine.store.errors import NetworkFileSystemError, StoreLockedError

_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""White space and backslashes in the table."""

_NETWORK: Final = frozenset(
    {
        "9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs",
        "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb2", "smb3", "smbfs",
    }
)  # fmt: skip


class ProcessLock:
    """The right to open a store, held until the process ends or ``release`` is called.

    The lock is on a file of its own next to the store and never on the store itself, whose locks belong to SQLite. The
    file stays: a lock on a file that others may delete and make anew protects nothing.
    """

    def __init__(self, store: Path, *, shared: bool = False) -> None:
        """Take the lock, for this holder alone unless it is *shared* by others that take it likewise.

        Raises:
            StoreLockedError: another process has it, or another store object of this process.
        """
        path = store.with_name(store.name + "-lock")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            holder = _holder(self._file)
            os.close(self._file)
            raise StoreLockedError(store, holder) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the store to whoever wants it."""
        os.ftruncate(self._file, 0)
        os.close(self._file)


def holder_of(store: Path) -> int | None:
    """Return the process that has a store open, as far as its lock says; one that was killed may be named still."""
    try:
        file = os.open(store.with_name(store.name + "-lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _holder(file)
    finally:
        os.close(file)


def _holder(file: int) -> int | None:
    text = os.pread(file, 20, 0)
    return int(text) if text.isdigit() else None


def refuse_network(path: Path) -> None:
    """Raise if *path* lies on a network file system; where the system does not say, it is taken for local.

    Raises:
        NetworkFileSystemError: it does.
    """
    try:
        mounts = os.fsdecode(_MOUNTS.read_bytes())
    except OSError:
        return
    kind = file_system(mounts, path)
    if kind in _NETWORK:
        raise NetworkFileSystemError(path, kind)


def file_system(mounts: str, path: Path) -> str:
    """Return the type of the file system that an absolute path lies on, by a Linux ``mountinfo`` table.

    >>> file_system("1 0 8:1 / / rw - ext4 /dev/a rw\\n2 1 0:5 / /home rw - nfs4 host:/home rw", Path("/home/me/x"))
    'nfs4'
    """
    best, kind = -1, ""
    for line in filter(None, mounts.split("\n")):  # not in lines as Python has them: names may have their ends
        fields, _, source = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields.split(" ")[4]))
        # Of mounts on the same point the last one is seen.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), source.split()[0]
    return kind
