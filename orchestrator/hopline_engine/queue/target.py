"""One HTTP exchange with a target, whole or failed.

Nothing a target does (never answering, dripping, sending without end, answering garbage) comes out of here as anything
but an ``Answer`` or an ``ExchangeFailed``, within the time and the ``Limits`` given. What the answer means is decided
elsewhere; a redirect is an answer like any other and is never followed.
"""

import asyncio
import ssl
import zlib
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, cast

import httpx

from hopline_engine.queue.connection import AnswerTooLargeError, BodyTooLargeError, Limits, RawAnswer, RawHeaders
from hopline_engine.queue.egress import TargetBlockedError
from hopline_engine.queue.transport import Endpoint, Transport, encode_request, sent_headers

__all__ = ["Answer", "AnswerHeaders", "Endpoint", "ExchangeFailed", "Limits", "Target"]

Kind = Literal["refused", "network", "timeout", "too_large", "garbage", "blocked"]

_NETWORK_TYPES = ("ConnectionError", "OSError", "Exception")
_TIMEOUT_TYPES = ("TimeoutError", "OSError", "Exception")
_BLOCKED_TYPES = ("PermissionError", "OSError", "Exception")
_ANSWER_TYPES = ("ValueError", "Exception")


class AnswerHeaders(Mapping[str, str]):
    """Headers of an answer; names in any case, repeated ones joined by commas.

    Made for every answer and asked for two or three names, so nothing is prepared.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        wanted = name.lower().encode("latin-1", "replace")
        values = [value for key, value in self._raw if key.lower() == wanted]
        if not values:
            raise KeyError(name)
        return b", ".join(values).decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.lower().decode("latin-1") for key, _ in self._raw))

    def __len__(self) -> int:
        return len({key.lower() for key, _ in self._raw})


class Answer(NamedTuple):
    """What a target answered; any status."""

    status: int
    headers: AnswerHeaders
    body: bytes
    """Decompressed unless only the head was asked for; at most ``Limits.body_bytes``."""


class ExchangeFailed(Exception):  # noqa: N818 - named like the outcome of an attempt that it becomes
    """No answer that can be used.

    ``refused``: no connection came about, so nothing was sent. ``network``: it broke, or TLS did not verify.
    ``timeout``: the deadline passed. ``too_large``: past ``Limits``. ``garbage``: not HTTP, or not decodable.
    ``blocked``: the request may not be sent, because of the egress policy or of what it contains; trying again is
    pointless.
    """

    def __init__(self, kind: Kind, types: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.types = types
        """Qualified names of the exception that a retry policy may name, most specific first."""
        self.message = message


class Target:
    """Sends requests through *transport*, which may be ours or any other of httpx's kind."""

    def __init__(self, transport: httpx.AsyncBaseTransport, limits: Limits) -> None:
        self._transport = transport
        self._limits = limits
        self._send = transport.send_raw if isinstance(transport, Transport) else self._send_through_httpx

    async def exchange(self, request: httpx.Request, timeout: float) -> Answer:  # noqa: ASYNC109 - the contract
        """Send *request* and return the answer, both within *timeout* seconds in all; else raise ``ExchangeFailed``.

        Headers that the transport decides (``Host``, ``Content-Length``, hop-by-hop) and those of metadata services
        are not taken from the request. A request may arrive twice.
        """
        return await self._within(timeout, self._send_request(request))

    async def exchange_raw(
        self,
        endpoint: Endpoint,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - the contract
        limit: asyncio.Timeout | None = None,
    ) -> Answer:
        """Do as ``exchange``, for requests to one URL in number: it costs about half.

        Whoever gives the *limit*, which is then what counts, may move it meanwhile.
        """
        return await self._within(timeout, self._send(endpoint, headers, body), limit=limit)

    async def exchange_head(
        self,
        endpoint: Endpoint,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - the contract
    ) -> Answer:
        """Do as ``exchange_raw`` where the body means nothing: past its limit it is cut, and it is not decompressed."""
        return await self._within(timeout, _cut(self._send(endpoint, headers, body)), decodes=False)

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()

    async def _within(
        self,
        seconds: float,
        sending: Awaitable[RawAnswer],
        *,
        decodes: bool = True,
        limit: asyncio.Timeout | None = None,
    ) -> Answer:
        try:
            async with limit or asyncio.timeout(seconds):
                raw = await sending
            body = decoded(raw, self._limits.body_bytes) if decodes else raw.body
            return Answer(raw.status, AnswerHeaders(raw.headers), body)
        except TimeoutError as error:
            raise ExchangeFailed("timeout", _TIMEOUT_TYPES, f"no whole answer within {seconds:g} s") from error
        except (httpx.HTTPError, OSError) as error:
            raise _failure(error) from error

    async def _send_request(self, request: httpx.Request) -> RawAnswer:
        endpoint = Endpoint.of(request.method, request.url)
        return await self._send(endpoint, request.headers.raw, await request.aread())

    async def _send_through_httpx(
        self, endpoint: Endpoint, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> RawAnswer:
        sent = [*endpoint.headers, *sent_headers(headers)]
        encode_request(endpoint, sent, body)  # for its checks: the same requests are refused by every transport
        sent.append((b"accept-encoding", b"identity"))
        request = httpx.Request(endpoint.method, endpoint.url, headers=sent, content=body)
        response = await self._transport.handle_async_request(request)
        try:
            return await self._read(response)
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response) -> RawAnswer:
        limits = self._limits
        headers = response.headers.raw
        if (
            len(headers) > limits.header_count
            or sum(len(name) + len(value) + 4 for name, value in headers) > limits.header_bytes
        ):
            raise AnswerTooLargeError("the answer's headers are too many or too large")
        body = bytearray()
        async for chunk in cast("httpx.AsyncByteStream", response.stream):
            body += chunk
            if len(body) > limits.body_bytes:
                raise BodyTooLargeError(
                    f"the answer's body is larger than {limits.body_bytes} bytes",
                    RawAnswer(response.status_code, headers, bytes(body[: limits.body_bytes])),
                )
        return RawAnswer(response.status_code, headers, bytes(body))


