"""Decisions that the store refuses, or that fail halfway: the engine reads their runs again, without anybody's help."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from hopline_engine.api.asked import ApprovalAnswer
from hopline_engine.api.models import RunDetail
from hopline_engine.api.service import Service
from hopline_engine.bootstrap import open_engine
from hopline_engine.core.changes import Changes
from hopline_engine.core.model import RunState
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.scheduler import resuming
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings
from hopline_engine.store.errors import ReadTimeoutError
from hopline_engine.store.interface import Store, Transaction
from tests.core.worlds import definition, http_step, ref, step
from tests.support.targets import Target, json, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio


@dataclass
class Spoiling:
    """A way to the store on which decisions are made impossible to write."""

    store: Store
    chosen: Callable[[Changes], bool]
    times: int
    refused: int = 0

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        if self.refused < self.times and self.chosen(changes):
            self.refused += 1
            changes.steps_ended.append(changes.steps_ended[0])  # the same row twice
        self.store.submit(changes, done)


@dataclass(frozen=True)
class Place:
    """An engine, what it calls, and what is between it and its store."""

    service: Service
    engine: Engine
    target: Target

    def spoil(self, chosen: Callable[[Changes], bool], times: int = 1) -> Spoiling:
        spoiling = Spoiling(self.engine.store, chosen, times)
        self.engine.coordinator.committing._commits = spoiling
        return spoiling

    async def start(self, name: str = "w") -> str:
        return (await self.service.start_run(name, {}, None)).run.id

    async def ended(self, run: str) -> RunDetail:
        async def look() -> RunDetail | None:
            detail = await self.service.run_detail(run)
            return None if detail.state is RunState.RUNNING else detail

        return await until_seen(look, f"run {run} ends")

    @property
    def taken_places(self) -> int:
        return sum(queue.in_flight for queue in self.engine.admission.queues.values())


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(resuming, "REST_SECONDS", 0.01)
    async with (
        open_engine(Settings(state_dir=tmp_path, lost_limit=3)) as installation,
        target(lambda _: json(1)) as called,
    ):
        await installation.serve(0)
        service: Service = installation.app.state.engine
        await service.register_definitions([definition("w", [http_step("call", called.url)], ref("call"))], ["w"])
        yield Place(service, service._engine, called)


def ends_a_step(changes: Changes) -> bool:
    return bool(changes.steps_ended)


async def test_run_whose_decision_was_refused_goes_on_from_its_rows(place: Place) -> None:
    place.spoil(ends_a_step)
    run = await place.start()
    assert (await place.ended(run)).state is RunState.SUCCEEDED
    attempts = await place.service.run_attempts(run, None, None)
    assert [attempt.state for attempt in attempts] == ["lost", "succeeded"]
    assert place.taken_places == 0


async def test_step_that_can_never_be_stored_fails_its_run_in_the_end(place: Place) -> None:
    place.spoil(lambda changes: any(row.result is not None for row in changes.steps_ended), times=1000)
    ended = await place.ended(await place.start())
    assert ended.state is RunState.FAILED
    assert ended.error is not None
    assert ended.error.type == "AttemptLost"


async def test_other_runs_are_not_held_up_by_one_that_is_forgotten(place: Place) -> None:
    spoiling = place.spoil(ends_a_step)
    first = await place.start()
    await until(lambda: spoiling.refused, "a decision is refused")
    second = await place.start()
    assert (await place.ended(second)).state is RunState.SUCCEEDED
    assert (await place.ended(first)).state is RunState.SUCCEEDED


async def test_run_that_cannot_be_read_again_at_first_is_taken_up_when_the_store_answers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumer = place.engine.resumer
    store, troubles = resumer._store, [StoreUnavailableError(reason="gone"), ReadTimeoutError(30.0)]

    async def read(function: Callable[[Transaction], object]) -> object:
        if troubles:
            raise troubles.pop()
        return await store.read(function)

    away = SimpleNamespace(read=read, execute=store.execute, owner=store.owner)
    monkeypatch.setattr(resumer, "_store", away)
    place.spoil(ends_a_step)
    run = await place.start()
    assert (await place.ended(run)).state is RunState.SUCCEEDED
    assert troubles == []
    assert place.engine.reconciler.healed == {}, "nobody had to notice that it was missing"


async def test_runs_above_and_below_a_refused_decision_are_read_again_together(place: Place) -> None:
    child = definition("child", [http_step("call", place.target.url), http_step("then", place.target.url)])
    child["nodes"][1]["after"] = ["call"]
    await place.service.register_definitions([child], ["child"])
    digest = place.engine.catalogue.current("child").digest
    elements = step("each", {"x": [1, 2, 3]}, over="x", workflow=("child", digest))
    await place.service.register_definitions([definition("above", [elements], ref("each"))], ["above"])
    spoiling = place.spoil(ends_a_step, times=2)
    ended = await place.ended(await place.start("above"))
    assert (ended.state, ended.result, spoiling.refused) == (RunState.SUCCEEDED, [None, None, None], 2)
    assert place.engine.coordinator.runs == {}
    assert place.taken_places == 0


async def test_cancel_of_a_run_that_is_being_read_again_waits_for_it(place: Place) -> None:
    spoiling = place.spoil(ends_a_step)
    run = await place.start()
    await until(lambda: spoiling.refused, "a decision is refused")
    await until(lambda: not place.engine.coordinator.runs, "the run is forgotten")
    await place.service.pause_queue("default")
    assert (await place.service.cancel_run(run)).state is RunState.CANCELLED


async def test_answer_of_a_person_waits_for_a_run_that_is_being_read_again(place: Place) -> None:
    no_form = {"properties": {"form": {"type": "null"}}}
    asks = step("asks", {"prompt": "Go on?"}) | {"kind": "approval", "signature": "", "result": no_form}
    given = definition("asking", [asks, http_step("call", place.target.url)], ref("asks", "approved"))
    await place.service.register_definitions([given], ["asking"])
    spoiling = place.spoil(ends_a_step)
    run = await place.start("asking")
    await until(lambda: spoiling.refused, "a decision is refused")
    await until(lambda: not place.engine.coordinator.runs, "the run is forgotten")
    answered = await place.service.decide_approval(run, "asks", ApprovalAnswer(approved=True, by="Ada"))
    assert answered.state == "approved"
    assert (await place.ended(run)).result is True


async def test_decision_that_fails_halfway_costs_an_attempt_and_not_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = place.engine.coordinator
    apply = coordinator._apply
    failed: list[object] = []

    def fail_once(*given: object) -> None:
        apply(*given)  # type: ignore[arg-type]
        if not failed:
            failed.append(given)
            raise AssertionError("a mistake of ours")

    monkeypatch.setattr(coordinator, "_apply", fail_once)
    run = await place.start()
    assert (await place.ended(run)).state is RunState.SUCCEEDED
    attempts = await place.service.run_attempts(run, None, None)
    assert [attempt.state for attempt in attempts] == ["lost", "succeeded"]
