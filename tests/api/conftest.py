"""Fixtures: the API over the small engine, called in-process as a program on this machine would call it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from hopline_engine.api.app import create_app
from hopline_engine.api.interface import EngineService
from hopline_engine.bootstrap import KEEP_ALIVE_SECONDS
from hopline_engine.settings import Settings
from tests.api.small_engine import DEFINITION, SmallEngine
from tests.support.waiting import WITHIN

DEADLINE = WITHIN


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def engine() -> SmallEngine:
    """An engine that knows the workflow ``sales``."""
    engine = SmallEngine()
    await engine.register_definitions([DEFINITION], ["sales"])
    return engine


@pytest.fixture
async def client(engine: SmallEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(engine) as client:
        yield client


@pytest.fixture
async def server(engine: SmallEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(engine, Settings()), log_level="warning", lifespan="off", timeout_keep_alive=KEEP_ALIVE_SECONDS
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=WITHIN) as client:
        await until(lambda: server.started)
        yield client
    server.should_exit = True
    await serving
    listener.close()


async def until(condition: Callable[[], bool]) -> None:
    """Return once *condition* holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - the condition is not ours to signal
            await asyncio.sleep(0.005)


@asynccontextmanager
async def client_of(engine: EngineService, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Open the API of *engine* under *settings*."""
    transport = httpx.ASGITransport(create_app(engine, Settings(**settings)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8484") as client:
        yield client


async def start(client: httpx.AsyncClient) -> str:
    """Start a run of ``sales`` and return its id."""
    response = await client.post("/api/v1/runs", json={"workflow": "sales", "input": {"shop": "Kiel"}})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Return status and code of an error, whose shape is checked."""
    error = json.loads(response.content)["error"]
    assert error.keys() == {"code", "message", "hint"}
    return response.status_code, error["code"]
