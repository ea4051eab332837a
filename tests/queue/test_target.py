"""One exchange on real sockets: whatever the target does, it is an answer or a failure, in time and within caps."""

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import httpx
import pytest

from hopline_engine.queue.egress import Guard
from hopline_engine.queue.target import Answer, AnswerHeaders, Endpoint, ExchangeFailed, Limits, Target
from hopline_engine.queue.transport import Transport
from tests.queue.servers import Peer, Server, always_ok, answering, make_authority, refused_port, serving
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.anyio

LIMITS = Limits()

Making = Callable[[Limits], httpx.AsyncBaseTransport]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["ours", "httpx"])
def making(request: pytest.FixtureRequest) -> Making:
    """What a test of every transport is run with."""
    if request.param == "ours":
        return lambda limits: Transport(Guard("open"), limits)
    return lambda _limits: httpx.AsyncHTTPTransport(trust_env=False)


@asynccontextmanager
async def target(transport: httpx.AsyncBaseTransport | None = None, limits: Limits = LIMITS) -> AsyncIterator[Target]:
    made = Target(transport or Transport(Guard("open"), limits), limits)
    try:
        yield made
    finally:
        await made.aclose()


async def failure(sending: Awaitable[Answer]) -> ExchangeFailed:
    with pytest.raises(ExchangeFailed) as failed:
        await sending
    return failed.value


def request_to(server: Server, path: str = "/") -> httpx.Request:
    return httpx.Request("POST", server.url + path, json={"a": 1})


# Answers


async def test_answer_is_given_whatever_its_status(making: Making) -> None:
    body = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}"
    async with serving(answering(body % 200, body % 404, body % 503)) as server, target(making(LIMITS)) as sender:
        for status in (200, 404, 503):
            answer = await sender.exchange(request_to(server), WITHIN)
            assert (answer.status, answer.body) == (status, b"{}")
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["Retry-After"] == "7"
            assert answer.headers.get("missing") is None


async def test_raw_exchange_says_and_gets_the_same(making: Making) -> None:
    async with serving(always_ok) as server, target(making(LIMITS)) as sender:
        plain = await sender.exchange(
            httpx.Request("POST", server.url + "/x?y", headers={"a": "b"}, content=b"c"), WITHIN
        )
        endpoint = Endpoint.of("POST", httpx.URL(server.url + "/x?y"))
        raw = await sender.exchange_raw(endpoint, [(b"a", b"b")], b"c", 10)
        assert (plain.status, plain.body) == (raw.status, raw.body) == (200, b"ok")
        first, second = server.requests
        assert sorted(first.head.lower().split(b"\r\n")) == sorted(second.head.lower().split(b"\r\n"))
        assert first.body == second.body == b"c"


async def test_redirect_to_itself_is_an_answer(making: Making) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n")
        await handle(peer)

    async with serving(handle) as server, target(making(LIMITS)) as sender:
        answer = await sender.exchange(request_to(server), WITHIN)
        assert (answer.status, answer.headers["location"]) == (302, "/")
        assert len(server.requests) == 1


async def test_environment_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{await refused_port()}")
    async with serving(always_ok) as server, target() as sender:
        assert (await sender.exchange(request_to(server), WITHIN)).status == 200


async def test_no_compression_is_asked_for_and_metadata_headers_are_not_sent(making: Making) -> None:
    async with serving(always_ok) as server, target(making(LIMITS)) as sender:
        headers = {"Accept-Encoding": "gzip", "Metadata-Flavor": "Google", "Connection": "upgrade", "Host": "other"}
        await sender.exchange(httpx.Request("GET", server.url, headers=headers), WITHIN)
        head = server.requests[0].head.lower()
        assert b"accept-encoding: identity\r\n" in head
        assert b"host: 127.0.0.1:%d\r\n" % server.port in head
        assert b"gzip" not in head
        assert b"metadata" not in head
        assert b"upgrade" not in head


def test_answer_headers_are_a_mapping_without_case() -> None:
    headers = AnswerHeaders([(b"Set-Cookie", b"a"), (b"X-Y", b"\xe9"), (b"set-cookie", b"b")])
    assert dict(headers) == {"set-cookie": "a, b", "x-y": "\xe9"}
    assert len(headers) == 2
    assert "SET-COOKIE" in headers
    assert "\u2603" not in headers


# Failures


async def test_refused_connection(making: Making) -> None:
    async with target(making(LIMITS)) as sender:
        failed = await failure(
            sender.exchange(httpx.Request("GET", f"http://127.0.0.1:{await refused_port()}"), WITHIN)
        )
        assert failed.kind == "refused"
        assert failed.types == ("ConnectionRefusedError", "ConnectionError", "OSError", "Exception")
        assert str(failed) == failed.message != ""


