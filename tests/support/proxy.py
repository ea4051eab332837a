"""A way to a server that a test can cut, or hold up, at a moment that it chooses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Passes bytes on between clients and a server on this machine."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.accepted = 0
        """How many connections were made."""
        self.refusals: dict[bytes, bytes] = {}
        """What a client that sends some bytes is answered before it is cut off, instead of these being passed on."""
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._answers_pass = asyncio.Event()
        self._answers_pass.set()
        self._cuts_after: bytes | None = None
        self._has_cut = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Take connections."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Cut all connections and take no more, until ``listen``."""
        assert self._listener is not None
        self._listener.close()
        self.cut()

    def hold_answers(self) -> None:
        """Let the server do what it is told, and keep what it answers, until ``pass_answers``."""
        self._answers_pass.clear()

    def pass_answers(self) -> None:
        """Pass on what was held."""
        self._answers_pass.set()

    def cut(self) -> None:
        """Cut all connections; new ones can be made. What was held is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._answers_pass.set()

    async def cut_after(self, request: bytes) -> None:
        """Return when a client sent *request*, the server has done it, and the connection was cut instead of telling.

        Only the next request of this kind is cut.
        """
        self._cuts_after = request
        self._has_cut.clear()
        await self._has_cut.wait()

    async def close(self) -> None:
        """End."""
        if self._listener is not None:
            self._listener.close()
        self.cut()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        answers, requests = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers |= {writer, requests}
        lost = asyncio.Event()
        for passing in (self._pass_requests(reader, writer, requests, lost), self._pass_answers(answers, writer, lost)):
            task = asyncio.ensure_future(passing)
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    def _refusal(self, data: bytes) -> bytes | None:
        return next((answer for asked, answer in self.refusals.items() if asked in data), None)

    async def _pass_requests(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
        lost: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if (refusal := self._refusal(data)) is not None:
                    client.write(refusal)
                    client.close()
                    break
                if self._cuts_after is not None and self._cuts_after in data:
                    self._cuts_after = None
                    lost.set()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if lost.is_set():
                    writer.transport.abort()
                    self._has_cut.set()
                    break
                await self._answers_pass.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


def through(way: Proxy, database_url: str) -> str:
    """Return the URL by which a database of this machine is reached through a proxy, and without TLS.

    Of a connection that is given up while it asks for TLS, asyncpg leaves an error to the loop.
    """
    parts = urlsplit(database_url)
    return urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{way.port}", query="sslmode=disable"))


@asynccontextmanager
async def proxy_to(database_url: str) -> AsyncIterator[Proxy]:
    """Run a proxy to a Postgres of this machine."""
    port = urlsplit(database_url).port
    assert port is not None
    way = Proxy(port)
    await way.listen()
    try:
        yield way
    finally:
        await way.close()
