"""Small servers on real sockets that answer as a test tells them, and certificates for them."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.waiting import WITHIN

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Received(NamedTuple):
    """A request as it arrived."""

    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        return self.head.split(b" ")[1].decode()


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: "Server", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self.reader = reader
        self.writer = writer
        self.sent = 0

    async def request(self) -> Received:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        received = Received(head, await self.reader.readexactly(length))
        self._server.requests.append(received)
        self._server.changed.set()
        return received

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        self.sent += len(data)
        await self.writer.drain()

    async def hold(self) -> None:
        """Say nothing until the client closes."""
        while await self.reader.read(65536):
            pass


Handler = Callable[[Peer], Awaitable[None]]


class Server:
    """A running server: what it received, and how many connections it has and had."""

    def __init__(self, handler: Handler) -> None:
        self.requests: list[Received] = []
        self.peers: list[Peer] = []
        self.open = 0
        self.port = 0
        self.scheme = "http"
        self._handler = handler
        self.changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def until(self, condition: Callable[["Server"], bool]) -> None:
        """Wait until *condition* holds, looked at whenever a connection opens or closes or a request arrives."""
        async with asyncio.timeout(WITHIN):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        self.open += 1
        self.changed.set()
        task = asyncio.ensure_future(self._serve(peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: Peer) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._handler(peer)
        finally:
            self.open -= 1
            self.changed.set()
            peer.writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve every connection with *handler*; the connection closes when it returns."""
    server = Server(handler)
    listener = await asyncio.start_server(server._connected, "127.0.0.1", 0, ssl=tls, limit=1 << 24)
    server.port = listener.sockets[0].getsockname()[1]
    server.scheme = "https" if tls else "http"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await asyncio.sleep(0)


def answering(*answers: bytes) -> Handler:
    """Return a handler that answers a connection's requests with *answers* in turn, then holds its tongue."""

    async def handle(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.hold()

    return handle


async def always_ok(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(OK)


async def echo_path(peer: Peer) -> None:
    while True:
        body = (await peer.request()).path.encode()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def refused_port() -> int:
    """Return a port that nobody listens on."""
    listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port: int = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    return port


class Authority(NamedTuple):
    """Contexts made by one certificate authority that nobody else trusts."""

    server: ssl.SSLContext
    trusting: ssl.SSLContext


def make_authority(folder: Path, *, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 2) -> Authority:
    """Make an authority and a server certificate for *names* with the ``openssl`` command."""
    openssl = shutil.which("openssl")
    assert openssl, "the tests of TLS need the openssl command"

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority", "-days", "2")
    run("req", "-new", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (folder / "names").write_text(f"subjectAltName={names}\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", str(days))
    run("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    return Authority(server, ssl.create_default_context(cafile=str(folder / "ca.pem")))
