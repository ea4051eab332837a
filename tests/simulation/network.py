"""The network between nodes, workers, targets and clients: it loses, repeats and delays what it carries."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx
from starlette.types import ASGIApp, Message

from hopline_engine.queue.connection import RawAnswer
from hopline_engine.queue.transport import Endpoint, Transport
from tests.simulation.faults import Faults
from tests.simulation.loop import Process, SimulationLoop

Json = dict[str, Any]


class Request(NamedTuple):
    """A request as it arrives."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    body: bytes

    def json(self) -> Json:
        decoded: Json = json.loads(self.body)
        return decoded


class Host:
    """Somebody who is sent requests by nodes."""

    def __init__(self, process: Process | None) -> None:
        self.process = process
        self.in_hand: dict[asyncio.Future[RawAnswer], None] = {}

    async def serve(self, request: Request) -> RawAnswer:
        """Answer a request."""
        raise NotImplementedError


@dataclass(eq=False)
class Network:
    """Carries requests from nodes to hosts."""

    loop: SimulationLoop
    random: Random
    faults: Faults
    hosts: dict[str, Host]
    on_fault: Callable[[Request], None]

    def latency(self) -> float:
        return self.random.expovariate(1 / 0.003)

    async def carry(self, name: str, request: Request) -> RawAnswer:
        """Take a request to a host and bring back its answer."""
        await asyncio.sleep(self.latency())
        host = self.hosts.get(name)
        if host is None or self._hits(self.faults.request_refused, request):
            cause = ConnectionRefusedError("refused")
            raise httpx.ConnectError(f"cannot connect to {name}: refused") from cause
        if self._hits(self.faults.request_lost, request):
            await self._lose()
        if self._hits(self.faults.request_repeated, request):
            self._deliver(host, request)
        answer = await self._deliver(host, request)
        await asyncio.sleep(self.latency())
        if self._hits(self.faults.answer_lost, request):
            await self._lose()
        return answer

    def _hits(self, share: float, request: Request) -> bool:
        if share and self.random.random() < share:
            self.on_fault(request)
            return True
        return False

    async def _lose(self) -> None:
        """Let nobody hear anything any more, or break the connection."""
        if self.random.random() < 0.5:
            await self.loop.create_future()
        await asyncio.sleep(self.random.uniform(0, 2))
        raise httpx.ReadError("connection reset by peer") from ConnectionResetError("reset")

    def _deliver(self, host: Host, request: Request) -> "asyncio.Future[RawAnswer]":
        reply: asyncio.Future[RawAnswer] = self.loop.create_future()
        host.in_hand[reply] = None
        self.loop.spawn(host.process, self._serve(host, request, reply))
        return reply

    @staticmethod
    async def _serve(host: Host, request: Request, reply: "asyncio.Future[RawAnswer]") -> None:
        answer = await host.serve(request)
        host.in_hand.pop(reply, None)
        if not reply.done():
            reply.set_result(answer)

    def cut(self, host: Host) -> None:
        """Let a host die: those that wait for its answers see their connections break, or nothing at all."""
        for reply in host.in_hand:
            if self.random.random() < 0.8 and not reply.done():
                reply.set_exception(httpx.ReadError("connection reset by peer"))
                reply.exception()  # who waited may be gone, too
        host.in_hand.clear()


class SimulatedTransport(Transport):
    """In place of connections of a node."""

    def __init__(self, send: Callable[[Endpoint, list[tuple[bytes, bytes]], bytes], Awaitable[RawAnswer]]) -> None:
        self._send_simulated = send

    async def send_raw(self, endpoint: Endpoint, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> RawAnswer:
        return await self._send_simulated(endpoint, list(headers), body)

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""


def request_of(endpoint: Endpoint, headers: list[tuple[bytes, bytes]], body: bytes) -> Request:
    """Return a request as its host sees it."""
    lines = endpoint.start.split(b"\r\n")[1:]
    fixed = [tuple(line.split(b": ", 1)) for line in lines]
    named = {name.lower(): value for name, value in (*fixed, *headers)}
    return Request(endpoint.method, endpoint.url.path, named, body)


def json_answer(status: int, value: Any) -> RawAnswer:
    """Return an answer that carries a value."""
    return RawAnswer(status, [(b"content-type", b"application/json")], json.dumps(value).encode())


async def call(app: ASGIApp, request: Request) -> Answer:
    """Send a request to the API of a node and return the answer, all of it within the node's process."""
    path, _, query = request.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": [
            (b"host", b"127.0.0.1"),
            *([(b"content-length", b"%d" % len(request.body))] if request.body else []),
            *request.headers.items(),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8484),
    }
    sent: list[Message] = []
    given = iter([{"type": "http.request", "body": request.body, "more_body": False}])

    async def receive() -> Message:
        return next(given, None) or await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))
