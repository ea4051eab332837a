"""What a real engine shows of runs that go on: sub-runs, lost attempts, and why nobody takes a step."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hopline import step, workflow
from hopline.steps import Workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.waiting import until_seen
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio

NESTED = """
    from hopline import step, workflow

    @step
    def halve(number: int) -> int:
        if number % 2:
            raise ValueError("odd")
        return number // 2

    @workflow
    def inner(number: int) -> int:
        return halve(number)

    @workflow
    def outer(numbers: list[int]) -> list[int]:
        return inner.map(numbers)

    @workflow
    def once(number: int) -> int:
        return inner(number)
"""


@step
def one() -> int:
    return 1


@workflow
def ones() -> int:
    return one()


async def register_worker(
    engine: RunningEngine, *steps: tuple[str, str], name: str = "w_1", url: str = "http://127.0.0.1:9"
) -> None:
    served = [{"name": step, "signature": signature} for step, signature in steps]
    body = {"url": url, "token": "t", "concurrency": 4, "steps": served}
    await engine.client.ask("PUT", f"/workers/{name}", json=body)


# --- sub-runs ---------------------------------------------------------------------------------------------------------


async def test_run_names_the_runs_of_its_steps_and_lists_them(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", NESTED)) as engine:
        run = await engine.client.ended(await engine.client.start("outer", {"numbers": [2, 4, 6]}))
        (inner,) = run["steps"]
        assert [(sub["item"], sub["state"]) for sub in inner["runs"]] == [(item, "succeeded") for item in range(3)]

        page = await engine.client.ask("GET", "/runs", params={"parent": run["id"]})
        assert {found["id"] for found in page["runs"]} == {sub["run"] for sub in inner["runs"]}
        assert [found["parent"] for found in page["runs"]] == [
            {"run": run["id"], "step": "inner", "item": item} for item in (2, 1, 0)
        ]
        assert [found["id"] for found in (await engine.client.ask("GET", "/runs"))["runs"]] == [run["id"]]


async def test_run_of_a_step_that_is_not_mapped_has_no_item_and_steps_of_python_have_no_runs(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", NESTED)) as engine:
        run = await engine.client.ended(await engine.client.start("once", {"number": 3}))
        (sub,) = run["steps"][0]["runs"]
        assert (sub["item"], sub["state"]) == (None, "failed")
        below = await engine.client.run(sub["run"])
        assert below["steps"][0]["runs"] == []
        assert below["parent"] == {"run": run["id"], "step": "inner", "item": None}


async def test_only_some_of_many_sub_runs_are_named_and_all_are_listed(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", NESTED)) as engine:
        run = await engine.client.ended(await engine.client.start("outer", {"numbers": [2] * 30}))
        assert [sub["item"] for sub in run["steps"][0]["runs"]] == list(range(20))
        page = await engine.client.ask("GET", "/runs", params={"parent": run["id"]})
        assert len(page["runs"]) == 30


# --- steps that nobody takes ------------------------------------------------------------------------------------------


@asynccontextmanager
async def waiting_run(folder: Path) -> AsyncIterator[tuple[RunningEngine, str]]:
    """Run an engine with a run whose only step waits for a worker."""
    async with running_engine(folder) as engine:
        await engine.register(ones)
        yield engine, await engine.client.start("ones")


async def why(engine: RunningEngine, run: str) -> str:
    (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
    assert reason["reason"] == "no_worker"
    text: str = reason["text"]
    return text.removeprefix("one waits: ")


async def test_step_without_any_worker_says_so_and_what_to_start(tmp_path: Path) -> None:
    async with waiting_run(tmp_path) as (engine, run):
        assert await why(engine, run) == "no worker is there; start one: hopline worker FILE"


async def test_step_that_no_worker_knows_says_how_many_there_are(tmp_path: Path) -> None:
    async with waiting_run(tmp_path) as (engine, run):
        await register_worker(engine, ("two", "a" * 16))
        assert await why(engine, run) == (
            "the worker that is there does not serve one; start one that does: hopline worker FILE"
        )
        await register_worker(engine, ("three", "a" * 16), name="w_2")
        assert (await why(engine, run)).startswith("2 workers are there and do not serve one;")


async def test_step_of_which_workers_have_an_older_version_says_to_start_them_again(tmp_path: Path) -> None:
    async with waiting_run(tmp_path) as (engine, run):
        await register_worker(engine, ("one", "0" * 16))
        assert await why(engine, run) == (
            "workers serve only an older version of one; start them again: hopline worker FILE"
        )


def newer_ones() -> tuple[Workflow[..., Any], str]:
    """Return ``ones`` with a step that takes more, and that step's signature."""

    @step
    def one(label: str = "") -> int:
        return len(label)

    @workflow
    def ones() -> int:
        return one()

    return ones, one.signature


async def test_step_of_which_workers_have_a_newer_version_says_what_the_run_needs(tmp_path: Path) -> None:
    newest, signature = newer_ones()
    async with waiting_run(tmp_path) as (engine, run):
        await engine.register(newest)
        await register_worker(engine, ("one", signature))
        assert (await why(engine, run)).startswith("workers serve only a newer version of one than this run began with")


# --- attempts that are lost -------------------------------------------------------------------------------------------


@asynccontextmanager
async def dying_worker() -> AsyncIterator[str]:
    """Serve a worker that dies of whatever it is sent, as far as the engine can see."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_step_that_kills_its_worker_says_how_often_and_when_it_is_tried_again(tmp_path: Path) -> None:
    async with dying_worker() as url, waiting_run(tmp_path) as (engine, run):
        await register_worker(engine, ("one", one.signature), url=url)

        async def lost_twice() -> Any:
            shown = await engine.client.step(run, "one")
            return shown if shown["state"] == "scheduled" and len(shown["bars"]) == 2 else None

        shown = await until_seen(lost_twice, "the step waits after its second loss")
        assert shown["note"].startswith("is retrying, attempt 3, 2 lost at ")
        assert "; the worker was lost: " in shown["note"]
        assert shown["next_at"] is not None
        assert [bar["state"] for bar in shown["bars"]] == ["lost", "lost"]
