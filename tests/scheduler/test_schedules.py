"""Schedules on both stores: ticks that fire once, policies, edits, back-fills, nodes that die or have wrong clocks."""

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hopline_engine import clock
from hopline_engine.core.backfills import Pace
from hopline_engine.core.model import RunState, StepState
from hopline_engine.core.shards import SHARDS
from hopline_engine.core.ticks import TickState
from hopline_engine.errors import (
    BackfillOpenError,
    InvalidInputError,
    InvalidScheduleError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    WorkflowNotFoundError,
)
from hopline_engine.scheduler.diagnosis import examine
from hopline_engine.scheduler.scheduling import Rests
from hopline_engine.settings import Settings
from hopline_engine.store import runs, steps
from hopline_engine.store.runs import RunRecord
from tests.core.worlds import definition, http_step, sleep_step
from tests.scheduler.hourly import HOUR, book, ended, hourly, look, make_due, runs_of, spoil, states, ticks, with_hourly
from tests.scheduler.several_nodes import Node, Nodes
from tests.support.waiting import until_seen

pytestmark = pytest.mark.anyio

DUE, QUEUED, STARTED, DONE = TickState.DUE, TickState.QUEUED, TickState.STARTED, TickState.DONE
SKIPPED, MISSED, FAILED, WAITING = TickState.SKIPPED, TickState.MISSED, TickState.FAILED, TickState.WAITING


# --- firing -----------------------------------------------------------------------------------------------------------


async def test_tick_starts_one_run_that_says_which_tick_it_belongs_to(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node)
    before = await book(node).get("s")
    await look(node)
    await look(node)
    (tick,) = await ticks(node, "s")
    assert (tick.at, tick.state) == (before.next_tick, STARTED)
    after = await book(node).get("s")
    assert after.next_tick == after.due_at == tick.at + HOUR
    (run,) = await runs_of(node)
    assert run["id"] == tick.run_id
    assert run["idempotency_key"].startswith("@schedule/s/")


async def test_schedule_that_is_not_due_does_nothing(nodes: Nodes, node: Node) -> None:
    await book(node).create("s", "call", hourly(), {})
    await look(node)
    assert await ticks(node, "s") == []
    assert 0 < await node.engine.scheduling.look() <= 5


async def test_run_gets_the_input_of_the_schedule_and_the_time_of_the_tick(nodes: Nodes, node: Node) -> None:
    parameters = {
        "type": "object",
        "properties": {
            "at": {"type": "string", "format": "date-time", "x-hopline-scheduled": "time"},
            "shop": {"type": "string"},
        },
        "required": ["at", "shop"],
        "$defs": {},
    }
    given = {**definition("report", [http_step("report", "http://x")]), "parameters": parameters}
    await node.engine.controls.register([given], ["report"])
    with pytest.raises(InvalidInputError, match="shop"):
        await book(node).create("s", "report", hourly(), {})
    await book(node).create("s", "report", hourly(), {"shop": "Kiel"})
    await make_due(nodes)
    await look(node)
    (tick,) = await ticks(node, "s")
    (run,) = await runs_of(node)
    assert b'"shop":"Kiel"' in run["input"]
    assert f"{tick.at:.0f}" == f"{_time_in(run['input']):.0f}"


def _time_in(run_input: bytes) -> float:
    import json
    from datetime import datetime

    return datetime.fromisoformat(json.loads(run_input)["at"]).timestamp()


async def test_node_that_died_after_it_decided_leaves_a_tick_that_is_started_once(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node)
    held = node.held
    await node.engine.scheduling._decide(held)
    assert await states(node) == [DUE]
    # Killed between the start of the run and the note that it was started:
    settle = node.store.execute
    node.store.execute = _broken  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError):
        await node.engine.scheduling._start(held)
    node.store.execute = settle  # type: ignore[method-assign]
    assert await states(node) == [DUE]
    await look(node)
    assert await states(node) == [STARTED]
    assert len(await runs_of(node)) == 1


async def _broken(_: object) -> None:
    raise RuntimeError("killed")


# --- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overlap, expected", [("skip", SKIPPED), ("queue_one", QUEUED), ("queue_all", QUEUED), ("allow", STARTED)]
)
async def test_tick_while_a_run_goes_on(nodes: Nodes, node: Node, overlap: str, expected: TickState) -> None:
    await book(node).create("s", "held", hourly(overlap=overlap), {})
    await book(node).trigger("s")
    await make_due(nodes)
    await look(node)
    assert [tick.state for tick in await ticks(node, "s") if tick.kind == "tick"] == [expected]


