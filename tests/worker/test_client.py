"""How a worker makes itself known to the engine, and stays so."""

import asyncio
from collections.abc import Iterator
from typing import Self

import pytest

from hopline import step, workflow
from hopline_engine.clock import SystemClock
from hopline_engine.worker import registration as registration_module
from hopline_engine.worker.client import Announcement, EngineClient, RegistrationRefusedError
from hopline_engine.worker.registration import Registration
from tests.worker.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    monkeypatch.setattr(registration_module, "HEARTBEAT_SECONDS", 0.02)
    with FakeEngine().running() as running:
        yield running


@step
def one() -> int:
    return 1


@workflow
def ones() -> list[int]:
    return [one()]


def announcement() -> Announcement:
    return Announcement.of(
        "w_1", [ones.compile()], ["ones"], {"url": "http://127.0.0.1:1", "concurrency": 8, "steps": []}
    )


class Keeping:
    """A registration that is being kept; counts how often the engine came to know the worker."""

    def __init__(self, server: str, token: str | None = None) -> None:
        self.times = asyncio.Semaphore(0)
        self.registration = Registration(server, token, announcement(), SystemClock(), lambda _: self.times.release())

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.registration.keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_definitions_are_sent_before_the_worker(engine: FakeEngine) -> None:
    async with Keeping(engine.url, "secret") as keeping:
        await keeping.times.acquire()
    definitions, worker = engine.asked[:2]
    assert (definitions.method, definitions.path) == ("POST", "/api/v1/definitions")
    assert definitions.body == {"definitions": [ones.compile().to_json()], "current": ["ones"]}
    assert (worker.method, worker.path) == ("PUT", "/api/v1/workers/w_1")
    assert worker.body == {"url": "http://127.0.0.1:1", "concurrency": 8, "steps": []}
    assert {asked.authorization for asked in engine.asked} == {"Bearer secret"}


async def test_heartbeats_follow(engine: FakeEngine) -> None:
    async with Keeping(engine.url) as keeping:
        await keeping.times.acquire()
        await asyncio.to_thread(engine.wait, "POST", "/workers/w_1/heartbeat", 3)
    assert len([asked for asked in engine.asked if asked.method == "PUT"]) == 1
    assert engine.asked[0].authorization is None


async def test_worker_that_the_engine_forgot_registers_again(engine: FakeEngine) -> None:
    async with Keeping(engine.url) as keeping:
        await keeping.times.acquire()
        engine.forget()
        await keeping.times.acquire()
    assert [asked.path for asked in engine.asked].count("/api/v1/definitions") == 2


async def test_worker_waits_for_an_engine_that_is_not_there_yet(capfd: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()  # holds the port, answers nobody
    with engine.running():
        port = engine.port
    async with Keeping(f"http://127.0.0.1:{port}") as keeping:
        with FakeEngine(port).running():
            await keeping.times.acquire()
    told = capfd.readouterr().err.splitlines()
    assert told == [] or (told[0].startswith("worker: waiting for the server at http://127.0.0.1") and len(told) == 2)


async def test_worker_registers_again_with_an_engine_that_was_restarted(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    with FakeEngine().running() as first:
        keeping = Keeping(first.url)
        await keeping.__aenter__()
        await keeping.times.acquire()
        port = first.port
    try:
        with FakeEngine(port).running() as second:
            await keeping.times.acquire()
            assert "/api/v1/definitions" in [asked.path for asked in second.asked]
    finally:
        await keeping.__aexit__()
    assert "Traceback" not in capfd.readouterr().err


async def test_engine_that_refuses_the_definitions_is_not_asked_again(engine: FakeEngine) -> None:
    engine.refusal = (422, {"error": {"code": "bad-definition", "message": "no such format", "hint": "update"}})
    async with Keeping(engine.url) as keeping:
        with pytest.raises(RegistrationRefusedError) as caught:
            await keeping.task
    assert (caught.value.code, caught.value.message, caught.value.hint) == (
        "bad-definition",
        "no such format",
        "update",
    )
    assert len(engine.asked) == 1


async def test_server_that_is_something_else_is_not_asked_again(engine: FakeEngine) -> None:
    engine.refusal = (404, {"detail": "Not Found"})
    async with Keeping(engine.url) as keeping:
        with pytest.raises(RegistrationRefusedError, match="answered 404"):
            await keeping.task


async def test_engine_in_trouble_is_asked_again(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    engine.refusal = (503, {})
    async with Keeping(engine.url) as keeping:
        await asyncio.to_thread(engine.wait, "POST", "/definitions", 2)
        engine.refusal = None
        await keeping.times.acquire()
    assert capfd.readouterr().err.splitlines() == [
        f"worker: waiting for the server at {engine.url}: it answered 503",
        "worker: registered",
    ]


async def test_refusal_after_the_worker_was_known_does_not_end_it(engine: FakeEngine) -> None:
    async with Keeping(engine.url) as keeping:
        await keeping.times.acquire()
        engine.refusal = (401, {"error": {"code": "unauthorized", "message": "no", "hint": None}})
        engine.forget()
        await asyncio.to_thread(engine.wait, "POST", "/definitions", 2)
        engine.refusal = None
        await keeping.times.acquire()


async def test_unregistering_names_the_worker(engine: FakeEngine) -> None:
    client = EngineClient(engine.url, None, announcement())
    await client.register(8)
    await client.unregister()
    assert (engine.asked[-1].method, engine.asked[-1].path) == ("DELETE", "/api/v1/workers/w_1")
