"""One HTTP/1.1 connection to a target: sends a request, collects the answer until it is whole.

What a hostile target can make us hold in memory is capped while it is read, not after. A connection that did anything
unexpected is closed, never used again.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, cast

import httptools
import httpx

from hopline_engine.queue.egress import Origin

RawHeaders = list[tuple[bytes, bytes]]

STALE_SECONDS = 1.0
"""How soon after the request a reused connection must break to count as closed before the request came."""

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds of silence before the first probe, seconds between probes, and probes without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an answer may weigh; past a cap, reading stops and the connection is closed."""

    body_bytes: int = 1 << 20
    """Applies to the body as received and again as decompressed."""
    header_bytes: int = 64 << 10
    header_count: int = 200


class AnswerTooLargeError(httpx.RemoteProtocolError):
    """The answer went past one of the ``Limits``."""


class RawAnswer(NamedTuple):
    """An answer as it came over the wire, chunks joined."""

    status: int
    headers: RawHeaders
    body: bytes


class BodyTooLargeError(AnswerTooLargeError):
    """The body of an answer went past its limit; what came before is there."""

    def __init__(self, message: str, answer: RawAnswer) -> None:
        super().__init__(message)
        self.answer = answer


class StaleError(httpx.ReadError):
    """A reused connection was closed before anything came back."""


class Keeper(Protocol):
    """Where connections wait for their next request."""

    def keep(self, connection: "Connection") -> None:
        """Take a connection that can be used again."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Drop a connection that closes; may be called again, and for one that is not kept."""
        ...


class Connection(asyncio.Protocol):
    """One connection: one request at a time, its answer collected until it is whole."""

    __slots__ = (
        *("idle_since", "loop", "origin", "_body", "_ended", "_head_only", "_headers", "_keep", "_limits", "_parser"),
        *("_pool", "_received", "_sent_at", "_status", "_transport", "_used", "_waiter", "_whole"),
    )

    def __init__(self, origin: Origin, pool: Keeper, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.loop = loop
        self.idle_since = 0.0
        self._pool = pool
        self._limits = limits
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[RawAnswer] | None = None
        self._used = False
        self._ended = False

    async def exchange(self, payload: bytes, *, head_only: bool) -> RawAnswer:
        """Send *payload* and return the answer; when cancelled, the connection is closed."""
        if self._ended:
            raise httpx.ReadError("the target closed the connection at once")
        waiter: asyncio.Future[RawAnswer] = self.loop.create_future()
        self._waiter = waiter
        self._headers: RawHeaders = []
        self._body = bytearray()
        self._received = self._status = 0
        self._whole = self._keep = False
        self._head_only = head_only
        self._sent_at = self.loop.time()
        self._transport.write(payload)
        try:
            return await waiter
        finally:
            self._used = True
            # An answer that came in the same turn of the loop as a cancellation has already given the connection
            # back, perhaps to another request.
            if self._waiter is waiter:
                self._waiter = None
                self.close()

    def close(self) -> None:
        """Close now, whatever is under way; an orderly end of TLS would wait for the other side."""
        self._ended = True
        self._pool.forget(self)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember what to write to; called by the event loop, as the next three."""
        self._transport = cast("asyncio.Transport", transport)
        _watch_peer(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Parse a piece of the answer, and end the exchange when it is whole or wrong."""
        if self._waiter is None:  # nothing was asked: never take it for the answer to the next request
            self.close()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._keep = False
            if not self._whole:
                self._fail(_reason(error))
                return
        if self._whole:
            self._deliver()
        elif self._received > self._limits.header_bytes + 8 * len(self._body):
            # Endless headers, trailers, interim answers or chunk extensions; a chunk of one byte takes six.
            self._fail(AnswerTooLargeError("the answer is more framing than content"))

    def eof_received(self) -> None:
        """Close, also when only half closed: a target that accepts no more will hardly answer the rest."""
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange under way: well if the answer was meant to end like this, else as failed."""
        self._ended = True
        self._pool.forget(self)
        if self._waiter is None:
            return
        if exc is None and self._status and _ends_with_connection(self._headers):
            self._deliver()
        elif self._used and not self._received and self.loop.time() - self._sent_at < STALE_SECONDS:
            self._fail(StaleError("the target had closed the connection"), exc)
        else:
            part = "before the whole answer came" if self._received else "without an answer"
            self._fail(httpx.ReadError(f"the target closed the connection {part}"), exc)

    def on_message_begin(self) -> None:
        """Refuse a second answer; called by the parser, as the next four, and what they raise leaves ``feed_data``."""
        if self._whole:
            raise httpx.RemoteProtocolError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        if not self._status:  # else it is a trailer, which must not pass for a header
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the headers; those of an interim answer (1xx) are not the answer's."""
        status = self._parser.get_status_code()
        if status < 100 or status == 101:
            raise httpx.RemoteProtocolError(f"unexpected status {status}")
        self._check_headers()
        if status >= 200:
            self._status = status
            self._whole = self._head_only  # a length here is that of a body which must not follow

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body, up to the cap."""
        if self._head_only:
            return
        if len(self._body) + len(body) > self._limits.body_bytes:
            raise BodyTooLargeError(
                f"the answer's body is larger than {self._limits.body_bytes} bytes",
                RawAnswer(self._status, self._headers, bytes(self._body)),
            )
        self._body += body

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        if self._status:
            self._whole = True
            self._keep = self._parser.should_keep_alive()
        else:
            self._headers = []  # of an interim answer

    def _check_headers(self) -> None:
        limits = self._limits
        if len(self._headers) > limits.header_count:
            raise AnswerTooLargeError(f"the answer has more than {limits.header_count} headers")
        if self._received > limits.header_bytes:  # which may be body in the same piece
            size = sum(len(name) + len(value) + 4 for name, value in self._headers)
            if size > limits.header_bytes:
                raise AnswerTooLargeError(f"the answer's headers are larger than {limits.header_bytes} bytes")

    def _deliver(self) -> None:
        waiter, self._waiter = self._waiter, None
        # An answer before the whole upload went out leaves the rest of it in the way of the next request.
        if self._keep and not self._transport.get_write_buffer_size():
            self._pool.keep(self)
        else:
            self.close()
        if waiter is not None and not waiter.done():
            waiter.set_result(RawAnswer(self._status, self._headers, bytes(self._body)))

    def _fail(self, error: httpx.HTTPError, cause: BaseException | None = None) -> None:
        waiter, self._waiter = self._waiter, None
        self.close()
        if waiter is not None and not waiter.done():
            error.__cause__ = cause
            waiter.set_exception(error)


def _reason(error: httptools.HttpParserError) -> httpx.HTTPError:
    if isinstance(error.__context__, httpx.HTTPError):  # raised by a callback
        return error.__context__
    return httpx.RemoteProtocolError(f"the answer is not HTTP/1.1: {error}")


def _ends_with_connection(headers: RawHeaders) -> bool:
    """Whether the body's end is the connection's: neither a length nor a last chunk will come."""
    for name, value in headers:
        if name.lower() == b"content-length" or (name.lower() == b"transfer-encoding" and b"chunked" in value.lower()):
            return False
    return True


def _watch_peer(connection: socket.socket) -> None:
    """Have the kernel notice within half a minute that the other machine is gone, however long its answer may take."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS calls the first of them by another name, and has its own default
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
