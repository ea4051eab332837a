"""Steps that are runs of other workflows, mapped or not, of any depth and number."""

import msgspec

from hopline_engine.core.model import RunState, StepState
from tests.core.small_worlds import CHILD, call, failing, identity, with_child
from tests.core.worlds import World, plan, ref, step


def test_sub_workflow_runs_as_a_run_of_its_own() -> None:
    w = with_child(CHILD, call(v=7), step("after", {"x": ref("sub")}), result=ref("after"))
    run = w.start()
    sub = w.sub_run("sub")
    row = w.rows.runs[sub.id]
    assert (row.parent_id, row.workflow, row.input) == (run.id, "child", b'{"v":7}')
    assert w.step_state(run, "sub") is StepState.RUNNING
    w.finish()
    assert w.state(sub) is RunState.SUCCEEDED
    assert w.result(run) == 7


def test_mapped_sub_workflows_nest_maps() -> None:
    inner = plan([step("m", {"x": ref("$input", "v")}, over="x")], ref("m"), name="child")
    w = with_child(inner, call(v=[[1, 2], [], [3]], over="v"), result=ref("sub"))
    run = w.start()
    w.finish()
    assert w.result(run) == [[1, 2], [], [3]]


def test_failed_sub_run_fails_its_step_and_says_where() -> None:
    w = with_child(CHILD, call(), step("after", after=["sub"]), execute=failing("second"))
    run = w.start()
    sub = w.sub_run("sub")
    w.finish()
    assert w.state(sub) is RunState.FAILED
    assert w.step_state(run, "sub") is StepState.FAILED
    assert w.step_state(run, "after") is StepState.UPSTREAM_FAILED
    error = w.error(run)
    assert error["step"] == "sub"
    assert error["message"] == f"step second of run {sub.public_id}: broken"


def test_failed_element_that_is_a_sub_run_fails_the_map() -> None:
    w = with_child(CHILD, call(v=[1, 2], over="v"), execute=failing("first"))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "sub") is StepState.FAILED


def test_sub_run_whose_input_cannot_be_bound_fails_its_step() -> None:
    w = with_child(CHILD, step("a", {"x": {}}), call(v=ref("a", "missing")))
    run = w.start()
    w.run_step("a")
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "sub") is StepState.FAILED
    assert len(w.rows.runs) == 1


def test_mapped_sub_run_whose_input_cannot_be_bound_fails_the_map() -> None:
    node = step("sub", {"v": [1, 2, 3], "w": ref("a", "missing")}, over="v", workflow=("child", "child"))
    w = with_child(CHILD, step("a", {"x": {}}), node)
    run = w.start()
    w.run_step("a")
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "sub[0]") is StepState.FAILED
    assert w.step_row(run, "sub[1]") is None


def test_cancelled_sub_run_fails_the_step_that_waits_for_it() -> None:
    w = with_child(CHILD, call(), step("other"))
    run = w.start()
    w.cancel(w.sub_run("sub"))
    assert w.step_state(run, "sub") is StepState.FAILED
    assert w.open_steps() == ["other"]
    w.finish()
    assert w.error(run)["type"] == "Cancelled"


def test_sub_workflow_without_steps_has_its_result_at_once() -> None:
    empty = plan([], ref("$input", "v"), name="child")
    w = with_child(empty, call(v=3), step("after", {"x": ref("sub")}), result=ref("after"))
    run = w.start()
    assert w.step_state(run, "sub") is StepState.SUCCEEDED
    w.finish()
    assert w.result(run) == 3


def test_thousands_of_sub_workflows_without_steps_end_in_one_decision() -> None:
    empty = plan([], ref("$input", "v"), name="child")
    w = with_child(empty, call(v=ref("$input", "all"), over="v"), result=ref("sub"))
    everything = list(range(5000))
    run = w.start(input_=msgspec.json.encode({"all": everything}))
    assert w.state(run) is RunState.SUCCEEDED
    assert w.result(run) == everything


def test_thousands_of_sub_workflows_without_steps_follow_a_map() -> None:
    empty = plan([], ref("$input", "v"), name="child")
    w = with_child(
        empty,
        call("first", ref("$input", "all"), over="v"),
        call("second", ref("first"), over="v"),
        result=ref("second"),
    )
    everything = list(range(2000))
    run = w.start(input_=msgspec.json.encode({"all": everything}))
    assert w.result(run) == everything


def test_sub_workflow_without_steps_and_with_a_bad_result_fails_its_step() -> None:
    bad = plan([], ref("$input", "missing"), name="child")
    w = with_child(bad, call(), step("after", after=["sub"]))
    run = w.start()
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "after") is StepState.UPSTREAM_FAILED


def test_long_chain_of_sub_workflows_without_steps_ends_in_one_decision() -> None:
    empty = plan([], 1, name="child")
    nodes = [call("s0000"), *(call(f"s{n:04}", ref(f"s{n - 1:04}")) for n in range(1, 2000))]
    w = with_child(empty, *nodes)
    run = w.start()
    assert w.state(run) is RunState.SUCCEEDED


def test_sub_runs_of_sub_runs_end_their_parents() -> None:
    leaf = plan([step("leaf", {"x": ref("$input", "v")})], ref("leaf"), name="leaf_flow")
    middle = plan(
        [step("inner", {"v": ref("$input", "v")}, workflow=("leaf_flow", "leaf_flow"))],
        ref("inner"),
        {"leaf_flow": leaf},
        "child",
    )
    top = plan([call(v=9)], ref("sub"), {"child": middle})
    w = World({"w": top, "child": middle, "leaf_flow": leaf}, identity)
    run = w.start()
    assert len(w.live) == 3
    w.run_step("leaf")
    assert w.result(run) == 9
    assert w.live == {}
