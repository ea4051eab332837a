"""The queue service behind real sockets, in a thread of its own, and Google's own clients for it."""

import asyncio
import importlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials

from hopline_engine.bootstrap import Installation, open_engine
from hopline_engine.core.cloud.errors import Code
from hopline_engine.settings import Settings
from tests.support.node_client import NodeMessages, NodeRefusalError
from tests.support.waiting import WITHIN

_T = TypeVar("_T")

PYTHON: Final = ("rest", "grpc", "grpc_asyncio")
NODE: Final = ("node_rest", "node_grpc")
TRANSPORTS: Final = (*PYTHON, *NODE)


class LoopThread:
    """An event loop in a thread of its own, for tests that are not asynchronous."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Return what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WITHIN)

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class RunningService:
    """A service that listens."""

    def __init__(self, installation: Installation, thread: LoopThread) -> None:
        assert installation.grpc_port is not None
        self.url = installation.url
        self.grpc_address = f"127.0.0.1:{installation.grpc_port}"
        self.thread = thread

    def client(self, transport: str, version: str = "v2", url: str | None = None) -> "Client":
        """Return a client of Google's, over REST also for another service at *url*."""
        if transport in NODE:
            return NodeClient(self, transport, version)
        return PythonClient(self, transport, version, url or self.url)


@contextmanager
def running_service(folder: Path, *, dispatch: bool = True, **settings: Any) -> Iterator[RunningService]:
    """Run a service on a store in *folder*; one that does not *dispatch* takes calls and sends nothing."""
    thread = LoopThread()
    chosen = Settings.load(state_dir=folder / ".hopline", grpc_port=0, **settings)
    opened = open_engine(chosen, dispatch=dispatch)

    async def start() -> Installation:
        installation = await opened.__aenter__()
        await installation.serve(0)
        return installation

    try:
        installation = thread.run(start())
        try:
            yield RunningService(installation, thread)
        finally:
            thread.run(opened.__aexit__(None, None, None))
    finally:
        thread.close()


class Client(ABC):
    """One of Google's clients; every method takes and returns the same whatever it is written in and talks over."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.types: Any = importlib.import_module(f"google.cloud.tasks_{version}")

    @property
    def is_dated(self) -> bool:
        """Whether its messages lack what came to Cloud Tasks last: batches, retrying of tasks, targets of queues."""
        return False

    @abstractmethod
    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Return a method that takes the fields of its request."""

    @abstractmethod
    def close(self) -> None:
        """Close its connections."""


class NodeClient(Client):
    """The client for Node; batch calls answer with operations."""

    def __init__(self, service: RunningService, transport: str, version: str) -> None:
        super().__init__(version)
        address = service.grpc_address if transport == "node_grpc" else service.url.removeprefix("http://")
        self._messages = NodeMessages(version, transport.removeprefix("node_"), address)

    @property
    def is_dated(self) -> bool:
        """Whether its messages lack what came to Cloud Tasks last: in the package for Node, those of v2 do."""
        return self.version == "v2"

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Return a method that takes the fields of its request."""
        return lambda **request: self._messages.call(method, request)

    def close(self) -> None:
        """Leave its connections to the process, which others share."""


class PythonClient(Client):
    """The client for Python."""

    def __init__(self, service: RunningService, transport: str, version: str, url: str) -> None:
        super().__init__(version)
        self._url = url
        self._thread = service.thread
        self._is_async = transport == "grpc_asyncio"
        self._client, self._close = self._make(service, transport)

    def _make(self, service: RunningService, transport: str) -> tuple[Any, Callable[[], object]]:
        transports: Any = importlib.import_module(f"google.cloud.tasks_{self.version}.services.cloud_tasks.transports")
        if transport == "rest":
            client = self.types.CloudTasksClient(
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                transport="rest",
                client_options=ClientOptions(api_endpoint=self._url),
            )
            return client, client.transport.close
        if transport == "grpc":
            channel = grpc.insecure_channel(service.grpc_address)
            client = self.types.CloudTasksClient(transport=transports.CloudTasksGrpcTransport(channel=channel))
            return client, channel.close

        async def make() -> Any:
            aio = grpc.aio.insecure_channel(service.grpc_address)
            made = transports.CloudTasksGrpcAsyncIOTransport(channel=aio)
            return self.types.CloudTasksAsyncClient(transport=made), aio

        client, aio = self._thread.run(make())
        return client, lambda: self._thread.run(aio.close())

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Return a method that takes the fields of its request."""

        def call(**request: Any) -> Any:
            if not self._is_async:
                answer = getattr(self._client, method)(request=request)
                return list(answer) if method.startswith("list_") else answer
            return self._thread.run(self._call(method, request))

        return call

    async def _call(self, method: str, request: dict[str, Any]) -> Any:
        answer = await getattr(self._client, method)(request=request)
        return [item async for item in answer] if method.startswith("list_") else answer

    def close(self) -> None:
        """Close its connections."""
        self._close()


def refusal(call: Callable[..., Any], **request: Any) -> tuple[str, str]:
    """Return the canonical code and the message with which a call is refused."""
    try:
        answer = call(**request)
    except NodeRefusalError as error:
        if error.code is None:  # the client itself is at fault
            raise
        return Code(error.code).name, error.message
    except GoogleAPICallError as error:
        if error.grpc_status_code is not None and error.response is None:
            return error.grpc_status_code.name, error.message
        response: Any = error.response
        if response is not None and hasattr(response, "json"):
            told = response.json()["error"]
            return told["status"], told["message"]
        return error.errors[0].code().name, error.message
    raise AssertionError(f"not refused: {answer}")
