"""What keeps blobs, as the rest of this room sees it, and the one that is a folder.

A blob is named by a day and by the digest of what it says. It is written on that day only, so what is named by a day
that is over can be removed without looking for who might be writing it just now.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from hopline_engine import clock
from hopline_engine.disk import flush

DAY_CHARACTERS: Final = 8


class BlobGoneError(Exception):
    """There is no blob of this name."""


class Place(Protocol):
    """Keeps blobs. Its methods wait, so they are not called on the loop; what they raise else may pass by itself."""

    @property
    def shown(self) -> str:
        """Where it is, for people."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Keep a blob durably; doing it again changes nothing."""
        ...

    def read(self, name: str) -> bytes:
        """Return a blob.

        Raises:
            BlobGoneError
        """
        ...

    def has(self, name: str) -> bool:
        """Return whether there is a blob."""
        ...

    def remove(self, name: str) -> None:
        """Remove a blob, if it is there."""
        ...

    def names(self, before: str) -> Iterator[str]:
        """Yield the names of blobs of days before this one, like ``20261121``."""
        ...


class Folder:
    """A folder of this machine, or one that several machines share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def shown(self) -> str:
        """Where it is."""
        return str(self._root)

    def write(self, name: str, content: bytes) -> None:
        """Keep a blob: whole or not at all, and on the disk."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            draft = path.with_name(f"{path.name}.{clock.token(4)}.new")
            try:
                with draft.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        # Also when it was there: who wrote it may have died before the folder was on the disk.
        for folder in (path.parent, self._root):
            flush(folder)

    def read(self, name: str) -> bytes:
        """Return a blob.

        Raises:
            BlobGoneError
        """
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise BlobGoneError(f"{self._root / name} is not there") from None

    def has(self, name: str) -> bool:
        """Return whether there is a blob."""
        return (self._root / name).is_file()

    def remove(self, name: str) -> None:
        """Remove a blob, and the folder of its day when that is empty."""
        path = self._root / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty, or another server has removed it already
            path.parent.rmdir()

    def names(self, before: str) -> Iterator[str]:
        """Yield the names of blobs of days before this one, with what is left of some that were never whole."""
        if not self._root.is_dir():
            return
        for day in sorted(self._root.iterdir()):
            if day.is_dir() and len(day.name) == DAY_CHARACTERS and day.name < before:
                for path in sorted(day.iterdir()):
                    yield f"{day.name}/{path.name}"
