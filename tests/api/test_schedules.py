"""Schedules over HTTP, on a whole engine: made, changed, triggered, back-filled, and shown with the runs they start."""

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from hopline import Every, Request, http, scheduled, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.waiting import WITHIN, until_seen

pytestmark = pytest.mark.anyio

NEVER = "http://127.0.0.1:9/"


@http(timeout="1s")
def call(day: date) -> Request[None]:
    return http.get(NEVER, params={"day": f"{day}"})


@workflow
def report(day: date = scheduled.date) -> None:
    return call(day)


@workflow(schedule=Every("1h"))
def hourly(day: date = scheduled.date) -> None:
    return call(day)


@workflow(schedule=Every("5s"))
def hasty(day: date = scheduled.date) -> None:
    return call(day)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RunningEngine]:
    async with running_engine(tmp_path) as engine:
        await engine.register(report, hourly)
        yield engine


@pytest.fixture
async def client(engine: RunningEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{engine.url}/api/v1", timeout=WITHIN) as client:
        yield client


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


CRON: dict[str, Any] = {"kind": "cron", "expression": "0 6 * * *", "tz": "Europe/Berlin"}


async def made(client: httpx.AsyncClient, name: str = "s", **schedule: Any) -> Any:
    body = {"name": name, "workflow": "report", "schedule": {**CRON, **schedule}}
    return await client.post("/schedules", json=body)


async def test_schedule_is_made_listed_shown_changed_and_deleted(client: httpx.AsyncClient) -> None:
    response = await made(client)
    assert response.status_code == 201
    shown = response.json()
    assert (shown["state"], shown["text"], shown["edited"]) == ("active", "0 6 * * * (Europe/Berlin)", False)
    assert shown["next"]["local"].split()[2] == "06:00:00"
    listed = (await client.get("/schedules")).json()
    assert ([each["name"] for each in listed["schedules"]], listed["next"]) == (["hourly", "s"], None)
    changed = (await client.patch("/schedules/s", json={"schedule": {**CRON, "expression": "0 7 * * *"}})).json()
    assert changed["next"]["local"].split()[2] == "07:00:00"
    assert (await client.post("/schedules/s/pause")).json()["state"] == "paused"
    assert (await client.post("/schedules/s/resume")).json()["state"] == "active"
    assert (await client.delete("/schedules/s")).status_code == 200
    assert refusal(await client.get("/schedules/s")) == (404, "schedule-not-found")


async def test_schedules_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        await made(client, name)
    first = (await client.get("/schedules", params={"limit": 2})).json()
    second = (await client.get("/schedules", params={"limit": 2, "after": first["next"]})).json()
    assert [each["name"] for page in (first, second) for each in page["schedules"]] == ["a", "b", "hourly"]


async def test_what_cannot_be_is_refused_with_its_reason(client: httpx.AsyncClient) -> None:
    assert refusal(await made(client, expression="0 0 30 2 *")) == (422, "invalid-schedule")
    assert refusal(await made(client, tz="Mars/Olympus")) == (422, "invalid-schedule")
    assert refusal(await made(client, shift="x")) == (422, "invalid-schedule")
    assert refusal(await made(client, name="a/b")) == (422, "invalid-request")
    unknown = {"name": "s", "workflow": "nothing", "schedule": CRON}
    assert refusal(await client.post("/schedules", json=unknown)) == (404, "workflow-not-found")
    given = {"name": "s", "workflow": "report", "schedule": CRON, "input": {"shop": 1}}
    assert refusal(await client.post("/schedules", json=given)) == (422, "invalid-input")
    await made(client)
    assert refusal(await made(client)) == (409, "schedule-exists")
    assert refusal(await client.delete("/schedules/hourly")) == (409, "schedule-declared")
    assert refusal(await client.post("/schedules/s/reset")) == (422, "invalid-schedule")


async def test_file_with_a_schedule_that_cannot_be_used_is_refused_as_a_whole(
    engine: RunningEngine, client: httpx.AsyncClient
) -> None:
    body = {"definitions": [hasty.compile().to_json()], "current": ["hasty"]}
    response = await client.post("/definitions", json=body)
    assert refusal(response) == (422, "invalid-schedule")
    assert "10 s is the shortest" in response.json()["error"]["message"]
    assert refusal(await client.get("/workflows/hasty")) == (404, "workflow-not-found")


async def test_files_leave_schedules_alone_when_that_is_asked(client: httpx.AsyncClient) -> None:
    await client.post("/schedules/hourly/pause")
    body = {"definitions": [report.compile().to_json()], "current": ["report"], "schedules": False}
    assert (await client.post("/definitions", json=body)).json() == {"definitions": 1, "notes": []}
    without = {"definitions": [{**hourly.compile().to_json(), "schedule": None}], "current": ["hourly"]}
    await client.post("/definitions", json={**without, "schedules": False})
    assert (await client.get("/schedules/hourly")).json()["state"] == "paused"
    await client.post("/definitions", json=without)
    assert refusal(await client.get("/schedules/hourly")) == (404, "schedule-not-found")


async def test_edit_survives_a_redeploy_which_is_told(client: httpx.AsyncClient) -> None:
    await client.patch("/schedules/hourly", json={"schedule": {"kind": "every", "seconds": 600}})
    body = {"definitions": [hourly.compile().to_json()], "current": ["hourly"]}
    (note,) = (await client.post("/definitions", json=body)).json()["notes"]
    assert note.startswith("schedule hourly: what was set by hand stays in force")
    shown = (await client.get("/schedules/hourly")).json()
    assert (shown["text"], shown["edited"], shown["declared"]["seconds"]) == ("every 10m", True, 3600)
    assert (await client.post("/schedules/hourly/reset")).json()["text"] == "every 1h"


async def test_triggered_run_says_why_it_was_started(client: httpx.AsyncClient) -> None:
    await made(client)
    run = (await client.post("/schedules/s/trigger")).json()
    assert (run["scheduled"]["schedule"], run["scheduled"]["kind"]) == ("s", "trigger")
    assert run["scheduled"]["reason"] == "started by hand"
    assert run["scheduled"]["late_seconds"] < 5
    assert run["input"] == {"day": run["scheduled"]["local"].split()[1]}
    (tick,) = (await client.get("/schedules/s")).json()["ticks"]
    assert (tick["run"], tick["kind"]) == (run["id"], "trigger")


async def test_keys_of_ticks_are_not_for_others(client: httpx.AsyncClient) -> None:
    given = {"day": "2026-11-21"}
    body = {"workflow": "report", "input": given, "idempotency_key": "@schedule/s/2026-11-21T05:00:00Z"}
    assert refusal(await client.post("/runs", json=body)) == (422, "invalid-request")


async def test_next_ticks_are_told_by_the_clock_of_the_zone_with_what_its_changes_do(client: httpx.AsyncClient) -> None:
    await made(client, expression="30 2 * 3,10 *")
    found = (await client.get("/schedules/s/next", params={"count": 200})).json()
    assert found["tz"] == "Europe/Berlin"
    notes = [tick["note"] for tick in found["ticks"] if tick["note"]]
    assert any("does not exist" in note for note in notes)
    assert any("comes twice" in note for note in notes)
    assert {tick["local"].split()[-1] for tick in found["ticks"]} == {"CET", "CEST"}


async def test_backfill_is_shown_first_and_then_run_at_its_width(client: httpx.AsyncClient) -> None:
    await made(client)
    time = {"first": "2026-03-27T00:00:00Z", "last": "2026-03-30T23:00:00Z"}
    planned = (await client.post("/schedules/s/backfill", json={**time, "dry_run": True})).json()
    assert not planned["begun"]
    assert [tick["local"] for tick in planned["ticks"]] == [
        "Fri 2026-03-27 06:00:00 CET",
        "Sat 2026-03-28 06:00:00 CET",
        "Sun 2026-03-29 06:00:00 CEST",
        "Mon 2026-03-30 06:00:00 CEST",
    ]
    assert (await client.get("/schedules/s")).json()["backfill"] is None
    assert (await client.post("/schedules/s/backfill", json={**time, "max_parallel": 4})).json()["begun"]

    async def all_started() -> bool:
        shown = (await client.get("/schedules/s")).json()
        return bool(shown["backfill"]["started"] == 4)

    await until_seen(all_started, "all are started")
    days = [run["id"] for run in (await client.get("/runs")).json()["runs"]]
    inputs = [(await client.get(f"/runs/{run}")).json()["input"]["day"] for run in days]
    assert sorted(inputs) == ["2026-03-27", "2026-03-28", "2026-03-29", "2026-03-30"]
    again = (await client.post("/schedules/s/backfill", json={**time, "dry_run": True})).json()
    assert [tick["wanted"] for tick in again["ticks"]] == [False] * 4


async def test_backfill_of_too_much_is_refused(client: httpx.AsyncClient) -> None:
    await made(client, expression="* * * * *")
    body = {"first": "2020-01-01T00:00:00Z", "last": "2026-01-01T00:00:00Z"}
    assert refusal(await client.post("/schedules/s/backfill", json=body)) == (422, "invalid-schedule")
