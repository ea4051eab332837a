"""Requests about a run come to any node and are answered by the one that works on it; two nodes on real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from hopline_engine.api.app import create_app
from hopline_engine.api.interface import StepResult
from hopline_engine.core.model import RunState, StepState
from hopline_engine.settings import Settings
from tests.api.conftest import refusal, start, until
from tests.api.small_engine import DEFINITION, TOKEN, SmallEngine
from tests.support.asgi import listening
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.anyio


class Pair:
    """Two nodes: *near* gets the requests, *far* works on the runs."""

    def __init__(
        self, near: httpx.AsyncClient, far: httpx.AsyncClient, engines: tuple[SmallEngine, SmallEngine]
    ) -> None:
        self.near = near
        self.far = far
        self.near_engine, self.far_engine = engines

    async def run(self) -> str:
        """Start a run at the far node, which the near one knows of as in a shared store."""
        run = await start(self.far)
        await self.near_engine.adopt(await self.far_engine.run_detail(run))
        self.near_engine.elsewhere[run] = str(self.far.base_url).rstrip("/")
        return run


@asynccontextmanager
async def node(engine: SmallEngine, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app: FastAPI = create_app(engine, Settings(**settings))
    try:
        async with listening(app) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=WITHIN) as client:
            yield client
    finally:
        await app.state.forwarder.aclose()


@asynccontextmanager
async def two_nodes(**settings: Any) -> AsyncIterator[Pair]:
    engines = SmallEngine("n_near"), SmallEngine("n_far")
    for engine in engines:
        await engine.register_definitions([DEFINITION], ["sales"])
    async with node(engines[0], **settings) as near, node(engines[1], **settings) as far:
        yield Pair(near, far, engines)


async def test_run_of_another_node_is_shown_as_that_node_sees_it() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        await pair.far_engine.move(run, "load", StepState.SUCCEEDED)
        shown = await pair.near.get(f"/api/v1/runs/{run}")
        assert shown.json() == (await pair.far.get(f"/api/v1/runs/{run}")).json()
        assert shown.json()["steps"][0]["state"] == "succeeded"
        assert shown.headers["content-type"] == "application/json"
        assert shown.headers.get_list("cache-control") == ["no-store"]


async def test_name_of_a_run_is_resolved_before_the_request_goes_on() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        await start(pair.far)  # of which the near node knows nothing yet
        assert (await pair.near.get("/api/v1/runs/@last")).json()["id"] == run


async def test_query_goes_on_with_the_request() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        why = await pair.near.get(f"/api/v1/runs/{run}/why", params={"step": "load"})
        assert [reason["step"] for reason in why.json()["reasons"]] == ["load"]
        assert refusal(await pair.near.get(f"/api/v1/runs/{run}/why?step=lod")) == (404, "step-not-found")


async def test_run_of_another_node_is_cancelled_there() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        cancelled = await pair.near.post(f"/api/v1/runs/{run}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        assert (await pair.far_engine.run_detail(run)).state is RunState.CANCELLED


async def test_what_rows_say_is_not_asked_of_another_node() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        pair.near_engine.elsewhere[run] = "http://127.0.0.1:9"
        assert (await pair.near.get(f"/api/v1/runs/{run}/logs")).status_code == 200
        assert refusal(await pair.near.get(f"/api/v1/runs/{run}/output")) == (409, "run-not-finished")


async def test_callback_reaches_the_node_of_its_run_with_token_and_body() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        report = await pair.near.post(
            f"/api/v1/callbacks/{run}/2/charge", json={"result": 7}, headers={"Hopline-Callback-Token": TOKEN}
        )
        assert (report.status_code, report.json()) == (200, {"outcome": "applied"})
        assert pair.far_engine.report_of(run, "charge") == StepResult(body=b"7")


@pytest.mark.parametrize("is_length_known", [True, False])
async def test_body_that_is_too_large_does_not_go_on(is_length_known: bool) -> None:
    async with two_nodes(result_max_bytes=1000) as pair:
        run = await pair.run()
        body = json.dumps({"result": "x" * 100_000}).encode()

        async def parts() -> AsyncIterator[bytes]:
            for begin in range(0, len(body), 1000):
                yield body[begin : begin + 1000]

        report = await pair.near.post(
            f"/api/v1/callbacks/{run}/2/charge",
            content=body if is_length_known else parts(),
            headers={"Hopline-Callback-Token": TOKEN},
        )
        assert refusal(report) == (413, "body-too-large")


async def test_events_of_a_run_of_another_node_come_as_they_happen() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        async with pair.near.stream("GET", f"/api/v1/runs/{run}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: snapshot"
            await pair.far_engine.end(run, RunState.SUCCEEDED, 7)
            told = [line async for line in lines]
        assert "event: run" in told


async def test_stream_that_is_left_is_given_up_at_the_other_node_too() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        async with pair.near.stream("GET", f"/api/v1/runs/{run}/events") as stream:
            await anext(stream.aiter_lines())
            assert pair.far_engine.subscribers == 1
        await until(lambda: pair.far_engine.subscribers == 0)


async def test_stream_whose_node_dies_ends_so_that_its_reader_asks_again() -> None:
    async with two_nodes() as pair:
        far = SmallEngine("n_dying")
        await far.register_definitions([DEFINITION], ["sales"])
        app = create_app(far, Settings())
        async with listening(app) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=WITHIN) as client:
            run = await start(client)
            await pair.near_engine.adopt(await far.run_detail(run))
            pair.near_engine.elsewhere[run] = url
            dying = asyncio.Event()

            async def read() -> list[str]:
                async with pair.near.stream("GET", f"/api/v1/runs/{run}/events") as stream:
                    found = []
                    async for line in stream.aiter_lines():
                        found.append(line)
                        dying.set()
                    return found

            reading = asyncio.create_task(read())
            await dying.wait()
        told = await asyncio.wait_for(reading, WITHIN)
        assert told[0] == "event: snapshot"
        assert "event: run" not in told


async def test_token_goes_on_and_is_asked_for_by_both() -> None:
    async with two_nodes(api_token="s3cret") as pair:
        pair.far.headers["Authorization"] = "Bearer s3cret"
        run = await pair.run()
        assert refusal(await pair.near.get(f"/api/v1/runs/{run}")) == (401, "unauthorized")
        pair.near.headers["Authorization"] = "Bearer s3cret"
        assert (await pair.near.get(f"/api/v1/runs/{run}")).status_code == 200


async def test_request_that_was_forwarded_is_not_forwarded_again() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        pair.far_engine.elsewhere[run] = str(pair.near.base_url).rstrip("/")
        answer = await pair.near.get(f"/api/v1/runs/{run}")
        assert refusal(answer) == (503, "run-moving")
        assert answer.headers["retry-after"] == "1"


async def test_run_that_no_node_works_on_now_is_to_be_asked_for_again() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        pair.near_engine.elsewhere[run] = None
        answer = await pair.near.post(f"/api/v1/runs/{run}/cancel")
        assert refusal(answer) == (503, "run-moving")
        assert answer.headers["retry-after"] == "1"


async def test_node_that_does_not_answer_is_named_and_to_be_asked_again() -> None:
    async with two_nodes() as pair:
        run = await pair.run()
        pair.near_engine.elsewhere[run] = "http://127.0.0.1:9"
        answer = await pair.near.get(f"/api/v1/runs/{run}")
        assert refusal(answer) == (503, "node-unreachable")
        assert answer.headers["retry-after"] == "1"
        assert "http://127.0.0.1:9" in answer.json()["error"]["message"]


async def test_nodes_are_listed() -> None:
    engine = SmallEngine()
    async with node(engine) as client:
        assert (await client.get("/api/v1/nodes")).json() == {"nodes": []}
