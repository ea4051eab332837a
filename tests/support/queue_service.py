"""The queue service behind real sockets, in a thread of its own, and Google's own clients for it."""

import asyncio
import importlib
import threading
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
from hopline_engine.settings import Settings

_T = TypeVar("_T")

START_SECONDS: Final = 60.0
TRANSPORTS: Final = ("rest", "grpc", "grpc_asyncio")


class LoopThread:
    """An event loop in a thread of its own, for tests that are not asynchronous."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Return what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(START_SECONDS)

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
        return Client(self, transport, version, url)


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


class Client:
    """One of Google's clients; every method takes and returns the same whatever it talks over."""

    def __init__(self, service: RunningService, transport: str, version: str, url: str | None) -> None:
        self.version = version
        self._url = url or service.url
        self.types: Any = importlib.import_module(f"google.cloud.tasks_{version}")
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
    except GoogleAPICallError as error:
        if error.grpc_status_code is not None and error.response is None:
            return error.grpc_status_code.name, error.message
        response: Any = error.response
        if response is not None and hasattr(response, "json"):
            told = response.json()["error"]
            return told["status"], told["message"]
        return error.errors[0].code().name, error.message
    raise AssertionError(f"not refused: {answer}")
