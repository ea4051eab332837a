"""What the doctor says of an engine and its store, and of a store that nobody has open."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from hopline_engine.api.asked import QueueLimits, WorkerRegistration
from hopline_engine.api.doctor import doctor_view
from hopline_engine.api.fleet_models import ServedStep
from hopline_engine.api.models import Check, Doctor
from hopline_engine.api.service import Service
from hopline_engine.bootstrap import examine, open_engine
from hopline_engine.core.live import LiveTask
from hopline_engine.settings import Settings
from tests.core.worlds import definition, http_step, ref, step

pytestmark = pytest.mark.anyio


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """An engine that knows a workflow with a Python step, and one with an HTTP step."""
    async with open_engine(Settings(state_dir=tmp_path)) as installation:
        await installation.serve(0)
        service: Service = installation.app.state.engine
        flows = [
            definition("works", [step("work")], ref("work")),
            definition("calls", [http_step("call", "http://127.0.0.1:9/")], ref("call")),
        ]
        await service.register_definitions(flows, ["works", "calls"])
        yield service


async def doctor(service: Service) -> Doctor:
    return doctor_view(await service.diagnose(), "0")


def named(found: Doctor, name: str) -> list[Check]:
    return [check for check in found.checks if check.name == name]


async def test_engine_in_order_has_nothing_wrong(service: Service, tmp_path: Path) -> None:
    found = await doctor(service)
    assert found.ok
    assert {check.state for check in found.checks} == {"ok"}
    (store,), (schema,), (node,) = (named(found, name) for name in ("store", "schema", "node"))
    assert store.text == f"sqlite at {(tmp_path / 'hopline.db').resolve()}"
    assert schema.text.endswith("the newest")
    assert "holds 64 of 64 shards" in node.text


async def test_step_that_no_worker_serves_is_wrong_and_names_the_runs_that_wait(service: Service) -> None:
    run = (await service.start_run("works", {}, None)).run.id
    (waiting,) = named(await doctor(service), "no-worker")
    assert (waiting.state, waiting.evidence) == ("wrong", [{"run": run}])
    assert "no worker serves step work" in waiting.text
    registration = WorkerRegistration(
        url="http://127.0.0.1:9", token="t", concurrency=1, steps=[ServedStep(name="work", signature="s")]
    )
    await service.pause_queue("default")
    await service.register_worker("w_1", registration)
    found = await doctor(service)
    assert named(found, "no-worker") == []
    assert "w_1" in named(found, "worker")[0].text


async def test_paused_queue_is_told_only_when_something_waits_in_it(service: Service) -> None:
    await service.pause_queue("default")
    assert named(await doctor(service), "queue") == []
    await service.start_run("calls", {}, None)
    (paused,) = named(await doctor(service), "queue")
    assert (paused.state, paused.hint) == ("note", "hopline queues resume default")


async def test_queue_whose_limit_holds_up_old_tasks_starves(service: Service) -> None:
    await service.update_queue("default", QueueLimits(max_dispatches_per_second=0.001, max_burst_size=1))
    for _ in range(2):
        await service.start_run("calls", {}, None)
    queue = service._engine.admission.queues["default"]
    for task in service._engine.admission.waiting(queue):
        assert isinstance(task, LiveTask)
        task.schedule_time -= 100.0
    (starved,) = named(await doctor(service), "queue")
    assert "sends 0.001 tasks a second at most" in starved.text


async def test_trouble_of_the_store_is_wrong(service: Service) -> None:
    service._engine.trouble = OSError("no space left on device")
    (trouble,) = named(await doctor(service), "trouble")
    assert trouble.state == "wrong"
    assert "no space left on device" in trouble.text


async def test_what_was_repaired_is_told_with_its_evidence(service: Service, tmp_path: Path) -> None:
    await service.pause_queue("default")
    await service.start_run("calls", {}, None)
    with closing(sqlite3.connect(tmp_path / "hopline.db", isolation_level=None)) as raw:
        raw.execute("DELETE FROM task")
    broken = await doctor(service)
    assert {check.name for check in broken.checks if check.state == "wrong"} == {
        "stuck-run", "open-step-without-task", "task-differs"
    }  # fmt: skip
    reconciler = service._engine.reconciler
    for finding in await reconciler.look():
        await reconciler.heal(finding)
    await service._engine.resumer.settled()
    healed = await doctor(service)
    assert (healed.ok, healed.healed) == (True, {"stuck-run": 1})
    (repair,) = named(healed, "healed")
    assert (repair.state, len(repair.evidence)) == ("note", 1)


async def test_definition_that_cannot_be_run_is_wrong(service: Service, tmp_path: Path) -> None:
    await service.pause_queue("default")
    await service.start_run("calls", {}, None)
    body = msgspec.json.encode({**definition("calls", []), "format": 2})
    with closing(sqlite3.connect(tmp_path / "hopline.db", isolation_level=None)) as raw:
        raw.execute("UPDATE definition SET body = ? WHERE name = 'calls'", (body,))
    (unusable,) = named(await examine(Settings(state_dir=tmp_path)), "definition")
    assert unusable.state == "wrong"
    assert "format 2 is not 1" in unusable.text


async def test_store_can_be_examined_beside_the_engine_that_has_it_open(service: Service, tmp_path: Path) -> None:
    await service.pause_queue("default")
    await service.start_run("calls", {}, None)
    found = await examine(Settings(state_dir=tmp_path))
    assert found.ok
    assert "looked at all 1 tasks, all 1 live runs, all 1 runs" in named(found, "rows")[0].text
    (holder,) = named(found, "holder")
    assert "has the store open" in holder.text
