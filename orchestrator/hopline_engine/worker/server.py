"""The worker's HTTP server: uvicorn without what a worker does not need."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import uvicorn

from hopline_engine.http_protocol import HttpProtocol
from hopline_engine.worker.app import WorkerApp

KEEP_ALIVE_SECONDS = 300
"""Longer than the engine keeps idle connections, so that the engine closes them, and never under a request."""


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
        http=HttpProtocol,
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
