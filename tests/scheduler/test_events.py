"""Events: emitted before or after they are waited for, and starting runs; on each kind of store."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import Event, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.waiting import until_seen

pytestmark = pytest.mark.anyio


class Scan(BaseModel):
    tracking: str
    place: str


class Order(BaseModel):
    id: str
    total: float


scanned = Event("parcel.scanned", Scan)
placed = Event("order.placed", Order)


@workflow
def ship(tracking: str) -> str:
    return scanned.wait(key=tracking).place


@workflow
def ship_soon(tracking: str) -> str:
    return scanned.wait(key=tracking, timeout="200ms").place


@workflow(on=placed, key="order-{order.id}")
def fulfil(order: Order, note: str = "") -> str:
    return order.id


@workflow(on=placed)
def count(order: Order) -> float:
    return order.total


def scan(place: str = "Bonn") -> dict[str, str]:
    return {"tracking": "t1", "place": place}


async def emit(engine: RunningEngine, key: str, payload: Any, name: str = "parcel.scanned") -> dict[str, Any]:
    return await engine.client.ask("POST", "/events", json={"name": name, "key": key, "payload": payload})


async def test_event_after_the_wait_ends_it(engine: RunningEngine) -> None:
    await engine.register(ship)
    runs = [await engine.client.start("ship", {"tracking": "t1"}) for _ in range(2)]
    other = await engine.client.start("ship", {"tracking": "t2"})
    assert (await emit(engine, "t1", scan()))["created"] is True
    assert [(await engine.client.ended(run))["result"] for run in runs] == ["Bonn", "Bonn"]
    (reason,) = (await engine.client.ask("GET", f"/runs/{other}/why"))["reasons"]
    assert reason["reason"] == "waiting_for_event"
    assert reason["text"] == 'parcel.scanned waits for the event "parcel.scanned" with the key "t2"'


async def test_event_before_the_wait_is_found(engine: RunningEngine) -> None:
    await engine.register(ship)
    await emit(engine, "t1", scan())
    run = await engine.client.start("ship", {"tracking": "t1"})
    assert (await engine.client.ended(run))["result"] == "Bonn"


async def test_first_event_of_a_key_is_kept(engine: RunningEngine) -> None:
    await engine.register(ship)
    await emit(engine, "t1", scan("Bonn"))
    again = await emit(engine, "t1", scan("Kiel"))
    assert (again["created"], again["payload"]["place"]) == (False, "Bonn")
    run = await engine.client.start("ship", {"tracking": "t1"})
    assert (await engine.client.ended(run))["result"] == "Bonn"
    listed = (await engine.client.ask("GET", "/events"))["events"]
    assert [(event["name"], event["key"], event["payload"]) for event in listed] == [("parcel.scanned", "t1", scan())]


async def test_wait_without_its_event_fails_after_the_timeout(engine: RunningEngine) -> None:
    await engine.register(ship_soon)
    ended = await engine.client.ended(await engine.client.start("ship_soon", {"tracking": "t1"}))
    assert ended["error"]["type"] == "TimeoutError"
    assert ended["error"]["message"] == 'no event "parcel.scanned" with the key "t1" came within 0.2 s'


async def test_event_that_is_not_what_is_declared_is_refused(engine: RunningEngine) -> None:
    await engine.register(ship)
    asked = {"name": "parcel.scanned", "key": "t1", "payload": {"tracking": "t1"}}
    response = await engine.client.http.post("/events", json=asked)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid-event")
    assert "step parcel.scanned of ship: 'place' is a required property" in response.json()["error"]["message"]
    assert (await engine.client.ask("GET", "/events"))["events"] == []


async def test_event_that_nobody_knows_is_refused(engine: RunningEngine) -> None:
    await engine.register(ship)
    response = await engine.client.http.post("/events", json={"name": "parcel.scaned", "key": "t1", "payload": scan()})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "event-not-found")
    assert response.json()["error"]["hint"] == 'did you mean "parcel.scanned"?'


async def test_event_starts_one_run_per_key_of_each_workflow(engine: RunningEngine) -> None:
    await engine.register(fulfil, count)
    first = await emit(engine, "e1", {"id": "7", "total": 1.5}, "order.placed")
    assert len(first["runs"]) == 2
    second = await emit(engine, "e2", {"id": "7", "total": 1.5}, "order.placed")
    assert len(second["runs"]) == 1, "the order has its run already, the event of the other workflow is a new one"
    assert (await emit(engine, "e1", {"id": "8", "total": 1.5}, "order.placed"))["runs"] == []
    for run in first["runs"]:
        assert (await engine.client.ended(run))["state"] == "succeeded"
    keys = {run["idempotency_key"] for run in (await engine.client.ask("GET", "/runs"))["runs"]}
    assert keys == {"fulfil:order-7", "count:e1", "count:e2"}


async def test_wait_survives_a_restart_and_so_does_an_event(tmp_path: Path, store: str) -> None:
    async with running_engine(tmp_path, store=store) as engine:
        await engine.register(ship)
        waiting = await engine.client.start("ship", {"tracking": "t1"})
        await emit(engine, "t2", scan("Kiel"))
    async with running_engine(tmp_path, store=store) as engine:
        await emit(engine, "t1", scan())
        assert (await engine.client.ended(waiting))["result"] == "Bonn"
        late = await engine.client.start("ship", {"tracking": "t2"})
        assert (await engine.client.ended(late))["result"] == "Kiel"


async def test_events_are_forgotten_after_a_while(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as engine:
        await engine.register(ship)
        await emit(engine, "t1", scan())

    async with running_engine(tmp_path, event_retention_seconds=0.001) as engine:

        async def look() -> bool:
            return not (await engine.client.ask("GET", "/events"))["events"]

        await until_seen(look, "the event is forgotten")
