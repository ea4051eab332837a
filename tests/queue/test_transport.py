"""The transport on real sockets: framing, reuse of connections, caps, cancellation and TLS."""

import asyncio
import random
import socket
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from hopline_engine.queue import connection
from hopline_engine.queue.connection import AnswerTooLargeError, Limits
from hopline_engine.queue.egress import Guard, origin_of
from hopline_engine.queue.transport import Endpoint, Transport, encode_request
from tests.queue.servers import (
    OK,
    Handler,
    Peer,
    Server,
    always_ok,
    answering,
    echo_path,
    make_authority,
    refused_port,
    serving,
)
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.anyio

LIMITS = Limits(body_bytes=100_000, header_bytes=10_000, header_count=50)


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@asynccontextmanager
async def transport(**settings: Any) -> AsyncIterator[Transport]:
    # Long enough that no test takes a connection's expiry for the closing it waits for.
    made = Transport(Guard("open"), LIMITS, **{"idle_seconds": 60.0, **settings})
    try:
        yield made
    finally:
        await made.aclose()


async def fetch(sender: Transport, url: str, method: str = "GET", **request: Any) -> tuple[int, bytes]:
    """Return status and body; hangs are failures."""
    async with asyncio.timeout(WITHIN):
        response = await sender.handle_async_request(httpx.Request(method, url, **request))
        return response.status_code, b"".join([part async for part in response.aiter_raw()])


async def answer_to(handler: Handler, method: str = "GET") -> tuple[int, bytes]:
    async with serving(handler) as server, transport() as sender:
        return await fetch(sender, server.url, method)


# Reuse


async def test_connection_is_used_again() -> None:
    async with serving(always_ok) as server, transport() as sender:
        for _ in range(3):
            assert await fetch(sender, server.url) == (200, b"ok")
        assert len(server.peers) == 1


async def test_kernel_watches_whether_the_other_machine_is_still_there() -> None:
    async with serving(always_ok) as server, transport() as sender:
        await fetch(sender, server.url)
        kept = sender._pool.take(origin_of(httpx.URL(server.url)))
        assert kept is not None
        used = kept._transport.get_extra_info("socket")
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        kept.close()


async def test_requests_at_once_have_connections_of_their_own() -> None:
    everyone_here = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        if len(server.requests) == 5:
            everyone_here.set()
        await everyone_here.wait()
        await peer.send(OK)
        await always_ok(peer)

    async with serving(handle) as server, transport() as sender:
        await asyncio.gather(*(fetch(sender, server.url) for _ in range(5)))
        assert len(server.peers) == 5
        await fetch(sender, server.url)
        assert len(server.peers) == 5


async def test_idle_connection_is_closed_after_its_time() -> None:
    async with serving(always_ok) as server, transport(idle_seconds=0.05) as sender:
        await fetch(sender, server.url)
        await server.until(lambda server: server.open == 0)
        assert await fetch(sender, server.url) == (200, b"ok")
        await server.until(lambda server: server.open == 0)
        assert sender._pool._stacks == {}


async def test_only_connections_idle_for_too_long_are_closed() -> None:
    async with serving(always_ok) as first, serving(always_ok) as second, transport(idle_seconds=60) as sender:
        await fetch(sender, first.url)
        await fetch(sender, second.url)
        next(iter(sender._pool._oldest)).idle_since -= 61
        sender._pool._sweep(asyncio.get_running_loop())
        await first.until(lambda server: server.open == 0)
        assert second.open == 1
        assert await fetch(sender, second.url) == (200, b"ok")
        assert len(second.peers) == 1


async def test_oldest_idle_connections_make_room() -> None:
    async with serving(always_ok) as first, serving(always_ok) as second, transport(idle_connections=1) as sender:
        await fetch(sender, first.url)
        await fetch(sender, second.url)
        await first.until(lambda server: server.open == 0)
        assert second.open == 1