async def test_unknown_host_is_refused(making: Making) -> None:
    async with target(making(LIMITS)) as sender:
        failed = await failure(sender.exchange(httpx.Request("GET", "http://no-such-host.invalid/"), WITHIN))
        assert (failed.kind, failed.types) == ("refused", ("socket.gaierror", "OSError", "Exception"))


async def test_address_that_does_not_let_us_connect_is_refused() -> None:
    async with (
        serving(Peer.hold) as server,
        target(Transport(Guard("open"), LIMITS, connect_seconds=0.05)) as sender,
    ):
        failed = await failure(sender.exchange(httpx.Request("GET", f"https://127.0.0.1:{server.port}"), WITHIN))
        assert (failed.kind, failed.types) == ("refused", ("TimeoutError", "OSError", "Exception"))


async def never(peer: Peer) -> None:
    await peer.hold()


async def drip(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while not peer.reader.at_eof():
        await peer.send(b"x")
        await asyncio.sleep(0.01)


async def drip_headers(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    while not peer.reader.at_eof():
        await peer.send(b"x: y\r\n")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("handler", [never, drip, drip_headers])
async def test_deadline_is_for_the_whole_exchange(handler: Callable[[Peer], Awaitable[None]], making: Making) -> None:
    async with serving(handler) as server, target(making(LIMITS)) as sender:
        failed = await failure(sender.exchange(request_to(server), 0.2))
        assert (failed.kind, failed.types) == ("timeout", ("TimeoutError", "OSError", "Exception"))
        assert failed.message == "no whole answer within 0.2 s"
        await server.until(lambda server: server.open == 0)


async def test_deadline_covers_name_resolution_and_connecting() -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with target(Transport(Guard("open", resolve=resolve), LIMITS)) as sender:
        failed = await failure(sender.exchange(httpx.Request("GET", "http://slow.test/"), 0.05))
        assert failed.kind == "timeout"


async def test_cancelling_an_exchange_is_not_a_failure_of_it() -> None:
    async with serving(never) as server, target() as sender:
        exchange = asyncio.ensure_future(sender.exchange(request_to(server), WITHIN))
        await server.until(lambda server: server.open == 1)
        exchange.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange


async def test_ten_megabytes_are_too_large(making: Making) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n" + b"x" * 10_000_000)

    async with serving(handle) as server, target(making(LIMITS)) as sender:
        failed = await failure(sender.exchange(request_to(server), WITHIN))
        assert (failed.kind, failed.types) == ("too_large", ("ValueError", "Exception"))
        assert "1048576 bytes" in failed.message


async def test_endless_body_is_too_large(making: Making) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 100_000)

    async with serving(handle) as server, target(making(LIMITS)) as sender:
        assert (await failure(sender.exchange(request_to(server), WITHIN))).kind == "too_large"


@pytest.mark.parametrize("headers", [b"x: y\r\n" * 10_000, b"x: y\r\n" * 201], ids=["10000", "201"])
async def test_too_many_headers_are_too_large(headers: bytes) -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n%b\r\n" % headers)) as server, target() as sender:
        assert (await failure(sender.exchange(request_to(server), WITHIN))).kind == "too_large"


async def test_headers_through_another_transport_are_capped_too() -> None:
    many = httpx.MockTransport(lambda _request: httpx.Response(200, headers=[("x", "y")] * 201))
    large = httpx.MockTransport(lambda _request: httpx.Response(200, headers={"x": "y" * 70_000}))
    for transport in (many, large):
        async with target(transport) as sender:
            failed = await failure(sender.exchange(httpx.Request("GET", "http://h"), WITHIN))
            assert failed.kind == "too_large"


@pytest.mark.parametrize("garbage", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 20x OK\r\n\r\n"])
async def test_garbage(garbage: bytes, making: Making) -> None:
    async with serving(answering(garbage)) as server, target(making(LIMITS)) as sender:
        failed = await failure(sender.exchange(request_to(server), WITHIN))
        assert (failed.kind, failed.types) == ("garbage", ("ValueError", "Exception"))


async def test_connection_that_breaks_is_a_network_failure() -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()

    async with serving(handle) as server, target() as sender:
        failed = await failure(sender.exchange(request_to(server), WITHIN))
        assert (failed.kind, failed.types) == ("network", ("ConnectionError", "OSError", "Exception"))


async def test_connection_that_is_reset_is_named_so() -> None:
    async def handle(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")  # closing with the body unread resets
        peer.writer.transport.abort()

    async with serving(handle) as server, target() as sender:
        failed = await failure(sender.exchange(httpx.Request("POST", server.url, content=b"x" * 20_000_000), WITHIN))
        assert failed.kind == "network"
        assert failed.types[-3:] == ("ConnectionError", "OSError", "Exception")


async def test_certificate_that_does_not_verify_is_a_network_failure(tmp_path: Path, making: Making) -> None:
    async with serving(always_ok, make_authority(tmp_path).server) as server, target(making(LIMITS)) as sender:
        failed = await failure(sender.exchange(request_to(server), WITHIN))
        assert failed.kind == "network"
        assert failed.types[0] == "ssl.SSLCertVerificationError"
        assert "certificate verify failed" in failed.message


@pytest.mark.parametrize("url", ["ftp://h/", "http://user:secret@127.0.0.1/", "http://h:70000/"])
async def test_url_that_is_never_called_is_blocked(url: str, making: Making) -> None:
    async with target(making(LIMITS)) as sender:
        failed = await failure(sender.exchange(httpx.Request("GET", url), WITHIN))
        assert (failed.kind, failed.types) == ("blocked", ("PermissionError", "OSError", "Exception"))
        assert "secret" not in failed.message


async def test_egress_policy_blocks_and_says_what_to_change() -> None:
    async with serving(always_ok) as server, target(Transport(Guard("public"), LIMITS)) as sender:
        failed = await failure(sender.exchange(request_to(server), WITHIN))
        assert failed.kind == "blocked"
        assert f'add "127.0.0.1:{server.port}" to the setting allowed_targets' in failed.message
        assert server.peers == []


async def test_header_that_would_split_the_request_is_blocked_on_every_transport() -> None:
    careless = httpx.MockTransport(lambda _request: httpx.Response(200))
    async with serving(always_ok) as server:
        for transport in (Transport(Guard("open"), LIMITS), careless):
            async with target(transport) as sender:
                endpoint = Endpoint.of("POST", httpx.URL(server.url))
                failed = await failure(sender.exchange_raw(endpoint, [(b"x", b"y\r\nz: evil")], b"", 10))
                assert failed.kind == "blocked"
        assert server.requests == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ReadError("x"), "network"),
        (httpx.WriteError("x"), "network"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.PoolTimeout("x"), "timeout"),
        (httpx.ConnectTimeout("x"), "refused"),
        (httpx.UnsupportedProtocol("x"), "blocked"),
        (httpx.ProxyError("x"), "network"),
        (ssl.SSLError("x"), "network"),
        (ConnectionResetError("x"), "network"),
        (TimeoutError(), "timeout"),
    ],
)
async def test_failure_of_another_transport_has_its_kind(error: Exception, kind: str) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    async with target(httpx.MockTransport(fail)) as sender:
        failed = await failure(sender.exchange(httpx.Request("GET", "http://h/"), WITHIN))
        assert failed.kind == kind
        assert failed.types[-1] == "Exception"


