"""What must be true after kills, whatever they hit: looked up in the store and the side-effect log, nowhere else."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from hopline_engine.core.model import WHOLE
from hopline_engine.core.names import idempotency_key
from tests.crash.books import Books, Row, StepRun, place_of
from tests.crash.target import Attempt

FUZZ_SECONDS = 0.005
"""How much later than the decision to end a step an execution of it may be logged as started."""


class Wanted(NamedTuple):
    """What has to become of a run."""

    result: object
    cancelled_at: float | None = None
    """When it was known to be cancelled; then it has no result."""


@dataclass(slots=True)
class Findings:
    """What an audit found; all lists are empty when everything is right."""

    lost: list[str] = field(default_factory=list)
    """Runs that did not succeed with the right result, completions that are not recorded."""
    duplicated: list[str] = field(default_factory=list)
    """Completions that are recorded, or executions that happened, twice under one attempt."""
    stuck: list[str] = field(default_factory=list)
    """Runs and tasks that are still open."""
    order: list[str] = field(default_factory=list)
    """Steps that started before what they need had ended, or after they had ended themselves."""
    attempts: list[str] = field(default_factory=list)
    """Attempts that are not numbered 1 to n, or executions of none that is recorded."""
    counts: Counter[str] = field(default_factory=Counter)
    """Runs, step runs, executions; attempts that were lost to kills, and how many of these were executed."""

    def problems(self) -> list[str]:
        """Return everything that is wrong."""
        return [*self.lost, *self.duplicated, *self.stuck, *self.order, *self.attempts]


def audit(books: Books, wanted: Mapping[str, Wanted], applied: set[Attempt]) -> Findings:
    """Check everything.

    Args:
        books: the store and the log.
        wanted: every run that was started.
        applied: the callbacks that were acknowledged.
    """
    found = Findings()
    _check_runs(books, wanted, found)
    for step, row in books.steps.items():
        _check_completion(books, step, row, found)
        _check_attempts(books, step, row, found)
        _check_order(books, step, row, found)
    for step in books.executions.keys() - books.steps.keys():
        found.lost.append(f"{books.name(step)} was executed, and its end is not recorded")
    found.lost += [f"{run} was executed and is not there" for run in books.strange]
    for attempt in applied:
        end = books.steps.get(books.place(attempt.run, attempt.step)) if attempt.run in books.public else None
        if end is None or end["attempts"] != attempt.number:
            found.lost.append(f"{attempt}: its callback was acknowledged, and is not what counts")
    found.stuck += [f"a task of {books.name(place_of(row))} is left" for row in books.tasks]
    _count(books, found)
    return found


def _check_runs(books: Books, wanted: Mapping[str, Wanted], found: Findings) -> None:
    found.lost += [f"{run} was acknowledged and is not there" for run in wanted.keys() - books.public.keys()]
    for number, row in books.runs.items():
        name = row["public_id"]
        expected = wanted.get(books.runs[books.root(number)]["public_id"])
        if expected is None:
            found.duplicated.append(f"{name}: nobody knows of having started it")
        elif row["state"] == "running":
            found.stuck.append(f"{name} is still running")
        elif expected.cancelled_at is not None:
            _check_cancelled(books, number, expected.cancelled_at, found)
        elif row["state"] != "succeeded":
            found.lost.append(f"{name} {row['state']}: {row['error']!r}")
        elif row["parent_id"] is None and json.loads(row["result"]) != expected.result:
            found.lost.append(f"{name} returned {row['result']!r}, not {expected.result}")
        else:
            _check_complete(books, number, found)


def _check_complete(books: Books, run: int, found: Findings) -> None:
    """Check that a run that succeeded has a row for every step, and for every element of a mapped one."""
    name = books.runs[run]["public_id"]
    for node in books.plan(run).nodes:
        row = books.steps.get(StepRun(run, node.index, WHOLE))
        if row is None or row["state"] != "succeeded":
            found.lost.append(f"{name} succeeded, and its step {node.id} did not")
        if node.over is not None:
            items = books.items[run, node.index]
            if not items or items != list(range(len(items))):
                found.lost.append(f"{name}: elements {items} of {node.id} ended")


def _check_cancelled(books: Books, run: int, cancelled_at: float, found: Findings) -> None:
    """Check that nothing of a run, or of a sub-run, started after it was known to be cancelled."""
    row = books.runs[run]
    if row["state"] != "cancelled" and row["parent_id"] is None:
        found.lost.append(f"{row['public_id']} was cancelled and {row['state']}")
    for node in books.plan(run).nodes:
        if StepRun(run, node.index, WHOLE) not in books.steps:
            found.stuck.append(f"{row['public_id']} was cancelled without an end of {node.id}")
    for step in books.tried[run]:
        if books.attempts[step][-1]["started_at"] > cancelled_at:
            found.order.append(f"{books.name(step)}: an attempt began after its run was cancelled")


def _check_completion(books: Books, step: StepRun, row: Row, found: Findings) -> None:
    """Check that a step succeeded once, by the last of its attempts, and that this one was executed to its end."""
    name = books.name(step)
    if row["state"] not in {"succeeded", "cancelled"}:
        found.lost.append(f"{name} {row['state']}: {row['error']!r}")
    if not _has_task(books, step):
        return
    succeeded = [attempt["attempt"] for attempt in books.attempts[step] if attempt["state"] == "succeeded"]
    if len(succeeded) > 1:
        found.duplicated.append(f"{name} succeeded {len(succeeded)} times: attempts {succeeded}")
    if row["state"] == "cancelled":
        found.lost += [f"{name} was cancelled although it had succeeded"] * bool(succeeded)
        return
    if succeeded[-1:] != [row["attempts"]]:
        found.lost.append(f"{name}: attempts {succeeded} succeeded, {row['attempts']} counts")
    if (step, row["attempts"]) not in books.finished:
        found.lost.append(f"{name}: attempt {row['attempts']} counts and never came to its end")


def _check_attempts(books: Books, step: StepRun, row: Row, found: Findings) -> None:
    """Check that attempts have numbers 1 to n one after the other, and that each was executed once at most."""
    if not _has_task(books, step):
        return
    name = books.name(step)
    attempts = books.attempts[step]
    numbers = [attempt["attempt"] for attempt in attempts]
    if numbers != list(range(1, row["attempts"] + 1)):
        found.attempts.append(f"{name} has attempts {numbers} and says {row['attempts']}")
    for one, following in pairwise(attempts):
        if following["started_at"] < one["ended_at"]:
            found.order.append(f"{name}: attempt {following['attempt']} began before the one before had ended")
    node = books.node(step)
    key = idempotency_key(books.runs[step.run]["public_id"], node.id, step.item)
    for attempt, times in Counter(execution.attempt for execution in books.executions[step]).items():
        if times > 1:
            found.duplicated.append(f"{name}: attempt {attempt} was executed {times} times")
        if attempt not in numbers:
            found.attempts.append(f"{name}: attempt {attempt} was executed and is not recorded")
    if any(execution.key != key for execution in books.executions[step]):
        found.attempts.append(f"{name} was not always sent the key {key}")


def _check_order(books: Books, step: StepRun, row: Row, found: Findings) -> None:
    """Check that nothing started before what it needs had ended, nor after it had ended itself."""
    name = books.name(step)
    starts = [execution.started_at for execution in books.executions[step]]
    if not starts and row["started_at"] is not None:
        starts = [row["started_at"]]  # a sub-run, or a map's own record
    for needed in _needed(books, step):
        end = books.steps.get(needed)
        if starts and (end is None or min(starts) < end["ended_at"]):
            found.order.append(f"{name} started before {books.name(needed)} had ended")
    if row["state"] == "cancelled":
        return  # what was sent before may be logged later; that nothing was sent later, the attempts say
    if starts and max(starts) > row["ended_at"] + FUZZ_SECONDS:
        found.order.append(f"{name} was executed {max(starts) - row['ended_at']:.3f} s after its end was recorded")


def _needed(books: Books, step: StepRun) -> Iterator[StepRun]:
    """Yield the step runs that must have ended before *step* may start."""
    node = books.node(step)
    for upstream in node.upstream:
        yield StepRun(step.run, upstream, WHOLE)
    if node.stream_from is not None and step.item != WHOLE:
        yield StepRun(step.run, node.stream_from, step.item)
    parent = books.runs[step.run]["parent_id"]
    if parent is not None and not node.upstream:
        row = books.runs[step.run]
        yield from _needed(books, StepRun(parent, row["parent_node"], row["parent_item"]))


def _has_task(books: Books, step: StepRun) -> bool:
    """Return whether a step run was executed by somebody: it is neither a map's own record nor a sub-run."""
    node = books.node(step)
    return node.kind != "workflow" and (node.over is None or step.item != WHOLE)


def _count(books: Books, found: Findings) -> None:
    lost = {
        (step, attempt["attempt"])
        for step, attempts in books.attempts.items()
        for attempt in attempts
        if attempt["state"] == "lost"
    }
    executed = [(step, execution.attempt) for step, executions in books.executions.items() for execution in executions]
    found.counts["runs"] = sum(row["parent_id"] is None for row in books.runs.values())
    found.counts["cancelled"] = sum(
        row["parent_id"] is None and row["state"] == "cancelled" for row in books.runs.values()
    )
    found.counts["step runs"] = sum(_has_task(books, step) for step in books.steps)
    found.counts["executions"] = len(executed)
    found.counts["lost attempts"] = len(lost)
    found.counts["executed and lost"] = len(lost.intersection(executed))
