"""HTTP between the worker and the engine's API, by the standard library.

A worker has little to tell its engine, once in two seconds. A client library for it would take a third of the memory
of an idle worker, so the requests are plain ones, each on a connection of its own, in threads that only wait.
"""

import asyncio
import http.client
import ssl
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from hopline_engine.worker.threads import Threads

ASK_SECONDS: Final = 10.0
"""How long the engine may be silent."""
_AT_A_TIME: Final = 2
"""A farewell must not stand behind a heartbeat that nobody answers."""


class NoAnswerError(Exception):
    """There is no server, or it did not answer as one; asking again may help."""


class Reply(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes


class Exchange:
    """Asks the server at one base URL; to be made and used on one running loop."""

    def __init__(self, base_url: str, headers: Mapping[str, str], *, at_a_time: int = _AT_A_TIME) -> None:
        parts = urlsplit(base_url)
        self.base_url = base_url
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = parts.path
        self._headers = dict(headers)
        self._tls = _tls() if parts.scheme == "https" else None
        self._threads: Threads[Reply | NoAnswerError] = Threads(asyncio.get_running_loop(), at_a_time)

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request and return its answer, whatever its status.

        *headers* are added to those of all requests.

        Raises:
            NoAnswerError: there is none; the request may have arrived all the same.
        """
        reply = await self._threads.submit(partial(self._asked, method, self._path + path, body, headers))
        if isinstance(reply, NoAnswerError):
            raise reply
        return reply

    def _asked(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Reply | NoAnswerError:
        connection = self._connection()
        try:
            connection.request(method, path, body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            return NoAnswerError(str(error) or type(error).__name__)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=ASK_SECONDS)
        return http.client.HTTPSConnection(self._host, self._port, timeout=ASK_SECONDS, context=self._tls)


def _tls() -> ssl.SSLContext:
    """Return what trusts the system's certificate authorities, and the usual ones where the system has none."""
    import certifi  # only here: with the authorities it reads, it is worth 2 MB

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
