"""HTTP/1.1 over kept-alive connections, behind ``httpx.AsyncBaseTransport``.

Every request costs the same however many connections are open, an answer is read whole, and what a hostile target
can make us hold in memory is capped while it is read. Deadlines are the caller's: cancelling a request closes its
connection. Redirects, cookies, proxies and decompression are not done here.
"""

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import httpx

from hopline_engine.queue.connection import Connection, Limits, RawAnswer, RawHeaders, StaleError
from hopline_engine.queue.egress import Guard, Origin, origin_of

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NEVER_SENT = frozenset(
    (
        # Framing and hop-by-hop: ours to say, and a way to smuggle a second request when others say them.
        *(b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"te", b"trailer"),
        *(b"upgrade", b"proxy-authorization", b"proxy-connection", b"accept-encoding"),
        # What a cloud's metadata service asks for, to be sure that it is not called through a service like this.
        *(b"metadata-flavor", b"x-aws-ec2-metadata-token", b"x-aws-ec2-metadata-token-ttl-seconds"),
    )
)
_BODILESS_METHODS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A method, a URL and headers, checked and encoded once, to send any number of requests to."""

    method: str
    url: httpx.URL
    headers: tuple[tuple[bytes, bytes], ...]
    """Those that are the same in every request, beside the ones that every transport makes itself."""
    origin: Origin
    start: bytes
    """The request line and the headers that are the same in every request, without the last line end."""
    line_ends: int
    """How many line ends are in it."""

    @classmethod
    def of(cls, method: str, url: httpx.URL, headers: Iterable[tuple[bytes, bytes]] = ()) -> "Endpoint":
        """Return the endpoint; *headers* are sent with every request to it, before its own.

        Raises ``TargetBlockedError`` for a URL that is never called, ``httpx.LocalProtocolError`` for what is no method
        or no header.
        """
        origin = origin_of(url)
        verb = method.encode("ascii", "replace")
        if not _TOKEN.fullmatch(verb):
            raise httpx.LocalProtocolError(f"{method!r} is not an HTTP method")
        first = b"%b %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity" % (verb, url.raw_path, url.netloc)
        own = tuple(sent_headers(headers))
        lines = [first, *map(b": ".join, own)]
        start, line_ends = b"\r\n".join(lines), len(lines) + 1  # the first has three lines
        _check_lines(start, line_ends)
        return cls(method=method, url=url, headers=own, origin=origin, start=start, line_ends=line_ends)


class _Whole(httpx.AsyncByteStream):
    """A body that was read already, given to ``httpx.Response`` undecoded."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


class _SentNames(dict[bytes, bool]):
    """Whether a header of this name is sent; every name is examined once."""

    def __missing__(self, name: bytes) -> bool:
        if not _TOKEN.fullmatch(name):
            raise httpx.LocalProtocolError(f"{name!r} is not the name of a header")
        if len(self) >= 4096:  # names may come from users
            self.clear()
        sent = self[name] = name.lower() not in _NEVER_SENT
        return sent


_sent_names = _SentNames()