async def test_closing_the_transport_closes_idle_connections_and_later_those_in_use() -> None:
    answer_now = asyncio.Event()

    async def handle(peer: Peer) -> None:
        if (await peer.request()).path == "/slow":
            await answer_now.wait()
        await peer.send(OK)
        await peer.hold()

    async with serving(handle) as server, transport() as sender:
        slow = asyncio.ensure_future(fetch(sender, server.url + "/slow"))
        await server.until(lambda server: server.open == 1)
        await fetch(sender, server.url)
        await sender.aclose()
        await server.until(lambda server: server.open == 1)
        answer_now.set()
        assert await slow == (200, b"ok")
        await server.until(lambda server: server.open == 0)


# Stale connections


async def once_then_close(peer: Peer) -> None:
    """Answer the first request and close when the second one comes."""
    await peer.request()
    await peer.send(OK)
    await peer.request()


async def test_request_on_a_connection_closed_meanwhile_is_sent_again() -> None:
    async with serving(once_then_close) as server, transport() as sender:
        for path in ("/1", "/2", "/3"):
            assert await fetch(sender, server.url + path, "POST", content=b"x") == (200, b"ok")
        assert [request.path for request in server.requests] == ["/1", "/2", "/2", "/3", "/3"]


async def test_request_is_not_sent_again_once_something_came_back() -> None:
    async def handle(peer: Peer) -> None:
        await once_then_close(peer)
        await peer.send(b"HTTP/1.1 2")

    async with serving(handle) as server, transport() as sender:
        await fetch(sender, server.url)
        with pytest.raises(httpx.ReadError, match="before the whole answer"):
            await fetch(sender, server.url)
        assert len(server.requests) == 2


async def test_request_on_a_new_connection_is_not_sent_again() -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()

    async with serving(handle) as server, transport() as sender:
        with pytest.raises(httpx.ReadError, match="without an answer"):
            await fetch(sender, server.url)
        assert len(server.requests) == 1


async def test_request_is_not_sent_again_when_the_target_worked_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALE_SECONDS", 0)
    async with serving(once_then_close) as server, transport() as sender:
        await fetch(sender, server.url)
        with pytest.raises(httpx.ReadError, match="without an answer"):
            await fetch(sender, server.url)
        assert len(server.requests) == 2


async def test_target_that_died_of_the_request_did_not_refuse_it() -> None:
    listening: list[asyncio.Server] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        listening[0].close()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    listening.append(server)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with transport() as sender:
        await fetch(sender, url)
        with pytest.raises(httpx.ReadError):  # and not ConnectError, which would say that nothing was sent
            await fetch(sender, url)


# Framing


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", (200, b"abc")),
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", (404, b"")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nab\r\n1\r\nc\r\n0\r\n\r\n", (200, b"abc")),
        (b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 304 Same\r\ncontent-length: 5\r\n\r\n", (304, b"")),
    ],
)
async def test_answer_ends_where_its_framing_says_and_the_connection_is_kept(
    answer: bytes, expected: tuple[int, bytes]
) -> None:
    async with serving(answering(answer, answer)) as server, transport() as sender:
        assert await fetch(sender, server.url) == expected
        assert await fetch(sender, server.url) == expected
        assert len(server.peers) == 1


async def test_answer_in_single_bytes_is_read() -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        for byte in b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
            await peer.send(bytes((byte,)))

    assert await answer_to(handle) == (200, b"abc")


async def test_answer_without_length_ends_with_the_connection() -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall ")
        await peer.send(b"of it")

    assert await answer_to(handle) == (200, b"all of it")


@pytest.mark.parametrize("framing", [b"content-length: 10", b"transfer-encoding: chunked"])
async def test_answer_cut_short_is_an_error(framing: bytes) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n5\r\nabc" % framing)

    with pytest.raises(httpx.ReadError, match="before the whole answer"):
        await answer_to(handle)


async def test_head_has_no_body_whatever_its_length_says() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")) as server, transport() as sender:
        assert await fetch(sender, server.url, "HEAD") == (200, b"")
        assert await fetch(sender, server.url, "HEAD") == (200, b"")


async def test_body_sent_to_head_is_not_taken_for_anything() -> None:
    async with serving(answering(OK + OK)) as server, transport() as sender:
        assert await fetch(sender, server.url, "HEAD") == (200, b"")
        assert await fetch(sender, server.url, "GET") == (200, b"ok")
        assert len(server.peers) == 2


