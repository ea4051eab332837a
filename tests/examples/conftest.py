"""Fixtures: the command ``hopline`` in an empty folder, and the local services that the examples call."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hopline_engine.pytest_plugin import engine as engine  # where Hopline is run from its sources
from tests.support.waiting import eventually

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMMAND = [sys.executable, "-m", "hopline_cli"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hopline:
    """The command line, at home in a folder of its own."""

    folder: Path

    def run(self, file: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
        """Run the workflow in *file*, expect it to succeed, return the JSON of the run."""
        return json.loads(self.call("run", str(file), *arguments, "--json", environment=environment).stdout)

    def attempts(self, step: str) -> list[Any]:
        """Return the attempts that the latest run made of *step*."""
        return list(json.loads(self.call("runs", "logs", "@last", "--step", step, "--json").stdout))

    def call(
        self, *arguments: str, code: int = 0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Call ``hopline`` and expect exit code *code*."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOPLINE_")}
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**inherited, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def hopline(tmp_path: Path) -> Hopline:
    """Return the command line in an empty folder."""
    return Hopline(folder=tmp_path)


@contextmanager
def service(*command: str) -> Iterator[str]:
    """Run a local service that prints the address it listens on; return that address."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(match[0] for line in process.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        finally:
            process.terminate()


@contextmanager
def served(folder: Path, *files: Path, environment: Mapping[str, str]) -> Iterator[Hopline]:
    """Serve workflow files by ``hopline dev``, at home in *folder*; return the command line beside it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HOPLINE_")}
    command = [*COMMAND, "dev", *map(str, files), "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, env={**clean, **environment}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        next(line for line in process.stderr if "loaded" in line)
        yield Hopline(folder=folder)
    finally:
        process.terminate()
        process.communicate()


def until_there(look: Callable[[], T]) -> T:
    """Return what *look* finds, once it finds something; each look is a command, which takes its time."""
    return eventually(look, "it comes")
