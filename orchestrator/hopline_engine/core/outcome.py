"""How a run ends in which everything has ended, and what that says of the step that it is the execution of."""

from hopline_engine.core.binding import BindingError
from hopline_engine.core.composing import check_type, composed
from hopline_engine.core.decision import Decision
from hopline_engine.core.failures import unbound
from hopline_engine.core.live import LiveRun, RunScope
from hopline_engine.core.model import RunState, StepState
from hopline_engine.core.retry import Failure


def outcome(run: LiveRun, decision: Decision) -> tuple[RunState, bytes | None]:
    """Return how a run ends, and its result if it succeeds, when everything in it has ended but for closing steps."""
    if run.ending is RunState.CANCELLED:
        return RunState.CANCELLED, None
    if run.failure is None:
        run.failure = _unheard_of(run)
    if run.failure is not None:
        return RunState.FAILED, None
    try:
        scope = RunScope(run, None)
        result = composed(run.plan.result, scope, decision)
        if run.plan.doubts.result is not None:
            check_type(run.plan, "result", scope.whole(result), decision)
    except BindingError as error:
        run.failure = ("result", unbound(error))
        return RunState.FAILED, None
    return RunState.SUCCEEDED, result


def _unheard_of(run: LiveRun) -> tuple[str, Failure] | None:
    """Return a step that did not end well although none failed whose failure counts; no compiler makes such a plan."""
    for node, live in zip(run.plan.nodes, run.nodes, strict=False):
        if live.state is StepState.SUCCEEDED or live.state is StepState.SKIPPED:
            continue
        if node.within is None and node.closes is None:
            return node.id, Failure("UpstreamFailed", "it needs a step that did not succeed")
    return None


def why_failed(run: LiveRun) -> Failure:
    """Return why a step failed whose run failed."""
    assert run.failure is not None
    step, failure = run.failure
    return failure._replace(message=f"step {step} of run {run.public_id}: {failure.message}")


def why_cancelled(run: LiveRun) -> Failure:
    """Return why a step failed whose run was cancelled."""
    return Failure("Cancelled", f"its run {run.public_id} was cancelled", ("Cancelled",), final=True)
