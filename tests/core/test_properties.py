"""Any workflow, under any interleaving and any faults, ends as it must, and no invariant is ever broken.

``World`` checks the invariants after every commit; the tests here choose what happens and look at the end.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import WHOLE, RunId, RunState, StepState, TaskId, TaskState
from hopline_engine.core.names import parse_step_name
from hopline_engine.core.plan import Plan
from hopline_engine.core.reusing import Again, Earlier
from hopline_engine.core.states import STEP
from tests.core.drawn_worlds import FAULTS, SEEDS, world_of
from tests.core.flows import MAIN, Flow, evaluate, flows
from tests.core.worlds import Faults, Sent, World

TURNS = st.integers(0, 60)
HARM = Faults(crash=0.03, undo=0.03, lose=0.1, unlease=0.1, reject=0.05, expire=0.1)

many = settings(max_examples=80)


def succeeded_steps(world: World, run: LiveRun) -> set[str]:
    rows = world.rows.steps[run.id]
    return {node.id for node in run.plan.nodes if rows[node.index, WHOLE].state == StepState.SUCCEEDED}


def is_trace(world: World, sent: Sent) -> bool:
    """Return whether a request asked for the graph of a dynamic workflow, which then is a run."""
    node, _ = parse_step_name(sent.step)
    return world.plans[world.rows.runs[sent.run].workflow].by_id[node].kind == "dynamic"


def assert_ended_as_it_must(world: World, run: LiveRun, flow: Flow) -> None:
    expected, result = evaluate(flow)
    assert succeeded_steps(world, run) == expected
    if len(expected) == len(run.plan.nodes):
        assert world.state(run) is RunState.SUCCEEDED
        assert world.result(run) == result
    else:
        assert world.state(run) is RunState.FAILED


@many
@given(flows(), SEEDS)
def test_every_run_ends_as_its_steps_decide_whatever_the_order(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    world.finish()
    assert_ended_as_it_must(world, run, flow)


@many
@given(flows(), SEEDS)
def test_faults_change_nothing_about_how_a_run_ends(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    world.finish(FAULTS)
    assert_ended_as_it_must(world, run, flow)


@many
@given(flows(deadlines=True), SEEDS)
def test_every_run_ends_whatever_goes_wrong(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed, Limits(map_window=3, lost_limit=3, accepted_timeout=50.0))
    world.haste = 0.0  # or changes of state would be seen two at a time
    runs = [world.start(MAIN), world.start(MAIN)]
    world.finish(HARM)
    assert {world.state(run) for run in runs} <= {RunState.SUCCEEDED, RunState.FAILED}
    wrong = {(before, after) for before, after in world.transitions if after not in STEP[before]}
    assert wrong == set(), "changes of state that are not in the table"


@many
@given(flows(failures=False), SEEDS)
def test_without_faults_every_step_is_called_once(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    world.finish()
    assert world.state(run) is RunState.SUCCEEDED
    called = Counter((sent.run, sent.step) for sent in world.sent)
    assert set(called.values()) <= {1}
    attempts = [attempt for attempts in world.rows.attempts.values() for attempt in attempts]
    assert len(attempts) == len(world.sent)
    assert {attempt.state for attempt in attempts} <= {"succeeded"}
    completions = [row for rows in world.rows.steps.values() for row in rows.values() if row.attempts]
    sub_runs = len(world.rows.runs) - 1
    traced = sum(is_trace(world, sent) for sent in world.sent)
    assert len(completions) + traced == len(world.sent) + sub_runs


@many
@given(flows(), SEEDS)
def test_step_is_called_no_more_often_than_its_policy_and_the_losses_allow(flow: Flow, seed: int) -> None:
    world = world_of(flow, seed)
    world.start(MAIN)
    world.finish(FAULTS)
    for (run, node, _), attempts in world.rows.attempts.items():
        counted = [attempt for attempt in attempts if attempt.state != "lost"]
        assert len(counted) <= world.plans[world.rows.runs[run].workflow].nodes[node].retry.attempts
    lost = [attempt for attempts in world.rows.attempts.values() for attempt in attempts if attempt.state == "lost"]
    assert len(lost) <= world.losses


@many
@given(flows(), SEEDS, TURNS)
def test_after_a_cancel_nothing_starts_and_nothing_changes(flow: Flow, seed: int, turns: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    for _ in range(turns):
        world.turn(FAULTS)
    if world.state(run) is RunState.RUNNING:
        world.cancel(world.live[run.id])
    assert world.live == {}
    assert world.rows.tasks == {}
    assert set(world.rows.ended) == set(world.rows.runs), "sub-runs end with their run"
    sent = len(world.sent)
    world.crash()
    assert not world.turn()
    assert len(world.sent) == sent


@many
@given(flows(), SEEDS, TURNS)
def test_cancel_of_a_sub_run_fails_what_needs_it_and_lets_the_rest_end(flow: Flow, seed: int, turns: int) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    for _ in range(turns):
        world.turn(FAULTS)
    sub_runs = [live for live in world.live.values() if live.parent is not None]
    if sub_runs:
        world.cancel(world.random.choice(sub_runs))
        world.finish(FAULTS)
        assert world.state(run) is RunState.FAILED
        assert succeeded_steps(world, run) < {node.id for node in run.plan.nodes}


@many
@given(flows(settled=False), SEEDS, TURNS)  # what became of settled elements is kept, also their failures
def test_retry_of_an_ended_run_calls_only_what_had_not_succeeded(flow: Flow, seed: int, turns: int) -> None:
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
    assert_ended_as_it_must(world, second, flow.healed())
    assert_kept(world, second.id, earlier)


def assert_kept(world: World, run: RunId, earlier: Earlier) -> None:
    """Check that nothing was made again that was kept, neither in the run nor in the runs below it."""
    rows = world.rows.steps[run]
    kept = {(row.node, row.item): row for row in earlier.kept}
    called = {(node, item) for of, node, item in world.rows.attempts if of == run}
    assert not called & kept.keys()
    assert {place: rows[place].result for place in kept} == {place: row.result for place, row in kept.items()}
    for row in world.rows.runs.values():
        if row.parent_id != run or row.parent_node is None or row.parent_item is None:
            continue
        place = (row.parent_node, row.parent_item)
        if place in earlier.below:
            assert row.retry_of == earlier.below[place].run
            assert_kept(world, row.id, earlier.below[place])


@many
@given(flows(failures=False), SEEDS, st.data())
def test_fork_makes_a_step_and_what_depends_on_it_again_and_nothing_else(
    flow: Flow, seed: int, data: st.DataObject
) -> None:
    world = world_of(flow, seed)
    first = world.start(MAIN)
    world.finish()
    plan = world.plans[MAIN]
    chosen = data.draw(st.sampled_from(plan.nodes))
    again = Again.of_step(plan, chosen.index)
    earlier = world.earlier(first.id, again)
    sent = len(world.sent)
    second = world.start(MAIN, earlier=earlier)
    world.finish(FAULTS)
    assert_ended_as_it_must(world, second, flow)
    assert_kept(world, second.id, earlier)
    followers = {node.index for node in plan.nodes if chosen.index in _above(plan, node.index)}
    assert again.whole == followers
    made = {node for run, node, _ in world.rows.attempts if run == second.id}
    assert made <= followers
    assert len(world.sent) >= sent


def sent_tasks(world: World) -> set[TaskId]:
    return {task.id for task in world.tasks() if task.state in {TaskState.LEASED, TaskState.ACCEPTED}}


def _above(plan: Plan, index: int) -> set[int]:
    """Return a step and all that it depends on."""
    node = plan.nodes[index]
    before = {*node.upstream, *([node.stream_from] if node.stream_from is not None else [])}
    return {index}.union(*(_above(plan, upstream) for upstream in before))


@many
@given(flows(), SEEDS, TURNS)
def test_nothing_of_a_paused_run_starts_and_after_it_is_resumed_it_ends_as_it_must(
    flow: Flow, seed: int, turns: int
) -> None:
    world = world_of(flow, seed)
    run = world.start(MAIN)
    for _ in range(turns):
        world.turn(FAULTS)
    if world.state(run) is RunState.RUNNING:
        world.pause(world.live[run.id])
        out = sent_tasks(world)
        while world.turn(FAULTS):
            assert sent_tasks(world) <= out
        if world.state(run) is RunState.RUNNING:
            assert not sent_tasks(world)
            world.resume(world.live[run.id])
    world.finish(FAULTS)
    assert_ended_as_it_must(world, run, flow)
