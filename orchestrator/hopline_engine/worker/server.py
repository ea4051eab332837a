"""The worker's HTTP server: uvicorn without what a worker does not need."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hopline_engine.worker.app import WorkerApp

KEEP_ALIVE_SECONDS = 300
"""Longer than the engine keeps idle connections, so that the engine closes them, and never under a request."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only then; with it, an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


class Server(uvicorn.Server):
    """Serves *app* on given sockets until ``stop``. Leaves signals alone: the worker drains first."""

    def __init__(self, app: WorkerApp) -> None:
        super().__init__(_config(app))
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Close all connections; ``serve`` then returns."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        """Wait for ``stop``, instead of looking ten times a second: an idle worker costs nothing."""
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


def _config(app: WorkerApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,  # nothing runs by then: the app has drained
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with one write for each answer instead of two.

    uvicorn writes the head of an answer and its body separately; for answers as short as those of steps, the second
    system call, and what it costs the reader, is a quarter of the worker's time.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take *transport*."""
        super().connection_made(cast("asyncio.Transport", _Joined(transport, self.loop)))


class _Joined:
    """A transport that writes at the end of the loop's turn; everything else is the real one's."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