async def _cut(sending: Awaitable[RawAnswer]) -> RawAnswer:
    try:
        return await sending
    except BodyTooLargeError as error:
        return error.answer


def decoded(raw: RawAnswer, limit: int) -> bytes:
    """Return the body without the compression that was asked not to be used, reading no more than *limit* bytes.

    Raises ``AnswerTooLargeError``, and ``httpx.DecodingError`` for a coding that is unknown or broken.
    """
    body = raw.body
    for name, value in reversed(raw.headers):
        if len(name) == 16 and name.lower() == b"content-encoding" and body:
            for coding in reversed(value.lower().split(b",")):
                body = _inflate(body, coding.strip(), limit)
    return body


def _inflate(body: bytes, coding: bytes, limit: int) -> bytes:
    if coding in (b"identity", b""):
        return body
    if coding in (b"gzip", b"x-gzip"):
        bits = 16 + zlib.MAX_WBITS
    elif coding == b"deflate":
        # By its standard a zlib stream; some servers send the bare one. A zlib stream's first byte says 8 below.
        bits = zlib.MAX_WBITS if body[0] & 0x0F == 8 else -zlib.MAX_WBITS
    else:
        raise httpx.DecodingError(f"the answer is encoded as {coding!r}, though no encoding was asked for")
    inflater = zlib.decompressobj(bits)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise httpx.DecodingError(f"the answer's {coding.decode()} encoding is broken: {error}") from error
    if len(plain) > limit:
        raise AnswerTooLargeError(f"the answer's body is larger than {limit} bytes when decompressed")
    if not inflater.eof or inflater.unused_data:
        raise httpx.DecodingError(f"the answer's {coding.decode()} encoding does not end where the body ends")
    return plain


def _failure(error: httpx.HTTPError | OSError) -> ExchangeFailed:
    message = str(error) or type(error).__name__
    cause = _os_error(error)
    match error:
        case TargetBlockedError() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return ExchangeFailed("blocked", _BLOCKED_TYPES, message)
        case AnswerTooLargeError():
            return ExchangeFailed("too_large", _ANSWER_TYPES, message)
        case httpx.RemoteProtocolError() | httpx.DecodingError():
            return ExchangeFailed("garbage", _ANSWER_TYPES, message)
        case httpx.ConnectError() | httpx.ConnectTimeout() if not isinstance(cause, ssl.SSLError):
            return ExchangeFailed("refused", _types(cause), message)
        case httpx.TimeoutException():
            return ExchangeFailed("timeout", _TIMEOUT_TYPES, message)
        case _:
            return ExchangeFailed("network", _types(cause), message)


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the system's own error behind httpx's, the first that says more than ``OSError``."""
    found: OSError | None = None
    while error is not None and (found is None or type(found) is OSError):
        if isinstance(error, OSError):
            found = error
        error = error.__cause__ or error.__context__
    return found


def _types(cause: OSError | None) -> tuple[str, ...]:
    if cause is None:
        return _NETWORK_TYPES
    return tuple(
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        for kind in type(cause).__mro__
        if kind not in (BaseException, object)
    )
