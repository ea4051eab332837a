"""Changes of a run as server-sent events.

The stream begins with ``snapshot``, goes on with ``step`` and ``run``, and ends after the ``run`` event of a run that
has ended. It is paced: changes between two batches are gathered by the engine. Nothing of it outlives the request.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hopline_engine.api.interface import RunChange
from hopline_engine.api.models import RunDetail
from hopline_engine.core.model import RunState

BATCH_SECONDS = 0.05
"""Least time between two batches of events: at most 20 in a second."""
KEEP_ALIVE_SECONDS = 15.0
"""How often a comment tells the client, and what is between, that the stream is alive."""
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is dropped."""


class EventStream(Response):
    """An answer that follows a run until it ends or the client goes away."""

    media_type = "text/event-stream"

    def __init__(
        self, changes: AsyncGenerator[RunDetail | RunChange, None], keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    ) -> None:
        # Not Response.__init__, which would announce the length of a body.
        self.status_code = 200
        self.background = None
        self.init_headers({"x-accel-buffering": "no"})
        self._changes = changes
        self._keep_alive_seconds = keep_alive_seconds
        self._is_complete = False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the events; whichever of the three tasks ends first ends the others."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with asyncio.TaskGroup() as tasks:
            stream = tasks.create_task(self._send_events(send))
            beside = (tasks.create_task(self._keep_alive(send)), tasks.create_task(disconnected(receive)))
            for task in beside:
                task.add_done_callback(lambda _: stream.cancel())
            stream.add_done_callback(lambda _: [task.cancel() for task in beside])
        if self._is_complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        async with aclosing(self._changes) as changes:
            async for change in changes:
                if not await _is_sent(b"".join(_events_of(change)), send):
                    return
                if _has_ended(change):
                    break
                await asyncio.sleep(BATCH_SECONDS)
        self._is_complete = True

    async def _keep_alive(self, send: Send) -> None:
        is_there = True
        while is_there:
            await asyncio.sleep(self._keep_alive_seconds)
            is_there = await _is_sent(b": keep-alive\n\n", send)


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _is_sent(part: bytes, send: Send) -> bool:
    """Send a part of the stream; return whether the client took it."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except OSError:  # a TimeoutError is one too
        return False
    return True


def _events_of(change: RunDetail | RunChange) -> Iterator[bytes]:
    if isinstance(change, RunDetail):
        yield _event("snapshot", change)
        if _has_ended(change):
            yield b"event: run\ndata: " + to_json(change, exclude={"steps"}) + b"\n\n"
        return
    for step in change.steps:
        yield _event("step", step)
    if change.run is not None:
        yield _event("run", change.run)


def _event(name: str, view: BaseModel) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), to_json(view))


def _has_ended(change: RunDetail | RunChange) -> bool:
    run = change.run if isinstance(change, RunChange) else change
    return run is not None and run.state is not RunState.RUNNING
