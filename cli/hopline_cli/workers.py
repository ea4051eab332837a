"""The worker processes that this command runs: started, listened to, drained, and started again when they die.

A worker lives as long as the pipe to its standard input: however this process ends, the worker notices and drains.
"""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from hopline_cli.answers import LoadError
from hopline_cli.errors import CliError
from hopline_cli.text import printable
from hopline_engine import clock

DRAIN_SECONDS = 12.0
"""A little more than the grace a worker gives its running steps."""
BACKOFF_SECONDS = (0.2, 1.0, 3.0, 10.0)
STEADY_SECONDS = 30.0
"""A worker that lived so long did not die of what it is; the next one is started without waiting longer."""
KEPT_LINES = 20

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is to serve, and to whom."""

    url: str
    paths: Sequence[str]
    token: str | None = None
    concurrency: int | None = None
    reloads: bool = False
    """Whether another worker takes its place when the files change."""
    schedules: bool = True
    """Whether what the files say of when their workflows run is put in force."""


class LoadedWorkflow(TypedDict):
    """A workflow that a worker found in its files."""

    name: str
    digest: str
    file: str
    steps: int


class LoadFailed(CliError):  # noqa: N818 - it is a state of the files
    """The files of a worker do not load; every problem found is in it."""

    def __init__(self, errors: Sequence[LoadError]) -> None:
        first, *others = errors
        super().__init__(first["code"], _told(first), hint=first.get("hint"))
        self.also = [CliError(other["code"], _told(other), hint=other.get("hint")) for other in others]


def _told(error: LoadError) -> str:
    place = where(error)
    return f"{error['message']}{f' ({place})' if place else ''}"


def where(error: LoadError) -> str:
    """Return ``file:line`` of a problem, as far as it is known; below the working directory, as seen from there."""
    file, line = error.get("file"), error.get("line")
    if file is None:
        return ""
    with suppress(ValueError):
        file = str(Path(file).relative_to(Path.cwd()))
    return file if line is None else f"{file}:{line}"


class WorkerProcess:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, report_fd: int, say: Say) -> None:
        self._process = process
        self._say = say
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reported = asyncio.ensure_future(_first_line(report_fd))
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(cls, job: Job, say: Say) -> "WorkerProcess":
        """Start a worker; what it prints goes to *say*, line by line."""
        read_fd, write_fd = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *worker_command(job, "--report-fd", str(write_fd), "--exit-with-parent"),
            env=worker_environment(job.token),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(write_fd,),
            start_new_session=True,  # the Ctrl-C of the terminal is for us; we then drain the worker
        )
        os.close(write_fd)
        return cls(process, read_fd, say)

    async def report(self) -> list[LoadedWorkflow]:
        """Return the workflows it serves, once it has registered them.

        Raises:
            LoadFailed: its files do not load.
            CliError: it died before it could say anything.
        """
        line = await asyncio.shield(self._reported)
        if not line:
            code = await self.wait()
            last = "; it said: " + " | ".join(self._last_lines) if self._last_lines else ""
            raise CliError("worker-died", f"the worker ended with {exit_told(code)} before it was ready{last}")
        report = json.loads(line)
        if not report["ok"]:
            raise LoadFailed(report["errors"])
        workflows: list[LoadedWorkflow] = report["workflows"]
        return workflows

    async def wait(self) -> int:
        """Return its exit code once it has ended and what it printed is told."""
        code = await self._process.wait()
        # A program that a step left running may hold the pipe open for ever.
        await asyncio.wait({self._listening}, timeout=1.0)
        return code

    async def drain(self, patience_seconds: float) -> None:
        """Let it finish what it is doing, and end it when that takes too long."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(patience_seconds):
                await self.wait()
        except TimeoutError:
            await self.end()
        await self._forget()

    async def end(self) -> None:
        """End it at once and wait until it is gone."""
        self.kill()
        await self.wait()
        await self._forget()

    def kill(self) -> None:
        """End it, and everything its steps have started, at once."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _forget(self) -> None:
        for task in (self._reported, self._listening):
            task.cancel()
        await asyncio.gather(self._reported, self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while line := await _next_line(stream):
            text = printable(line.decode(errors="backslashreplace").rstrip())
            self._last_lines.append(text)
            self._say(text)


def worker_command(job: Job, *flags: str) -> list[str]:
    """Return the command line of a worker."""
    chosen = [] if job.concurrency is None else ["--concurrency", str(job.concurrency)]
    if job.reloads:
        chosen.append("--reloads")
    if not job.schedules:
        chosen.append("--no-schedules")
    return [sys.executable, "-m", "hopline_engine.worker", "--server", job.url, *chosen, *flags, "--", *job.paths]


def worker_environment(token: str | None) -> dict[str, str]:
    """Return the environment of a worker; it takes the API's token from there, so that ``ps`` does not show it."""
    return {**os.environ, "HOPLINE_API_TOKEN": token} if token else dict(os.environ)


