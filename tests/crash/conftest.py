"""Fixtures: an engine and a worker as processes, and gates that hold their steps."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash import gates
from tests.support.processes import Site, site
from tests.support.waiting import until

GATES = Path(gates.__file__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Holds the executions of one gated step."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def executions(self) -> list[int]:
        """The attempts that were executed so far, in the order in which they began."""
        file = self.folder / gates.EXECUTIONS
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    async def executed(self, times: int) -> None:
        """Return once so many executions have begun."""
        await until(lambda: len(self.executions) >= times, f"execution {times} at {self.folder.name} begins")

    def open(self) -> None:
        """Let executions end, those that run and those that come."""
        (self.folder / gates.OPEN).touch()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tmp_path(folder_on_disk: Path) -> Path:
    """Return a folder on a disk: commits take their time there, and what is killed is killed in them."""
    return folder_on_disk


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Return a gate that is closed."""
    return _gate(tmp_path / "gate")


@pytest.fixture
def next_gate(tmp_path: Path) -> Gate:
    """Return another gate."""
    return _gate(tmp_path / "next_gate")


def _gate(folder: Path) -> Gate:
    folder.mkdir()
    return Gate(folder=folder)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    """Return an engine and a worker that serves the gated steps, both up."""
    async with site(tmp_path, GATES) as place:
        yield place
