"""An engine and workers as processes of their own, to be killed, stopped and started again.

What they print is in ``engine.log`` and ``worker-N.log`` of their folder, and part of the failure when one of them
does not start.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import httpx

from tests.support import copies
from tests.support.client import Client
from tests.support.copies import Copy
from tests.support.ports import free_port
from tests.support.waiting import WITHIN, until_seen


class Process:
    """A process that survives being killed: the next ``start`` is the same one again."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HOPLINE_")}
        self._environment = {**inherited, **environment}
        self._process: subprocess.Popen[bytes] | Copy | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def command(self) -> Sequence[str]:
        """Return what is executed."""
        raise NotImplementedError

    async def ready(self, within: float = WITHIN) -> None:
        """Return once it does what it is there for; it has to be running."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it; it needs a while until it can do something."""
        assert not self.is_up
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = self._launched(log.fileno())

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        """End it as a person would, with SIGTERM; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Return its exit code once it has ended by itself."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, WITHIN)

    def told(self) -> str:
        """Return the end of what it printed."""
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-4000:]

    def _launched(self, told: int) -> subprocess.Popen[bytes] | Copy:
        return subprocess.Popen(
            self.command(),
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            preexec_fn=copies.end_with_parent,
        )


class _Copied(Process):
    """A process of the engine, made as a copy unless it has to be a *fresh* one: that imports everything itself."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], *, fresh: bool) -> None:
        super().__init__(name, folder, environment)
        self._is_fresh = fresh

    def copied(self) -> tuple[Callable[..., None], Sequence[str]]:
        """Return what a copy calls instead of the command, and with what."""
        raise NotImplementedError

    def _launched(self, told: int) -> subprocess.Popen[bytes] | Copy:
        if self._is_fresh:
            return super()._launched(told)
        main, arguments = self.copied()
        return Copy(main, *arguments, folder=self.folder, environment=self._environment, out=told, err=told)


class EngineProcess(_Copied):
    """``hopline serve`` on one folder and one port."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, fresh: bool = False) -> None:
        super().__init__("engine", folder, environment, fresh=fresh)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = folder / ".hopline" / "hopline.db"

    def command(self) -> Sequence[str]:
        """Return what is executed."""
        return [sys.executable, "-m", "hopline_cli", *self._arguments]

    def copied(self) -> tuple[Callable[..., None], Sequence[str]]:
        """Return what a copy calls."""
        return copies.hopline, self._arguments

    @property
    def _arguments(self) -> Sequence[str]:
        return ["serve", "--port", str(self.port)]

    async def ready(self, within: float = WITHIN) -> None:
        """Return when it answers."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, verify=False) as http:

            async def look() -> bool:
                assert self.is_up, f"the engine ended: {self.told()}"
                with suppress(httpx.TransportError):
                    return (await http.get("/healthz")).is_success
                return False

            await until_seen(look, "the engine is up", within)


class WorkerProcess(_Copied):
    """A worker that serves *paths* to the engine at *url*."""

    _numbers = count(1)

    def __init__(
        self,
        folder: Path,
        url: str,
        paths: Sequence[Path],
        environment: Mapping[str, str],
        flags: Sequence[str] = (),
        *,
        fresh: bool = False,
    ) -> None:
        super().__init__(f"worker-{next(self._numbers)}", folder, environment, fresh=fresh)
        self._url = url
        self._arguments = ["--server", url, *flags, "--", *map(str, paths)]

    def command(self) -> Sequence[str]:
        """Return what is executed."""
        return [sys.executable, "-m", "hopline_engine.worker", *self._arguments]

    def copied(self) -> tuple[Callable[..., None], Sequence[str]]:
        """Return what a copy calls."""
        return copies.worker, self._arguments

    async def ready(self, within: float = WITHIN) -> None:
        """Return when the engine sends steps to it."""
        async with Client(self._url) as client:

            async def look() -> bool:
                assert self.is_up, f"the worker ended: {self.told()}"
                return self.pid in await client.worker_pids()

            await until_seen(look, "the worker is registered", within, lasts=True)


class Site:
    """A folder with an engine and workers on it, as processes."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.engine = EngineProcess(folder, environment)
        self.client = Client(self.engine.url)
        self.workers: list[WorkerProcess] = []
        self._folder = folder
        self._environment = environment

    @property
    def worker(self) -> WorkerProcess:
        """The only worker."""
        (worker,) = self.workers
        return worker

    def hire(self, *paths: Path, flags: Sequence[str] = ()) -> WorkerProcess:
        """Add a worker and start it."""
        worker = WorkerProcess(self._folder, self.engine.url, paths, self._environment, flags)
        self.workers.append(worker)
        worker.start()
        return worker

    async def restart_engine(self) -> None:
        """Start the engine again, after it was killed."""
        self.engine.start()
        await self.engine.ready()


@asynccontextmanager
async def site(folder: Path, *paths: Path, **environment: str) -> AsyncIterator[Site]:
    """Run an engine and a worker for *paths* in *folder*, each as a process; all are killed at the end."""
    place = Site(folder, environment)
    place.engine.start()
    try:
        async with place.client:
            if paths:
                place.hire(*paths)
            for process in (place.engine, *place.workers):
                await process.ready()
            yield place
    finally:
        for process in (*place.workers, place.engine):
            process.kill()
