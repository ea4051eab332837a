"""Runs that are retried, forked, paused and resumed, through the whole engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hopline import Request, http, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import Asked, Target, accepted, json, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio


@http
def first(url: str, amount: int) -> Request[int]:
    return http.post(f"{url}/first", json=amount)


@http
def second(url: str, given: int) -> Request[int]:
    return http.post(f"{url}/second", json=given)


@http
def each(number: int, url: str) -> Request[int]:
    return http.post(f"{url}/each/{number}")


@http
def total(url: str, numbers: list[int]) -> Request[int]:
    return http.post(f"{url}/total", json=numbers)


@workflow
def chain(url: str, amount: int = 1) -> int:
    return second(url, first(url, amount))


@workflow
def over_chain(url: str) -> int:
    return total(url, [chain(url, 2)])


@workflow
def fan(url: str) -> int:
    return total(url, each.map([0, 1, 2], url))


ALL = (chain, over_chain, fan)
Fails = Callable[[Asked], bool]


def answering(fails: Fails) -> Callable[[Asked], Any]:
    return lambda asked: json("no", 400) if fails(asked) else json(len(asked.path))


def paths(service: Target) -> list[str]:
    return [asked.path for asked in service.asked]


async def failed(engine: RunningEngine, service: Target, workflow: str, fails: Fails) -> str:
    """Let a run fail, mend its target, and forget what it was asked."""
    service.answer = answering(fails)
    run = await engine.client.start(workflow, {"url": service.url})
    assert (await engine.client.ended(run))["state"] == "failed"
    service.answer = answering(lambda _: False)
    service.asked.clear()
    return run


async def again(engine: RunningEngine, run: str, order: str, body: Any = None) -> dict[str, Any]:
    """Give an order that begins a new run, and return that when it is over."""
    new = await engine.client.ask("POST", f"/runs/{run}/{order}", json=body)
    return await engine.client.ended(new["id"])


def reused(run: dict[str, Any]) -> list[str]:
    return [step["id"] for step in run["steps"] if step["reused"]]


async def test_retry_runs_the_failed_steps_only_and_tells_which_results_it_reused(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await failed(engine, service, "chain", lambda asked: asked.path == "/second")
        retried = await again(engine, run, "retry")
        assert (retried["state"], retried["retry_of"], paths(service)) == ("succeeded", run, ["/second"])
        assert reused(retried) == ["first"]
        assert (await engine.client.run(run))["state"] == "failed", "the first run stays as it was"


async def test_retry_goes_on_with_a_failed_sub_workflow_instead_of_starting_it_over(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await failed(engine, service, "over_chain", lambda asked: asked.path == "/second")
        retried = await again(engine, run, "retry")
        assert (retried["state"], paths(service)) == ("succeeded", ["/second", "/total"])
        (below,) = (await engine.client.ask("GET", "/runs", params={"parent": retried["id"]}))["runs"]
        (before,) = (await engine.client.ask("GET", "/runs", params={"parent": run}))["runs"]
        assert below["retry_of"] == before["id"]
        assert reused(await engine.client.run(below["id"])) == ["first"]


async def test_retry_of_a_map_keeps_the_elements_that_succeeded(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await failed(engine, service, "fan", lambda asked: asked.path == "/each/1")
        retried = await again(engine, run, "retry")
        assert (retried["state"], paths(service)) == ("succeeded", ["/each/1", "/total"])


async def test_retry_of_named_items_makes_them_and_what_depends_on_them_again(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(answering(lambda _: False)) as service:
        run = await engine.client.start("fan", {"url": service.url})
        await engine.client.ended(run)
        service.asked.clear()
        retried = await again(engine, run, "retry", {"items": ["each[2]", "each[0]"]})
        assert retried["state"] == "succeeded"
        assert (sorted(paths(service)[:2]), paths(service)[2:]) == (["/each/0", "/each/2"], ["/total"])


async def test_retry_of_items_that_are_none_is_refused(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(answering(lambda _: False)) as service:
        run = await engine.client.start("fan", {"url": service.url})
        await engine.client.ended(run)
        refusals = [
            (await engine.client.http.post(f"/runs/{run}/retry", json={"items": [name]})).json()["error"]["code"]
            for name in ("each", "total[0]", "nothing[0]", "each[3]", f"each[{10**18 - 1}]")
        ]
        assert refusals == ["not-mapped", "not-mapped", "step-not-found", "step-not-found", "step-not-found"]
        assert (await engine.client.http.post(f"/runs/{run}/retry")).json()["error"]["code"] == "run-not-retryable"


async def test_fork_makes_a_step_again_with_other_arguments_and_keeps_what_is_before_it(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(answering(lambda _: False)) as service:
        run = await engine.client.start("chain", {"url": service.url})
        await engine.client.ended(run)
        async with target(answering(lambda _: False)) as other:
            forked = await again(engine, run, "fork", {"step": "second", "input": {"url": other.url, "amount": 5}})
            assert (forked["state"], forked["fork_of"], forked["retry_of"]) == ("succeeded", run, None)
            assert forked["input"] == {"url": other.url, "amount": 5}
            assert (paths(service), paths(other)) == (["/first", "/second"], ["/second"])
            assert reused(forked) == ["first"]


async def test_fork_with_an_argument_that_does_not_fit_is_refused(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(answering(lambda _: False)) as service:
        run = await engine.client.start("chain", {"url": service.url})
        await engine.client.ended(run)
        for body, code in (
            ({"step": "second", "input": {"amount": "many"}}, "invalid-input"),
            ({"step": "secnd"}, "step-not-found"),
        ):
            answer = await engine.client.http.post(f"/runs/{run}/fork", json=body)
            assert answer.json()["error"]["code"] == code


async def test_paused_run_starts_nothing_and_lets_what_runs_finish(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await engine.client.start("chain", {"url": service.url})
        await engine.client.step_in(run, "first", "waiting")
        assert (await engine.client.ask("POST", f"/runs/{run}/pause"))["state"] == "paused"
        await service.asked[0].call_back({"result": 3})
        shown = await engine.client.step_in(run, "second", "queued")
        assert "paused" in shown["note"]
        (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
        assert (reason["step"], reason["reason"]) == ("second", "paused")
        (listed,) = (await engine.client.ask("GET", "/runs", params={"state": "paused"}))["runs"]
        assert listed["id"] == run
        other = await engine.client.start("chain", {"url": service.url})
        await engine.client.step_in(other, "first", "waiting")
        assert paths(service) == ["/first", "/first"]
        service.answer = answering(lambda _: False)
        await engine.client.ask("POST", f"/runs/{run}/resume")
        assert (await engine.client.ended(run))["state"] == "succeeded"


async def test_pause_reaches_sub_runs_and_survives_restarts(tmp_path: Path) -> None:
    async with target(accepted) as service:
        async with running_engine(tmp_path) as engine:
            await engine.register(*ALL)
            run = await engine.client.start("over_chain", {"url": service.url})
            (below,) = await until_seen(lambda: sub_runs(engine, run), "the sub-run begins")
            await engine.client.step_in(below["id"], "first", "waiting")
            await engine.client.ask("POST", f"/runs/{run}/pause")
            await service.asked[0].call_back({"result": 3})
            await engine.client.step_in(below["id"], "second", "queued")
        async with running_engine(tmp_path) as engine:
            assert (await engine.client.run(run))["state"] == "paused"
            note = (await engine.client.step_in(below["id"], "second", "queued"))["note"]
            assert f"run {run} is paused" in note
            assert paths(service) == ["/first"]
            service.answer = answering(lambda _: False)
            await engine.client.ask("POST", f"/runs/{run}/resume")
            assert (await engine.client.ended(run))["state"] == "succeeded"


async def sub_runs(engine: RunningEngine, run: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await engine.client.ask("GET", "/runs", params={"parent": run}))["runs"]
    return found


async def test_paused_run_can_be_cancelled_and_an_ended_one_cannot_be_paused(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        run = await engine.client.start("chain", {"url": service.url})
        await until(lambda: service.asked, "the request is out")
        for _ in range(2):
            assert (await engine.client.ask("POST", f"/runs/{run}/pause"))["state"] == "paused"
        assert (await engine.client.ask("POST", f"/runs/{run}/cancel"))["state"] == "cancelled"
        for order in ("pause", "resume"):
            assert (await engine.client.http.post(f"/runs/{run}/{order}")).json()["error"]["code"] == "run-ended"


async def test_runs_that_were_retried_can_be_left_out_of_a_list(engine: RunningEngine) -> None:
    await engine.register(*ALL)
    async with target(accepted) as service:
        retried = await failed(engine, service, "chain", lambda asked: asked.path == "/second")
        left = await failed(engine, service, "chain", lambda asked: asked.path == "/second")
        await again(engine, retried, "retry")

        async def listed(which: str) -> list[str]:
            query = {"state": "failed", "retried": which}
            return [run["id"] for run in (await engine.client.ask("GET", "/runs", params=query))["runs"]]

        assert (await listed("true"), await listed("false")) == ([retried], [left])
