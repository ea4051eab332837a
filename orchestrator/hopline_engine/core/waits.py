"""What a step that is never sent waits for, and how long: read from its inputs when it opens."""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from hopline_engine.core.binding import BindingError, decoded
from hopline_engine.core.decision import Decision
from hopline_engine.core.live import LiveRun, LiveTask, RunScope
from hopline_engine.core.model import ApprovalAdded, TaskState, WaitAdded
from hopline_engine.core.plan import Node

NEVER: Final = 253_402_300_800.0
"""The first second of the year 10000: no date that people can be shown lies as far ahead."""


LONGEST_PROMPT: Final = 10_000
LONGEST_KEY: Final = 500
"""Characters of the key of an event: databases index it."""


def parked(run: LiveRun, node: Node, item: int, decision: Decision) -> LiveTask:
    """Return the task of a step that opens to wait, with what it can be found by in the rows of the decision.

    Raises:
        BindingError: its inputs are not there, or are not what it can wait for; then nothing was done.
    """
    until = _until(run, node, decision.now)
    key = key_of(run, node) if node.kind == "event" else None
    question = question_of(run, node) if node.kind == "approval" else None
    task = LiveTask(decision.ids.next_task(run.id), run, node, item, None, TaskState.PARKED, schedule_time=until)
    task.first_attempt_at = decision.now
    if node.kind == "turn":
        decision.in_turn = (*decision.in_turn, task)
    if key is not None:
        decision.waits.append(WaitAdded(task.id, run.id, node.step, key))
        decision.awaiting.append(task.id)
    if question is not None:
        to, expires_at = msgspec.json.encode(question.to), until if until < NEVER else None
        asked = ApprovalAdded(task.id, run.id, node.index, item, question.prompt, to, decision.now, expires_at)
        decision.asked.append(asked)
        decision.asking = (*decision.asking, task)
    return task


def _until(run: LiveRun, node: Node, now: float) -> float:
    """Return the time at which the wait of a step is over by itself."""
    if node.kind != "sleep":
        return now + node.deadline if node.deadline is not None else NEVER
    inputs = _inputs_of(run, node)
    if "seconds" in inputs:
        return min(now + float(inputs["seconds"]), NEVER)
    return time_of(inputs["until"])


def key_of(run: LiveRun, node: Node) -> str:
    """Return the key of the event that a step waits for.

    Raises:
        BindingError: it is not there, or is no key.
    """
    key = _inputs_of(run, node)["key"]
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        shown = repr(key) if len(repr(key)) <= 100 else f"{repr(key)[:99]}…"
        raise BindingError(
            f"it waits for {node.step!r} with the key {shown}; a key is a text of 1 to {LONGEST_KEY} characters"
        )
    return key


def runs_at_a_time(task: LiveTask) -> int:
    """Return how many runs of the workflow may be under way, of a task that waits for its run's turn."""
    return int(_inputs_of(task.run, task.node)["limit"])


class Question(NamedTuple):
    """What a person is asked."""

    prompt: str
    to: list[str]
    """Whom it is for."""


def question_of(run: LiveRun, node: Node) -> Question:
    """Return what a person is asked by a step.

    Raises:
        BindingError: it is not there, or is no text.
    """
    inputs = _inputs_of(run, node)
    prompt, to = inputs["prompt"], inputs.get("to", [])
    if not isinstance(prompt, str) or not isinstance(to, list) or not all(isinstance(name, str) for name in to):
        raise BindingError("an approval asks with a text, and is for a list of texts")
    return Question(prompt[:LONGEST_PROMPT], to)


def _inputs_of(run: LiveRun, node: Node) -> dict[str, Any]:
    inputs: dict[str, Any] = decoded(node.inputs, RunScope(run, None))
    return inputs


def time_of(text: object) -> float:
    """Return a date, or a time with its zone, as Unix seconds; a date begins at midnight in UTC.

    >>> time_of("1970-01-02"), time_of("1970-01-01T02:00:00+01:00")
    (86400.0, 3600.0)

    Raises:
        BindingError: it is neither.
    """
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        raise BindingError(f"it sleeps until {text!r}, which is no date or time such as 2027-01-31") from None
    if time.tzinfo is None:
        if len(str(text)) > len("2027-01-31"):
            raise BindingError(f"it sleeps until {text!r}, a time without its zone; give one: 2027-01-31T08:00:00Z")
        time = time.replace(tzinfo=UTC)
    return min(time.timestamp(), NEVER - 1.0)