def sent_headers(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return *headers* without those that a caller must not decide; raise for a name that is none."""
    return [header for header in headers if _sent_names[header[0]]]


def encode_request(endpoint: Endpoint, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return the request as sent; raise ``httpx.LocalProtocolError`` for a header that would end its line early."""
    lines = [endpoint.start, *map(b": ".join, sent_headers(headers))]
    if body or endpoint.method not in _BODILESS_METHODS:
        lines.append(b"content-length: %d" % len(body))
    head = b"\r\n".join(lines)
    _check_lines(head, endpoint.line_ends + len(lines) - 1)
    return b"%b\r\n\r\n%b" % (head, body)


def _check_lines(head: bytes, line_ends: int) -> None:
    if head.count(b"\n") != line_ends or head.count(b"\r") != line_ends or b"\0" in head:
        raise httpx.LocalProtocolError("a header's value must not contain a line end or NUL")


class _Pool:
    """The connections that wait for their next request."""

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        # The same connections twice: by origin, newest last, to take one; over all origins, oldest first, to expire
        # them. Both answer in constant time, whatever is open.
        self._stacks: dict[Origin, dict[Connection, None]] = {}
        self._oldest: OrderedDict[Connection, None] = OrderedDict()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, origin: Origin) -> Connection | None:
        """Return the connection that was used last: the least likely to be closed by the other side."""
        stack = self._stacks.get(origin)
        if not stack:
            return None
        connection, _ = stack.popitem()
        del self._oldest[connection]
        return connection

    def keep(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
            return
        connection.idle_since = connection.loop.time()
        self._stacks.setdefault(connection.origin, {})[connection] = None
        self._oldest[connection] = None
        if len(self._oldest) > self._size:
            next(iter(self._oldest)).close()
        if self._sweeper is None and self._oldest:
            self._sweep_when_due()

    def forget(self, connection: Connection) -> None:
        """Drop a connection that closes; may be called again, and for one in use."""
        self._oldest.pop(connection, None)
        stack = self._stacks.get(connection.origin)
        if stack is not None:
            stack.pop(connection, None)
            if not stack:
                del self._stacks[connection.origin]

    def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._oldest):
            connection.close()

    def _sweep_when_due(self) -> None:
        oldest = next(iter(self._oldest))
        self._sweeper = oldest.loop.call_at(oldest.idle_since + self._seconds, self._sweep, oldest.loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = None
        before = loop.time() - self._seconds
        while self._oldest:
            oldest = next(iter(self._oldest))
            if oldest.idle_since > before:
                self._sweep_when_due()
                return
            oldest.close()


class Transport(httpx.AsyncBaseTransport):
    """Sends requests over a pool of connections; belongs to the event loop it is first used on.

    *tls* replaces the context that verifies targets against the usual certificate authorities. Idle connections are
    closed after *idle_seconds*, and the oldest as soon as there are more than *idle_connections*; how many are in
    use is bounded by the caller's requests in flight. *connect_seconds* is for one address, TLS included.
    """

    def __init__(
        self,
        guard: Guard,
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
        idle_connections: int = 512,
        idle_seconds: float = 4.0,  # under the 5 s after which uvicorn and others close theirs
        connect_seconds: float = 10.0,
    ) -> None:
        self._guard = guard
        self._limits = limits
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._pool = _Pool(idle_connections, idle_seconds)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and return the answer with its body read but not decoded."""
        endpoint = Endpoint.of(request.method, request.url)
        answer = await self.send_raw(endpoint, request.headers.raw, await request.aread())
        return httpx.Response(answer.status, headers=answer.headers, stream=_Whole(answer.body), request=request)

    async def send_raw(self, endpoint: Endpoint, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> RawAnswer:
        """Send a request without building httpx's objects for it.

        A request that finds its kept connection closed is sent once more on a new one, if nothing came back; as the
        target may have seen it, this is for requests that may arrive twice. Raises httpx's exceptions;
        ``ConnectError`` and ``ConnectTimeout`` mean that nothing was sent.
        """
        payload = encode_request(endpoint, headers, body)
        head_only = endpoint.method == "HEAD"
        connection = self._pool.take(endpoint.origin)
        if connection is not None:
            try:
                return await connection.exchange(payload, head_only=head_only)
            except StaleError as stale:
                connection = await self._reopen(endpoint.origin, stale)
        else:
            connection = await self._open(endpoint.origin)
        return await connection.exchange(payload, head_only=head_only)

    async def aclose(self) -> None:
        """Close the idle connections; those in use close when their request ends."""
        self._pool.close()
        await asyncio.sleep(0)  # sockets are closed in the loop's next turn

    async def _reopen(self, origin: Origin, stale: StaleError) -> Connection:
        try:
            return await self._open(origin)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            # The target may have had the first copy and died of it: not to be reported as "nothing was sent".
            raise httpx.ReadError(f"{stale}, and then: {error}") from error

    async def _open(self, origin: Origin) -> Connection:
        failure: httpx.TransportError = httpx.ConnectError(f"cannot connect to {origin.netloc}")
        for address in await self._guard.addresses(origin):
            try:
                async with asyncio.timeout(self._connect_seconds):
                    return await self._dial(origin, address)
            except TimeoutError as error:
                failure = httpx.ConnectTimeout(f"cannot connect to {origin.netloc} at {address}: it does not answer")
                failure.__cause__ = error
            except (OSError, ValueError) as error:
                failure = httpx.ConnectError(f"cannot connect to {origin.netloc} at {address}: {error}")
                failure.__cause__ = error
        raise failure

    async def _dial(self, origin: Origin, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(origin, self._pool, self._limits, loop),
            address,
            origin.port,
            ssl=self._tls_context() if origin.tls else None,
            server_hostname=origin.host.rstrip(".") if origin.tls else None,
        )
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
