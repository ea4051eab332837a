"""What the HTTP steps of ``flow`` call: a target that is sometimes busy, and one that answers 202 and calls back."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from tests.crash.flow import chance, record

BUSY = 0.15
"""How many of the attempts at ``/twice`` are answered 503."""
REPEATED = 0.2
"""How many callbacks are sent once more after they were applied."""
FINAL = frozenset({200, 409, 410})


class Attempt(NamedTuple):
    """Which attempt a request is."""

    run: str
    step: str
    number: int


@dataclass(slots=True)
class Target:
    """An ASGI application; what it saw is for the audit."""

    log: str
    """The side-effect log."""
    http: httpx.AsyncClient
    """For callbacks."""
    patience: float = 1.0
    """The longest that it takes over a callback, in seconds."""
    applied: set[Attempt] = field(default_factory=set)
    """Callbacks that were acknowledged with 200: their results must be the ones that are stored."""
    surprises: list[str] = field(default_factory=list)
    """Answers to callbacks that no callback should get."""
    _calling_back: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
        """Answer one request."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, answer = await self._answer(scope["path"], json.loads(body), headers)
        content = json.dumps(answer).encode()
        lengths = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": lengths})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, path: str, x: int, headers: Mapping[str, str]) -> tuple[int, object]:
        attempt = Attempt(headers["hopline-run"], headers["hopline-step"], int(headers["hopline-attempt"]))
        key = headers["idempotency-key"]
        record(self.log, *attempt, key, "start")
        if path == "/approved":
            calling = asyncio.create_task(self._call_back(attempt, key, headers, -x))
            self._calling_back.add(calling)
            calling.add_done_callback(self._calling_back.discard)
            return 202, {"accepted": True}
        await asyncio.sleep(0.1 * chance(key, attempt.number, "time"))
        if chance(key, attempt.number, "busy") < BUSY:
            return 503, {"error": "busy"}
        record(self.log, *attempt, key, "end")
        return 200, 2 * x

    async def _call_back(self, attempt: Attempt, key: str, headers: Mapping[str, str], result: int) -> None:
        """Report the result until the engine takes it or does not want it; a quarter are sent before the 202 is out."""
        await asyncio.sleep(self.patience * max(0.0, chance(key, attempt.number, "time") - 0.25))
        repeated = chance(key, attempt.number, "repeated") < REPEATED
        for _ in range(2 if repeated else 1):
            status = await self._report(headers, result)
            if status == 200 and attempt not in self.applied:
                record(self.log, *attempt, key, "end")
                self.applied.add(attempt)
            elif status not in FINAL:
                self.surprises.append(f"callback of {attempt} was answered {status}")

    async def _report(self, headers: Mapping[str, str], result: int) -> int:
        token = {"Hopline-Callback-Token": headers["hopline-callback-token"]}
        while True:
            try:
                answer = await self.http.post(headers["hopline-callback-url"], json={"result": result}, headers=token)
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if not answer.is_server_error:
                return answer.status_code
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Give up the callbacks that have had no answer."""
        for calling in self._calling_back:
            calling.cancel()
        await asyncio.gather(*self._calling_back, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until every callback has had its answer."""
        await asyncio.gather(*self._calling_back)
