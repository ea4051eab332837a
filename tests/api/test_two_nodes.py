"""Two real nodes on one database, a worker that was given the address of one, and clients that ask either."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from hopline_engine.bootstrap import open_engine
from hopline_engine.settings import Settings
from tests.support.client import Client
from tests.support.postgres import database
from tests.support.processes import WorkerProcess
from tests.support.waiting import WITHIN, until, until_seen
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio

WAITING = """
    import asyncio
    from pathlib import Path

    from hopline import step, workflow

    @step
    async def wait_for(file: str) -> str:
        while not Path(file).exists():
            await asyncio.sleep(0.02)
        return "done"

    @workflow
    def waiting(file: str) -> str:
        return wait_for(file)
"""


class Node:
    """An engine that listens, and who talks to it."""

    def __init__(self, url: str, client: Client, life: AsyncExitStack) -> None:
        self.url = url
        self.client = client
        self._life = life

    @classmethod
    async def start(cls, folder: Path, store: str) -> "Node":
        life = AsyncExitStack()
        settings = Settings.load(state_dir=folder, store=store, node_silence_seconds=2)
        installation = await life.enter_async_context(open_engine(settings))
        url = await installation.serve(0)
        return cls(url, await life.enter_async_context(Client(url)), life)

    async def stop(self) -> None:
        await self._life.aclose()

    async def shards(self) -> list[int]:
        """Return how many shards each node holds, as this one says."""
        return sorted(node["shards"] for node in (await self.client.ask("GET", "/nodes"))["nodes"])


@asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[tuple[Node, Node, WorkerProcess]]:
    """Run two nodes that share the work, and a worker that both know."""
    async with database() as store, AsyncExitStack() as life:
        nodes = []
        for name in ("a", "b"):
            nodes.append(await Node.start(folder / name, store))
            life.push_async_callback(nodes[-1].stop)
        first, second = nodes

        async def share() -> bool:
            return await first.shards() == [32, 32]

        await until_seen(share, "each node holds half of the shards")
        worker = WorkerProcess(folder, first.url, [write(folder, "wf.py", WAITING)], {})
        life.callback(worker.kill)
        worker.start()
        await worker.ready()

        async def known_to_both() -> bool:
            return all([await node.client.worker_pids() == {worker.pid} for node in nodes])

        await until_seen(known_to_both, "both nodes know the worker")
        yield first, second, worker


async def test_runs_are_shown_followed_and_cancelled_at_either_node(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (first, second, _):
        flag = tmp_path / "flag"
        runs = {await node.client.start("waiting", {"file": str(flag)}): node for node in (first, second)}
        for run, home in runs.items():
            other = second if home is first else first
            await home.client.step_in(run, "wait_for", "running")
            assert (await other.client.step(run, "wait_for"))["state"] == "running"
            assert [found["steps_done"] for found in (await other.client.ask("GET", "/runs"))["runs"]] == [0, 0]
        cancelled, home = next(iter(runs.items()))
        other = second if home is first else first
        assert (await other.client.ask("POST", f"/runs/{cancelled}/cancel"))["state"] == "cancelled"
        followed, home = list(runs.items())[1]
        other = second if home is first else first
        async with other.client.http.stream("GET", f"/runs/{followed}/events") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: snapshot"
            flag.touch()
            assert "event: run" in [line async for line in lines]
        assert (await other.client.run(followed))["result"] == "done"


async def test_both_nodes_say_that_a_run_has_ended_when_it_is_to_be_cancelled(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (first, second, _):
        run = await first.client.start("waiting", {"file": str(tmp_path / "flag")})
        await first.client.ask("POST", f"/runs/{run}/cancel")
        for node in (first, second):
            answer = await node.client.http.post(f"/runs/{run}/cancel")
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "run-ended")


async def test_worker_goes_on_with_the_other_node_when_the_one_it_was_given_stops(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (first, second, worker):
        flag = tmp_path / "flag"
        runs = [await node.client.start("waiting", {"file": str(flag)}) for node in (first, second)]
        for run, node in zip(runs, (first, second), strict=True):
            await node.client.step_in(run, "wait_for", "running")
        flag.touch()
        await first.stop()
        for run in runs:
            assert (await second.client.ended(run))["result"] == "done"
        assert await second.client.worker_pids() == {worker.pid}
        await until(lambda: "waiting for the server at" in worker.told(), "the worker misses the first node")


async def test_two_nodes_share_the_slots_of_a_worker(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (first, second, _):

        async def shared() -> bool:
            answers = [await node.client.ask("GET", "/workers") for node in (first, second)]
            return [found["workers"][0]["concurrency"] for found in answers] == [32, 32]

        await until_seen(shared, "each node may send half as much")


async def test_callback_that_comes_to_the_other_node_is_refused_without_the_token(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (first, second, _):
        run = await first.client.start("waiting", {"file": str(tmp_path / "flag")})
        await first.client.step_in(run, "wait_for", "running")
        async with httpx.AsyncClient(base_url=f"{second.url}/api/v1", trust_env=False, timeout=WITHIN) as http:
            told = await http.post(
                f"/callbacks/{run}/1/wait_for", json={"result": 1}, headers={"Hopline-Callback-Token": "forged"}
            )
        assert told.status_code == 401
