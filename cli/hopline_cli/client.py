"""The API as the command line uses it: JSON in, JSON out, every failure a ``CliError`` with its exit code."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from hopline_cli.answers import Run
from hopline_cli.errors import CliError, ExitCode, ServerGone, UsageError
from hopline_engine import clock
from hopline_engine.listening import is_loopback

PREFIX = "/api/v1"
EXIT_CODES = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    421: ExitCode.NOT_ALLOWED,
    422: ExitCode.USAGE,
}
CONNECT_SECONDS = 5.0
HEALTH = httpx.Timeout(15.0, connect=2.0)
"""How long a server may take to say that it is up: seconds, on a busy machine. Where none listens is known at once."""
PASSING = {"run-moving", "node-unreachable", "no-shard", "still-loading"}
"""Refusals that are a matter of seconds: a run is between two nodes, or files are still being loaded."""
MOVING_SECONDS = 30.0
"""How long that may take: for a run, twice what taking over from a dead node takes."""
MOVING_PAUSE_SECONDS = 0.5
ANSWER_SECONDS = 60.0
"""Also the longest silence of an event stream: the server sends something at least every 15 s."""


class Api:
    """One server, or one store that was opened for this command."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    @property
    def url(self) -> str:
        """Return the address it talks to."""
        return str(self._http.base_url).rstrip("/")

    async def get(self, path: str, **query: str | int | None) -> Any:
        """Return the JSON at *path*; queries that are ``None`` are left out."""
        return await self._json("GET", path, params={name: value for name, value in query.items() if value is not None})

    async def post(self, path: str, body: Any = None) -> Any:
        """Post JSON to *path* and return the JSON it answers."""
        return await self._json("POST", path, body)

    async def patch(self, path: str, body: Any) -> Any:
        """Change what is at *path* and return the JSON it answers."""
        return await self._json("PATCH", path, body)

    async def delete(self, path: str) -> Any:
        """Delete what is at *path* and return the JSON it answers."""
        return await self._json("DELETE", path)

    async def start(self, workflow: str, given: dict[str, Any], key: str | None, priority: int = 0) -> tuple[Run, bool]:
        """Start a run; return it and whether it is new: with a *key* that has a run already, it is not."""
        body: dict[str, Any] = {"workflow": workflow, "input": given, "idempotency_key": key}
        if priority:  # a server that knows of none would refuse the word
            body["priority"] = priority
        response = await self._send("POST", "/runs", body)
        return _content(response, self.url), response.status_code == 201

    async def cloud(self, method: str, path: str, body: Any = None, **query: str | int | None) -> Any:
        """Ask the queue service in the words of Cloud Tasks: *path* begins with a version of that API."""
        params = {name: value for name, value in query.items() if value is not None}
        try:
            response = await self._http.request(method, path, params=params, **_encoded(body))
        except httpx.HTTPError as error:
            was_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise ServerGone(self.url, _reason(error), is_order_lost=method != "GET" and was_sent) from error
        if response.is_error:
            raise _cloud_refusal(response, self.url)
        return _content(response, self.url)

    async def _json(self, method: str, path: str, body: Any = None, **request: Any) -> Any:
        return _content(await self._send(method, path, body, **request), self.url)

    async def _send(self, method: str, path: str, body: Any = None, **request: Any) -> httpx.Response:
        request |= _encoded(body)
        give_up_at = clock.monotonic() + MOVING_SECONDS
        while True:
            try:
                response = await self._http.request(method, PREFIX + path, **request)
            except httpx.HTTPError as error:
                was_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                raise ServerGone(self.url, _reason(error), is_order_lost=method != "GET" and was_sent) from error
            if not response.is_error:
                return response
            if not _is_passing(response) or clock.monotonic() > give_up_at:
                raise _refusal(response, self.url)
            await asyncio.sleep(MOVING_PAUSE_SECONDS)

    async def events(self, ref: str) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield the events of a run as (name, data) until the server ends the stream."""
        path = f"{PREFIX}/runs/{quoted(ref)}/events"
        give_up_at = clock.monotonic() + MOVING_SECONDS
        try:
            while True:
                async with self._http.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
                    if not response.is_error:
                        async for event in _server_sent(_lines(response)):
                            yield event
                        return
                    await response.aread()
                    if not _is_passing(response) or clock.monotonic() > give_up_at:
                        raise _refusal(response, self.url)
                await asyncio.sleep(MOVING_PAUSE_SECONDS)
        except httpx.HTTPError as error:
            raise ServerGone(self.url, _reason(error)) from error


@asynccontextmanager
async def api_over(url: str, token: str | None) -> AsyncIterator[Api]:
    """Open the API of the server at *url*."""
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    async with _client(url, timeout, _headers(token)) as http:
        yield Api(http)


def _client(url: str, timeout: httpx.Timeout, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=timeout,
        trust_env=not is_on_this_machine(url),  # a proxy cannot reach a server on this machine
        verify=not url.startswith("http:"),  # reading the certificate authorities takes longer than most answers
    )


@asynccontextmanager
async def api_inside(app: Any, token: str | None) -> AsyncIterator[Api]:
    """Open the API of an ASGI application in this process; its event streams cannot be followed."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=_headers(token)) as http:
        yield Api(http)