async def test_queued_tick_starts_when_the_run_before_it_hasended(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node, "held", missed=3, catchup="all")
    await look(node)
    assert await states(node) == [STARTED, QUEUED, QUEUED]
    nodes.targets.open.set()
    for finished in range(1, 4):
        started = [tick for tick in await ticks(node, "s") if tick.run_id is not None]
        assert len(started) == finished
        await ended(node, started[-1])
        await look(node)
    assert await states(node) == [DONE, DONE, STARTED]


async def test_run_that_goes_on_is_cancelled_for_the_next_tick_when_that_is_said(nodes: Nodes, node: Node) -> None:
    await book(node).create("s", "held", hourly(overlap="cancel_running"), {})
    await book(node).trigger("s")
    await make_due(nodes)
    await look(node)
    tick, trigger = await ticks(node, "s")
    assert trigger.run_state is RunState.CANCELLED
    assert tick.run_state is RunState.RUNNING


async def test_run_that_was_cancelled_for_a_tick_closes_in_peace_when_the_next_one_comes(
    nodes: Nodes, node: Node
) -> None:
    given = [sleep_step("rest", 3600.0), http_step("held", "http://x") | {"closes": "finally"}]
    await node.engine.controls.register([definition("closes", given)], ["closes"])
    await book(node).create("s", "closes", hourly(overlap="cancel_running"), {})
    run = await book(node).trigger("s")
    for periods in (1, 1.0001):  # or it would be the same tick
        await make_due(nodes, periods)
        await look(node)
    assert await states(node) == [STARTED] * 3
    assert await node.store.read(partial(runs.state, run_id=run.id)) is RunState.RUNNING
    nodes.targets.open.set()
    trigger = next(tick for tick in await ticks(node, "s") if tick.run_id == run.id)
    await ended(node, trigger)
    assert await node.store.read(partial(runs.state, run_id=run.id)) is RunState.CANCELLED
    closed = next(row for row in await node.store.read(partial(steps.of_run, run_id=run.id)) if row.attempts)
    assert closed.state == StepState.SUCCEEDED


@pytest.mark.parametrize("overlap", ["skip", "queue_one", "queue_all", "cancel_running", "allow"])
@pytest.mark.parametrize("catchup, runs", [("none", 0), ("latest", 1), ("all", 3)])
async def test_outage_of_three_hours_gives_exactly_the_runs_that_the_policy_promises(
    nodes: Nodes, node: Node, catchup: str, runs: int, overlap: str
) -> None:
    await with_hourly(nodes, node, missed=3.5, catchup=catchup, overlap=overlap)
    anchor = (await book(node).get("s")).anchor_at
    three = [round(anchor + number * HOUR, 3) for number in (1, 2, 3)]

    async def is_over() -> bool:
        await look(node)
        return QUEUED not in await states(node)  # each of these waits for the run before it

    await until_seen(is_over, "no tick waits any more")
    found = {tick.at: tick for tick in await ticks(node, "s")}
    assert [at for at, tick in found.items() if tick.run_id is not None] == three[3 - runs :]
    assert [tick.state for tick in found.values()][: 3 - runs] == [MISSED] * (3 - runs)
    assert len(await runs_of(node)) == runs


async def test_tick_for_which_no_run_can_be_started_says_why(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node)
    required = {"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"], "$defs": {}}
    given = {**definition("call", [http_step("call", "http://x")]), "parameters": required}
    await node.engine.controls.register([given], ["call"])
    await look(node)
    (tick,) = await ticks(node, "s")
    assert tick.state is FAILED
    assert 'parameter "shop" is missing' in (tick.reason or "")


async def test_schedule_that_cannot_be_used_any_more_stands_in_nobodys_way(nodes: Nodes, node: Node) -> None:
    for name in ("broken", "s"):
        await book(node).create(name, "call", hourly(), {})
    await make_due(nodes)
    await spoil(nodes, "broken")
    await look(node)
    assert await states(node, "s") == [STARTED]
    left = await book(node).get("broken")
    assert left.due_at is not None
    assert left.due_at > clock.now() + 60
    assert left.next_tick is not None
    assert left.next_tick < clock.now(), "its ticks are kept"


