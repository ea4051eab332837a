"""The engine's API as far as workers use it, on a real socket, with a memory of what was asked."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.support.waiting import WITHIN


class Asked(NamedTuple):
    """A request that reached the fake engine."""

    method: str
    path: str
    body: Any
    authorization: str | None


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Workers are killed in these tests: connections that break are no news."""


class FakeEngine:
    """Answers workers as the engine does; remembers registered workers until told to forget them."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[Asked] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        """What ``POST /definitions`` is answered, instead of 200."""
        self._known: set[str] = set()
        self._changed = threading.Condition()
        self._connections: list[socket.socket] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                engine._connections.append(self.connection)

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                asked = Asked(
                    self.command, self.path, json.loads(body) if body else None, self.headers["authorization"]
                )
                status, content = engine._answer(asked)
                data = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._http = _QuietServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["FakeEngine"]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()
            for connection in self._connections:  # as when the process dies
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Know no worker any more, as after a restart."""
        with self._changed:
            self._known.clear()

    def wait(self, method: str, path: str, count: int = 1) -> list[Asked]:
        """Return the requests of *method* to a path that contains *path*, once there are *count* of them."""

        def found() -> list[Asked]:
            return [asked for asked in self.asked if asked.method == method and path in asked.path]

        self.wait_until(lambda: len(found()) >= count)
        return found()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WITHIN), self.asked

    def _answer(self, asked: Asked) -> tuple[int, Any]:
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
            worker = asked.path.split("/")[4] if asked.path.startswith("/api/v1/workers/") else ""
            if asked.path == "/api/v1/definitions":
                return self.refusal or (200, {})
            if asked.method == "PUT":
                self._known.add(worker)
                return 200, {}
            if asked.method == "DELETE":
                self._known.discard(worker)
                return 200, {}
            if worker in self._known:
                return 204, None
            return 404, {"error": {"code": "worker-not-found", "message": "unknown", "hint": None}}
