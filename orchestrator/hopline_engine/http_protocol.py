"""uvicorn's HTTP protocol, with one write for each answer instead of two, and a limit for the head of a request.

uvicorn writes the head of an answer and its body separately. For answers as short as those of steps and of started
runs, the second system call, and what it costs the reader, is a quarter of a worker's time and a tenth of an engine's
that many runs are started on.

Without a limit, whoever reaches the port could fill the memory with a line that never ends.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT: Final = 65_536
"""Bytes that a head may have beyond those that came together with its first."""
_SAID_AT_ITS_END: str = "method"
"""What uvicorn puts into the scope when a head is complete, and not before."""
_TOO_LARGE: Final = b"The head of the request is too large."
_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


class HttpProtocol(HttpToolsProtocol):
    """See the module; to be given to ``uvicorn.Config``."""

    _head_size = -1
    """Bytes of a head that is not complete; -1 outside of one."""

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        super().data_received(data)
        if _SAID_AT_ITS_END in self.scope:
            self._head_size = -1
        elif self._head_size < 0:
            self._head_size = 0
        else:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT and not self.transport.is_closing():
                self.transport.write(_REFUSAL)
                self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take *transport*."""
        super().connection_made(cast("asyncio.Transport", _Joined(transport, self.loop)))
        self.scope = cast("Any", {_SAID_AT_ITS_END: ""})  # no head has begun


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
