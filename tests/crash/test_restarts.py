"""One kill each, at a moment that the test chooses."""

import asyncio
import json as json_text
import os
import signal
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response

from tests.crash.conftest import GATES, Gate
from tests.support.client import Client
from tests.support.processes import Process, Site, site
from tests.support.targets import Asked, accepted, json, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio

FUZZ_SECONDS = 0.05
"""How exactly clocks and timers are compared."""


async def test_attempt_in_flight_when_the_engine_dies_is_lost_and_made_again(place: Site, gate: Gate) -> None:
    run = await place.client.start("one", {"gate": str(gate)})
    await gate.executed(1)
    place.engine.kill()
    await place.restart_engine()
    await gate.executed(2)
    gate.open()
    assert (await place.client.ended(run))["result"] == 2
    assert await place.client.states(run, "gated") == ["lost", "succeeded"]
    assert gate.executions == [1, 2]


async def test_completion_before_the_kill_is_not_executed_again(place: Site, gate: Gate, next_gate: Gate) -> None:
    run = await place.client.start("two", {"gate": str(gate), "next_gate": str(next_gate)})
    gate.open()
    await next_gate.executed(1)
    place.engine.kill()
    await place.restart_engine()
    next_gate.open()
    assert (await place.client.ended(run))["result"] == 1 + 10 * 2
    assert gate.executions == [1]


async def test_lost_worker_does_not_count_against_the_retry_policy(place: Site, gate: Gate) -> None:
    run = await place.client.start("once", {"gate": str(gate)})
    await gate.executed(1)
    place.worker.kill()
    place.worker.start()
    await gate.executed(2)
    gate.open()
    assert (await place.client.ended(run))["result"] == 2
    assert await place.client.states(run, "gated_once") == ["lost", "succeeded"]


async def test_both_killed_is_no_worse_than_one(place: Site, gate: Gate) -> None:
    run = await place.client.start("one", {"gate": str(gate)})
    await gate.executed(1)
    place.engine.kill()
    place.worker.kill()
    place.worker.start()
    await place.restart_engine()
    await gate.executed(2)
    gate.open()
    assert (await place.client.ended(run))["result"] == 2
    assert await place.client.states(run, "gated") == ["lost", "succeeded"]


async def test_restarts_in_quick_succession_are_like_one(place: Site, gate: Gate) -> None:
    run = await place.client.start("one", {"gate": str(gate)})
    await gate.executed(1)
    place.engine.kill()
    place.engine.start()
    place.engine.kill()
    await place.restart_engine()
    place.engine.kill()
    await place.restart_engine()
    gate.open()
    assert (await place.client.ended(run))["state"] == "succeeded"
    states = await place.client.states(run, "gated")
    assert states == ["lost"] * (len(states) - 1) + ["succeeded"]
    assert gate.executions == sorted(set(gate.executions)), "an attempt was executed twice"


async def test_poison_step_fails_after_the_limit_of_lost_attempts(tmp_path: Path, gate: Gate) -> None:
    async with site(tmp_path, GATES, HOPLINE_LOST_LIMIT="3") as place:
        run = await place.client.start("poisoned", {"gate": str(gate)})

        async def has_ended() -> bool:
            if not place.worker.is_up:
                place.worker.kill()
                place.worker.start()
            return bool((await place.client.run(run))["state"] != "running")

        await until_seen(has_ended, "the poison step fails")
        ended = await place.client.run(run)
        assert ended["state"] == "failed"
        assert "lost 3 times" in ended["error"]["message"]
        assert await place.client.states(run, "poison") == ["lost"] * 3
        assert gate.executions == sorted(set(gate.executions) & {1, 2, 3}), "one that is lost may not have begun"


async def test_stopped_worker_makes_its_step_time_out_and_be_tried_again(place: Site, gate: Gate) -> None:
    run = await place.client.start("impatient", {"gate": str(gate)})
    await gate.executed(1)
    place.worker.send(signal.SIGSTOP)

    async def has_timed_out_twice() -> bool:
        return len(await place.client.attempts(run)) >= 2

    await until_seen(has_timed_out_twice, "the attempts at the stopped worker time out")
    over = len(await place.client.attempts(run))
    begun = len(gate.executions)
    place.worker.send(signal.SIGCONT)
    gate.open()
    ended = await place.client.ended(run)
    states = await place.client.states(run, "gated_for_a_while")
    assert states == ["timed_out"] * (len(states) - 1) + ["succeeded"]
    late = gate.executions[begun:]
    assert min(late) > over, f"of {over} attempts whose time was over one was executed: {late}"
    assert late[-1] == ended["result"]


async def test_callback_is_accepted_by_the_restarted_engine(place: Site) -> None:
    async with target(accepted) as service:
        run = await place.client.start("call", {"target": service.url})
        await place.client.step_in(run, "called", "waiting")
        place.engine.kill()
        await place.restart_engine()
        answer = await service.asked[0].call_back({"result": 5})
        assert (answer.status_code, answer.json()) == (200, {"outcome": "applied"})
        assert (await place.client.ended(run))["result"] == 5
        assert service.attempts == [1]


