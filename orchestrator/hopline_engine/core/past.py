"""What is stored of a run, put back into its live state."""

from typing import Final

from hopline_engine.core.binding import Value, items_of
from hopline_engine.core.failures import failed_step, failure_from_json
from hopline_engine.core.live import LiveMap, LiveRun, Past, RunScope
from hopline_engine.core.model import (
    WHOLE,
    StepEnded,
    StepState,
)
from hopline_engine.core.plan import Node
from hopline_engine.core.states import FINAL_STEP_STATES

_PASSED: Final = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
"""Ends of steps after which those that wait for them are looked at."""


def apply_past(run: LiveRun, past: Past) -> None:
    """Put the ended steps of a run into its live state."""
    past.steps.sort(key=lambda row: (row.ended_at, row.node))  # the first failure is the one that is told
    for row in past.steps:
        if row.item == WHOLE:
            live = run.nodes[row.node]
            live.state = StepState(row.state)
            live.opened_at = row.started_at
            live.value = Value(row.result) if row.result is not None else None
            if row.node >= 0:
                _note_end(run, row)
    _restore_maps(run, past)
    for node, live in zip(run.plan.nodes, run.nodes, strict=False):
        counted = FINAL_STEP_STATES if node.arms else _PASSED
        done = sum(run.nodes[upstream].state in counted for upstream in node.upstream)
        live.waits = node.waits - done - _is_streaming(run, node)
    if run.plan.turn is not None and run.nodes[run.plan.turn.index].state is StepState.PENDING:
        run.kept = [row for row in past.steps if row.item != WHOLE]


def _note_end(run: LiveRun, row: StepEnded) -> None:
    run.note_end(row.node)
    if row.state == StepState.FAILED:
        _note_failure(run, row)


def _note_failure(run: LiveRun, row: StepEnded) -> None:
    node = run.plan.nodes[row.node]
    step = failed_step(row.error) or node.id
    run.note_failure(node, step, failure_from_json(row.error))


def _is_streaming(run: LiveRun, node: Node) -> bool:
    """Return whether the map that a step follows element by element was opened, or skipped."""
    if node.stream_from is None:
        return False
    followed = run.nodes[node.stream_from]
    return followed.map is not None or followed.state is StepState.SKIPPED


def _restore_maps(run: LiveRun, past: Past) -> None:
    """Give maps that ended the results of their elements: for the steps after them, and the maps that follow them."""
    elements: dict[int, list[StepEnded]] = {}
    for row in past.steps:
        if row.item != WHOLE:
            elements.setdefault(row.node, []).append(row)
    for node, live in zip(run.plan.nodes, run.nodes, strict=False):
        rows = elements.get(node.index, [])
        if node.over is None:
            continue
        if live.state is StepState.SUCCEEDED and node.over is not None:
            size = len(rows)
        elif live.state in FINAL_STEP_STATES and rows:  # a map that follows it may still have open elements
            size = _size_of_pipeline(run, node)
        else:
            continue
        live.map = restored = LiveMap(size, None, [None] * size, node.settled)
        for row in rows:
            restored.take_up(row)


def _size_of_pipeline(run: LiveRun, node: Node) -> int:
    """Return how many elements a map has that was opened; maps that follow each other have equally many."""
    while node.stream_from is not None:
        node = run.plan.nodes[node.stream_from]
    assert node.items is not None
    return len(items_of(node.items, RunScope(run, None)))
