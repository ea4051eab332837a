"""Runs that undo what they did, through the whole engine, over restarts, and as people see them."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response

from hopline import Request, Retry, http, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import Asked, Target, accepted, json, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio


@http
def reserve(url: str) -> Request[str]:
    return http.post(f"{url}/reserve")


@reserve.undo
@http(retry=Retry(3, first="10ms", jitter="none"))
def release(reservation: str) -> Request[None]:
    return http.delete(reservation)


@http
def pack(number: int, url: str) -> Request[str]:
    return http.post(f"{url}/pack/{number}")


@pack.undo
@http
def unpack(parcel: str) -> Request[None]:
    return http.delete(parcel)


@http
def charge(url: str, parcels: list[str]) -> Request[str]:
    return http.post(f"{url}/charge", json=parcels)


@workflow(compensate=True)
def buy(url: str) -> str:
    held = reserve(url)
    parcels = pack.after(held).map([0, 1], url)
    return charge(url, parcels)


def shop(
    charged: Response, released: Callable[[int], int] = lambda _: 200
) -> Callable[[Target], Callable[[Asked], Response]]:
    """Return what answers as a shop whose undo steps are asked at what its steps returned."""

    def make(service: Target) -> Callable[[Asked], Response]:
        def answer(asked: Asked) -> Response:
            if asked.path == "/charge":
                return charged
            if asked.path.startswith("/undo/reserve"):
                return json(None, released(asked.attempt))
            return json(f"{service.url}/undo{asked.path}")

        return answer

    return make


def paths(service: Target) -> list[str]:
    return [asked.path for asked in service.asked]


DECLINED = json("declined", 402)


async def test_failed_run_undoes_its_steps_and_maps_in_reverse_order_and_shows_it(engine: RunningEngine) -> None:
    await engine.register(buy)
    async with target(accepted) as service:
        service.answer = shop(DECLINED, lambda attempt: 503 if attempt == 1 else 200)(service)
        run = await engine.client.ended(await engine.client.start("buy", {"url": service.url}))
        assert run["state"] == "failed"
        assert run["error"]["step"] == "charge"
        undone = paths(service)[4:]
        assert sorted(undone[:2]) == ["/undo/pack/0", "/undo/pack/1"]
        assert undone[2:] == ["/undo/reserve", "/undo/reserve"], "an undo step is retried by its own policy"
        (why,) = (await engine.client.ask("GET", f"/runs/{run['id']}/why", params={"step": "release"}))["reasons"]
        assert why["text"] == "release is succeeded"
        states = {step["id"]: step["state"] for step in run["steps"]}
        assert (states["release"], states["unpack"], states["reserve"]) == ("succeeded", "succeeded", "succeeded")
        assert run["steps_total"] == 3


async def test_undo_step_is_none_from_which_a_run_is_made_again(engine: RunningEngine) -> None:
    await engine.register(buy)
    async with target(accepted) as service:
        service.answer = shop(DECLINED)(service)
        run = (await engine.client.ended(await engine.client.start("buy", {"url": service.url})))["id"]
        orders = {"fork": {"step": "release"}, "retry": {"items": ["unpack[0]"]}}
        for (order, body), step in zip(orders.items(), ("reserve", "pack"), strict=True):
            answer = await engine.client.http.post(f"/runs/{run}/{order}", json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["hint"]) == (
                404,
                "step-not-found",
                f'did you mean "{step}"?',
            )


async def test_undo_step_that_fails_is_visible_and_stops_no_other(engine: RunningEngine) -> None:
    await engine.register(buy)
    async with target(accepted) as service:

        def answer(asked: Asked) -> Response:
            if asked.path == "/undo/pack/0":
                return json("stuck", 400)
            return shop(DECLINED)(service)(asked)

        service.answer = answer
        run = await engine.client.ended(await engine.client.start("buy", {"url": service.url}))
        states = {step["id"]: step["state"] for step in run["steps"]}
        assert (states["unpack"], states["release"], run["state"]) == ("failed", "succeeded", "failed")
        (attempt,) = [one for one in await engine.client.attempts(run["id"], "unpack[0]") if one["state"] == "failed"]
        assert "stuck" in attempt["error"]["message"]


async def test_run_that_undoes_says_so_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with target(accepted) as service:
        shop_of = shop(DECLINED)(service)
        service.answer = lambda asked: json(None, 202) if asked.path == "/undo/reserve" else shop_of(asked)
        async with running_engine(tmp_path) as engine:
            await engine.register(buy)
            run = await engine.client.start("buy", {"url": service.url})
            await _begins(engine, run)
            await engine.client.step_in(run, "release", "waiting")
            (listed,) = (await engine.client.ask("GET", "/runs", params={"state": "undoing"}))["runs"]
            assert (listed["id"], listed["state"]) == (run, "undoing")
            (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
            assert (reason["step"], reason["reason"]) == ("release", "waiting_for_callback")
        async with running_engine(tmp_path) as engine:
            assert (await engine.client.run(run))["state"] == "undoing"
            headers = service.asked[-1].headers  # the engine has another address now
            path = httpx.URL(headers["Hopline-Callback-Url"]).raw_path.decode().removeprefix("/api/v1")
            token = {"Hopline-Callback-Token": headers["Hopline-Callback-Token"]}
            await engine.client.ask("POST", path, json={"result": None}, headers=token)
            assert (await engine.client.ended(run))["state"] == "failed"
            assert paths(service).count("/undo/pack/0") == 1


async def _begins(engine: RunningEngine, run: str) -> None:
    async def look() -> bool:
        return any(step["id"] == "release" for step in (await engine.client.run(run))["steps"])

    await until_seen(look, "the run undoes its reservation")


async def test_cancelled_run_undoes_what_it_did_and_a_second_cancel_ends_it(engine: RunningEngine) -> None:
    await engine.register(buy)
    async with target(accepted) as service:
        shop_of = shop(json(None, 202))(service)
        service.answer = lambda asked: json(None, 202) if asked.path.startswith("/undo") else shop_of(asked)
        run = await engine.client.start("buy", {"url": service.url})
        await engine.client.step_in(run, "charge", "waiting")
        assert (await engine.client.ask("POST", f"/runs/{run}/cancel"))["state"] == "cancelling"
        await until(lambda: "/undo/pack/1" in paths(service), "the undo steps run")
        assert (await engine.client.ask("POST", f"/runs/{run}/cancel"))["state"] == "cancelled"
        assert "/undo/reserve" not in paths(service)


async def test_retry_of_an_undone_run_makes_again_what_was_undone(engine: RunningEngine) -> None:
    await engine.register(buy)
    async with target(accepted) as service:
        service.answer = shop(DECLINED)(service)
        run = await engine.client.ended(await engine.client.start("buy", {"url": service.url}))
        service.answer = shop(json("paid"))(service)
        service.asked.clear()
        new = await engine.client.ask("POST", f"/runs/{run['id']}/retry")
        retried = await engine.client.ended(new["id"])
        assert retried["result"] == "paid"
        assert [step["id"] for step in retried["steps"] if step["reused"]] == []
        assert sorted(paths(service)) == ["/charge", "/pack/0", "/pack/1", "/reserve"]
