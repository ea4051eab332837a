"""Fixtures: commands in this process and as processes of their own, an empty folder, a server that answers."""

import os
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hopline_cli import screen
from hopline_cli.main import main
from tests.cli.fake_api import FakeApi, serving
from tests.support import copies
from tests.support.copies import Copy
from tests.support.waiting import WITHIN


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with nothing of the real environment's settings."""
    for name in [name for name in os.environ if name.startswith("HOPLINE_")]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def api(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A server that is up, and that commands find."""
    with serving(FakeApi()) as fake:
        monkeypatch.setenv("HOPLINE_SERVER_URL", fake.url)
        yield fake


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs a command in this process and returns what it printed."""

    def call(*arguments: str) -> Outcome:
        screen.data.cache_clear()
        screen.talk.cache_clear()
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        out, err = capsys.readouterr()
        return Outcome(int(exited.value.code or 0), out, err)

    # The switches set environment variables; registering them here takes them away again.
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("HOPLINE_DEBUG", "")
    yield call
    screen.data.cache_clear()
    screen.talk.cache_clear()


@pytest.fixture
def hopline(folder: Path) -> Cli:
    """Runs a command as a process of its own; it has to end with *code*."""

    def call(*arguments: str, code: int = 0, **environment: str) -> Outcome:
        running = Running(arguments, environment)
        try:
            done = running.end()
        finally:
            running.close()
        assert done.code == code, f"{running.command} ended with {done.code}\n{done.out}{done.err}"
        return done

    return call


class Running:
    """A command that runs, as a copy; its stderr is read as it comes."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.command = shlex.join(("hopline", *arguments))
        reading_out, out = os.pipe()
        reading_err, err = os.pipe()
        self._out, self._err = os.fdopen(reading_out), os.fdopen(reading_err)
        variables = {**os.environ, **environment}
        self.process = Copy(copies.hopline, *arguments, folder=Path.cwd(), environment=variables, out=out, err=err)
        os.close(out)
        os.close(err)
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def err(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str, count: int = 1) -> str:
        """Return stderr once *text* is in it *count* times."""
        with self._more:
            found = self._more.wait_for(lambda: self.err.count(text) >= count or self._ended, WITHIN)
        assert found and self.err.count(text) >= count, f"{text!r} did not come; stderr:\n{self.err}"
        return self.err

    def end(self) -> Outcome:
        """Wait for its end and return all of it."""
        out = self._out.read()
        code = self.process.wait(WITHIN)
        self._reader.join()
        return Outcome(code, out, self.err)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self._out.close()

    def _read(self) -> None:
        with self._err:
            for line in self._err:
                with self._more:
                    self._lines.append(line)
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


Start = Callable[..., Running]


def save(file: Path, text: str) -> None:
    """Replace a file in one step, as editors do: who watches it sees one change, and never half of it."""
    (whole := file.with_suffix(".new")).write_text(text)
    whole.replace(file)


def developing(start: Start, *paths: str) -> Running:
    """Serve *paths* with ``dev``; their workflows are known and have a worker."""
    running = start("dev", *paths, "--port", "0")
    running.wait_for(" loaded (")
    return running


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a command as a process of its own and returns while it runs; a failure of the test shows what it told."""
    running: list[Running] = []

    def call(*arguments: str, **environment: str) -> Running:
        running.append(Running(arguments, environment))
        return running[-1]

    yield call
    for one in running:
        one.close()
        print(f"--- {one.command}\n{one.err}")
