"""What is on the disk, whatever happens to the machine."""

import contextlib
import os
import tempfile
from pathlib import Path


def flush(path: Path) -> None:
    """Put on the disk what was written to a file, or which files a folder has; return when it is there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_key(path: Path, key: str) -> None:
    """Write a file that only its owner may read, whole or not at all, unless another process was first."""
    descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        flush(path.parent)
    finally:
        Path(draft).unlink(missing_ok=True)
