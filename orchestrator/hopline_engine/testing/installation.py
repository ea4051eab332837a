"""One start of the real engine in virtual time, on a store of its own: it may be killed, and another one started."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import httpx

from hopline import Context
from hopline_engine.api.interface import StepHeartbeat
from hopline_engine.api.service import Service
from hopline_engine.blobs.blobs import Blobs
from hopline_engine.blobs.place import Folder
from hopline_engine.clock import DatabaseClock
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.secrets import Secrets
from hopline_engine.queue.signing import Signer
from hopline_engine.queue.target import Limits, Target
from hopline_engine.scheduler.engine import Engine
from hopline_engine.scheduler.scheduling import Rests
from hopline_engine.settings import Settings
from hopline_engine.store.sqlite import SQLiteStore, open_store
from hopline_engine.testing.doubles import Doubles, NoDoubleError
from hopline_engine.testing.steps import URL, InProcessWorker
from hopline_engine.testing.virtual_loop import VirtualLoop

KEY: Final = b"k" * 32
PUBLIC_URL: Final = "http://hopline.test"
RUNS_URL: Final = f"{PUBLIC_URL}/api/v1/runs"

_RESTS: Final = Rests(longest=float("inf"), queued=60.0)
"""Nobody else changes schedules; and a run that ticks wait for may take days: looking each second would too."""

Happened = Callable[[str], bool]
"""Told of each moment at which a process may die, by what it is; returns whether it dies now."""


class Execution(NamedTuple):
    """A request that was sent for an attempt, and arrived."""

    run: str
    step: str
    """With the number of the element, as in ``resize[3]``, where the step is mapped."""
    attempt: int


class VirtualClock:
    """The wall clock of a virtual loop."""

    def __init__(self, loop: VirtualLoop, start: float) -> None:
        self._loop = loop
        self._start = start
        self._random = Random(0)  # noqa: S311 - jitter that is the same in every run of a test

    def now(self) -> float:
        """Return Unix seconds."""
        return self._start + self._loop.time()

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return self._random.random()


class Installation:
    """An engine, from its start to its end."""

    def __init__(
        self,
        folder: Path,
        start: datetime,
        doubles: Doubles,
        executions: list[Execution],
        *,
        secrets: Mapping[str, str],
        settings: Mapping[str, Any],
        happened: Happened,
    ) -> None:
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop, start.timestamp())
        self.doubles = doubles
        self.executions = executions
        self.worker: InProcessWorker | None = None
        self.problem: NoDoubleError | None = None
        """What the test forgot to say."""
        self.is_dead = False
        self.settings = Settings(state_dir=folder, **settings)
        self._secrets = secrets
        self._happened = happened
        self.signer = Signer(KEY)
        self._store: SQLiteStore | None = None

    def open(self) -> None:
        """Start it.

        Raises:
            KilledError: it died while it was starting.
        """
        self.loop.run(self._open())
        self.loop.call_soon(partial(self.engine.dispatch, runs_url=RUNS_URL, schedules=True))

    async def _open(self) -> None:
        self._store = store = await open_store(
            self.settings.store_path, node="test", clock=self.clock.now, background=lambda _: _InTurn(self)
        )
        clock = DatabaseClock(self.clock)
        self.engine = Engine(
            store=store, dispatcher=self._dispatcher(clock), signer=self.signer, clock=clock, settings=self.settings
        )
        self.engine.scheduling.rests = _RESTS
        self.engine.coordinator.timers.longest_seconds = float("inf")  # its two clocks are one
        self.service = Service(self.engine, clock)
        await self.engine.open(watches=False)

    def _dispatcher(self, clock: DatabaseClock) -> Dispatcher:
        limits = Limits()
        dispatcher = Dispatcher(
            target=Target(_Carrier(self), limits),
            workers=Target(_Carrier(self), limits),
            signer=self.signer,
            secrets=Secrets(self._secrets),
            blobs=self._blobs(clock),
            clock=clock,
            attempt_timeout=self.settings.attempt_timeout_seconds,
            result_max_bytes=self.settings.result_max_bytes,
        )
        dispatcher.callback_base = f"{PUBLIC_URL}/api/v1"
        dispatcher.runs_url = RUNS_URL
        return dispatcher

    def _blobs(self, clock: DatabaseClock) -> Blobs:
        place = Folder(self.settings.state_dir / "blobs")
        return Blobs(place, clock, inline_bytes=self.settings.result_inline_bytes, in_threads=False)

    def dies(self, moment: str) -> bool:
        """Note a moment at which a process may die; return whether it is dead."""
        if not self.is_dead and self._happened(moment):
            self.kill()
        return self.is_dead

    def kill(self) -> None:
        """End at once; the system closes the files."""
        self.is_dead = True
        self.loop.halt()
        if self._store is not None:
            self._store.abandon()

    def close(self) -> None:
        """End in order, or take apart what is left of one that was killed."""
        if not self.is_dead and self._store is not None:
            self._happened = _never
            self.engine.watchers.end()
            self.loop.run(self.engine.close())
            self.loop.run(self._store.close())
        self.loop.dismantle()


def _never(_: str) -> bool:
    return False


class _InTurn:
    """In place of the thread that flushes commits."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def start(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        if self._installation.dies("before a commit"):
            return
        result = job()
        if not self._installation.dies("after a commit"):
            self._installation.loop.call_soon(done, result)

    def stop(self) -> None:
        """Do nothing: all that was started is done."""


class Heartbeats:
    """Takes heartbeats of steps to the engine, as a worker's line does."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    async def tell(self, context: Context, report: Mapping[str, Any]) -> datetime | None:
        """Pass a heartbeat on; see ``worker.beating.Line``."""
        heartbeat = StepHeartbeat(seconds=report["heartbeat"], progress=report.get("progress"))
        step = context.step if context.item is None else f"{context.step}[{context.item}]"
        token = context.callback_token or ""
        done = await self._installation.service.callback(context.run_id, step, context.attempt, token, heartbeat)
        return None if done.until is None else datetime.fromtimestamp(done.until, UTC)


class _Carrier(httpx.AsyncBaseTransport):
    """Takes requests to steps and doubles."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._unless_dead("before a request")
        of = request.headers
        if "hopline-attempt" in of:
            noted = Execution(of["hopline-run"], of["hopline-step"], int(of["hopline-attempt"]))
            self._installation.executions.append(noted)
        response = await self._answered(request)
        await self._unless_dead("after a request")
        return response

    async def _unless_dead(self, moment: str) -> None:
        if self._installation.dies(moment):
            await asyncio.get_running_loop().create_future()

    async def _answered(self, request: httpx.Request) -> httpx.Response:
        installation = self._installation
        if str(request.url).startswith(URL) and installation.worker is not None:
            return await installation.worker.transport.handle_async_request(request)
        try:
            return installation.doubles.answer(request, await request.aread(), installation.clock.now())
        except NoDoubleError as error:
            installation.problem = installation.problem or error
            raise httpx.ConnectError(str(error)) from ConnectionRefusedError(str(error))
