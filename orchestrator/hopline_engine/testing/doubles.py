"""HTTP servers that are not there: what they answer is said by the test, and what they were sent can be looked at."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx

from hopline.definition import canonical
from hopline.schema import jsonable

_UNSAID: Final = object()


class NoDoubleError(AssertionError):
    """A step sent a request to a server that the test did not make, or that says nothing about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request that reached a double."""

    at: float
    """Unix seconds of the virtual clock."""
    method: str
    url: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes

    @property
    def json(self) -> Any:
        """Its body as a JSON value."""
        return json.loads(self.body)


@dataclass(slots=True)
class Route:
    """What a double says to one method and path: its answers one after the other, and the last one for ever."""

    answers: list[httpx.Response | Exception] = field(default_factory=list)
    said: int = 0

    def reply(self, status: int = 200, json: object = _UNSAID, *, headers: Mapping[str, str] | None = None) -> Self:
        """Answer so; said again, the next request is answered so."""
        content = None if json is _UNSAID else canonical(jsonable(json))
        named = {"content-type": "application/json"} if content is not None else {}
        self.answers.append(httpx.Response(status, content=content, headers={**named, **(headers or {})}))
        return self

    then = reply

    def fail(self, error: Exception | None = None) -> Self:
        """Let the connection break, or fail with another error of httpx's."""
        self.answers.append(error or httpx.ReadError("the connection broke"))
        return self

    def next(self) -> httpx.Response:
        """Return the answer whose turn it is."""
        answer = self.answers[min(self.said, len(self.answers) - 1)]
        self.said += 1
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)


class Server:
    """A double of one server, by its origin."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Sent] = []
        """All that it was sent, oldest first."""
        self._routes: dict[tuple[str, str], Route] = defaultdict(Route)

    def on(self, method: str, path: str) -> Route:
        """Say what is answered to a method and path; a path that ends in ``*`` is all that begin so."""
        return self._routes[method.upper(), path]

    def get(self, path: str) -> Route:
        """Say what is answered to GET."""
        return self.on("GET", path)

    def post(self, path: str) -> Route:
        """Say what is answered to POST."""
        return self.on("POST", path)

    def put(self, path: str) -> Route:
        """Say what is answered to PUT."""
        return self.on("PUT", path)

    def delete(self, path: str) -> Route:
        """Say what is answered to DELETE."""
        return self.on("DELETE", path)

    def rewind(self) -> None:
        """Forget what was sent, and begin again with the first answers."""
        self.requests.clear()
        for route in self._routes.values():
            route.said = 0

    def answer(self, sent: Sent) -> httpx.Response:
        """Note a request and return what is said to it.

        Raises:
            NoDoubleError: nothing is.
        """
        self.requests.append(sent)
        for (method, path), route in self._routes.items():
            is_meant = sent.path.startswith(path[:-1]) if path.endswith("*") else sent.path == path
            if method == sent.method and is_meant and route.answers:
                return route.next()
        raise NoDoubleError(
            f"{sent.method} {sent.url} was sent, and the double of {self.url} has no answer to it: "
            f'server.{sent.method.lower()}("{sent.path}").reply(200, json=...)'
        )


class Doubles:
    """All doubles of one test."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def server(self, url: str) -> Server:
        """Return the double of a server, made now unless it is there."""
        origin = _origin(url)
        return self._servers.setdefault(origin, Server(origin))

    def rewind(self) -> None:
        """Forget what was sent to any of them."""
        for server in self._servers.values():
            server.rewind()

    def answer(self, request: httpx.Request, body: bytes, at: float) -> httpx.Response:
        """Return what the server that a request goes to says.

        Raises:
            NoDoubleError: there is no such server, or it says nothing to this.
        """
        url = str(request.url)
        server = self._servers.get(_origin(url))
        if server is None:
            raise NoDoubleError(
                f'{request.method} {url} was sent, and there is no double of it: engine.server("{_origin(url)}")'
            )
        sent = Sent(
            at=at,
            method=request.method,
            url=url,
            path=request.url.path,
            params=dict(request.url.params),
            headers=request.headers,
            body=body,
        )
        return server.answer(sent)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
