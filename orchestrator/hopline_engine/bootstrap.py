"""Puts an installation together: settings to store, engine, API and server; and takes it apart in order."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from hopline_engine.api.app import create_app, installed_version
from hopline_engine.api.doctor import doctor_view
from hopline_engine.api.models import Doctor
from hopline_engine.api.service import Service
from hopline_engine.blobs.blobs import Blobs
from hopline_engine.blobs.opening import open_place
from hopline_engine.clock import DatabaseClock, SystemClock, token
from hopline_engine.errors import InsecureAddressError
from hopline_engine.http_protocol import HttpProtocol
from hopline_engine.listening import is_loopback, listen
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.egress import Guard
from hopline_engine.queue.secrets import Secrets, from_environment
from hopline_engine.queue.signing import Signer, load_key
from hopline_engine.queue.target import Limits, Target
from hopline_engine.queue.transport import Transport
from hopline_engine.queue_front import QueueFront, open_queue_front, refuse
from hopline_engine.scheduler import diagnosis
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings
from hopline_engine.store import nodes, schema
from hopline_engine.store.condition import looked_into
from hopline_engine.store.errors import OwnershipLostError
from hopline_engine.store.interface import Store
from hopline_engine.store.keys import signing_key
from hopline_engine.store.opening import open_store

SERVER_FILE = "server.json"
KEEP_ALIVE_SECONDS = 75
"""How long a connection that nobody uses stays open: longer than clients keep theirs, usually 5 s or a minute. What is
sent on one that is just being closed is lost, and a start of a run without a key is not to be repeated."""
DATE_SECONDS = 1.0
"""How often the header that says when an answer was given is made anew."""


class Installation:
    """An open engine with its API; see ``open_engine``."""

    def __init__(
        self, app: FastAPI, settings: Settings, dispatcher: Dispatcher, engine: Engine, *, dispatch: bool
    ) -> None:
        self.app = app
        """The API, as an ASGI application."""
        self.url = ""
        """Where it listens, once ``serve`` was called."""
        self.queue_front: QueueFront | None = None
        """The queue service on Cloud Tasks' wire, while the engine is open."""
        self.grpc_port: int | None = None
        """Where that listens for gRPC, once ``serve`` was called and if it was asked for."""
        self._settings = settings
        self._dispatcher = dispatcher
        self._engine = engine
        self._dispatch = dispatch
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def serve(self, port: int | None = None, *, schedules: bool = False) -> str:
        """Listen, tell other processes where, let runs move, and return the base URL; with *schedules*, these fire.

        Raises:
            InsecureAddressError: the address is reachable from elsewhere and the API has no token.
            OSError: the port is taken.
        """
        host = self._settings.host
        if not is_loopback(host) and not self._settings.api_token:
            raise InsecureAddressError(host=host)
        listener = listen(host, self._settings.port if port is None else port)
        self.url = f"http://{_shown(host)}:{listener.getsockname()[1]}"
        self._dispatcher.callback_base = f"{self._settings.public_url or self.url}/api/v1"
        config = uvicorn.Config(
            self.app,
            access_log=False,
            log_config=None,
            lifespan="off",
            http=HttpProtocol,
            proxy_headers=False,  # nothing here depends on who calls, or by which scheme
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._server = _Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([listener]))
        if self.queue_front is not None and self._settings.grpc_port is not None:
            self.grpc_port = await self.queue_front.serve_grpc(self._settings.grpc_port)
        _write_server_file(self._settings.state_dir, self.url)
        if self._dispatch:  # not before: what is sent says where to call back
            runs_url = self._dispatcher.runs_url = f"{self._dispatcher.callback_base}/runs"
            self._engine.dispatch(self._settings.node_url or self.url, runs_url=runs_url, schedules=schedules)
        return self.url

    def note_loading(self, *, is_loading: bool) -> None:
        """Answer for what is not there that files are still being loaded which may have it; or that no longer."""
        self._engine.catalogue.is_loading = is_loading

    async def lost(self) -> OwnershipLostError:
        """Return when other nodes took this one for dead: it does nothing any more, and is to be opened anew."""
        return await asyncio.shield(self._engine.membership.lost)

    async def stop_serving(self) -> None:
        """Stop listening."""
        if self._server is None or self._serving is None:
            return
        (self._settings.state_dir / SERVER_FILE).unlink(missing_ok=True)
        self._server.stop()
        await self._serving


