"""What is on the disk, whatever happens to the machine."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Put on the disk what was written to a file, or which files a folder has; return when it is there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
