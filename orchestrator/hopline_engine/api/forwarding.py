"""Requests about a run that another node works on: handed on to it, body and answer as streams.

A node says with a header that it forwards, and a request that has it is never forwarded again: while shards change
hands, two nodes may each take the other for the owner.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hopline.errors import HoplineError
from hopline_engine.api.body import limited_body
from hopline_engine.api.errors import answer_to
from hopline_engine.api.events import disconnected
from hopline_engine.errors import NodeUnreachableError, RunMovingError

FORWARDED_HEADER = "hopline-forwarded"
CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 30.0
"""Twice the keep-alive of an event stream, which is also the longest that an order may take."""

_ASKED = frozenset(
    {
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "hopline-callback-token",
        "last-event-id",
        "traceparent",
    }
)
_ANSWERED = frozenset({"content-length", "content-type", "retry-after", "x-accel-buffering", "x-request-id"})
"""Headers of the answer that go on; those of the connection and of security are this node's own."""
_RUN_SEGMENT = 4
"""Of every path about one run: /api/v1/runs/RUN, /api/v1/callbacks/RUN."""


class RunElsewhere(Exception):  # noqa: N818 - no error: the request has to be answered elsewhere
    """Another node works on the run that a request is about."""

    def __init__(self, run: str, url: str, body_limit: int = 0) -> None:
        super().__init__(f"run {run} is at {url}")
        self.run = run
        self.url = url
        self.body_limit = body_limit
        """Bytes that the body of the request may have."""


class Forwarder:
    """Hands requests on over connections that are kept."""

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def answer(self, request: Request, elsewhere: RunElsewhere) -> Response:
        """Return what the node that works on the run answers, or that it has to be asked again."""
        if FORWARDED_HEADER in request.headers:
            return answer_to(RunMovingError(run=elsewhere.run))
        try:
            return _Forwarded(await self._client().send(_handed_on(request, elsewhere), stream=True))
        except HoplineError as error:  # the body was refused on its way
            return answer_to(error)
        except httpx.TransportError as error:
            # Safe to ask again also when it was sent: what is forwarded may be done twice.
            reason = str(error) or type(error).__name__
            return answer_to(NodeUnreachableError(run=elsewhere.run, url=elsewhere.url, reason=reason))

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
            self._http = httpx.AsyncClient(limits=limits, trust_env=False)
        return self._http


async def forward(request: Request, elsewhere: RunElsewhere) -> Response:
    """Answer a request about a run that another node works on."""
    forwarder: Forwarder = request.app.state.forwarder
    return await forwarder.answer(request, elsewhere)


def _handed_on(request: Request, elsewhere: RunElsewhere) -> httpx.Request:
    headers = [(name, value) for name, value in request.headers.raw if name.decode("latin-1").lower() in _ASKED]
    headers += [(FORWARDED_HEADER.encode(), b"1"), (b"accept-encoding", b"identity")]
    has_body = any(name in request.headers for name in ("content-length", "transfer-encoding"))
    return httpx.Request(
        request.method,
        f"{elsewhere.url}{_path(request, elsewhere.run)}",
        headers=headers,
        content=limited_body(request, elsewhere.body_limit) if has_body else None,
        extensions={"timeout": httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS).as_dict()},
    )


def _path(request: Request, run: str) -> str:
    """Return path and query with the id of the run: a name such as ``@last`` could mean another one by now."""
    segments = request.scope["raw_path"].decode("latin-1").split("/")
    segments[_RUN_SEGMENT] = run
    query = request.scope["query_string"].decode("latin-1")
    return "/".join(segments) + (f"?{query}" if query else "")


class _Forwarded(Response):
    """Another node's answer, passed on as it comes; given up when the client goes away."""

    def __init__(self, answered: httpx.Response) -> None:
        # Not Response.__init__, which would announce the length of a body.
        self.status_code = answered.status_code
        self.background = None
        self.raw_headers = [
            (name.lower(), value) for name, value in answered.headers.raw if name.decode("latin-1").lower() in _ANSWERED
        ]
        self._answered = answered

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send it; whichever of the two tasks ends first ends the other."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send_body(send))
                leaving = tasks.create_task(disconnected(receive))
                sending.add_done_callback(lambda _: leaving.cancel())
                leaving.add_done_callback(lambda _: sending.cancel())
        finally:
            await self._answered.aclose()

    async def _send_body(self, send: Send) -> None:
        async for part in self._parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self) -> AsyncIterator[bytes]:
        """Yield the body; an event stream whose node dies just ends, and its reader asks again."""
        try:
            async for part in self._answered.aiter_raw():
                yield part
        except httpx.TransportError:
            if "content-length" in self._answered.headers:
                raise
