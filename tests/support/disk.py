"""The disk, for tests that are about what is on it, and for what is too large for memory."""

from pathlib import Path
from typing import Final

DISK: Final = Path("/var/tmp")
"""Outlives a restart of the machine, so it is not in memory."""