def exit_told(code: int) -> str:
    """Return how a process ended, in words.

    >>> exit_told(1), exit_told(-9)
    ('exit code 1', 'SIGKILL')
    """
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # a line longer than the buffer, which the reader has dropped
        return b"(a very long line)\n"


async def _first_line(fd: int) -> bytes:
    reader = asyncio.StreamReader(limit=2**24)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        return await reader.readline()
    finally:
        transport.close()


class Supervisor:
    """Keeps one worker alive on the newest version of the files that loads."""

    def __init__(self, job: Job, say: Say) -> None:
        self._job = job
        self._say = say
        self.patience_seconds = DRAIN_SECONDS
        """How long a worker may take to end that is replaced, or not needed any more."""
        self._current: WorkerProcess | None = None
        self._starting: WorkerProcess | None = None
        self._alive: set[WorkerProcess] = set()
        """Also those that drain."""
        self._deaths = 0
        """How often in a row a worker died soon."""
        self._one_at_a_time = asyncio.Lock()
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> list[LoadedWorkflow]:
        """Start a worker on the files as they are now; once it serves, the one before it is drained.

        Raises:
            LoadFailed: the files do not load; the worker before it goes on.
        """
        async with self._one_at_a_time:
            new = await WorkerProcess.start(self._job, self._say)
            self._starting = new
            self._alive.add(new)
            try:
                workflows = await new.report()
            except BaseException:
                await asyncio.shield(new.end())
                self._alive.discard(new)
                raise
            finally:
                self._starting = None
            old, self._current = self._current, new
            if old is not None:
                self._spawn(self._drain(old))
            self._spawn(self._guard(new))
            return workflows

    def kill(self) -> None:
        """End every worker at once, without waiting; those that drain as well."""
        for worker in self._alive:
            worker.kill()

    async def close(self) -> None:
        """Drain the worker and wait for all that went on besides."""
        self._closing.set()
        last, self._current = self._current, None
        if self._starting is not None:
            self._starting.kill()
        if last is not None:
            await self._drain(last)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guard(self, worker: WorkerProcess) -> None:
        """Replace *worker* when it dies, unless it was replaced before."""
        born = clock.monotonic()
        code = await worker.wait()
        self._alive.discard(worker)
        if clock.monotonic() - born > STEADY_SECONDS:
            self._deaths = 0
        while self._current is worker:
            pause = BACKOFF_SECONDS[min(self._deaths, len(BACKOFF_SECONDS) - 1)]
            self._deaths += 1
            self._say(f"ended with {exit_told(code)}; starting again in {pause:g} s")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
            if self._current is worker:
                await self._load_again()

    async def _drain(self, worker: WorkerProcess) -> None:
        await worker.drain(self.patience_seconds)
        self._alive.discard(worker)

    async def _load_again(self) -> None:
        try:
            await self.load()
        except CliError as error:
            self._say(f"error[{error.code}]: {printable(error.message)}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def supervised(job: Job, say: Say) -> AsyncIterator[Supervisor]:
    """Yield a supervisor that is closed, its worker drained, at the end."""
    supervisor = Supervisor(job, say)
    try:
        yield supervisor
    finally:
        await supervisor.close()
