"""Fixtures: the wheel, and a fresh virtual environment with nothing but the wheel and what it asks for."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import cli as cli
from tests.cli.conftest import folder as folder
from tests.support.disk import DISK

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment in which only the wheel was installed."""

    folder: Path

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run a program of the environment, expect success, return what it printed on stdout."""
        return _run(str(self.folder / "bin" / program), *arguments, cwd=cwd or self.folder)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """Return a folder on a disk, since environments are large, and their programs are executed."""
    with tempfile.TemporaryDirectory(prefix="hopline-packaging-", dir=DISK) as place:
        yield Path(place)


@pytest.fixture(scope="session")
def wheel(place: Path) -> Path:
    """Build the wheel from the checkout."""
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(ROOT), cwd=place)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def clean(wheel: Path, place: Path) -> Environment:
    """Install the wheel as a user does, with pip's defaults."""
    environment = Environment(folder=place / "venv")
    _run(sys.executable, "-m", "venv", str(environment.folder), cwd=place)
    environment.run("pip", "install", "--quiet", str(wheel))
    return environment


def _run(*command: str, cwd: Path) -> str:
    """Run *command* outside the checkout, so that only what is installed can be imported."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HOPLINE_"))}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
