"""When the write-ahead log is copied back into the database, and doing it.

One connection does all writing and all checkpointing: SQLite before 3.51.3 can corrupt a file when two connections
reset the log at the same moment. Automatic checkpoints are off, because they make some commit wait; here the log is
copied when nobody waits, or when it has become long.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final

_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24

IDLE_BYTES: Final = 4 * 2**20
FORCED_BYTES: Final = 64 * 2**20


class WriteAheadLog:
    """The log of one database, looked at from the process that writes it.

    The log's file says nothing of how much of it is in use, since SQLite writes over it from the start after a
    checkpoint. But every frame carries the salt of the generation it was written in, so whether the log has reached
    some length is seen by looking at one frame (https://www.sqlite.org/walformat.html).
    """

    def __init__(
        self, raw: sqlite3.Connection, path: Path, idle_bytes: int = IDLE_BYTES, forced_bytes: int = FORCED_BYTES
    ) -> None:
        self._raw = raw
        (page_bytes,) = raw.execute("PRAGMA page_size").fetchone()
        self._frame_bytes = page_bytes + _FRAME_HEADER_BYTES
        self._idle_frames = idle_bytes // self._frame_bytes
        self._forced_frames = forced_bytes // self._frame_bytes
        self._copied_salt = b""
        self._copied_frames = 0
        # SQLite takes no lock on this file, so closing our descriptor of it drops none.
        self._file = os.open(path.with_name(path.name + "-wal"), os.O_RDONLY | os.O_CLOEXEC)

    def is_worth_copying(self) -> bool:
        """Return whether to copy the log as soon as nobody waits for a commit."""
        return self._reaches(self._idle_frames)

    def must_be_copied(self) -> bool:
        """Return whether to copy the log although somebody may wait."""
        return self._reaches(self._forced_frames)

    def copy(self) -> None:
        """Copy into the database what no reader holds back."""
        self._copied_salt = self._salt()
        _, self._copied_frames, _ = self._raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def close(self) -> None:
        """Release the file; the log itself goes with the last connection."""
        os.close(self._file)

    def _reaches(self, frames: int) -> bool:
        salt = self._salt()
        # While nothing was written since, or a reader still looks at the log, it is the one that was copied.
        start = self._copied_frames if salt == self._copied_salt else 0
        return salt == os.pread(self._file, 8, _HEADER_BYTES + (start + frames) * self._frame_bytes + 8)

    def _salt(self) -> bytes:
        return os.pread(self._file, 8, 16)
