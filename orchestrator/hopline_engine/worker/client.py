"""Keeps the worker known to the engine: definitions, registration, heartbeats, and the farewell."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import msgspec

from hopline import Definition, HoplineError
from hopline_engine.clock import Clock
from hopline_engine.worker.parent import say

HEARTBEAT_SECONDS = 2.0
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0
"""Short, since steps may be waiting for this worker after the engine was started again."""
_ASK_SECONDS = 10.0


class RegistrationRefusedError(HoplineError):
    """The engine answered and does not want this worker or its definitions; asking again would not help."""

    def __init__(self, code: str, message: str, hint: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a worker tells the engine about itself."""

    worker: str
    """Id of this worker process; a new process has a new one."""
    definitions: bytes
    """Body of ``POST /definitions``."""
    description: bytes
    """Body of ``PUT /workers/{id}``."""

    @classmethod
    def of(
        cls, worker: str, definitions: Sequence[Definition], current: Sequence[str], description: dict[str, Any]
    ) -> "Announcement":
        """Return the announcement of *worker*, which holds the newest version of the workflows called *current*."""
        listed = [msgspec.Raw(definition.canonical()) for definition in definitions]
        return cls(
            worker=worker,
            definitions=msgspec.json.encode({"definitions": listed, "current": list(current)}),
            description=msgspec.json.encode(description),
        )


class EngineClient:
    """The engine's API as far as a worker uses it. Raises ``httpx.TransportError`` when there is no answer."""

    def __init__(self, server: str, api_token: str | None, announcement: Announcement) -> None:
        headers = {"Content-Type": "application/json"}
        if api_token:
            headers["Authorization"] = f"Bearer {api_token}"
        self._http = httpx.AsyncClient(
            base_url=f"{server.rstrip('/')}/api/v1", headers=headers, timeout=_ASK_SECONDS, trust_env=False
        )
        self._announcement = announcement
        self._path = f"/workers/{announcement.worker}"

    async def register(self) -> None:
        """Make the definitions and then the worker known. Doing so again changes nothing."""
        _accepted(await self._ask("POST", "/definitions", self._announcement.definitions))
        _accepted(await self._ask("PUT", self._path, self._announcement.description))

    async def heartbeat(self) -> bool:
        """Say that the worker is alive; return whether the engine knows it."""
        response = await self._ask("POST", f"{self._path}/heartbeat")
        if response.status_code == HTTPStatus.NOT_FOUND:
            return False
        _accepted(response)
        return True

    async def unregister(self) -> None:
        """Ask for no more work."""
        await self._ask("DELETE", self._path)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        response = await self._http.request(method, path, content=body)
        if response.is_server_error or response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise httpx.RemoteProtocolError(f"it answered {response.status_code}", request=response.request)
        return response


def _accepted(response: httpx.Response) -> None:
    if not response.is_success:
        raise _refused(response)


def _refused(response: httpx.Response) -> RegistrationRefusedError:
    try:
        error = response.json()["error"]
        return RegistrationRefusedError(str(error["code"]), str(error["message"]), error.get("hint"))
    except (ValueError, KeyError, TypeError, AttributeError):
        hint = "is this the address of a Hopline server?"
        what = f"{response.request.url} answered {response.status_code}"
        return RegistrationRefusedError("registration-refused", what, hint)


class Registration:
    """Keeps a worker registered over restarts of the engine."""

    def __init__(self, client: EngineClient, server: str, clock: Clock, on_registered: Callable[[], None]) -> None:
        self._client = client
        self._server = server
        self._clock = clock
        self._on_registered = on_registered
        self.happened = False
        """Whether the engine has ever known the worker."""

    async def keep(self) -> None:
        """Register and send heartbeats until cancelled; say so each time the engine came to know the worker.

        Raises:
            RegistrationRefusedError: the engine refused this worker before it had ever accepted it.
        """
        while True:
            await self._register()
            self.happened = True
            self._on_registered()
            await self._heartbeats()

    async def _register(self) -> None:
        wait = FIRST_WAIT_SECONDS
        while (reason := await self._what_prevents()) is not None:
            if wait == FIRST_WAIT_SECONDS:
                say(f"waiting for the server at {self._server}: {reason}")
            await asyncio.sleep(wait * (0.5 + self._clock.random() / 2))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        if wait != FIRST_WAIT_SECONDS:
            say("registered")

    async def _what_prevents(self) -> Exception | None:
        try:
            await self._client.register()
        except httpx.TransportError as error:
            return error
        except RegistrationRefusedError as error:
            if not self.happened:
                raise
            return error
        return None

    async def _heartbeats(self) -> None:
        """Return when the engine does not answer, or does not know the worker."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if not await self._is_known():
                return

    async def _is_known(self) -> bool:
        try:
            return await self._client.heartbeat()
        except (httpx.TransportError, RegistrationRefusedError):
            return False
