"""Puts an installation together: settings to store, engine, API and server; and takes it apart in order."""

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from hopline_engine.api.app import create_app
from hopline_engine.api.service import Service
from hopline_engine.clock import SystemClock, token
from hopline_engine.errors import InsecureAddressError
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.egress import Guard
from hopline_engine.queue.signing import Signer, load_key
from hopline_engine.queue.target import Limits, Target
from hopline_engine.queue.transport import Transport
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings
from hopline_engine.store.sqlite import SQLiteStore, open_store

SECRET_PREFIX = "HOPLINE_SECRET_"  # noqa: S105  # the name of a variable
SERVER_FILE = "server.json"


class Installation:
    """An open engine with its API; see ``open_engine``."""

    def __init__(
        self, app: FastAPI, settings: Settings, dispatcher: Dispatcher, on_listening: Callable[[], None]
    ) -> None:
        self.app = app
        """The API, as an ASGI application."""
        self.url = ""
        """Where it listens, once ``serve`` was called."""
        self._settings = settings
        self._dispatcher = dispatcher
        self._on_listening = on_listening
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def serve(self, port: int | None = None) -> str:
        """Listen, tell other processes where, let runs move, and return the base URL.

        Raises:
            InsecureAddressError: the address is reachable from elsewhere and the API has no token.
            OSError: the port is taken.
        """
        host = self._settings.host
        if not is_loopback(host) and not self._settings.api_token:
            raise InsecureAddressError(host=host)
        listener = _listen(host, self._settings.port if port is None else port)
        self.url = f"http://{_shown(host)}:{listener.getsockname()[1]}"
        self._dispatcher.callback_base = f"{self._settings.public_url or self.url}/api/v1"
        config = uvicorn.Config(
            self.app,
            access_log=False,
            log_config=None,
            lifespan="off",
            http="httptools",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([listener]))
        _write_server_file(self._settings.state_dir, self.url)
        self._on_listening()  # not before: what is sent says where to call back
        return self.url

    async def stop_serving(self) -> None:
        """Stop listening."""
        if self._server is None or self._serving is None:
            return
        (self._settings.state_dir / SERVER_FILE).unlink(missing_ok=True)
        self._server.should_exit = True
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
    signer = Signer(settings.key.encode() if settings.key else load_key(settings.state_dir / "key"))
    clock = SystemClock()
    guard = Guard(settings.egress, settings.allowed_targets)
    # A worker wraps a result with its logs, so answers may be larger than results.
    limits = Limits(body_bytes=2 * settings.result_max_bytes)
    trouble = _Trouble()
    async with (
        _store(settings, clock, trouble) as store,
        _target(guard, limits) as target,
        _target(Guard("open"), limits) as workers,
    ):
        dispatcher = Dispatcher(
            target=target,
            workers=workers,
            signer=signer,
            secrets=Secrets(os.environ),
            clock=clock,
            attempt_timeout=settings.attempt_timeout_seconds,
            result_max_bytes=settings.result_max_bytes,
        )
        engine = Engine(store=store, dispatcher=dispatcher, signer=signer, clock=clock, settings=settings)
        trouble.engine = engine
        on_listening = engine.dispatch if dispatch else _do_nothing
        installation = Installation(create_app(Service(engine, clock), settings), settings, dispatcher, on_listening)
        try:
            await engine.open()
            yield installation
        finally:
            engine.watchers.end()
            await installation.stop_serving()
            await engine.close()


class Secrets(Mapping[str, str]):
    """Secrets by name, from variables that are meant for it: ``secret("TOKEN")`` is ``HOPLINE_SECRET_TOKEN``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._values = {
            name.removeprefix(SECRET_PREFIX): value
            for name, value in environment.items()
            if name.startswith(SECRET_PREFIX)
        }

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def is_loopback(host: str) -> bool:
    """Return whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(uvicorn.Server):
    """A server among others on the loop: signals are the command line's business."""

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
async def _store(settings: Settings, clock: SystemClock, on_trouble: _Trouble) -> AsyncIterator[SQLiteStore]:
    store = await open_store(settings.store_path, node=token(8), now=clock.now(), on_trouble=on_trouble)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def _target(guard: Guard, limits: Limits) -> AsyncIterator[Target]:
    target = Target(Transport(guard, limits), limits)
    try:
        yield target
    finally:
        await target.aclose()


def _do_nothing() -> None:
    """Leave the runs where they are."""


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only then; with it, an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # from now on nobody is refused, though answers take until the server is up
    except OSError:
        listener.close()
        raise
    return listener


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