async def test_tick_whose_run_cannot_be_started_stands_in_nobodys_way(
    nodes: Nodes, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_tick = node.engine.start_tick

    async def start(workflow: str, given: Any, key: str, shard: int | None) -> RunRecord:
        if "broken" in key:
            raise RuntimeError("nobody thought of this")
        return await start_tick(workflow, given, key, shard)

    monkeypatch.setattr(node.engine, "start_tick", start)
    for name in ("broken", "s"):
        await book(node).create(name, "call", hourly(), {})
    await make_due(nodes)
    await look(node)
    assert (await states(node, "broken"), await states(node, "s")) == ([DUE], [STARTED])
    await nodes.write("UPDATE tick SET decided_at = decided_at - 100")
    await look(node)
    (tick,) = await ticks(node, "broken")
    assert (tick.state, tick.reason) == (FAILED, "no run could be started; see the log of the server")


async def test_tick_whose_shard_went_to_another_node_meanwhile_is_started_there(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node)
    held = node.held
    await node.engine.scheduling._decide(held)
    node.engine.membership._held.clear()
    assert await node.engine.scheduling._start(held), "it is left"
    assert await states(node) == [DUE]
    assert await runs_of(node) == []
    node.engine.membership._held.update(held)
    await look(node)
    assert await states(node) == [STARTED]


async def test_doctor_names_schedules_that_no_server_looks_at(nodes: Nodes, node: Node, tmp_path: Path) -> None:
    await with_hourly(nodes, node)

    async def found() -> list[str]:
        diagnosis = await examine(node.store, Settings(state_dir=tmp_path), clock.now())
        return [check.text for check in diagnosis.checks if check.name == "schedules"]

    assert await found() == [], "it is due just now"
    await make_due(nodes)
    (text,) = await found()
    assert "schedule s since it was due 36" in text
    await look(node)
    assert await found() == []


# --- people -----------------------------------------------------------------------------------------------------------


async def test_paused_schedule_does_not_fire_and_goes_on_from_now(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node)
    assert (await book(node).pause("s")).due_at is None
    await look(node)
    assert await ticks(node, "s") == []
    resumed = await book(node).resume("s")
    assert resumed.next_tick is not None
    assert resumed.next_tick > clock.now() - 1
    await look(node)
    assert await ticks(node, "s") == []


async def test_triggered_run_comes_beside_the_ticks(nodes: Nodes, node: Node) -> None:
    await book(node).create("s", "held", hourly(), {})
    runs = [await book(node).trigger("s") for _ in range(2)]
    assert len({run.id for run in runs}) == 2
    found = await ticks(node, "s")
    assert [(tick.kind, tick.state, tick.reason) for tick in found] == [("trigger", STARTED, "started by hand")] * 2
    assert [tick.run_id for tick in found] == [run.id for run in runs]


async def test_names_are_unique_and_must_exist(nodes: Nodes, node: Node) -> None:
    await book(node).create("s", "call", hourly(), {})
    with pytest.raises(ScheduleExistsError):
        await book(node).create("s", "call", hourly(), {})
    with pytest.raises(WorkflowNotFoundError):
        await book(node).create("other", "nothing", hourly(), {})
    with pytest.raises(InvalidScheduleError, match="no time zone"):
        await book(node).create("other", "call", {"kind": "cron", "expression": "0 6 * * *", "tz": "Mars"}, {})
    with pytest.raises(InvalidScheduleError, match="name of another workflow"):
        await book(node).create("held", "call", hourly(), {})
    await book(node).delete("s")
    with pytest.raises(ScheduleNotFoundError):
        await book(node).get("s")


# --- back-fills -------------------------------------------------------------------------------------------------------


async def test_backfill_starts_what_has_no_run_and_keeps_to_its_width(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node, "held", aligned=True, overlap="allow")
    await look(node)
    (done,) = await ticks(node, "s")
    first, last = done.at - 3 * HOUR, done.at
    shown = await book(node).plan_backfill("s", first, last)
    assert [tick.is_wanted for tick in shown] == [True, True, True, False]
    assert await states(node) == [STARTED], "looking changes nothing"
    await book(node).backfill("s", first, last, Pace(max_parallel=2))
    await look(node)
    assert await states(node) == [STARTED, STARTED, WAITING, STARTED]
    with pytest.raises(BackfillOpenError):
        await book(node).backfill("s", first, last, Pace(max_parallel=2))
    await book(node).pause_backfill("s", paused=True)
    nodes.targets.open.set()
    for tick in (await ticks(node, "s"))[:2]:
        await ended(node, tick)
    await look(node)
    assert (await states(node))[2] is WAITING
    await book(node).pause_backfill("s", paused=False)
    await look(node)
    await look(node)
    assert (await states(node))[2] is STARTED
    assert [tick.reason for tick in await ticks(node, "s")][:3] == ["back-fill"] * 3


async def test_backfill_may_begin_at_the_beginning_of_time(nodes: Nodes, node: Node) -> None:
    cron = {"kind": "cron", "expression": "0 0 29 2 *", "tz": "America/New_York"}
    await book(node).create("s", "call", cron, {})
    shown = await book(node).plan_backfill("s", -62_135_596_800.0, 253_402_300_799.0)
    assert 450 < len(shown) < 506


async def test_backfill_can_be_given_up(nodes: Nodes, node: Node) -> None:
    await book(node).create("s", "held", hourly(aligned=True), {})
    with pytest.raises(InvalidScheduleError, match="no back-fill"):
        await book(node).cancel_backfill("s")
    last = clock.now()
    await book(node).backfill("s", last - 10 * HOUR, last, Pace(max_parallel=1))
    await look(node)
    assert await book(node).cancel_backfill("s") == 9
    assert Counter(await states(node)) == {STARTED: 1, SKIPPED: 9}


async def test_backfill_leaves_ticks_that_are_to_come_to_the_schedule(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node, aligned=True, missed=3.5, catchup="all", overlap="allow")
    due = (await book(node).get("s")).next_tick
    assert due is not None
    begun = await book(node).backfill("s", due, due + 100 * HOUR, Pace(max_parallel=10))
    assert begun == [], "neither those that it has not looked at yet, nor those of the future"
    await look(node)
    assert [tick.kind for tick in await ticks(node, "s")] == ["tick"] * 3


# --- several nodes ----------------------------------------------------------------------------------------------------


async def test_nodes_share_schedules_and_each_tick_has_one_run(nodes: Nodes) -> None:
    made = [await nodes.join(skew) for skew in (0.0, 20.0, -20.0)]
    for _ in range(3):
        for node in made:
            await node.beat()
    await made[0].define("call")
    for node in made:
        await node.beat()
    names = [f"s{number}" for number in range(30)]
    for name in names:
        await book(made[0]).create(name, "call", hourly(overlap="allow", catchup="all"), {})
    await make_due(nodes, 4)
    await asyncio.gather(*map(look, made))
    for name in names:
        assert await states(made[0], name) == [STARTED] * 4, name
    assert len(await runs_of(made[0])) == 120
    assert {sent.node for sent in nodes.targets.sent} <= {node.id for node in made}


async def test_nodes_that_look_at_the_same_schedule_at_once_decide_once(nodes: Nodes) -> None:
    first, second = [await nodes.join() for _ in range(2)]
    for node in (first, second):
        await node.beat()
    await first.define("call")
    await second.beat()
    await with_hourly(nodes, first, missed=3, catchup="all", overlap="allow")
    everything = range(SHARDS)
    await asyncio.gather(*(node.engine.scheduling._decide(everything) for node in (first, second) for _ in range(3)))
    await first.engine.scheduling._start(everything)
    assert await states(first) == [STARTED] * 3
    assert len(await runs_of(first)) == 3


async def test_run_that_is_triggered_on_another_node_is_cancelled_by_the_next_tick_as_others_are(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    for node in (first, second):
        await node.define("held")
    await book(first).create("s", "held", hourly(overlap="cancel_running"), {})
    shard = (await book(first).get("s")).shard
    own, other = (first, second) if shard in first.held else (second, first)
    firing = asyncio.create_task(own.engine.scheduling.run())
    own.engine.scheduling.rests = Rests(0.05, 0.05)
    triggered = await book(other).trigger("s")
    firing.cancel()
    await make_due(nodes)
    await look(own)
    assert await own.ended([triggered]) == [RunState.CANCELLED]
    assert [tick.kind for tick in await ticks(own, "s") if tick.run_state is RunState.RUNNING] == ["tick"]