async def test_callback_while_the_engine_is_down_is_applied_when_it_is_back(place: Site) -> None:
    async with target(accepted) as service:
        run = await place.client.start("call", {"target": service.url})
        await place.client.step_in(run, "called", "waiting")
        place.engine.kill()
        with pytest.raises(httpx.ConnectError):
            await service.asked[0].call_back({"result": 5})
        reporting = asyncio.create_task(_report(service.asked[0], 5))
        await place.restart_engine()
        assert await reporting == 200
        assert (await place.client.ended(run))["result"] == 5
        assert service.attempts == [1]


async def _report(asked: Asked, result: int) -> int:
    """Call back as targets are told to: again while there is no answer, or it is a 5xx."""

    async def look() -> int | None:
        try:
            status = (await asked.call_back({"result": result})).status_code
        except httpx.TransportError:
            return None
        return status if status < 500 else None

    return await until_seen(look, "the callback has an answer")


async def test_acknowledged_callback_survives(place: Site) -> None:
    async with target(accepted) as service:
        run = await place.client.start("call", {"target": service.url})
        await place.client.step_in(run, "called", "waiting")
        assert (await service.asked[0].call_back({"result": 5})).status_code == 200
        place.engine.kill()
        await place.restart_engine()
        assert (await place.client.ended(run))["result"] == 5
        again = await service.asked[0].call_back({"result": 5})
        assert (again.status_code, again.json()) == (200, {"outcome": "already"})


async def test_target_in_flight_is_called_again_and_its_first_answer_is_late(place: Site) -> None:
    answered = asyncio.Event()

    async def hold_the_first(asked: Asked) -> Response:
        if asked.attempt == 1:
            await answered.wait()
        return json(asked.attempt)

    async with target(hold_the_first) as service:
        run = await place.client.start("call", {"target": service.url})
        await until(lambda: service.asked, "the target is called")
        place.engine.kill()
        await place.restart_engine()
        assert (await place.client.ended(run))["result"] == 2
        answered.set()
        late = await service.asked[0].call_back({"result": 1})
        assert late.status_code == 410
        assert await place.client.states(run, "called") == ["lost", "succeeded"]


async def test_step_sent_again_at_once_knows_where_to_call_back(place: Site) -> None:
    """The engine that starts again must not send before it listens: what it sends names its address."""
    never = asyncio.Event()

    async def hold_the_first(asked: Asked) -> Response:
        if asked.attempt == 1:
            await never.wait()
        return json(None, 202)

    async with target(hold_the_first) as service:
        run = await place.client.start("call", {"target": service.url})
        await until(lambda: service.asked, "the target is called")
        place.engine.kill()
        await place.restart_engine()
        await place.client.step_in(run, "called", "waiting")
        never.set()
        assert (await service.asked[1].call_back({"result": 5})).status_code == 200
        assert (await place.client.ended(run))["result"] == 5


async def test_retry_happens_at_its_time_although_the_engine_died(place: Site) -> None:
    async with target(lambda asked: json(None, 503, Retry_After="4") if asked.attempt == 1 else json(7)) as service:
        run = await place.client.start("call_again", {"target": service.url})
        scheduled = await place.client.step_in(run, "called_again", "scheduled")
        place.engine.kill()
        await place.restart_engine()
        again = await place.client.step(run, "called_again")
        if again["state"] == "scheduled":  # else it took longer than that to start the engine
            assert again["next_at"] == scheduled["next_at"]
        assert (await place.client.ended(run))["result"] == 7
        first, second = await place.client.attempts(run, "called_again")
        assert (first["state"], second["state"]) == ("failed", "succeeded")
        assert scheduled["next_at"] <= second["started_at"]


async def test_cancelled_run_stays_cancelled_and_nothing_starts(place: Site, gate: Gate, next_gate: Gate) -> None:
    busy = json(None, 503, Retry_After="60")
    async with target(lambda asked: busy if asked.path == "/busy" else accepted(asked)) as service:
        given = {"gate": str(gate), "next_gate": str(next_gate), "target": service.url}
        run = await place.client.start("everything", given)
        await gate.executed(2)
        await place.client.step_in(run, "called", "waiting")
        await place.client.step_in(run, "called_again", "scheduled")
        cancelled = await place.client.ask("POST", f"/runs/{run}/cancel")
        place.engine.kill()
        assert cancelled["state"] == "cancelled"
        seen = len(service.asked)
        await place.restart_engine()
        gate.open()
        next_gate.open()
        # A run that begins and ends afterwards: whatever would have started had its chance.
        after = await place.client.start("two", {"gate": str(gate), "next_gate": str(next_gate)})
        assert (await place.client.ended(after))["state"] == "succeeded"
        assert (await place.client.run(run))["state"] == "cancelled"
        assert len(service.asked) == seen
        assert gate.executions == [1, 1, 1]
        assert next_gate.executions == [1]
        assert (await service.asked[0].call_back({"result": 1})).status_code == 410


async def test_acknowledged_run_is_there_and_finishes(place: Site, gate: Gate) -> None:
    gate.open()
    run = await place.client.start("one", {"gate": str(gate)})
    place.engine.kill()
    await place.restart_engine()
    assert (await place.client.ended(run))["state"] == "succeeded"


