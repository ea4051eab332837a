"""Steps that are skipped, and those that the engine decides itself, one sentence at a time."""

from typing import Any

import msgspec
import pytest

from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunState, StepState
from hopline_engine.core.plan import PlanError
from hopline_engine.core.retry import Failure
from tests.core.small_worlds import CHILD, call, failing, identity, with_child, world
from tests.core.worlds import Execute, Outcome, branch, choice, guard, guarded, op, plan, ref, step


def answering(**results: Any) -> Execute:
    """Return an executor under which these steps give these results, and all others null."""

    def execute(task: LiveTask, arguments: dict[str, Any]) -> Outcome:
        return msgspec.json.encode(results.get(task.node.id))

    return execute


YES, NO = guard(ref("ask")), guard(ref("ask"), expected=False)
CHOICE = (
    step("ask"),
    guarded(step("then", {"x": 1}), YES),
    guarded(step("otherwise", {"x": 2}), NO),
    branch("branch", ([YES], ref("then")), ([NO], ref("otherwise"))),
    step("after", {"x": ref("branch")}),
)


@pytest.mark.parametrize(("answer", "ran", "skipped"), [(True, "then", "otherwise"), (False, "otherwise", "then")])
def test_branch_runs_one_arm_and_skips_the_other(answer: bool, ran: str, skipped: str) -> None:
    w = world(*CHOICE, result=ref("branch"), execute=answering(ask=answer, then="t", otherwise="o"))
    run = w.start()
    w.run_step("ask")
    assert w.open_steps() == [ran]
    assert w.step_state(run, skipped) is StepState.SKIPPED
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    assert w.result(run) == ran[0]
    row = w.step_row(run, skipped)
    assert row is not None
    assert (row.attempts, row.started_at) == (0, None)
    assert msgspec.json.decode(row.error or b"")["message"] == f"ask is {'false' if skipped == 'then' else 'true'}"


def test_branch_without_an_arm_that_fits_is_null() -> None:
    w = world(step("ask"), guarded(step("then"), YES), branch("branch", ([YES], ref("then"))), result=ref("branch"))
    w.execute = answering(ask=None)
    run = w.start()
    w.finish()
    assert (w.state(run), w.result(run)) == (RunState.SUCCEEDED, None)


def test_all_that_needs_a_skipped_step_is_skipped_also_maps_and_what_follows_them() -> None:
    child = call("sub", v=ref("a"))
    w = with_child(
        CHILD,
        step("ask"),
        guarded(step("a"), YES),
        step("map", {"x": ref("a", "list")}, over="x"),
        step("stream", {"x": ref("map")}, over="x"),
        step("last", after=["stream"]),
        child,
        execute=answering(ask=False),
    )
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    for name in ("a", "map", "stream", "last", "sub"):
        assert w.step_state(run, name) is StepState.SKIPPED
    row = w.step_row(run, "stream")
    assert row is not None
    assert msgspec.json.decode(row.error or b"")["message"] == "map was skipped"


def test_guarded_map_opens_its_elements_where_its_guard_passes() -> None:
    nodes = (
        step("ask"),
        step("list"),
        guarded(step("map", {"x": ref("list")}, over="x"), YES),
        guarded(step("stream", {"x": ref("map")}, over="x"), YES),
        branch("branch", ([YES], ref("stream"))),
    )
    w = world(*nodes, result=ref("branch"))
    w.execute = answering(ask=True, list=[1, 2], map=5, stream=6)
    run = w.start()
    w.finish()
    assert w.result(run) == [6, 6]


def test_nothing_is_skipped_before_all_it_waits_for_has_ended() -> None:
    w = world(step("ask"), step("slow"), guarded(step("a", after=["slow"]), YES), execute=answering(ask=False))
    run = w.start()
    w.run_step("ask")
    assert w.step_state(run, "a") is StepState.PENDING
    w.run_step("slow")
    assert w.step_state(run, "a") is StepState.SKIPPED


def test_failed_upstream_goes_before_a_guard() -> None:
    w = world(step("ask"), step("bad"), guarded(step("a", after=["bad"]), YES), execute=failing("bad"))
    run = w.start()
    w.run_step("bad")
    assert w.step_state(run, "a") is StepState.UPSTREAM_FAILED
    w.finish()
    assert w.state(run) is RunState.FAILED


