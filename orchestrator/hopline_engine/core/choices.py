"""What becomes of steps that may be skipped, and of those that the engine decides itself: branch, recover, first.

Pure questions to the live state of a run; ``core.flow`` acts on the answers. They depend on how steps ended and on
their results alone, so a run that is taken up again from rows gets the same ones.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from hopline_engine.core.conditions import Guard
from hopline_engine.core.live import LiveRun, RunScope
from hopline_engine.core.model import StepState
from hopline_engine.core.plan import Arm, Node
from hopline_engine.core.retry import Failure

_WELL = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})


class Skipped(NamedTuple):
    """The step is skipped."""

    reason: str


class Blocked(NamedTuple):
    """The step cannot be decided, since something it needs did not succeed."""


class Failed(NamedTuple):
    """The step fails as a step inside of it did."""

    step: str
    failure: Failure


class Chosen(NamedTuple):
    """The step has its value."""

    value: bytes
    losers: tuple[int, ...] = ()
    """Steps that are not needed any more."""


def hindrance(run: LiveRun, node: Node) -> Skipped | Blocked | None:
    """Return what keeps a step from running, now that all it waits for has ended; ``None`` if nothing does.

    Raises:
        BindingError: a condition cannot be told.
    """
    found = _look(run, node.guards)
    if found is not None or node.arms:
        return found
    before = node.upstream if node.stream_from is None else (*node.upstream, node.stream_from)
    return next((_skipped(run, index) for index in before if run.nodes[index].state is StepState.SKIPPED), None)


def decide(run: LiveRun, node: Node, runs_url: str) -> Skipped | Blocked | Failed | Chosen:
    """Return what becomes of a step that the engine decides itself.

    Raises:
        BindingError: a condition cannot be told, or a value cannot be put together.
    """
    found = hindrance(run, node)
    if found is not None:
        return found
    match node.kind:
        case "branch":
            return _branch(run, node)
        case "recover":
            return _recover(run, node, runs_url)
    return _first(run, node)


def is_won(run: LiveRun, node: Node) -> bool:
    """Return whether a race has a winner. Looks at the steps of its arms."""
    return node.kind == "first" and _winner(run, node) is not None


def _branch(run: LiveRun, node: Node) -> Skipped | Blocked | Chosen:
    for arm in node.arms:
        found = _look(run, arm.guards)
        if isinstance(found, Blocked):
            return found
        if found is None:
            return Chosen(arm.value.render(RunScope(run, None))) if _are_well(run, arm.needs) else Blocked()
    return Chosen(b"null")


def _recover(run: LiveRun, node: Node, runs_url: str) -> Blocked | Failed | Chosen:
    problem = run.nodes[node.index].problem
    if problem is None:
        is_well = _are_well(run, node.arms[0].steps)
        return Chosen(b'{"failed":false,"failure":null}') if is_well else Blocked()
    step, failure = problem
    if any(node.on) and not node.on.has(failure):
        return Failed(step, failure)
    return Chosen(msgspec.json.encode({"failed": True, "failure": run.told(step, failure, runs_url)}))


def _first(run: LiveRun, node: Node) -> Skipped | Blocked | Failed | Chosen:
    winner = _winner(run, node)
    if winner is not None:
        losers = (index for arm in node.arms if arm is not winner for index in arm.inside)
        return Chosen(winner.value.render(RunScope(run, None)), tuple(losers))
    problem = run.nodes[node.index].problem
    if problem is not None:
        step, failure = problem
        message = f"all {len(node.arms)} failed, {step} before the others: {failure.message}"
        return Failed(step, failure._replace(message=message))
    if not _are_well(run, node.upstream):
        return Blocked()
    return next((_skipped(run, index) for index in node.upstream), Blocked())  # no arm has run, or one would have won


def _winner(run: LiveRun, node: Node) -> Arm | None:
    for arm in node.arms:
        has_run = any(run.nodes[index].state is StepState.SUCCEEDED for index in arm.steps)
        if has_run and _are_well(run, arm.needs):
            return arm
    return None


def _look(run: LiveRun, guards: Iterable[Guard]) -> Skipped | Blocked | None:
    """Return what the first guard that does not pass makes of a step.

    In order: what stands behind one that does not pass may need steps which were skipped because of it.
    """
    scope = RunScope(run, None)
    for guard in guards:
        for index in (run.plan.by_id[name].index for name in guard.condition.sources() if name in run.plan.by_id):
            if run.nodes[index].state is StepState.SKIPPED:
                return _skipped(run, index)
            if run.nodes[index].state is not StepState.SUCCEEDED:
                return Blocked()
        if not guard.passes(scope):
            return Skipped(guard.words())
    return None


def _skipped(run: LiveRun, index: int) -> Skipped:
    return Skipped(f"{run.plan.nodes[index].id} was skipped")


def _are_well(run: LiveRun, nodes: Iterable[int]) -> bool:
    return all(run.nodes[index].state in _WELL for index in nodes)