async def test_start_repeated_with_its_key_over_a_kill_is_one_run(place: Site, gate: Gate) -> None:
    run = await place.client.start("one", {"gate": str(gate)}, key="order-17")
    await gate.executed(1)
    place.engine.kill()
    await place.restart_engine()
    assert await place.client.start("one", {"gate": str(gate)}, key="order-17") == run
    gate.open()
    assert (await place.client.ended(run))["state"] == "succeeded"


async def test_orderly_stop_waits_for_the_answer(place: Site, gate: Gate) -> None:
    run = await place.client.start("one", {"gate": str(gate)})
    await gate.executed(1)
    place.engine.send(signal.SIGTERM)
    gate.open()
    assert await place.engine.ended() == 0
    await place.restart_engine()
    assert (await place.client.run(run))["result"] == 1
    assert await place.client.states(run, "gated") == ["succeeded"]


async def test_failed_run_is_failed_after_a_kill_and_its_retry_keeps_what_succeeded(place: Site, gate: Gate) -> None:
    gate.open()
    async with target(lambda _: json({"error": "closed"}, 404)) as service:
        run = await place.client.start("call_after", {"gate": str(gate), "target": service.url})
        failed = await place.client.ended(run)
        place.engine.kill()
        await place.restart_engine()
        assert await place.client.run(run) == failed
        service.answer = lambda _: json(9)
        again = await place.client.ask("POST", f"/runs/{run}/retry")
        place.engine.kill()
        await place.restart_engine()
        assert (await place.client.ended(again["id"]))["result"] == 9
        assert (await place.client.run(run))["state"] == "failed"
        assert gate.executions == [1]


async def test_paused_queue_is_paused_after_a_kill(place: Site) -> None:
    async with target(lambda asked: json(1)) as service:
        await place.client.ask("POST", "/queues/slow/pause")
        place.engine.kill()
        await place.restart_engine()
        run = await place.client.start("call_slowly", {"target": service.url})
        why = await place.client.ask("GET", f"/runs/{run}/why")
        assert {reason["reason"] for reason in why["reasons"]} == {"queue_paused"}
        assert service.asked == []
        await place.client.ask("POST", "/queues/slow/resume")
        assert (await place.client.ended(run))["result"] == [1] * 8


async def test_rate_of_a_queue_holds_over_a_kill(place: Site) -> None:
    async with target(lambda asked: json(1)) as service:
        run = await place.client.start("call_slowly", {"target": service.url})
        await until(lambda: len(service.asked) >= 3, "three tasks are sent")
        place.engine.kill()
        await place.restart_engine()
        await place.client.ended(run)
        sent = sorted(datetime.fromisoformat(one["started_at"]) for one in await place.client.attempts(run))
        gaps = [(after - before).total_seconds() for before, after in pairwise(sent)]
        assert min(gaps) >= 0.25 - FUZZ_SECONDS


class RunCommand(Process):
    """``hopline run`` of a gated step, with an engine and a worker of its own."""

    def __init__(self, name: str, folder: Path, argument: str) -> None:
        super().__init__(name, folder, {})
        self._argument = argument

    def command(self) -> list[str]:
        """Return what is executed."""
        return [sys.executable, "-m", "hopline_cli", "run", f"{GATES}:one", self._argument]


async def test_run_command_takes_up_the_run_of_one_that_was_killed(tmp_path: Path, gate: Gate, next_gate: Gate) -> None:
    first = RunCommand("first", tmp_path, f"gate={gate}")
    second = RunCommand("second", tmp_path, f"gate={next_gate}")
    try:
        first.start()
        await gate.executed(1)
        first.kill()
        second.start()
        await gate.executed(2)
        await next_gate.executed(1)
        gate.open()
        await _succeeded_beside(tmp_path, 2)
        next_gate.open()
        assert await second.ended() == 0, second.told()
    finally:
        first.kill()
        second.kill()


async def test_run_command_starts_its_worker_again(tmp_path: Path, gate: Gate) -> None:
    command = RunCommand("command", tmp_path, f"gate={gate}")
    try:
        command.start()
        await gate.executed(1)
        async with Client(_address(tmp_path)) as client:
            for worker in await client.worker_pids():
                os.kill(worker, signal.SIGKILL)
        await gate.executed(2)
        gate.open()
        assert await command.ended() == 0, command.told()
    finally:
        command.kill()


def _address(folder: Path) -> str:
    """Return where the engine that runs in *folder* listens."""
    return str(json_text.loads((folder / ".hopline" / "server.json").read_text())["url"])


async def _succeeded_beside(folder: Path, result: int) -> None:
    """Return when a run of the engine that runs in *folder* has succeeded with a result."""
    async with Client(_address(folder)) as client:

        async def look() -> bool:
            runs = (await client.ask("GET", "/runs", params={"state": "succeeded"}))["runs"]
            return [(await client.run(run["id"]))["result"] for run in runs] == [result]

        await until_seen(look, "the run of the killed command succeeds")