# Compressed answers


def compressed(coding: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (coding, len(body)) + body


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)  # every process that collects the tests has to name them alike


def bare_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzipped(b"hello")),
        (b"X-GZIP", gzipped(b"hello")),
        (b"deflate", zlib.compress(b"hello")),
        (b"deflate", bare_deflate(b"hello")),
        (b"identity", b"hello"),
        (b"deflate, gzip", gzipped(zlib.compress(b"hello"))),
        (b"gzip\r\ncontent-encoding: deflate", zlib.compress(gzipped(b"hello"))),
    ],
)
async def test_compression_nobody_asked_for_is_undone(coding: bytes, body: bytes, making: Making) -> None:
    async with serving(answering(compressed(coding, body))) as server, target(making(LIMITS)) as sender:
        assert (await sender.exchange(request_to(server), WITHIN)).body == b"hello"


async def test_empty_body_needs_no_decoding() -> None:
    async with serving(answering(compressed(b"gzip", b""))) as server, target() as sender:
        assert (await sender.exchange(request_to(server), WITHIN)).body == b""


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", b"not gzip"),
        (b"gzip", gzipped(b"hello")[:-3]),
        (b"gzip", gzipped(b"hello") + b"more"),
        (b"deflate", b"\xff\xff\xff"),
        (b"br", b"hello"),
    ],
)
async def test_compression_that_cannot_be_undone_is_garbage(coding: bytes, body: bytes) -> None:
    async with serving(answering(compressed(coding, body))) as server, target() as sender:
        assert (await failure(sender.exchange(request_to(server), WITHIN))).kind == "garbage"


@cache
def zeros() -> bytes:
    """300 MB of them, compressed."""
    return gzip.compress(b"\0" * 300_000_000, compresslevel=1)


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, gzip"])
async def test_decompression_bomb_is_too_large_and_costs_little_memory(coding: bytes, making: Making) -> None:
    limits = Limits(body_bytes=2_000_000)
    answer = compressed(coding, gzip.compress(zeros()) if coding == b"gzip, gzip" else zeros())
    async with serving(answering(answer)) as server, target(making(limits), limits) as sender:
        tracemalloc.start()
        failed = await failure(sender.exchange(request_to(server), WITHIN))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert failed.kind == "too_large"
        assert peak < 30_000_000
