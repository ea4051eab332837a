"""Whose turn it is where few runs of a workflow may be under way at a time: ``@workflow(max_runs=)``.

A run that begins waits in its first step for its turn, as it does for a key: a claim in the store, granted in the order
in which runs were started, at whatever node. It has its turn until it ends. Claims are there also where no other node
can be, since a turn lasts longer than a process.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from heapq import nsmallest
from typing import Final

from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import TaskId
from hopline_engine.core.order import RUNS, Wish, turn_of
from hopline_engine.core.waits import runs_at_a_time
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store import key_claims
from hopline_engine.store.errors import ChangesRefusedError
from hopline_engine.store.interface import Store

ROUND_SECONDS: Final = 0.25
"""How long after a run has ended at another node it is noticed here, at most."""

WISHES_AT_A_TIME: Final = 100
"""Of one workflow."""


class RunTurns:
    """Gives the runs of this node their turns."""

    def __init__(self, *, store: Store, coordinator: Coordinator) -> None:
        """Make it; nobody has a turn before ``run``."""
        self._store = store
        self._coordinator = coordinator
        self._waiting: dict[str, dict[TaskId, LiveTask]] = {}
        """The steps that wait for turns, by workflow and by the number of the turn."""
        self._wake = asyncio.Event()
        coordinator.listeners.turns = self._note

    async def run(self) -> None:
        """Give out turns, for ever."""
        await go_round(
            self._ask,
            wake=self._wake,
            rest_seconds=self._seconds_to_next,
            again_seconds=ROUND_SECONDS,
            trouble="turns of runs could not be given out",
        )

    def _note(self, tasks: Sequence[LiveTask]) -> None:
        for task in tasks:
            self._waiting.setdefault(task.run.plan.name, {})[turn_of(task.run.id)] = task
        self._wake.set()

    def _seconds_to_next(self) -> float | None:
        """Return how long to wait unless woken: another node tells nobody here that a run has ended."""
        return ROUND_SECONDS if self._waiting and not self._store.owner.alone else None

    async def _ask(self) -> None:
        for workflow, waiting in list(self._waiting.items()):
            for turn in [turn for turn, task in waiting.items() if not task.is_open]:
                del waiting[turn]
            if not waiting:
                del self._waiting[workflow]
                continue
            wishes = self._wishes(workflow, waiting)
            settle = partial(key_claims.settle, owner=self._store.owner, wishes=wishes)
            settled = await self._store.execute(settle)
            granted = sorted(settled.granted & waiting.keys())
            for turn in granted:
                await self._begin(waiting.pop(turn))
            if granted and waiting:
                self._wake.set()

    @staticmethod
    def _wishes(workflow: str, waiting: dict[TaskId, LiveTask]) -> list[Wish]:
        """Return the wishes of the runs that were started first: those taken over from others may come last."""
        first = nsmallest(WISHES_AT_A_TIME, waiting, key=lambda turn: (waiting[turn].run.created_at, turn))
        runs = ((turn, waiting[turn]) for turn in first)
        return [
            Wish(turn, RUNS, workflow, runs_at_a_time(task), task.run.created_at, f"run {task.run.public_id}")
            for turn, task in runs
        ]

    async def _begin(self, task: LiveTask) -> None:
        """Let a run go on that has its turn; if it has just ended, so has its turn."""
        if task.is_open:
            with contextlib.suppress(ChangesRefusedError):  # then it is read again, and asks again
                await self._coordinator.fulfil(task, b"null")