async def is_up(url: str) -> bool:
    """Return whether a server answers at *url*."""
    try:
        async with _client(url.rstrip("/"), HEALTH, {}) as http:
            return (await http.get("/healthz")).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


async def is_hopline(url: str) -> bool | None:
    """Return whether what listens at *url* is a Hopline server; ``None`` when nothing does."""
    try:
        async with _client(url, HEALTH, {}) as http:
            told = (await http.get(f"{PREFIX}/health")).json()
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    # Without the token, or while it stops, it answers with an error in the form that all of them have.
    return isinstance(told, dict) and ("version" in told or told.get("error", {}).keys() == {"code", "message", "hint"})


def is_on_this_machine(url: str) -> bool:
    """Return whether *url* is on this machine.

    >>> is_on_this_machine("http://127.0.0.1:8484"), is_on_this_machine("https://hopline.example")
    (True, False)
    """
    return is_loopback(urlsplit(url).hostname or "")


def quoted(part: str) -> str:
    """Return *part* as one segment of a path."""
    return quote(part, safe="@")


def _headers(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _encoded(body: Any) -> dict[str, Any]:
    """Return what a request with *body* is made with.

    Raises:
        UsageError: it has a number that JSON does not know.
    """
    if body is None:
        return {}
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise UsageError(f"this cannot be sent as JSON: {error}", hint="numbers must be finite") from None
    return {"content": text.encode(), "headers": {"Content-Type": "application/json"}}


def _content(response: httpx.Response, url: str) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ServerGone(url, "what answers there is not hopline") from None


def _is_passing(response: httpx.Response) -> bool:
    """Return whether the same may be done in some seconds."""
    return response.status_code == 503 and _code(response) in PASSING


def _code(response: httpx.Response) -> str | None:
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return None


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _refusal(response: httpx.Response, url: str) -> CliError:
    try:
        told = response.json()["error"]
        code, message, hint = str(told["code"]), str(told["message"]), told.get("hint")
    except (ValueError, KeyError, TypeError):
        code, message, hint = "server-error", f"{url} answered HTTP {response.status_code}", None
    if code == "engine-stopping":
        return ServerGone(url, "it is stopping")
    if response.status_code == 401:
        hint = hint or "set HOPLINE_API_TOKEN to the server's token"
    return CliError(code, message, hint=hint, exit_code=EXIT_CODES.get(response.status_code, ExitCode.FAILED))


def _cloud_refusal(response: httpx.Response, url: str) -> CliError:
    """Return an error of the queue service, whose codes are those of gRPC."""
    try:
        told = response.json()["error"]
        code, message = str(told["status"]).lower().replace("_", "-"), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return _refusal(response, url)
    exit_codes = {**EXIT_CODES, 400: ExitCode.USAGE if code == "invalid-argument" else ExitCode.FAILED}
    return CliError(code, message, exit_code=exit_codes.get(response.status_code, ExitCode.FAILED))


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Yield the lines of a body. JSON may hold characters that Python takes for line ends, so only LF is one here."""
    rest = b""
    async for part in response.aiter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode()


async def _server_sent(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Any]]:
    name, data = "message", list[str]()
    async for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line:
            if data:
                yield name, json.loads("\n".join(data))
            name, data = "message", []