async def test_trailers_and_headers_of_interim_answers_are_not_headers() -> None:
    interim = b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nretry-after: 9\r\n\r\n"
    async with serving(answering(interim + answer)) as server, transport() as sender:
        response = await sender.handle_async_request(httpx.Request("GET", server.url))
        assert list(response.headers) == ["transfer-encoding"]


@pytest.mark.parametrize(
    "more",
    [b"x", OK, b"HTTP/1.1 500 Smuggled\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 5"],
    ids=["byte", "answer", "other answer", "part of an answer"],
)
async def test_connection_that_sends_more_than_its_answer_is_closed(more: bytes) -> None:
    async with serving(answering(OK + more, OK)) as server, transport() as sender:
        assert await fetch(sender, server.url) == (200, b"ok")
        assert await fetch(sender, server.url) == (200, b"ok")
        assert len(server.peers) == 2


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    speak = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await speak.wait()
        await peer.send(b"HTTP/1.1 500 Smuggled\r\ncontent-length: 0\r\n\r\n")
        await peer.hold()

    async with serving(handle) as server, transport() as sender:
        await fetch(sender, server.url)
        speak.set()
        await server.until(lambda server: server.open == 0)
        assert await fetch(sender, server.url) == (200, b"ok")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + OK,
        b"HTTP/1.1 101 Switching\r\n\r\n" + OK,
    ],
)
async def test_garbage_is_an_error_and_closes_the_connection(answer: bytes) -> None:
    async with serving(answering(answer)) as server, transport() as sender:
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(sender, server.url)
        await server.until(lambda server: server.open == 0)


# Caps


async def endless(peer: Peer, start: bytes, piece: bytes) -> None:
    await peer.request()
    await peer.send(start)
    while peer.sent < 50_000_000:
        await peer.send(piece)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"a\r\n0123456789\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nx: ", b"x" * 10_000),
        (b"HTTP/1.1 200 ", b"x" * 10_000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    ],
    ids=[
        *("length", "no length", "chunks", "small chunks", "extension", "trailer", "trailers", "headers", "header"),
        *("reason", "interim answers"),
    ],
)
async def test_endless_answer_is_cut_at_the_cap(start: bytes, piece: bytes) -> None:
    async def handle(peer: Peer) -> None:
        await endless(peer, start, piece)

    async with serving(handle) as server, transport() as sender:
        with pytest.raises(AnswerTooLargeError):
            await fetch(sender, server.url)
        await server.until(lambda server: server.open == 0)
        assert server.peers[0].sent < 50_000_000


async def test_body_of_small_chunks_up_to_the_cap_is_read() -> None:
    body = b"1\r\nx\r\n" * LIMITS.body_bytes
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % body
    assert await answer_to(answering(answer)) == (200, b"x" * LIMITS.body_bytes)


@pytest.mark.parametrize("headers", [b"x: y\r\n" * 51, b"x: %b\r\n" % (b"y" * 10_000)], ids=["many", "large"])
async def test_headers_past_the_cap_are_refused_in_an_answer_that_comes_at_once(headers: bytes) -> None:
    with pytest.raises(AnswerTooLargeError, match="headers"):
        await answer_to(answering(b"HTTP/1.1 200 OK\r\n%bcontent-length: 2\r\n\r\nok" % headers))


async def test_large_body_does_not_count_as_headers() -> None:
    body = b"x" * LIMITS.body_bytes
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    assert await answer_to(answering(answer)) == (200, body)


# What is sent


