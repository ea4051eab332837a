"""Fixtures: a running service, Google's clients over each transport and version, and a target that tasks go to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hopline_engine import clock
from tests.support import waiting
from tests.support.postgres import database_for_threads
from tests.support.queue_service import TRANSPORTS, Client, RunningService, running_service

PARENT = "projects/p/locations/us-central1"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Return a service on either database; tests of a module share it, and take queues of their own."""
    folder = tmp_path_factory.mktemp("service")
    made = database_for_threads() if request.param == "postgres" else nullcontext("")
    with made as store, running_service(folder, store=store) as running:
        yield running


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["v2", "v2beta3"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(service: RunningService, transport: str, version: str) -> Iterator[Client]:
    """Return a client that can do all but lease."""
    made = service.client(transport, version)
    yield made
    made.close()


@pytest.fixture(scope="module")
def pulling(service: RunningService, transport: str) -> Iterator[Client]:
    """Return a client of the version that knows pull queues."""
    made = service.client(transport, "v2beta2")
    yield made
    made.close()


@pytest.fixture(scope="module")
def rest(service: RunningService) -> Iterator[Client]:
    """Return a client where it does not matter which."""
    made = service.client("rest")
    yield made
    made.close()


@pytest.fixture
def queue_name() -> str:
    """Return a name that no queue has."""
    return f"{PARENT}/queues/q-{clock.token(6)}"


@dataclass(frozen=True, slots=True)
class Received:
    """A request that reached the target."""

    at: float
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass(slots=True)
class PushTarget:
    """A plain HTTP server that answers with the statuses it is given, then with 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer_body: bytes = b""
    received: list[Received] = field(default_factory=list)
    hold: threading.Event | None = None
    _news: threading.Condition = field(default_factory=threading.Condition)

    def note(self, received: Received) -> int:
        with self._news:
            self.received.append(received)
            self._news.notify_all()
            return self.statuses.pop(0) if self.statuses else 200

    def wait_for(self, count: int, within: float = waiting.WITHIN) -> list[Received]:
        """Return what was received once that are *count* requests."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.received) >= count, within), len(self.received)
            return list(self.received)


def _handler(target: PushTarget) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            received = Received(clock.now(), self.command, self.path, list(self.headers.items()), body)
            status = target.note(received)
            if target.hold is not None:
                target.hold.wait(waiting.WITHIN)
            self.send_response(status)
            for name, value in target.answer_headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(target.answer_body)))
            self.end_headers()
            if self.command != "HEAD":
                with suppress(ConnectionError):  # nobody needs the whole of it
                    self.wfile.write(target.answer_body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = answer

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
            """Say nothing."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2048
    """Connections that wait to be accepted: beyond the usual five they would be dropped, and tried for seconds."""


@pytest.fixture
def target() -> Iterator[PushTarget]:
    """Return a target for tasks."""
    made = PushTarget()
    server = _Server(("127.0.0.1", 0), _handler(made))
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    if made.hold is not None:
        made.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any], str], Any]:
    """Return what waits until something is true."""
    return waiting.eventually
