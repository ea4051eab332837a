"""Where the engine is: a server that runs, or one that this process becomes.

The only module of the command line that touches ``hopline_engine``'s settings and composition root.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hopline_cli import screen
from hopline_cli.answers import Diagnosis
from hopline_cli.client import Api, api_inside, api_over, is_hopline, is_up
from hopline_cli.errors import CliError, ExitCode, ServerGone
from hopline_cli.interrupts import Interrupts
from hopline_cli.text import printable
from hopline_engine import clock

if TYPE_CHECKING:
    from hopline_engine.bootstrap import Installation
    from hopline_engine.settings import Settings

LOCKED_SECONDS = 60.0
"""How long a store may be locked by a process that does not answer: one that starts or ends, on a busy machine."""
SILENT_SECONDS = 2.0
"""After which it is said what is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server that can run workflows."""

    api: Api
    url: str
    own: bool
    """It is this process: when it ends, its runs stop until another one opens the store."""
    named: bool
    """The user said where it is, so no other will do."""
    token: str | None
    """What its API wants to see."""

    @property
    def patience_seconds(self) -> float:
        """Return how long to wait for it to come back when it goes away."""
        return 0.0 if self.own else 60.0 if self.named else 1.0


def load_settings(**flags: Any) -> "Settings":
    """Return the settings; flags that are ``None`` were not given."""
    from hopline.errors import HoplineError
    from hopline_engine.settings import Settings

    try:
        return Settings.load(**flags)
    except HoplineError as error:
        raise CliError("settings", error.message, hint=error.hint, exit_code=ExitCode.USAGE) from error


async def running_server(settings: "Settings") -> str | None:
    """Return the address of the server that runs on this installation's store, if one answers."""
    try:
        told = json.loads((settings.state_dir / "server.json").read_text(encoding="utf-8"))
        url = str(told["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url.rstrip("/") if await is_up(url) else None


async def server_to_join(settings: "Settings") -> str:
    """Return the address of the server that a worker in this folder serves.

    That is the one that runs on the store here. Without one, it is the usual address: another Hopline may listen
    there, which is said, or nobody yet.

    Raises:
        CliError: something else listens there.
    """
    own = await running_server(settings) or await _server_of_database(settings)
    if own is not None:
        return own
    url = f"http://{settings.host}:{settings.port}"
    match await is_hopline(url):
        case True:
            screen.say(f"no server runs on {printable(settings.store_shown)}; joining the one at {url}")
        case False:
            raise CliError(
                "not-hopline",
                f"no server runs on {settings.store_shown}, and what listens at {url} is not hopline",
                hint="name the server with --server URL, or start one on another port with: hopline serve --port PORT",
            )
        case None:
            screen.say(f"no server runs on {printable(settings.store_shown)}; waiting for one at {url}")
    return url


async def server_found(settings: "Settings") -> str | None:
    """Return the address of the server to talk to, if there is one.

    Raises:
        ServerGone: the user named a server and it does not answer.
    """
    if settings.server_url is None:
        return await running_server(settings) or await _server_of_database(settings)
    url = settings.server_url.rstrip("/")
    if not await is_up(url):
        raise ServerGone(url, "the connection failed or its health check did")
    return url


async def comes_up(server: str | None, seconds: float) -> bool:
    """Return whether a server is up, or comes up within so many seconds.

    Raises:
        ServerGone: the user named a server and it does not answer.
    """
    settings = load_settings(server_url=server)
    give_up_at = clock.monotonic() + seconds
    while await server_found(settings) is None:
        if clock.monotonic() > give_up_at:
            return False
        await asyncio.sleep(0.1)
    return True


async def _server_of_database(settings: "Settings") -> str | None:
    """Return the address of a node that shares the database of the settings, if they name one and a node answers."""
    if not settings.is_on_postgres:
        return None
    from hopline.errors import HoplineError
    from hopline_engine.bootstrap import node_urls

    with suppress(HoplineError):  # opening it says what is wrong
        for url in await node_urls(settings):
            if await is_up(url):
                return url
    return None


async def examined(settings: "Settings") -> Diagnosis:
    """Return what is to be said about the store of this installation, looked at without a server.

    Raises:
        CliError: it cannot be looked at.
    """
    from hopline.errors import HoplineError
    from hopline_engine.bootstrap import examine

    try:
        found = await examine(settings)
    except HoplineError as error:
        raise CliError(error.code, error.message, hint=error.hint) from error
    return cast("Diagnosis", found.model_dump(mode="json"))


@asynccontextmanager
async def opened(settings: "Settings", *, dispatch: bool) -> "AsyncIterator[Installation]":
    """Open the engine in this process; without *dispatch* it only reads and records, and nothing runs."""
    from hopline.errors import HoplineError
    from hopline_engine.bootstrap import open_engine

    try:
        async with AsyncExitStack() as stack:
            try:
                engine = await stack.enter_async_context(open_engine(settings, dispatch=dispatch))
            except OSError as error:
                raise _unusable(settings, error) from error
            yield engine
    except HoplineError as error:
        raise CliError(error.code, error.message, hint=error.hint) from error


@asynccontextmanager
async def opened_to_serve(settings: "Settings", interrupts: Interrupts) -> "AsyncIterator[Installation]":
    """Open the engine in this process, which is to be the server; a command that has the store open is waited for.

    Raises:
        Interrupted: a stop was asked for meanwhile.
    """
    locked = _Locked()
    async with AsyncExitStack() as stack:
        while True:
            try:
                engine = await stack.enter_async_context(opened(settings, dispatch=True))
                break
            except CliError as error:
                if await running_server(settings) is not None:
                    raise
                await interrupts.unless_asked(locked.rest(error))
        yield engine


class _Locked:
    """How long it is that another process has the store open and does not answer: it starts, or ends, or is busy."""

    def __init__(self) -> None:
        self._began = clock.monotonic()
        self._is_said = False

    async def rest(self, error: CliError) -> None:
        """Let some time pass before the store is opened again.

        Raises:
            CliError: *error* is another one, or that lasts too long.
        """
        waited = clock.monotonic() - self._began
        if error.code != "store-locked" or waited > LOCKED_SECONDS:
            raise error
        if waited > SILENT_SECONDS and not self._is_said:
            self._is_said = True
            screen.say(printable(f"{error.message}; waiting until that answers or ends"))
        await asyncio.sleep(0.1)


def _unusable(settings: "Settings", error: OSError) -> CliError:
    return CliError(
        "state-dir",
        f"cannot use {error.filename or settings.state_dir}: {error.strerror or error}",
        hint="name another folder with HOPLINE_STATE_DIR",
    )


async def listening(engine: "Installation", port: int, *, schedules: bool = False) -> str:
    """Let *engine* listen on *port*, 0 for any, and return its address; with *schedules*, these fire."""
    try:
        return await engine.serve(port, schedules=schedules)
    except OSError as error:
        raise CliError(
            "cannot-listen", f"cannot listen on port {port}: {error.strerror}", hint="choose another one with --port"
        ) from error


@asynccontextmanager
async def reached(server: str | None) -> AsyncIterator[Api]:
    """Yield the API for one question or order: a server's if one is up, else the store's, opened in this process."""
    settings = load_settings(server_url=server)
    async with AsyncExitStack() as stack:
        found = await _server_or_engine(stack, settings, dispatch=False)
        if isinstance(found, str):
            yield await stack.enter_async_context(api_over(found, settings.api_token))
        else:
            yield await stack.enter_async_context(api_inside(found.app, settings.api_token))


@asynccontextmanager
async def found_or_become(server: str | None) -> AsyncIterator[Place]:
    """Yield a server that can run workflows: one that is up, or else this process on a free port of its own."""
    # Whatever the settings say about listening, this server is for this machine only.
    settings = load_settings(server_url=server, host="127.0.0.1")
    async with AsyncExitStack() as stack:
        found = await _server_or_engine(stack, settings, dispatch=True)
        url = found if isinstance(found, str) else await listening(found, 0)
        api = await stack.enter_async_context(api_over(url, settings.api_token))
        yield Place(
            api=api,
            url=url,
            own=not isinstance(found, str),
            named=settings.server_url is not None,
            token=settings.api_token,
        )


async def _server_or_engine(stack: AsyncExitStack, settings: "Settings", *, dispatch: bool) -> "str | Installation":
    """Return the address of a server, or the engine opened in this process until *stack* is closed.

    A process that has the store open and does not answer is about to answer, or to end; so both are tried for a while.
    """
    locked = _Locked()
    while True:
        url = await server_found(settings)
        if url is not None:
            return url
        if not dispatch and not settings.is_on_postgres and not settings.store_path.exists():
            raise _nothing_here(settings)
        try:
            return await stack.enter_async_context(opened(settings, dispatch=dispatch))
        except CliError as error:
            await locked.rest(error)


def _nothing_here(settings: "Settings") -> CliError:
    return CliError(
        "no-store",
        f"no server is up, and there is no store at {settings.store_path}",
        hint="begin with: hopline run FILE, or name a server with --server URL",
        exit_code=ExitCode.NO_SERVER,
    )
