"""A process that starts and ends runs for ever, and prints a line for each decision once it is acknowledged.

It prints ``open``, then ``started N`` and ``ended N``.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import TaskId, TaskRemoved
from hopline_engine.store import recovery
from hopline_engine.store.interface import Store
from tests.store.opened import commit, opened_sqlite, with_definition
from tests.store.rows import attempt_ended, run_ended, started, step_ended

ABREAST: Final = 16
"""How many runs are open at a time."""

INPUT: Final = b'"' + b"x" * 60_000 + b'"'
"""Large enough for the log to be copied now and then."""


def told(line: str) -> None:
    """Print a line so that it outlives this process."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def ended(run: int) -> Changes:
    """Return the decision that ends a run together with its only step."""
    return Changes(
        steps_ended=[step_ended(run)],
        attempts_ended=[attempt_ended(run)],
        tasks_removed=[TaskRemoved(TaskId(run))],
        runs_ended=[run_ended(run)],
    )


async def run_for_ever(store: Store, first: int) -> None:
    """Start and end every ``ABREAST``-th run from *first*."""
    run = first
    while True:
        await commit(store, started(run, input=INPUT))
        told(f"started {run}")
        await commit(store, ended(run))
        told(f"ended {run}")
        run += ABREAST


def go_on(folder: Path) -> None:
    """Open the store in *folder* and go on after the runs that it has."""
    asyncio.run(_main(folder))


async def _main(folder: Path) -> None:
    async with opened_sqlite(folder) as store:
        told("open")
        await with_definition(store)
        (last, _) = await store.read(recovery.last_ids)
        await asyncio.gather(*[run_for_ever(store, last + 1 + offset) for offset in range(ABREAST)])
