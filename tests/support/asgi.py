"""An ASGI application behind a real socket, in the test's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from hopline_engine.bootstrap import KEEP_ALIVE_SECONDS
from tests.support.waiting import until


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: they are the test runner's."""
        yield


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve *app* on a free port of this machine and yield the base URL."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,  # or else a request is lost when the loop stalls before it is read
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await until(lambda: server.started, "the server is up")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
