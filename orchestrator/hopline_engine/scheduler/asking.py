"""Tells workflows that send links to people that somebody is asked to decide, by an event of the engine's own.

An approval is durable before it is told of, and told of again when its run is taken up from rows; of the event, and of
the runs that it starts, the first is kept. So each such workflow runs once for each question.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from hopline_engine.core.families import above
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import TaskState
from hopline_engine.core.waits import question_of
from hopline_engine.errors import EventNotFoundError, InvalidEventError
from hopline_engine.scheduler.approvals import Approvals
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.events import Events
from hopline_engine.scheduler.rounds import go_round

log = logging.getLogger(__name__)

REQUESTED: Final = "hopline.approval_requested"
"""The name of ``hopline.approval_requested``."""
AGAIN_SECONDS: Final = 1.0


class Asking:
    """Emits an event for each approval that opens, where that starts a run."""

    def __init__(self, coordinator: Coordinator, approvals: Approvals, events: Events) -> None:
        self._coordinator = coordinator
        self._approvals = approvals
        self._events = events
        self._new: deque[LiveTask] = deque()
        self._wake = asyncio.Event()
        coordinator.listeners.asking = self._note

    async def run(self) -> None:
        """Tell of what is asked, for ever. Before the server is reached by its address, there are no links."""
        await go_round(
            self._tell_all,
            wake=self._wake,
            rest_seconds=lambda: None,
            again_seconds=AGAIN_SECONDS,
            trouble="an approval could not be told of",
        )

    def look_again(self) -> None:
        """Tell of what was taken up before the server was there."""
        self._wake.set()

    def _note(self, tasks: Sequence[LiveTask]) -> None:
        self._new += tasks
        self._wake.set()

    async def _tell_all(self) -> None:
        while self._new and self._coordinator.sending.is_on:
            await self._tell(self._new[0])
            self._new.popleft()

    async def _tell(self, task: LiveTask) -> None:
        is_open = task.state is TaskState.PARKED and task.is_open
        if not is_open or not self._events.starts_runs(REQUESTED) or _is_of_one_who_tells(task):
            return
        run = task.run
        question = question_of(run, task.node)
        link, expires_at = self._approvals.link_until(task)
        payload = msgspec.json.encode(
            {
                "run": run.public_id,
                "workflow": run.plan.name,
                "step": task.name,
                "prompt": question.prompt,
                "to": list(question.to),
                "link": link,
                "expires_at": datetime.fromtimestamp(expires_at, UTC).isoformat(),
            }
        )
        try:
            await self._events.emit_own(REQUESTED, f"{run.public_id}/{task.name}", payload)
        except (EventNotFoundError, InvalidEventError) as error:  # it would be the same the next time
            log.warning("no workflow was told that %s of run %s is to be decided: %s", task.name, run.public_id, error)


def _is_of_one_who_tells(task: LiveTask) -> bool:
    """Return whether a question is one of a run that tells of questions: it would tell of itself without end."""
    runs = (task.run, *above(task.run))
    return any(run.plan.on is not None and run.plan.on.event == REQUESTED for run in runs)
