"""What people see of a run, made from its rows and, while it is alive, from what its owner knows of it."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple

import msgspec

from hopline_engine.api.models import (
    Attempt,
    Bar,
    Failure,
    MapProgress,
    Parent,
    Run,
    RunDetail,
    RunSummary,
    ShownState,
    Step,
    SubRun,
)
from hopline_engine.api.reasons import Explainer
from hopline_engine.core.live import LiveLaps, LiveMap, LiveRun, LiveTask
from hopline_engine.core.model import (
    WHOLE,
    AttemptEnded,
    AttemptState,
    EventAdded,
    RunState,
    StepEnded,
    StepState,
    TaskState,
)
from hopline_engine.core.names import public_id, step_name
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.references import shown
from hopline_engine.core.states import FINAL_STEP_STATES
from hopline_engine.store.approvals import StoredApproval
from hopline_engine.store.runs import RunRecord
from hopline_engine.store.runs import RunSummary as StoredSummary
from hopline_engine.store.runs import SubRun as StoredSubRun
from hopline_engine.store.steps import Overview

MOST_BARS = 20
MOST_SUB_RUNS = 20


def run_view(stored: RunRecord, plan: Plan | None, parent: Parent | None, done: int, note: str | None) -> Run:
    """Return a run without its steps."""
    return Run(
        **_summary_fields(stored, plan, parent, done, note),
        input=msgspec.json.decode(shown(stored.input)),
        result=None if stored.result is None else msgspec.json.decode(shown(stored.result)),
    )


def summary_view(
    stored: StoredSummary, plan: Plan | None, parent: Parent | None, done: int, note: str | None
) -> RunSummary:
    """Return a run as it stands in a list."""
    return RunSummary(**_summary_fields(stored, plan, parent, done, note))


def detail_view(run: Run, steps: list[Step]) -> RunDetail:
    """Return a run with its steps."""
    return RunDetail.model_construct(**{name: getattr(run, name) for name in Run.model_fields}, steps=steps)


def _summary_fields(
    stored: StoredSummary, plan: Plan | None, parent: Parent | None, done: int, note: str | None
) -> dict[str, Any]:
    return {
        "id": stored.public_id,
        "workflow": stored.workflow,
        "digest": stored.digest,
        "state": shown_state(stored),
        "error": failure_view(stored.error),
        "idempotency_key": stored.idempotency_key,
        "retry_of": public_id(stored.retry_of) if stored.retry_of is not None else None,
        "fork_of": public_id(stored.fork_of) if stored.fork_of is not None else None,
        "parent": parent,
        "created_at": stored.created_at,
        "ended_at": stored.ended_at,
        "steps_total": len(plan.nodes) if plan is not None else 0,
        "steps_done": done,
        "priority": stored.priority,
        "deadline_at": stored.created_at + plan.deadline if plan is not None and plan.deadline is not None else None,
        "note": note,
    }


def approval_fields(stored: StoredApproval, plan: Plan) -> dict[str, Any]:
    """Return what is shown of a question to a person."""
    state = "open" if stored.is_open else "closed"
    if stored.approved is not None:
        state = "approved" if stored.approved else "rejected"
    return {
        "run": stored.public_id,
        "workflow": stored.workflow,
        "step": step_name(plan.nodes[stored.node].id, stored.item),
        "prompt": stored.prompt,
        "to": msgspec.json.decode(stored.recipients),
        "state": state,
        "asked_at": stored.asked_at,
        "expires_at": stored.expires_at,
        "by": stored.person,
        "decided_at": stored.decided_at,
        "form": None if stored.form is None else msgspec.json.decode(stored.form),
    }


def event_fields(event: EventAdded) -> dict[str, Any]:
    """Return what is shown of an event."""
    payload = msgspec.json.decode(event.payload)
    return {"name": event.name, "key": event.key, "payload": payload, "emitted_at": event.emitted_at}


def shown_state(stored: StoredSummary) -> ShownState:
    """Return the state of a run as people see it."""
    if stored.state is not RunState.RUNNING:
        return stored.state
    if stored.ending is not None:
        return "cancelling" if stored.ending == RunState.CANCELLED else "undoing"
    return "paused" if stored.paused_at is not None else RunState.RUNNING


def reused_steps(rows: Overview, origin: Iterable[StepEnded]) -> AbstractSet[int]:
    """Return the steps that ended as they did in the run that this one goes on from: with the same times."""
    return {row.node for row in origin if _times(row) == _times(rows.ended.get(row.node))}


def _times(row: StepEnded | None) -> tuple[object, ...] | None:
    return None if row is None else (row.state, row.started_at, row.ended_at)


def failure_view(error: bytes | None, step: str | None = None) -> Failure | None:
    """Return a stored failure."""
    if error is None:
        return None
    stored = msgspec.json.decode(error)
    return Failure(
        step=stored.get("step", step),
        type=stored["type"],
        message=stored["message"],
        traceback=stored.get("traceback"),
    )


def name_of(plan: Plan, index: int) -> str:
    """Return the name of a step or an undo step."""
    node = plan.node(index)
    return node.id if node is not None else str(index)


def attempt_view(row: AttemptEnded, plan: Plan) -> Attempt:
    """Return an attempt that is over."""
    return Attempt(
        step=name_of(plan, row.node),
        item=None if row.item == WHOLE else row.item,
        attempt=row.attempt,
        state=AttemptState(row.state),
        status=row.status,
        error=failure_view(row.error, name_of(plan, row.node)),
        logs=row.logs,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def step_views(
    plan: Plan,
    rows: Overview,
    below: Sequence[StoredSubRun],
    live: LiveRun | None,
    explainer: Explainer,
    nodes: Sequence[Node],
    reused: AbstractSet[int] = frozenset(),
) -> list[Step]:
    """Return *nodes* of a run, with the sub-runs in *below*; without undo steps that had nothing to undo."""
    wanted = [node for node in nodes if node.undoes is None or _has_begun(node, rows, live)]
    sub_runs: dict[int, list[SubRun]] = {}
    for stored in below:
        sub_runs.setdefault(stored.node, []).append(_sub_run(stored))
    return [
        _step_view(plan, node, rows, sub_runs.get(node.index, []), live, explainer, is_reused=node.index in reused)
        for node in wanted
    ]


def _has_begun(node: Node, rows: Overview, live: LiveRun | None) -> bool:
    is_open = live is not None and live.ending is not None and live.nodes[node.index].state is StepState.RUNNING
    return is_open or node.index in rows.ended


def _sub_run(stored: StoredSubRun) -> SubRun:
    return SubRun(run=stored.public_id, item=None if stored.item == WHOLE else stored.item, state=stored.state)


class _Progress(NamedTuple):
    """What is known of a step now, whatever it is known from."""

    state: StepState
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    error: Failure | None = None
    next_at: float | None = None
    note: str | None = None
    bar: Bar | None = None


def _step_view(
    plan: Plan,
    node: Node,
    rows: Overview,
    sub_runs: list[SubRun],
    live: LiveRun | None,
    explainer: Explainer,
    *,
    is_reused: bool,
) -> Step:
    row = rows.ended.get(node.index)
    if row is not None:
        progress = _ended(node, row)
    elif live is not None:
        progress = _open(live, node, explainer)
    else:
        progress = _Progress(StepState.PENDING)
    bars = [_bar(attempt) for attempt in rows.attempts.get(node.index, ())]
    if progress.bar is not None:
        bars.append(progress.bar)
    upstream = [*node.upstream, *([node.stream_from] if node.stream_from is not None else [])]
    if plan.turn is not None and len(upstream) > 1:  # all wait for it, and it is shown of the first ones
        upstream = [index for index in upstream if index != plan.turn.index]
    return Step(
        id=node.id,
        kind=node.kind if node.loop is None else "loop",
        state=progress.state,
        attempts=progress.attempts,
        items=_items(node, rows, live),
        started_at=progress.started_at,
        ended_at=progress.ended_at,
        upstream=[plan.nodes[index].id for index in sorted(upstream)],
        level=node.level,
        error=progress.error,
        next_at=progress.next_at,
        note=progress.note,
        bars=bars[-MOST_BARS:],
        reused=is_reused,
        runs=sub_runs,
    )


def _ended(node: Node, row: StepEnded) -> _Progress:
    error = failure_view(row.error, node.id)
    note = error.message if error else None
    if row.state == StepState.SKIPPED:
        error = None  # it says why it was skipped
    return _Progress(StepState(row.state), row.attempts, row.started_at, row.ended_at, error, None, note)


def _open(live: LiveRun, node: Node, explainer: Explainer) -> _Progress:
    state = live.nodes[node.index]
    unit = state.unit
    if state.state in FINAL_STEP_STATES:
        # Decided, but its row was not there when the rows were read: as long as that is so, it has not ended.
        return _Progress(StepState.RUNNING, 1, state.opened_at)
    if isinstance(unit, LiveTask):
        return _open_task(unit, explainer)
    if isinstance(unit, LiveRun):
        return _Progress(StepState.RUNNING, 1, state.opened_at, note=f"is run {unit.public_id}")
    if state.map is not None:
        return _open_map(live, node, explainer)
    return _Progress(StepState.PENDING, note=explainer.reasons(live, node)[0].text)


def _open_task(task: LiveTask, explainer: Explainer) -> _Progress:
    standing = explainer.standing(task)
    doing: Literal["running", "waiting"] | None = (
        "running" if task.state is TaskState.LEASED else "waiting" if task.state is TaskState.ACCEPTED else None
    )
    bar = None
    if doing is not None and task.leased_at is not None:
        bar = Bar(attempt=task.attempt, state=doing, started_at=task.leased_at, ended_at=None)
    return _Progress(
        standing.state,
        task.attempt,
        task.first_attempt_at,
        next_at=standing.next_at,
        note=standing.text if standing.state is not StepState.RUNNING or task.attempt > 1 or task.last_heard else None,
        bar=bar,
    )


def _open_map(live: LiveRun, node: Node, explainer: Explainer) -> _Progress:
    state = live.nodes[node.index]
    note = _progress_of(node, state.map)
    reasons = explainer.reasons(live, node)
    if reasons and all(reason.reason not in {"running", "upstream"} for reason in reasons):
        note = f"{note}; {reasons[0].text}"
    return _Progress(StepState.RUNNING, 0, state.opened_at, note=note)


def _progress_of(node: Node, opened: LiveMap | LiveLaps | None) -> str:
    if isinstance(opened, LiveMap):
        return f"{opened.done} of {opened.size} items"
    assert opened is not None
    assert node.loop is not None
    return f"lap {opened.done + 1} of at most {node.loop.limit}"


def _items(node: Node, rows: Overview, live: LiveRun | None) -> MapProgress | None:
    if node.over is None and node.loop is None:
        return None
    open_map = live.nodes[node.index].map if live is not None else None
    if open_map is not None:
        running = sum(
            not isinstance(unit, LiveTask) or unit.state is TaskState.LEASED for unit in open_map.units.values()
        )
        if isinstance(open_map, LiveLaps):
            return MapProgress(total=None, succeeded=open_map.done, failed=0, running=running)
        return MapProgress(total=open_map.size, succeeded=open_map.done, failed=open_map.failed, running=running)
    counts = rows.items.get(node.index, {})
    ended = node.index in rows.ended
    succeeded, failed = counts.get(StepState.SUCCEEDED, 0), counts.get(StepState.FAILED, 0)
    is_whole = ended and rows.ended[node.index].state == StepState.SUCCEEDED
    return MapProgress(total=succeeded + failed if is_whole else None, succeeded=succeeded, failed=failed, running=0)


def _bar(row: AttemptEnded) -> Bar:
    return Bar(attempt=row.attempt, state=AttemptState(row.state), started_at=row.started_at, ended_at=row.ended_at)
