"""The reconciler: finds nothing where nothing is wrong, and puts right what was damaged under a running engine."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hopline_engine.api.models import RunDetail
from hopline_engine.api.service import Service
from hopline_engine.bootstrap import open_engine
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunId, RunState, TaskId
from hopline_engine.core.names import run_id
from hopline_engine.core.shards import shard_of
from hopline_engine.scheduler import comparing, reconciler, resuming
from hopline_engine.scheduler.comparing import Comparison
from hopline_engine.scheduler.engine import Engine
from hopline_engine.scheduler.reconciler import Reconciler
from hopline_engine.settings import Settings
from hopline_engine.store import audit
from hopline_engine.store.audit import Audit, Finding
from tests.core.worlds import definition, http_step, ref, step
from tests.support.targets import Target, json, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Place:
    """An engine whose steps wait in a paused queue, and a way into its store past it."""

    engine: Engine
    service: Service
    target: Target
    folder: Path

    @property
    def reconciler(self) -> Reconciler:
        return self.engine.reconciler

    async def start(self, name: str = "w") -> str:
        return (await self.service.start_run(name, {}, None)).run.id

    def damage(self, statement: str, parameters: Sequence[object] = ()) -> None:
        """Write to the store past the engine; nothing that the schema forbids by itself is kept from it."""
        with closing(sqlite3.connect(self.folder / "hopline.db", isolation_level=None)) as raw:
            assert raw.execute(statement, parameters).rowcount == 1

    async def found(self) -> set[str]:
        """Return the names of what is really wrong."""
        looked = await self.reconciler.look()
        return {finding.audit.name for finding in looked if await self.reconciler.is_so(finding)}

    async def heal(self) -> None:
        """Repair as the reconciler does when it has looked twice."""
        for finding in await self.reconciler.look():
            await self.reconciler.heal(finding)

    async def ended(self, run: str) -> RunDetail:
        async def look() -> RunDetail | None:
            detail = await self.service.run_detail(run)
            return None if detail.state is RunState.RUNNING else detail

        return await until_seen(look, f"run {run} ends")

    async def goes_on(self, run: str) -> None:
        """Check that a run ends as if nothing had been, and that nothing is wrong afterwards."""
        await self.service.resume_queue("default")
        ended = await self.ended(run)
        assert (ended.state, ended.result) == (RunState.SUCCEEDED, 1)
        assert await self.found() == set()


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(resuming, "REST_SECONDS", 0.01)
    async with (
        open_engine(Settings(state_dir=tmp_path)) as installation,
        target(lambda _: json(1)) as called,
    ):
        await installation.serve(0)
        service: Service = installation.app.state.engine
        await service.register_definitions([definition("w", [http_step("call", called.url)], ref("call"))], ["w"])
        digest = (await service.workflow("w")).digest
        calling = definition("above", [step("sub", workflow=("w", digest))], ref("sub"))
        await service.register_definitions([calling], ["above"])
        await service.pause_queue("default")
        yield Place(service._engine, service, called, tmp_path)


def number(run: str) -> RunId:
    found = run_id(run)
    assert found is not None
    return found


# --- nothing wrong ----------------------------------------------------------------------------------------------------


async def test_nothing_is_found_in_an_engine_that_works(place: Place) -> None:
    runs = [await place.start(name) for name in ("w", "above") * 20]
    assert await place.found() == set()
    await place.service.resume_queue("default")
    ends = [asyncio.ensure_future(place.ended(run)) for run in runs]
    while not all(end.done() for end in ends):
        assert await place.found() == set()
    assert place.reconciler.healed == {}


async def test_a_step_that_begins_after_the_rows_were_read_is_not_suspected(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "ROWS_AT_A_TIME", 2)
    monkeypatch.setattr(comparing, "TASKS_A_TURN", 1)
    for name in ("w", "above") * 3:
        await place.start(name)
    see_memory = Comparison.see_memory

    async def after_another_start(self: Comparison, held: Collection[int], pause: float) -> None:
        await place.start()
        await see_memory(self, held, pause)

    monkeypatch.setattr(Comparison, "see_memory", after_another_start)
    assert await place.reconciler.look() == []


async def test_a_pass_rests_after_each_whole_slice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "ROWS_AT_A_TIME", 2)
    monkeypatch.setattr(comparing, "TASKS_A_TURN", 2)
    for _ in range(4):
        await place.start()
    rests: list[float] = []
    sleep = asyncio.sleep

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", rest)
        await place.reconciler.look(0.5)
    of_runs = of_tasks = of_memory = 2
    assert rests.count(0.5) == of_runs + of_tasks + of_memory


async def test_what_is_only_decided_is_no_finding(place: Place) -> None:
    starting = [asyncio.ensure_future(place.start("above")) for _ in range(100)]
    await until(lambda: place.engine.coordinator.runs, "a run is decided on")
    assert await place.found() == set()
    await asyncio.gather(*starting)


@pytest.mark.parametrize("what", [comparing.TASK_DIFFERS, comparing.RUN_NOT_IN_STORE], ids=lambda what: what.name)
async def test_what_moves_on_while_a_commit_is_tried_again_is_no_finding(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: Audit
) -> None:
    run = number(await place.start())
    tasks = partial(audit.tasks, after=0, limit=1, shards=frozenset({shard_of(run)}))
    (task,) = (await place.engine.store.read(tasks)).rows
    execute = place.engine.store.execute

    async def execute_after_the_end(function: Callable[[Connection], object]) -> object:
        """See what comes after the call, as where it is tried again with a commit that was written all the same."""
        monkeypatch.setattr(place.engine.store, "execute", execute)
        await place.engine.orders.cancel(run)
        return await execute(function)

    monkeypatch.setattr(place.engine.store, "execute", execute_after_the_end)
    key = task.id if what is comparing.TASK_DIFFERS else run
    assert not await place.reconciler.is_so(Finding(what, key, task._asdict()))


# --- damage -----------------------------------------------------------------------------------------------------------


async def test_open_step_whose_task_was_deleted_gets_a_new_one(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    run = await place.start()
    place.damage("DELETE FROM task WHERE run_id = ?", [number(run)])
    assert await place.found() == {"stuck-run", "task-differs"}
    with caplog.at_level(logging.ERROR):
        await place.heal()
    assert sum(place.reconciler.healed.values()) == 1, "one repair is enough for both"
    assert "repaired (" in caplog.text
    await place.goes_on(run)


async def test_task_whose_row_was_changed_is_read_again(place: Place) -> None:
    run = await place.start()
    place.damage("UPDATE task SET attempt = 3 WHERE run_id = ?", [number(run)])
    assert "task-differs" in await place.found()
    await place.heal()
    assert place.reconciler.healed["task-differs"] == 1


async def test_run_that_memory_has_lost_is_taken_up(place: Place) -> None:
    run = await place.start("above")
    lost = place.engine.coordinator.runs.popitem()
    assert await place.found() == {"run-not-in-memory"}
    await place.heal()
    assert place.reconciler.healed == {"run-not-in-memory": 1}
    await until(lambda: lost[0] in place.engine.coordinator.runs, "the run is in memory")
    await place.goes_on(run)


async def test_run_that_ended_behind_the_engine_s_back_is_dropped(place: Place) -> None:
    run = number(await place.start())
    place.damage("UPDATE run SET state = 'cancelled', ended_at = 1 WHERE id = ?", [run])
    assert await place.found() == {"run-not-in-store", "orphan-task"}
    await place.heal()
    assert run not in place.engine.coordinator.runs
    assert await place.found() == set(), "its task is gone too"


async def test_sub_run_whose_parent_has_ended_is_cancelled(place: Place) -> None:
    above = number(await place.start("above"))
    sub_run = max(place.engine.coordinator.runs)
    place.damage("UPDATE run SET state = 'cancelled', ended_at = 1 WHERE id = ?", [above])
    assert await place.found() == {"run-not-in-store", "orphan-sub-run"}
    await place.heal()
    await until(lambda: not place.engine.resumer.is_reading, "what was forgotten is read again")
    assert await place.found() == set()
    with closing(sqlite3.connect(place.folder / "hopline.db")) as raw:
        assert raw.execute("SELECT state FROM run WHERE id = ?", [sub_run]).fetchone() == ("cancelled",)
        assert raw.execute("SELECT count(*) FROM task").fetchone() == (0,)


async def test_task_whose_lease_is_nobody_s_is_tried_again(place: Place) -> None:
    run = await place.start()
    place.damage("UPDATE task SET state = 1, attempt = 1, epoch = 999, leased_at = 1 WHERE run_id = ?", [number(run)])
    assert await place.found() == {"lease-of-nobody", "task-differs"}
    await place.heal()
    await until(lambda: not place.engine.resumer.is_reading, "it is read again")
    await place.goes_on(run)


async def test_task_that_nothing_would_wake_is_woken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await place.start()
    (live,) = place.engine.coordinator.runs.values()
    (task,) = live.units()
    assert isinstance(task, LiveTask)
    place.engine.admission.withdraw(task)
    task.schedule_time -= 60.0
    assert await place.found() == {"stalled-task"}
    await place.heal()
    assert place.reconciler.healed == {"stalled-task": 1}
    await place.goes_on(run)


async def test_place_that_was_not_given_back_is_freed(place: Place) -> None:
    queue = place.engine.admission.queues["default"]
    place.engine.admission._reserved[TaskId(7)] = (queue, None)
    queue.in_flight += 1
    assert await place.found() == {"leaked-place"}
    await place.heal()
    assert (queue.in_flight, place.reconciler.healed) == (0, {"leaked-place": 1})


async def test_endless_wait_is_told_once_and_left_alone(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    run = await place.start()
    place.damage("UPDATE task SET state = 2, attempt = 1, leased_at = 1 WHERE run_id = ?", [number(run)])
    found = [finding for finding in await place.reconciler.look() if finding.audit.name == "endless-wait"]
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            await place.reconciler.heal(found[0])
    assert caplog.text.count("cannot be repaired") == 1
    assert place.reconciler.healed == {}


async def test_only_what_two_looks_find_is_repaired(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await place.start()
    repaired: list[str] = []
    looks = 0
    look = place.reconciler.look

    async def counted(pause: float = 0.0) -> object:
        nonlocal looks
        looks += 1
        return await look(pause)

    async def heal(finding: object) -> None:
        repaired.append(f"after look {looks}")

    monkeypatch.setattr(place.reconciler, "look", counted)
    monkeypatch.setattr(place.reconciler, "heal", heal)
    monkeypatch.setattr(place.reconciler, "_seconds", 0.01)
    place.damage("DELETE FROM task WHERE run_id = ?", [number(run)])
    running = asyncio.create_task(place.reconciler.run())
    await until(lambda: repaired, "it is repaired")
    running.cancel()
    assert repaired[0] == "after look 2"


async def test_what_another_node_works_on_is_none_of_our_business(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = number(await place.start())
    place.damage("DELETE FROM task WHERE run_id = ?", [run])
    found = await place.reconciler.look()
    monkeypatch.setattr(place.reconciler, "_held", frozenset)
    assert await place.reconciler.look() == []
    for finding in found:  # while it was looked at, the run moved
        await place.reconciler.heal(finding)
    assert place.reconciler.healed == {}
    assert run in place.engine.coordinator.runs