@asynccontextmanager
async def open_engine(settings: Settings, *, dispatch: bool = True) -> AsyncIterator[Installation]:
    """Open the installation that the settings describe, and close it at the end.

    Args:
        settings: of the installation.
        dispatch: whether runs move once it listens; without it they can be looked at, started and cancelled only.

    Raises:
        StoreLockedError: another process has it open.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    machine = SystemClock()
    clock = DatabaseClock(machine)
    guard = Guard(settings.egress, settings.allowed_targets)
    limits = Limits(body_bytes=2 * settings.result_max_bytes)
    # A worker wraps a result with its log, of which each byte may take six as JSON, and with a traceback.
    limits_of_workers = Limits(body_bytes=settings.result_max_bytes + 1_048_576)
    trouble = _Trouble()
    async with (
        _store(settings, machine, trouble) as store,
        _target(guard, limits) as target,
        _target(Guard("open"), limits_of_workers) as workers,
    ):
        signer = Signer(await _key(settings, store))
        blobs = Blobs(await open_place(settings, store), clock, inline_bytes=settings.result_inline_bytes)
        dispatcher = Dispatcher(
            target=target,
            workers=workers,
            signer=signer,
            blobs=blobs,
            secrets=Secrets(from_environment(os.environ), folder=settings.secrets_dir),
            clock=clock,
            attempt_timeout=settings.attempt_timeout_seconds,
            result_max_bytes=settings.result_max_bytes,
        )
        engine = Engine(store=store, dispatcher=dispatcher, signer=signer, clock=clock, settings=settings)
        trouble.engine = engine
        app = create_app(Service(engine, clock), settings, refuse)
        installation = Installation(app, settings, dispatcher, engine, dispatch=dispatch)
        try:
            await engine.open()
            url = partial(_public_url, settings, installation)
            async with open_queue_front(engine, target, clock, settings, url) as front:
                front.mount(app)
                installation.queue_front = front
                try:
                    yield installation
                finally:
                    engine.watchers.end()
                    await installation.stop_serving()
        finally:
            await installation.app.state.forwarder.aclose()
            await engine.close()


async def examine(settings: Settings) -> Doctor:
    """Look at the store that the settings describe without an engine, whoever else has it open; nothing is changed.

    Raises:
        StoreError: it cannot be reached, or is damaged.
    """
    machine = SystemClock()
    async with looked_into(settings, machine) as reads:
        return doctor_view(await diagnosis.examine(reads, settings, machine.now()), installed_version())


async def node_urls(settings: Settings) -> list[str]:
    """Return where the nodes that have the store open are reached, as the store says; some may be dead by now.

    Raises:
        StoreError: it cannot be reached.
    """
    async with looked_into(settings, SystemClock()) as reads:
        if not await reads.read(partial(schema.is_current, name=settings.store_shown)):
            return []
        return [node.url for node in await reads.read(nodes.all_nodes) if node.url is not None]


class _Server(uvicorn.Server):
    """A server among others on the loop: signals are the command line's business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Take no more requests; ``serve`` then returns."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        """Keep the date of the answers right until ``stop``, instead of looking ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_SECONDS):
                    await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class _Trouble:
    """Tells the engine of trouble of the store, which is opened before there is an engine."""

    engine: Engine | None = None

    def __call__(self, trouble: Exception | None) -> None:
        if self.engine is not None:
            self.engine.trouble = trouble


@asynccontextmanager
async def _store(settings: Settings, clock: SystemClock, on_trouble: _Trouble) -> AsyncIterator[Store]:
    store = await open_store(settings, node=token(8), clock=clock, on_trouble=on_trouble)
    try:
        yield store
    finally:
        await store.close()


async def _key(settings: Settings, store: Store) -> bytes:
    if settings.key:
        return settings.key.encode()
    # A callback may come to any of the nodes that share a database.
    return await store.execute(signing_key) if settings.is_on_postgres else load_key(settings.state_dir / "key")


def _public_url(settings: Settings, installation: Installation) -> str:
    """Return the base URL under which targets reach this server."""
    return settings.public_url or installation.url


@asynccontextmanager
async def _target(guard: Guard, limits: Limits) -> AsyncIterator[Target]:
    target = Target(Transport(guard, limits), limits)
    try:
        yield target
    finally:
        await target.aclose()


def _shown(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104  # compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _write_server_file(state_dir: Path, url: str) -> None:
    """Tell other processes of this machine where the server is; replaced whole, so that nobody reads half of it."""
    path = state_dir / SERVER_FILE
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    draft.replace(path)
