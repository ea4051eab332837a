"""Measures the committers alone: what a step costs when so many end at the same time, on either store.

    python tests/benchmarks/committer.py [--groups 1,10,100] [--groups-each 300]

A step's end is its record, that of its attempt, the removal of its task and the task of the next step, in one decision.
"""

import argparse
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script finds only what lies beside it

from hopline_engine import event_loop
from hopline_engine.core.changes import Changes
from hopline_engine.core.model import TaskAdded, TaskId, TaskRemoved, TaskState
from hopline_engine.store.interface import Store
from tests.store.opened import commit, opened_postgres, opened_sqlite, with_definition
from tests.store.rows import attempt_ended, run_added, step_ended, task_added
from tests.support.postgres import database, postgres

MOST_STEPS = 10_000


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Measure the committers.")
    parser.add_argument("--groups", default="1,10,100", help="steps that end at the same time")
    parser.add_argument("--groups-each", type=int, default=300, help="how many groups of each size")
    asked = parser.parse_args()
    with postgres(durable=True) as server:
        event_loop.run(_measure([int(size) for size in asked.groups.split(",")], asked.groups_each, server.url))


async def _measure(sizes: list[int], groups: int, server: str) -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hopline-bench-"))
        url = await stack.enter_async_context(database(server=server))
        stores: dict[str, Store] = {
            "sqlite": await stack.enter_async_context(opened_sqlite(Path(folder))),
            "postgres": await stack.enter_async_context(opened_postgres(url)),
        }
        print("store     group   us per step   us of CPU here per step")
        for name, store in stores.items():
            await with_definition(store)
            for number, size in enumerate(sizes):
                spent, cpu = await _steps(store, size, groups, first=number * 1_000_000 + 1)
                print(f"{name:8}  {size:5}   {spent:11.1f}   {cpu:23.1f}")


async def _steps(store: Store, size: int, groups: int, first: int) -> tuple[float, float]:
    """Return the time and the CPU of a step in microseconds."""
    runs = range(first, first + size)
    await commit(store, *[_begun(run) for run in runs])
    began, worked = time.perf_counter(), time.process_time()
    for step in range(groups):
        await commit(store, *[_ended(run, step) for run in runs])
    steps = size * groups
    return (time.perf_counter() - began) / steps * 1e6, (time.process_time() - worked) / steps * 1e6


def _begun(run: int) -> Changes:
    return Changes(runs_added=[run_added(run)], tasks_added=[_task(run, 0)])


def _ended(run: int, step: int) -> Changes:
    return Changes(
        steps_ended=[step_ended(run, step)],
        attempts_ended=[attempt_ended(run, step)],
        tasks_added=[_task(run, step + 1)],
        tasks_removed=[TaskRemoved(_id(run, step))],
    )


def _task(run: int, step: int) -> TaskAdded:
    return task_added(run, step, id=_id(run, step), state=TaskState.LEASED.value, attempt=1)


def _id(run: int, step: int) -> TaskId:
    return TaskId(run * MOST_STEPS + step)


if __name__ == "__main__":
    main()
