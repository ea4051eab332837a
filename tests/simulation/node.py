"""One process of the engine in a simulation: a store, an engine and its API, put together as ``bootstrap`` does."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, cast

import httpx
from fastapi import FastAPI

from hopline_engine.api.app import create_app
from hopline_engine.api.forwarding import Forwarder
from hopline_engine.api.interface import EngineService
from hopline_engine.api.service import Service
from hopline_engine.clock import DatabaseClock
from hopline_engine.queue.connection import RawAnswer
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.secrets import Secrets
from hopline_engine.queue.signing import Signer
from hopline_engine.queue.target import Limits, Target
from hopline_engine.queue.transport import Endpoint
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings
from hopline_engine.store.sqlite import SQLiteStore, open_store
from tests.simulation.faults import FaultyConnection, trouble
from tests.simulation.ledger import Write
from tests.simulation.loop import Process, SimulatedBackground
from tests.simulation.network import Answer, Request, SimulatedTransport, call, request_of

if TYPE_CHECKING:
    from tests.simulation.world import World

FIRST_PORT = 8484
START = 1_767_225_600.0
"""2026-01-01."""
KEY = b"k" * 32
LIMITS = Limits()
SETTINGS = Settings(
    attempt_timeout_seconds=15.0,
    accepted_timeout_seconds=30.0,
    map_window=4,
    drain_seconds=2.0,
    node_silence_seconds=6.0,
    audit_seconds=12.0,
)


PARKING = SETTINGS.model_copy(update={"park_seconds": 3.0})
"""Of simulations in which runs that only wait leave memory."""


class _Relay:
    """The service of whichever process runs in a slot: an application takes long to make, so it is made once."""

    def __init__(self) -> None:
        self.service: Service | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)


_apps: dict[int, tuple[FastAPI, _Relay]] = {}


class SkewedClock:
    """The clock of one machine."""

    def __init__(self, world: "World", skew: float, random: Random) -> None:
        self._loop = world.loop
        self._random = random
        self.skew = skew

    def now(self) -> float:
        return START + self._loop.time() + self.skew

    def random(self) -> float:
        return self._random.random()


class Node:
    """One start of the engine."""

    def __init__(self, world: "World", slot: int, number: int) -> None:
        self.world = world
        self.slot = slot
        self.name = f"node-{number}"
        self.process = Process(self.name)
        skew = world.random.uniform(-1, 1) * world.faults.skew
        self.machine = SkewedClock(world, skew, Random(f"{world.seed} {self.name}"))
        self.clock = DatabaseClock(self.machine)
        self.in_flight: Counter[str] = Counter()
        """Requests that are out, by queue."""
        self.store: SQLiteStore | None = None
        self.engine: Engine | None = None
        self.app: FastAPI | None = None
        self.is_listening = False
        self.can_be_killed = False
        self.is_in_trouble = False
        self.is_leaving = False
        self.killed: asyncio.Future[None] = world.loop.create_future()
        """Done when it was killed: then what it was doing never ends."""

    # --- life

    async def boot(self) -> None:
        """Open the store and let runs move."""
        world = self.world
        store = await open_store(
            world.path,
            node=self.name,
            clock=world.now if world.is_shared else self.machine.now,
            url=self.url,
            alone=not world.is_shared,
            on_trouble=self._on_trouble,
            background=lambda _: SimulatedBackground(world.loop),
        )
        self.store = store
        self.can_be_killed = True
        store._files.writer.raw = FaultyConnection(store._files.writer, self)  # type: ignore[assignment]
        signer = Signer(KEY)
        dispatcher = Dispatcher(
            target=Target(SimulatedTransport(self._send), LIMITS),
            workers=Target(SimulatedTransport(self._send), LIMITS),
            signer=signer,
            secrets=Secrets({}),
            blobs=world.bucket.blobs(self.clock, is_used="blobs" in world.kinds.names),
            clock=self.clock,
            attempt_timeout=SETTINGS.attempt_timeout_seconds,
            result_max_bytes=SETTINGS.result_max_bytes,
        )
        dispatcher.callback_base = f"{self.url}/api/v1"
        settings = PARKING if "parking" in world.kinds.names else SETTINGS
        engine = Engine(store=store, dispatcher=dispatcher, signer=signer, clock=self.clock, settings=settings)
        if self.slot not in _apps:
            relay = _Relay()
            _apps[self.slot] = create_app(cast("EngineService", relay), SETTINGS), relay
        app, relay = _apps[self.slot]
        relay.service = Service(engine, self.clock)
        app.state.forwarder = Forwarder()
        app.state.forwarder._http = httpx.AsyncClient(transport=_ToNodes(world), trust_env=False)
        await engine.open()
        self.engine, self.app = engine, app
        world.on_open(self)
        self.is_listening = True
        engine.membership.lost.add_done_callback(lambda _: world.on_lost(self))
        dispatch = partial(engine.dispatch, self.url, schedules=world.timetable is not None)
        world.loop.call_soon(dispatch)  # a server listens before runs move

    async def stop(self) -> None:
        """End as by an operator: what is in flight is waited for, what is decided is committed."""
        self.is_leaving = True
        self.is_listening = False
        assert self.engine is not None
        assert self.store is not None
        self.engine.watchers.end()
        await self.engine.close()
        await self.store.close()
        self.process.is_alive = False

    def kill(self) -> None:
        """End at once; the system closes the files."""
        self.is_listening = False
        if not self.killed.done():
            self.killed.set_result(None)
        self.world.loop.kill(self.process)
        if self.store is not None:
            self.store.abandon()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{FIRST_PORT + self.slot}"

    @property
    def is_lost(self) -> bool:
        """Whether others took this node for dead, and it knows."""
        return self.engine is not None and self.engine.membership.lost.done()

    @property
    def is_quiet(self) -> bool:
        """Whether all that it decided is durable, so that its memory must be as the rows are."""
        if self.store is None or self.engine is None or not self.is_listening or self.process.is_held:
            return False
        committer = self.store._committer
        return not (committer._busy or committer._waiting or committer._scheduled)

    def _on_trouble(self, error: Exception | None) -> None:
        self.is_in_trouble = error is not None
        if self.engine is not None:
            self.engine.trouble = error
        self.world.note_trouble(self, error)

    # --- commits

    def may_commit(self) -> None:
        """See ``faults.Committing``."""
        if self.world.hits(self.world.faults.commit_failed):
            raise trouble("disk I/O error")

    def committed(self, writes: list[Write]) -> None:
        """See ``faults.Committing``."""
        world = self.world
        world.on_commit(self, writes)
        if world.hits(world.faults.killed_at_commit) and self.can_be_killed:
            world.kill(self)
        elif world.hits(world.faults.commit_unknown):
            raise trouble("disk I/O error, although the disk has it")

    def refused(self, writes: list[Write]) -> None:
        """See ``faults.Committing``: memory is as the rows are, so what it decides can be written.

        Whether an event was emitted before is not in memory: of two at the same time the second one is refused. Nor are
        schedules: what cannot be done with them, such as a second back-fill, is refused where they are stored.
        """
        is_event = any(kind == "events_added" for kind, _ in writes)
        is_of_schedule = self.world.timetable is not None and not writes
        if not (is_event or is_of_schedule or self.world.is_shared or self.world.faults_drawn.commit_unknown):
            self.world.violated(f"{self.name} decided what cannot be written")

    # --- requests, out and in

    async def _send(self, endpoint: Endpoint, headers: list[tuple[bytes, bytes]], body: bytes) -> RawAnswer:
        request = request_of(endpoint, headers, body)
        with self._counted(request):
            return await self.world.network.carry(endpoint.url.netloc.decode(), request)

    @contextmanager
    def _counted(self, request: Request) -> Iterator[None]:
        queue = self.world.on_send(self, request)
        self.in_flight[queue] += 1
        try:
            yield
        finally:
            self.in_flight[queue] -= 1

    async def ask(self, request: Request) -> Answer:
        """Answer a request to the API."""
        if not self.is_listening or not self.process.is_alive:
            raise httpx.ConnectError(f"cannot connect to {self.name}")
        assert self.app is not None
        reply: asyncio.Future[Answer] = self.world.loop.create_future()
        self.world.loop.spawn(self.process, self._answer(self.app, request, reply))
        return await reply

    async def _answer(self, app: FastAPI, request: Request, reply: "asyncio.Future[Answer]") -> None:
        answer = await call(app, request)
        self.world.on_answer(self, request, answer)
        if not reply.done():
            reply.set_result(answer)


class _ToNodes(httpx.AsyncBaseTransport):
    """Carries requests that one node forwards to another."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        path = request.url.raw_path.decode()
        not_ours = {b"host", b"content-length"}
        headers = {name.lower(): value for name, value in request.headers.raw if name.lower() not in not_ours}
        answer = await self._world.forward(request.url.port or 0, Request(request.method, path, headers, body))
        return httpx.Response(answer.status, content=answer.body, headers={"content-type": "application/json"})
