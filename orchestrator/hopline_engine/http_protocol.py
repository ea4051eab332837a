"""uvicorn's HTTP protocol, with one write for each answer instead of two.

uvicorn writes the head of an answer and its body separately. For answers as short as those of steps and of started
runs, the second system call, and what it costs the reader, is a quarter of a worker's time and a tenth of an engine's
that many runs are started on.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
    """See the module; to be given to ``uvicorn.Config``."""

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
