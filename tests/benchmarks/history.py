"""A store with a past: runs of ten steps that ended weeks ago, written through the store's own hot statements."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hopline_engine.clock import SystemClock
from hopline_engine.core.changes import Changes
from hopline_engine.core.model import (
    WHOLE,
    AttemptEnded,
    AttemptState,
    Digest,
    RunAdded,
    RunEnded,
    RunId,
    RunState,
    StepEnded,
    StepState,
)
from hopline_engine.core.names import public_id
from hopline_engine.scheduler.ids import TimeOrderedIds
from hopline_engine.settings import Settings
from hopline_engine.store.interface import Store
from hopline_engine.store.opening import open_store

STEPS_OF_RUN: Final = 10
_RUNS_AT_A_TIME: Final = 1000
_AGE_SECONDS: Final = 30 * 86_400.0


class _LongAgo:
    """A clock that stands still, a month back: numbers of runs begin there."""

    def now(self) -> float:
        return time.time() - _AGE_SECONDS

    def random(self) -> float:
        return 0.5


def store_of(folder: Path, settings: Mapping[str, str]) -> Settings:
    """Return the settings that name the store of an engine in *folder* with these settings of its environment."""
    return Settings(state_dir=folder / ".hopline", store=settings.get("HOPLINE_STORE", ""))


async def fill(settings: Settings, digest: str, *, present: int, wanted: int) -> None:
    """Add finished steps of ``chain_10`` to the store that is named, from *present* to *wanted*; nobody has it open."""
    store = await open_store(settings, node=f"history-{wanted}", clock=SystemClock())
    try:
        first = TimeOrderedIds(_LongAgo(), last_run=0, last_task=0).next_run()
        for start in range(present // STEPS_OF_RUN, wanted // STEPS_OF_RUN, _RUNS_AT_A_TIME):
            end = min(start + _RUNS_AT_A_TIME, wanted // STEPS_OF_RUN)
            await _commit(store, _ended_runs(range(first + start, first + end), Digest(digest)))
    finally:
        await store.close()


async def _commit(store: Store, changes: Changes) -> None:
    done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    store.submit(changes, done.set_result)
    error = await done
    if error is not None:
        raise error


def _ended_runs(numbers: range, digest: Digest) -> Changes:
    changes = Changes()
    at = time.time() - _AGE_SECONDS
    for number in numbers:
        run = RunId(number)
        name, state = public_id(run), RunState.SUCCEEDED
        changes.runs_added.append(
            RunAdded(run, name, "chain_10", digest, RunState.RUNNING, b"{}", None, None, None, None, None, at)
        )
        changes.runs_ended.append(RunEnded(state, b"0", None, at + 1, run))
        for node in range(STEPS_OF_RUN):
            changes.steps_ended.append(StepEnded(run, node, WHOLE, StepState.SUCCEEDED, b"0", None, 1, at, at + 1))
            changes.attempts_ended.append(
                AttemptEnded(run, node, WHOLE, 1, AttemptState.SUCCEEDED, 200, None, None, at, at + 1)
            )
    return changes
