"""What is put together from many results and is too large to be stored fails, and does not stay for ever."""

from hopline_engine.core import advance, records
from hopline_engine.core.decision import Decision, Limits
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import RunId, RunState
from hopline_engine.core.plan import Plan
from tests.core.rows import Numbers
from tests.core.worlds import plan, ref, step

LIMITS = Limits(composed_bytes=100)
LONG = b'"' + b"x" * 60 + b'"'


def run_of(made: Plan) -> tuple[LiveRun, Decision]:
    """Return a run whose steps all answered, and the decision in which they did."""
    decision = Decision(0.0, lambda: 0.0, Numbers(), LIMITS)
    run = LiveRun.fresh(RunId(1), made, b"{}", 0.0, None)
    records.record_run(run, decision)
    advance.begin(run, decision)
    for task in decision.opened:  # grows while steps answer
        advance.lease(task, decision, 1)
        advance.succeed(task, LONG, decision)
    return run, decision


def test_run_whose_result_is_too_large_to_be_stored_fails() -> None:
    run, decision = run_of(plan([step("each", {"x": [1, 2]}, over="x")], ref("each")))
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert "at most 100 are stored" in run.failure[1].message
    assert decision.rows.runs_ended[0].result is None


def test_sub_run_whose_input_is_too_large_to_be_stored_fails_its_step() -> None:
    child = plan([step("leaf")], name="child")
    nodes = [step("each", {"x": [1, 2]}, over="x"), step("sub", {"all": ref("each")}, workflow=("child", "child"))]
    run, decision = run_of(plan(nodes, children={"child": child}))
    assert (run.state, run.failure and run.failure[0]) == (RunState.FAILED, "sub")
    assert len(decision.rows.runs_added) == 1
