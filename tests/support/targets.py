"""Targets of HTTP steps that answer what a test says and remember what they were asked."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.support.asgi import listening
from tests.support.waiting import WITHIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of the engine."""

    path: str
    headers: httpx.Headers
    body: bytes
    url: str = ""
    """In full, as it was asked for."""

    @property
    def attempt(self) -> int:
        """Which attempt of its step it is."""
        return int(self.headers["Hopline-Attempt"])

    async def call_back(self, report: dict[str, Any], *, token: bytes | None = None) -> httpx.Response:
        """Report how the attempt ended, as a target does that answered 202; *token* replaces the one it was given."""
        given = self.headers["Hopline-Callback-Token"].encode() if token is None else token
        headers = httpx.Headers([(b"Hopline-Callback-Token", given)])
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=WITHIN) as http:
            return await http.post(self.headers["Hopline-Callback-Url"], json=report, headers=headers)


Answering = Callable[[Asked], Awaitable[Response] | Response]


@dataclass(slots=True)
class Target:
    """An ASGI application."""

    answer: Answering
    """What it answers; may be replaced at any time."""
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        headers = httpx.Headers(request.headers.raw)
        asked = Asked(path=request.url.path, headers=headers, body=await request.body(), url=str(request.url))
        self.asked.append(asked)
        answer = self.answer(asked)
        await (await answer if isinstance(answer, Awaitable) else answer)(scope, receive, send)

    @property
    def attempts(self) -> list[int]:
        """The attempts that it was sent."""
        return [asked.attempt for asked in self.asked]


def json(value: Any, status: int = 200, **headers: str) -> Response:
    """Return an answer with a JSON body; in names of headers, ``_`` stands for ``-``."""
    return JSONResponse(value, status, {name.replace("_", "-"): text for name, text in headers.items()})


def accepted(_: Asked) -> Response:
    """Answer 202: the result will come later."""
    return json(None, 202)


@asynccontextmanager
async def target(answer: Answering) -> AsyncIterator[Target]:
    """Serve a target on a port of this machine."""
    made = Target(answer)
    async with listening(made) as url:
        made.url = url
        yield made