def sent(method: str, url: str, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    return encode_request(Endpoint.of(method, httpx.URL(url)), headers, body)


def test_request_is_framed_by_us() -> None:
    assert sent("POST", "http://example.com:8080/a b?c=d#e", [(b"X-Y", b"z")], b"body") == (
        b"POST /a%20b?c=d HTTP/1.1\r\nhost: example.com:8080\r\naccept-encoding: identity\r\nX-Y: z\r\n"
        b"content-length: 4\r\n\r\nbody"
    )
    assert sent("GET", "https://[2001:db8::1]:443", []) == (
        b"GET / HTTP/1.1\r\nhost: [2001:db8::1]\r\naccept-encoding: identity\r\n\r\n"
    )
    assert sent("POST", "http://h", []).endswith(b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade"),
        *("Accept-Encoding", "Proxy-Authorization", "Metadata-Flavor", "X-aws-ec2-metadata-token"),
    ],
)
def test_headers_that_are_not_the_callers_to_set_are_not_sent(name: str) -> None:
    assert b"evil" not in sent("POST", "http://h/", [(name.encode(), b"evil"), (name.lower().encode(), b"evil")])


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nx: y", b"a\rb", b"a\r\n\r\nGET / HTTP/1.1", b"a\0b"])
def test_header_value_that_ends_its_line_is_refused(value: bytes) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        sent("POST", "http://h/", [(b"x", value)])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xc3\xa9", b"a\0"])
def test_header_name_that_is_none_is_refused(name: bytes) -> None:
    for _ in range(2):
        with pytest.raises(httpx.LocalProtocolError):
            sent("POST", "http://h/", [(name, b"x")])


@pytest.mark.parametrize("method", ["", "GET /x HTTP/1.1\r\n", "GÉT", "A B"])
def test_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        sent(method, "http://h/", [])


async def test_large_upload_arrives_whole() -> None:
    async def handle(peer: Peer) -> None:
        size = str(len((await peer.request()).body)).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(size), size))

    async with serving(handle) as server, transport() as sender:
        assert await fetch(sender, server.url, "POST", content=b"x" * 5_000_000) == (200, b"5000000")


async def test_streamed_upload_is_sent() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with serving(always_ok) as server, transport() as sender:
        assert await fetch(sender, server.url, "POST", content=parts()) == (200, b"ok")
        assert server.requests[0].body == b"one two"
        assert b"transfer-encoding" not in server.requests[0].head.lower()


async def test_answer_before_the_upload_is_read_ends_the_connection() -> None:
    async def handle(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await peer.hold()

    async with serving(handle) as server, transport() as sender:
        assert await fetch(sender, server.url, "POST", content=b"x" * 50_000_000) == (413, b"")
        await server.until(lambda server: server.open == 0)


async def test_it_serves_an_ordinary_client() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"hello") + packer.flush()
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(packed), packed)
    async with serving(answering(answer)) as server, httpx.AsyncClient(transport=Transport(Guard("open"), LIMITS)) as c:
        assert (await c.get(server.url)).text == "hello"


# Cancellation


async def test_cancelled_request_closes_its_connection() -> None:
    async def handle(peer: Peer) -> None:
        if (await peer.request()).path == "/never":
            await peer.hold()
        else:
            await peer.send(OK)
            await handle(peer)

    async with serving(handle) as server, transport() as sender:
        await fetch(sender, server.url)
        never = asyncio.ensure_future(fetch(sender, server.url + "/never"))
        await server.until(lambda server: len(server.requests) == 2)
        never.cancel()
        with pytest.raises(asyncio.CancelledError):
            await never
        await server.until(lambda server: server.open == 0)
        assert await fetch(sender, server.url) == (200, b"ok")


async def test_cancelled_requests_never_mix_up_answers() -> None:
    # Cancellations at every turn of the loop of an exchange, among them that in which the answer came.
    draw = random.Random(7)
    answered = 0

    async def one(sender: Transport, server: Server, number: int) -> None:
        nonlocal answered
        asking = asyncio.ensure_future(fetch(sender, f"{server.url}/{number}"))
        for _ in range(draw.randrange(40)):
            await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            assert await asking == (200, f"/{number}".encode())
            answered += 1

    async with serving(echo_path) as server, transport() as sender:
        for first in range(0, 800, 20):
            await asyncio.gather(*(one(sender, server, first + more) for more in range(20)))
        assert 0 < answered < 800
        assert await fetch(sender, server.url + "/last") == (200, b"/last")


