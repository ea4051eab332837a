"""Any workflow with branches, recoveries and races ends as its steps decide, whatever the order and whatever breaks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hopline_engine.core import closing
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import WHOLE, RunState, StepState
from hopline_engine.core.states import STEP
from tests.core.choice_flows import LOST, SHOWN, choice_flows, evaluate
from tests.core.drawn_worlds import FAULTS, SEEDS, world_of
from tests.core.flows import MAIN, Flow
from tests.core.worlds import World

TURNS = st.integers(0, 40)

many = settings(max_examples=100)


def assert_ended_as_it_must(world: World, run: LiveRun, flow: Flow) -> None:
    rows = world.rows.steps[run.id]
    shown = {node.id: StepState(rows[node.index, WHOLE].state) for node in run.plan.nodes}
    expected = evaluate(flow, shown)
    wrong = {
        name: (state, shown[name])
        for name, state in expected.states.items()
        if state != LOST and shown[name] not in SHOWN[state]
    }
    assert wrong == {}
    assert (world.state(run) is RunState.SUCCEEDED) == expected.succeeds
    if expected.succeeds:
        names = [each["$ref"] for each in flow.definitions[MAIN]["result"]["all"]]
        assert world.result(run) == {"all": [expected.values[name] for name in names]}


@many
@given(choice_flows(), SEEDS)
def test_every_choice_is_made_as_the_definition_says(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    world.finish()
    assert_ended_as_it_must(world, run, flow)


@many
@given(choice_flows(), SEEDS)
def test_faults_change_no_choice(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed)
    world.haste = 0.0  # or changes of state would be seen two at a time
    run = world.start(MAIN)
    world.finish(FAULTS)
    assert_ended_as_it_must(world, run, flow)
    assert {(before, after) for before, after in world.transitions if after not in STEP[before]} == set()


@settings(max_examples=30, deadline=None)
@given(choice_flows(), SEEDS)
def test_crash_after_any_commit_changes_no_choice(flow: Flow, seed: int) -> None:
    before = 0
    while True:
        world = world_of(flow, seed)
        run = world.start(MAIN)
        is_over = not all(world.turn() for _ in range(before))
        world.crash()
        world.finish()
        assert_ended_as_it_must(world, run, flow)
        if is_over:
            break
        before += 1


@many
@given(choice_flows(), SEEDS, TURNS)
def test_after_a_cancel_nothing_starts_but_the_last_step(flow: Flow, seed: int, turns: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    for _ in range(turns):
        world.turn(FAULTS)
    if world.state(run) is RunState.RUNNING and not closing.is_closing(world.live[run.id]):
        world.cancel(world.live[run.id])
        assert {task.node.closes for task in world.tasks()} <= {"finally"}
        sent = len(world.sent)
        world.finish(FAULTS)
        assert world.state(run) is RunState.CANCELLED
        assert {each.step for each in world.sent[sent:]} <= {"finally"}
        ran = [
            row.state for (node, _), row in world.rows.steps[run.id].items() if run.plan.nodes[node].closes == "finally"
        ]
        assert set(ran) <= {"succeeded", "failed"}
    world.finish(FAULTS)
    assert world.rows.tasks == {}


@many
@given(choice_flows(), SEEDS)
def test_cancel_of_a_run_that_closes_changes_nothing_about_its_end(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    while world.live and not closing.is_closing(world.live[run.id]):
        world.turn()
    if world.live:
        world.cancel(world.live[run.id])
        assert world.rows.tasks == {}
        failed = world.rows.ended[run.id].error is not None
        assert world.state(run) is (RunState.FAILED if failed else RunState.SUCCEEDED)


@many
@given(choice_flows(), SEEDS, TURNS)
def test_retry_keeps_choices_that_were_made_and_calls_only_what_is_missing(flow: Flow, seed: int, turns: int) -> None:
    world = world_of(flow, seed)
    first = world.start(MAIN)
    for _ in range(turns):
        world.turn(FAULTS)
    if world.state(first) is RunState.RUNNING:
        world.cancel(world.live[first.id])
    earlier = world.earlier(first.id)
    world.execute = flow.healed().execute
    second = world.start(MAIN, earlier=earlier)
    world.finish(FAULTS)
    assert world.state(second) is RunState.SUCCEEDED
    called = {(node, item) for run, node, item in world.rows.attempts if run == second.id}
    assert not called & {(row.node, row.item) for row in earlier.kept}
