"""Whom the coordinator tells of what: each is set by whoever has something to do then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import RunId, TaskId
from hopline_engine.queue.admission import Queued
from hopline_engine.store.errors import OwnershipLostError


def _leave_as_it_is(_: OwnershipLostError) -> None:
    """Do nothing: nothing counts any more."""


def _leave_to_next_engine(_: RunId) -> None:
    """Do nothing: who opens the store next reads all runs."""


def _leave_to_whoever_looks(_: Sequence[LiveTask]) -> None:
    """Do nothing: people find what they are asked where they look for it."""


def _leave_to_whoever_asks(_: list[TaskId]) -> None:
    """Do nothing: without events nobody can be waited for."""


def _let_nobody_wait(tasks: Sequence[LiveTask]) -> None:
    """Only who gives out turns knows whose it is."""
    assert not tasks, f"nobody gives out turns to {tasks}"


def _expect_none(tasks: list[Queued]) -> None:
    """Only who offers tasks of other kinds to the admission has to take them when they are let go."""
    raise AssertionError(f"nobody sends {tasks}")


@dataclass(slots=True)
class Listeners:
    """Each is called on the loop, and does what takes long elsewhere."""

    changed: Callable[[LiveRun, set[int]], None]
    """Told of each run, and its steps, that a commit changed."""
    forgotten: Callable[[RunId], None] = _leave_to_next_engine
    """Told of a run that was dropped from memory, with those below it, and is to be read again."""
    lost: Callable[[OwnershipLostError], None] = _leave_as_it_is
    """Told when the store takes nothing of this node any more."""
    admitted: Sequence[Callable[[float], None]] = ()
    """Called after each look at what may be sent, where limits of queues are shared with other nodes."""
    others_admitted: Callable[[list[Queued]], None] = _expect_none
    """Told of the admitted tasks that are not of steps."""
    asking: Callable[[Sequence[LiveTask]], None] = _leave_to_whoever_looks
    """Told of parked tasks that wait for a person, once that is durable."""
    turns: Callable[[Sequence[LiveTask]], None] = _let_nobody_wait
    """Told of tasks that wait for their run's turn, and when a run ended that had one, once that is durable."""
    awaiting: Callable[[list[TaskId]], None] = _leave_to_whoever_asks
    """Told of parked tasks that wait for an event, once that is durable."""