async def test_answer_and_cancellation_in_one_turn_leave_the_connection_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo_path) as server, transport() as sender:
        await fetch(sender, server.url)
        (kept_before,) = sender._pool._oldest
        give_back = sender._pool.keep
        others: list[asyncio.Future[tuple[int, bytes]]] = []

        def keep_and_cancel(kept: connection.Connection) -> None:
            """Act between the arrival of the answer and the turn of the one who waits for it."""
            monkeypatch.undo()
            give_back(kept)
            cancelled.cancel()
            others.append(asyncio.ensure_future(fetch(sender, server.url + "/other")))

        monkeypatch.setattr(sender._pool, "keep", keep_and_cancel)
        cancelled = asyncio.ensure_future(fetch(sender, server.url + "/cancelled"))
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await others[0] == (200, b"/other")
        assert list(sender._pool._oldest) == [kept_before]


# Connecting


@pytest.mark.parametrize("greeting", [b"", b"220 smtp.example ESMTP\r\n", OK])
async def test_target_that_closes_or_speaks_before_the_request_gets_none(greeting: bytes) -> None:
    async def handle(peer: Peer) -> None:
        await peer.send(greeting)
        if greeting:
            await peer.hold()

    async with serving(handle) as server, transport() as sender:
        opened = await sender._open(origin_of(httpx.URL(server.url)))
        await server.until(lambda server: server.open == 0)
        while not opened._ended:  # noqa: ASYNC110 - the end of a connection that nobody uses is not announced
            await asyncio.sleep(0)
        with pytest.raises(httpx.ReadError, match="at once"):
            await opened.exchange(b"GET / HTTP/1.1\r\n\r\n", head_only=False)


async def test_refused_connection_is_a_connect_error() -> None:
    async with transport() as sender:
        with pytest.raises(httpx.ConnectError) as failed:
            await fetch(sender, f"http://127.0.0.1:{await refused_port()}/")
        assert isinstance(failed.value.__cause__, ConnectionRefusedError)


async def test_next_address_is_tried_when_one_refuses() -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with serving(always_ok) as server:
        sender = Transport(Guard("open", resolve=resolve), LIMITS)
        assert await fetch(sender, f"http://two.test:{server.port}/") == (200, b"ok")
        await sender.aclose()


async def test_unknown_host_is_a_connect_error() -> None:
    async with transport() as sender:
        for host in ("no-such-host.invalid", "a" * 64 + ".example"):
            with pytest.raises(httpx.ConnectError, match="cannot find an address"):
                await fetch(sender, f"http://{host}/")


async def test_address_that_does_not_let_us_connect_is_given_up() -> None:
    async def handle(peer: Peer) -> None:
        await peer.hold()  # never answers the start of TLS

    async with serving(handle) as server, transport(connect_seconds=0.05) as sender:
        with pytest.raises(httpx.ConnectTimeout):
            await fetch(sender, f"https://127.0.0.1:{server.port}/")


# TLS


async def test_target_with_a_trusted_certificate_is_called_and_its_connection_kept(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    async with serving(always_ok, authority.server) as server, transport(tls=authority.trusting) as sender:
        for host in ("127.0.0.1", "localhost"):
            for _ in range(2):
                assert await fetch(sender, f"https://{host}:{server.port}/") == (200, b"ok")
        assert len(server.peers) == 2


async def test_answer_over_tls_may_end_with_the_connection(tmp_path: Path) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 50_000)

    authority = make_authority(tmp_path)
    async with serving(handle, authority.server) as server, transport(tls=authority.trusting) as sender:
        assert await fetch(sender, server.url) == (200, b"x" * 50_000)


async def test_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    async with serving(always_ok, make_authority(tmp_path).server) as server, transport() as sender:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed") as failed:
            await fetch(sender, server.url)
        assert isinstance(failed.value.__cause__, ssl.SSLCertVerificationError)
        assert server.requests == []


@pytest.mark.parametrize("wrong", [{"names": "DNS:localhost"}, {"days": -1}], ids=["name", "expired"])
async def test_certificate_that_is_not_valid_for_the_target_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    authority = make_authority(tmp_path, **wrong)
    async with serving(always_ok, authority.server) as server, transport(tls=authority.trusting) as sender:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await fetch(sender, server.url)
        assert server.requests == []
