"""Heartbeats: reports that the work behind an attempt goes on, whether it is running or was accepted."""

from typing import NamedTuple

from hopline_engine.core.live import Heard, LiveTask
from hopline_engine.core.model import TaskState
from hopline_engine.core.retry import Failure
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.redacting import Redactor
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.watchers import Watchers


class Heartbeat(NamedTuple):
    """A report that the work behind an attempt goes on."""

    seconds: float
    """For how long it is to be waited for from now on, at least."""
    progress: str | None = None
    """How far it is, for people."""


class Hearing:
    """Lets attempts that say that they go on take longer."""

    def __init__(self, coordinator: Coordinator, dispatcher: Dispatcher, watchers: Watchers) -> None:
        self._coordinator = coordinator
        self._dispatcher = dispatcher
        self._watchers = watchers

    async def hear(self, task: LiveTask, heartbeat: Heartbeat) -> float:
        """Take the heartbeat of an attempt that is under way; return until when it is waited for now, at least.

        That of one which was accepted is durable. One that is running ends with this engine, and so does its time.
        """
        now = self._coordinator.now()
        before = task.last_heard.progress if task.last_heard is not None else None
        task.heard = Heard(task.attempt, now, heartbeat.progress if heartbeat.progress is not None else before)
        if task.state is TaskState.LEASED:
            until = self._dispatcher.extend(task, heartbeat.seconds)
        else:
            until = now + heartbeat.seconds
            await self._coordinator.extend(task, heartbeat.seconds)
        self._watchers.tell(task.run, {task.node.index})
        return until


def without_secrets(report: bytes | Failure | Heartbeat, redactor: Redactor | None) -> bytes | Failure | Heartbeat:
    """Return what a target reports without the secrets that it was told."""
    if redactor is None:
        return report
    match report:
        case bytes():
            return redactor.body(report)
        case Failure():
            return redactor.failure(report)
        case Heartbeat(progress=str(progress)):
            return report._replace(progress=redactor.text(progress))
    return report