def test_branch_fails_with_the_arm_that_was_chosen_and_not_with_the_other() -> None:
    w = world(*CHOICE, execute=failing("ask"))
    run = w.start()
    w.finish()
    assert w.step_state(run, "branch") is StepState.UPSTREAM_FAILED
    assert w.step_state(run, "after") is StepState.UPSTREAM_FAILED
    assert w.error(run)["step"] == "ask"


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (op(">", ref("$input", "n"), 5), "n > 5 is false"),
        (
            op("all_of", op("<", ref("$input", "n"), 9), op("==", ref("$input", "s"), "b")),
            'all_of(n < 9, s == "b") is false',
        ),
        (op("not_", op("==", ref("$input", "s"), "a")), 'not_(s == "a") is false'),
        (op("any_of", op("!=", ref("$input", "s"), "a"), op(">=", ref("$input", "n"), 4)), None),
        (op("<=", ref("$input", "s"), "b"), None),
        (op("==", ref("$input", "n"), "4"), 'n == "4" is false'),
        (op("==", ref("$input"), {"n": 4, "s": "a", "t": True, "f": False}), None),
        (op("==", {"$text": ["x", ref("$input", "s")]}, "xa"), None),
        (ref("$input", "t"), None),
    ],
)
def test_conditions_compare_as_python_does(condition: Any, reason: str | None) -> None:
    w = world(guarded(step("a"), guard(condition)))
    run = w.start(input_=b'{"n":4,"s":"a","t":true,"f":false}')
    w.finish()
    row = w.step_row(run, "a")
    assert row is not None
    assert (msgspec.json.decode(row.error)["message"] if row.error else None) == reason


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (op(">", ref("$input", "s"), 5), 's > 5 compares "a" with 5'),
        (op(">", ref("$input", "none"), 5), "none > 5 compares null with 5"),
        (ref("$input", "s"), 's is a condition, but neither true nor false: "a"'),
        (op(">", ref("$input", "gone"), 5), "['gone']"),
    ],
)
def test_condition_that_cannot_be_told_fails_the_step(condition: Any, message: str) -> None:
    w = world(guarded(step("a"), guard(condition)))
    run = w.start(input_=b'{"s":"a","none":null}')
    assert w.state(run) is RunState.FAILED
    assert message in w.error(run)["message"]


