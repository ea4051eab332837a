"""One node of the engine as a worker talks to it: definitions, registration, heartbeats, and the farewell."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from hopline import Definition, HoplineError
from hopline_engine.worker.exchange import Exchange, NoAnswerError, Reply


class RegistrationRefusedError(HoplineError):
    """The engine answered and does not want this worker or its definitions; asking again would not help."""

    def __init__(self, code: str, message: str, hint: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class Address(msgspec.Struct, frozen=True):
    """Where a node is."""

    id: str
    url: str


class Terms(msgspec.Struct, frozen=True):
    """What a node answers to a worker that registers or shows that it is alive."""

    node: str = ""
    """Id of the node; another one after it was started again."""
    nodes: list[Address] = []
    """All nodes that share the work; none from a server that says nothing of others."""
    result_max_bytes: int | None = None


class _Defined(msgspec.Struct, frozen=True):
    """What a node answers to definitions."""

    notes: list[str] = []


_terms_of = msgspec.json.Decoder(Terms).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a worker tells the engine about itself."""

    worker: str
    """Id of this worker process; a new process has a new one."""
    definitions: Sequence[msgspec.Raw]
    current: Sequence[str]
    """Workflows of which this worker has the newest version."""
    schedules: bool
    """Whether what the files say of when their workflows run is to be put in force."""
    description: dict[str, Any]
    """Body of ``PUT /workers/{id}``; its ``concurrency`` is shared by all nodes."""

    @classmethod
    def of(
        cls,
        worker: str,
        definitions: Sequence[Definition],
        current: Sequence[str],
        description: dict[str, Any],
        *,
        schedules: bool = True,
    ) -> "Announcement":
        """Return the announcement of *worker*, which holds the newest version of the workflows called *current*."""
        listed = [msgspec.Raw(definition.canonical()) for definition in definitions]
        return cls(
            worker=worker, definitions=listed, current=list(current), schedules=schedules, description=description
        )

    @property
    def slots(self) -> int:
        """How many steps the worker runs at a time."""
        slots: int = self.description["concurrency"]
        return slots


class EngineClient:
    """A node's API as far as a worker uses it. Raises ``NoAnswerError`` when there is no answer, or one of trouble."""

    def __init__(self, server: str, api_token: str | None, announcement: Announcement) -> None:
        headers = {"Content-Type": "application/json"}
        if api_token:
            headers["Authorization"] = f"Bearer {api_token}"
        self._exchange = Exchange(f"{server.rstrip('/')}/api/v1", headers)
        self._announcement = announcement
        self._path = f"/workers/{announcement.worker}"

    async def define(self, *, as_newest: bool) -> list[str]:
        """Make the definitions known; *as_newest*, those of this worker's workflows become the newest versions.

        Return what the node has to tell about it, in sentences. Doing so again changes nothing.
        """
        announced = self._announcement
        current = announced.current if as_newest else []
        content: dict[str, object] = {"definitions": announced.definitions, "current": current}
        if not announced.schedules:
            content["schedules"] = False
        reply = await self._ask("POST", "/definitions", msgspec.json.encode(content))
        try:
            return msgspec.json.decode(self._accepted(reply, "/definitions"), type=_Defined).notes
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._not_hopline(reply, "/definitions") from None

    async def register(self, concurrency: int) -> Terms:
        """Make the worker known, or change how many steps the node may send it at a time."""
        body = msgspec.json.encode({**self._announcement.description, "concurrency": concurrency})
        return self._terms(await self._ask("PUT", self._path, body), self._path)

    async def heartbeat(self) -> Terms | None:
        """Say that the worker is alive; return ``None`` if the node does not know it."""
        path = f"{self._path}/heartbeat"
        reply = await self._ask("POST", path)
        return None if reply.status == HTTPStatus.NOT_FOUND else self._terms(reply, path)

    async def node(self) -> str:
        """Return the id of the node that answers here."""
        body = self._accepted(await self._ask("GET", "/health"), "/health")
        try:
            return str(msgspec.json.decode(body)["node"])
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
            return "something else"

    async def unregister(self) -> None:
        """Ask for no more work."""
        await self._ask("DELETE", self._path)

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        reply = await self._exchange.ask(method, path, body)
        if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise NoAnswerError(f"it answered {reply.status}")
        return reply

    def _accepted(self, reply: Reply, path: str) -> bytes:
        if 200 <= reply.status < 300:
            return reply.body
        try:
            error = msgspec.json.decode(reply.body)["error"]
            raise RegistrationRefusedError(str(error["code"]), str(error["message"]), error.get("hint"))
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            raise self._not_hopline(reply, path) from None

    def _terms(self, reply: Reply, path: str) -> Terms:
        body = self._accepted(reply, path)
        try:
            return _terms_of(body) if body else Terms()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._not_hopline(reply, path) from None

    def _not_hopline(self, reply: Reply, path: str) -> RegistrationRefusedError:
        what = f"{self._exchange.base_url}{path} answered {reply.status}"
        return RegistrationRefusedError("registration-refused", what, "is this the address of a Hopline server?")
