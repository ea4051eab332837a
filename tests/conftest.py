"""What all tests share, and where they write: in memory, as far as the machine has a file system there.

What is about the disk asks for it.

Most of what a test with a store costs is the disk, which is asked at every commit. Processes are killed in tests, and
what they wrote outlives them in memory too; only a power cut would make a difference.
"""

import compileall
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final, cast

import pytest
from hypothesis import HealthCheck, settings

from tests.support.disk import DISK

# Properties take as long as the machine they run on.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

ROOT: Final = Path(__file__).parents[1]
SOURCES: Final = ("workflows", "orchestrator", "cli")
MEMORY: Final = Path("/dev/shm")
BYTES_NEEDED: Final = 2 * 2**30
"""Left in memory; each process that tests has a Postgres there."""

if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= BYTES_NEEDED:
    tempfile.tempdir = os.environ["TMPDIR"] = str(MEMORY)  # the variable is for processes

if importlib.util.find_spec("sniffio") is None:
    # The clients of tests ask for it many times a request, and each time all of the path would be searched.
    sys.modules["sniffio"] = cast("ModuleType", None)


def pytest_configure(config: pytest.Config) -> None:
    """Compile Hopline once: where Python writes no bytecode, each process that tests start would do that anew."""
    if not hasattr(config, "workerinput"):
        for source in SOURCES:
            compileall.compile_dir(ROOT / source, quiet=2)


@pytest.fixture
def folder_on_disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a folder on a disk, which is kept if the test fails."""
    folder = Path(tempfile.mkdtemp(prefix="hopline-test-", dir=DISK))
    failed = request.session.testsfailed
    yield folder
    if request.session.testsfailed == failed:
        shutil.rmtree(folder)