@pytest.mark.parametrize(
    "condition", [5, {"$op": "=~", "args": [1, 2]}, op("==", 1), op("not_", True), op("all_of"), {"$literal": 1}]
)
def test_malformed_condition_is_refused(condition: Any) -> None:
    with pytest.raises(PlanError, match="condition"):
        plan([guarded(step("a"), guard(condition))])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([step("a") | {"arms": [{"value": 1}]}], "have arms"),
        ([choice("branch", "b", [])], "have arms"),
        ([step("a"), choice("branch", "b", [{"value": 1, "steps": ["a"]}])], "have steps"),
        ([guarded(step("a"), guard(ref("gone")))], "'gone', which does not exist"),
        ([branch("b", ([guard(ref("b"))], 1))], "cycle"),
    ],
)
def test_choice_that_means_nothing_is_refused(nodes: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(nodes)


def test_decision_outlives_a_crash_at_every_point() -> None:
    for crash_at in range(12):
        w = world(*CHOICE, result=ref("after"), execute=answering(ask=False, otherwise="o", after="end"))
        run = w.start()
        for turn in range(40):
            if turn == crash_at:
                w.crash()
            w.turn()
        assert (w.state(run), w.result(run)) == (RunState.SUCCEEDED, "end")


# --- recover ----------------------------------------------------------------------------------------------------------

FAILED, WENT_WELL = guard(ref("caught", "failed")), guard(ref("caught", "failed"), expected=False)


def recovering(*inside: dict[str, Any], on: list[dict[str, Any]] | None = None) -> tuple[dict[str, Any], ...]:
    names = [node["id"] for node in inside]
    return (
        *inside,
        choice("recover", "caught", [{"value": None, "steps": names}], on=on or []),
        guarded(step("instead", {"why": ref("caught", "failure")}), FAILED),
        branch("merged", ([WENT_WELL], ref(names[-1])), ([FAILED], ref("instead"))),
    )


def test_fallback_runs_when_the_primary_part_has_failed_and_the_run_goes_on() -> None:
    w = world(*recovering(step("bad", attempts=2)), result=ref("merged"), execute=failing("bad"))
    run = w.start()
    w.run_step("bad")
    assert w.step_state(run, "bad") is StepState.SCHEDULED
    w.run_step("bad")
    assert w.step_state(run, "bad") is StepState.FAILED
    assert w.open_steps() == ["instead"]
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    why = w.result(run)["why"]
    assert (why["step"], why["error"], why["type"], why["attempts"]) == ("bad", "broken", "ValueError", 2)
    assert why["run"] == run.public_id
    assert why["run_url"].endswith(f"/{run.public_id}")


def test_fallback_is_skipped_where_the_primary_part_succeeds() -> None:
    w = world(*recovering(step("good", {"x": 5})), result=ref("merged"))
    run = w.start()
    w.finish()
    assert (w.state(run), w.result(run)) == (RunState.SUCCEEDED, 5)
    assert w.step_state(run, "instead") is StepState.SKIPPED


def test_fallback_waits_until_everything_in_the_primary_part_has_ended() -> None:
    w = world(*recovering(step("bad"), step("slow"), step("behind", after=["bad"])), execute=failing("bad"))
    run = w.start()
    w.run_step("bad")
    assert w.step_state(run, "behind") is StepState.UPSTREAM_FAILED
    assert w.open_steps() == ["slow"]
    w.run_step("slow")
    assert w.open_steps() == ["instead"]


@pytest.mark.parametrize(
    ("on", "recovers"),
    [
        ([], True),
        ([{"error": "ValueError"}], True),
        ([{"error": "Exception"}], True),
        ([{"error": "KeyError"}], False),
        ([{"status": 402}], False),
        ([{"range": [400, 500]}, {"error": "ValueError"}], True),
    ],
)
@pytest.mark.parametrize("crashes", [False, True])
def test_only_named_failures_are_recovered_from(on: list[dict[str, Any]], recovers: bool, crashes: bool) -> None:
    w = world(*recovering(step("bad"), step("slow"), on=on), execute=failing("bad"))
    run = w.start()
    w.run_step("bad")
    if crashes:
        w.crash()
    w.finish()
    assert w.state(run) is (RunState.SUCCEEDED if recovers else RunState.FAILED)
    if not recovers:
        error = w.error(run)
        assert (error["step"], error["type"], error["message"]) == ("bad", "ValueError", "broken")
        assert w.step_state(run, "caught") is StepState.FAILED
        assert w.step_state(run, "instead") is StepState.UPSTREAM_FAILED


def test_statuses_are_matched() -> None:
    w = world(*recovering(step("bad"), on=[{"status": 402}]))
    w.execute = lambda task, _: Failure("HTTPError", "no", (), 402) if task.name == "bad" else b"1"
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED


def test_failure_in_the_fallback_fails_the_run() -> None:
    w = world(*recovering(step("bad")), execute=failing("bad", "instead"))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.error(run)["step"] == "instead"


def test_failure_outside_is_not_recovered_from() -> None:
    w = world(step("outside"), *recovering(step("inside", after=["outside"])), execute=failing("outside"))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.FAILED
    assert w.step_state(run, "caught") is StepState.UPSTREAM_FAILED
    assert w.step_state(run, "instead") is StepState.UPSTREAM_FAILED


def test_failure_of_a_sub_workflow_is_recovered_from() -> None:
    w = with_child(CHILD, *recovering(call("sub")), execute=failing("first"))
    run = w.start()
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED
    row = w.step_row(run, "caught")
    assert row is not None
    failure = msgspec.json.decode(row.result or b"")["failure"]
    assert failure["step"] == "sub"
    assert "broken" in failure["error"]


# --- first ------------------------------------------------------------------------------------------------------------


def racing(*arms: list[str], **more: Any) -> dict[str, Any]:
    return choice("first", "race", [{"value": ref(arm[-1]), "steps": arm} for arm in arms], **more)


def test_race_whose_arms_need_what_failed_is_blocked_also_when_a_step_in_it_was_skipped() -> None:
    no = guard(op("==", 1, 2))
    w = world(
        step("outside"),
        guarded(step("not_taken"), no),
        step("blocked", {"x": ref("outside")}),
        racing(["not_taken", "blocked"]),
        step("after", {"x": ref("race")}),
        execute=failing("outside"),
    )
    run = w.start()
    w.finish()
    assert w.step_state(run, "not_taken") is StepState.SKIPPED
    for name in ("blocked", "race", "after"):
        assert w.step_state(run, name) is StepState.UPSTREAM_FAILED
    assert w.state(run) is RunState.FAILED


def test_race_whose_arms_need_what_was_skipped_is_skipped_and_so_is_what_needs_it() -> None:
    w = world(
        guarded(step("not_taken"), guard(op("==", 1, 2))),
        step("one", {"x": ref("not_taken")}),
        step("other", {"x": ref("not_taken")}),
        racing(["one"], ["other"]),
        step("after", {"x": ref("race")}),
    )
    run = w.start()
    w.finish()
    assert {w.step_state(run, name) for name in ("one", "other", "race", "after")} == {StepState.SKIPPED}
    assert w.state(run) is RunState.SUCCEEDED


def test_first_arm_that_succeeds_wins_and_the_others_are_cancelled() -> None:
    w = with_child(
        CHILD,
        step("fast", {"x": 1}),
        call("sub"),
        step("mapped", {"x": [1, 2]}, over="x"),
        step("behind", after=["mapped"]),
        racing(["fast"], ["sub"], ["mapped", "behind"]),
        step("after", {"x": ref("race")}),
        result=ref("race"),
    )
    run = w.start()
    w.lease(w.task("mapped[0]"))
    w.run_step("fast")
    assert w.open_steps() == ["after"]
    for name in ("sub", "mapped", "behind"):
        assert w.step_state(run, name) is StepState.CANCELLED
    assert w.attempts(run, "mapped[0]") == ["cancelled"]
    w.finish()
    assert (w.state(run), w.result(run)) == (RunState.SUCCEEDED, 1)
    assert all(w.rows.ended[other].state == "cancelled" for other in w.rows.runs if other != run.id)


def test_arm_has_succeeded_when_all_of_its_steps_have() -> None:
    w = world(step("a"), step("effect"), step("b"), racing(["effect", "a"], ["b"]), execute=identity)
    run = w.start()
    w.run_step("a")
    assert w.open_steps() == ["b", "effect"]
    w.run_step("effect")
    assert w.state(run) is RunState.SUCCEEDED


def test_failed_arm_leaves_the_race_to_the_others() -> None:
    w = world(step("a"), step("b"), racing(["a"], ["b"]), result=ref("race"), execute=failing("a"))
    run = w.start()
    w.run_step("a")
    assert w.step_state(run, "race") is StepState.PENDING
    w.finish()
    assert w.state(run) is RunState.SUCCEEDED


@pytest.mark.parametrize("crashes", [False, True])
def test_race_that_all_arms_lose_fails(crashes: bool) -> None:
    w = world(step("a"), step("b"), racing(["a"], ["b"]), execute=failing("a", "b"))
    run = w.start()
    w.run_step("b")
    if crashes:
        w.crash()
    w.run_step("a")
    assert w.state(run) is RunState.FAILED
    assert (w.error(run)["step"], w.error(run)["message"]) == ("b", "all 2 failed, b before the others: broken")


def test_late_answer_of_a_loser_finds_nothing() -> None:
    w = world(step("a"), step("b"), racing(["a"], ["b"]), step("after", after=["race"]))
    run = w.start()
    loser = w.task("b")
    w.lease(loser)
    w.run_step("a")
    assert not loser.is_open
    assert run.unit(run.plan.by_id["b"], -1) is None
    w.crash()
    assert w.open_steps() == ["after"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([step("a"), choice("recover", "r", [{"steps": ["a"]}, {"steps": ["a"]}])], "2 arms, not 1"),
        ([choice("recover", "r", [{"value": 1}])], "have steps"),
        ([step("a"), racing(["a"]), choice("recover", "r", [{"steps": ["a"]}])], "step 'a' is inside of"),
        ([step("a"), racing(["a"]), step("b", after=["a"])], "'b' needs 'a', which is inside of 'race'"),
        ([step("a"), step("b", after=["a"]), racing(["a"], ["b"])], "'b' needs 'a', which is inside of 'race'"),
        ([racing(["gone"])], "'gone', which does not exist"),
        ([step("a"), choice("recover", "r", [{"steps": ["a"]}], on=[{"x": 1}])], "cannot name failures"),
    ],
)
def test_region_that_means_nothing_is_refused(nodes: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(nodes)
