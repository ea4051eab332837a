"""What is checked while a simulation runs."""

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import unquote

from hopline_engine.core import closing
from hopline_engine.core.live import LiveMap, LiveRun, LiveTask
from hopline_engine.core.model import AttemptState, RunId, RunState
from hopline_engine.core.shards import SHARDS
from hopline_engine.core.states import FINAL_STEP_STATES
from hopline_engine.queue.admission import Hindrance
from hopline_engine.scheduler.comparing import STALLED_TASK
from tests.core import invariants
from tests.simulation import scarce
from tests.simulation.approvals import LATE_SECONDS
from tests.simulation.closings import is_cut_off
from tests.simulation.network import Answer, Request
from tests.simulation.node import SETTINGS
from tests.simulation.people import Key

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

HANDED_OVER_SECONDS = 4.0
"""Within this time an event ends the waits for it on every node."""
NOTICED_SECONDS = 1.0
"""Within this time something that may be sent is sent, whatever the I/O delays of a quiet node."""


def check_concurrency(world: "World", node: "Node", queue: str) -> None:
    """Check that a queue's limit leaves room for the request that is being sent (I9)."""
    limit = world.limits.get(queue)
    if limit is None:
        return
    alive = [each for each in world.nodes.values() if each.process.is_alive]
    if world.is_shared and not all(map(world.is_member, alive)):
        alive = [node]  # one that was taken for dead may go on for a moment
    in_flight = sum(each.in_flight[queue] for each in alive)
    if in_flight >= limit:
        world.violated(f"{node.name} sends request {in_flight + 1} of queue {queue}, which allows {limit}")


def problem_of_answer(world: "World", request: Request, answer: Answer) -> str | None:
    """Return what is wrong with an answer of the API, given what is durable now."""
    if answer.status == 500:
        return "that is never right"
    parts = request.path.removeprefix("/api/v1/").split("/")
    match (request.method, *parts):
        case ("POST", "runs") if answer.status < 300:
            return _problem_of_start(world, answer)
        case ("POST", "runs", run, order) if answer.status < 300:
            return _problem_of_order(world, run, order, request, answer)
        case ("POST", "events") if answer.status < 300:
            return _problem_of_event(world, answer)
        case ("POST", "approvals", run, step):
            return world.approvals.problem(run, unquote(step), request, answer)
        case ("POST", "callbacks", run, attempt, step):
            place = world.ledger.place(run, unquote(step))
            return _problem_of_callback(world, (place, int(attempt)), request, answer)
        case ("POST", "queues", name, "pause") if answer.status == 200 and not world.is_shared:
            if not world.is_pausing_certain:
                return None
            stored = world.audit.execute("SELECT state FROM queue WHERE name = ?", (name,)).fetchone()
            world.ledger.paused.add(name)
            return None if stored == ("paused",) else f"the store says {stored}"
    return None


def _problem_of_order(world: "World", run: str, order: str, request: Request, answer: Answer) -> str | None:
    match order:
        case "retry":
            return _problem_of_start(world, answer)
        case "fork":
            return world.forks.note(run, request, answer)
        case "cancel":
            return _problem_of_cancel(world, run)
        case "pause":
            return _problem_of_pause(world, run)
    return None


def _problem_of_start(world: "World", answer: Answer) -> str | None:
    run = world.ledger.run(str(answer.json()["id"]))
    return None if run is not None else "the run is not durable"


def _problem_of_cancel(world: "World", public: str) -> str | None:
    run = world.ledger.run(public)
    if run is None:
        return "there is no such run"
    end, ending = world.ledger.rows.ended.get(run.id), world.ledger.ending(run.id)
    if end is not None and end.state == ending == RunState.FAILED:
        return None  # it had failed, and what it still had to undo is called off
    if end is not None and end.state != RunState.CANCELLED and is_cut_off(world.ledger, run.id):
        return None  # it was closing
    if ending != RunState.CANCELLED and (end is None or end.state != RunState.CANCELLED):
        return f"the store says {end}, and that it will be {ending}"
    world.cancel_acknowledged.add(run.id)
    return None


def _problem_of_pause(world: "World", public: str) -> str | None:
    run = world.ledger.run(public)
    assert run is not None
    if run.id in world.ledger.rows.ended or run.id in world.resume_asked:
        return None
    world.ledger.paused_runs.add(run.id)
    return None if world.ledger.is_paused(run.id) else "the run is not paused in the store"


def _problem_of_event(world: "World", answer: Answer) -> str | None:
    event = answer.json()
    query = "SELECT 1 FROM event WHERE name = ? AND key = ?"
    is_there = world.audit.execute(query, (event["name"], event["key"])).fetchone() is not None
    world.events_there.add(event["key"])
    return None if is_there else "the event is not durable"


def _problem_of_callback(world: "World", key: Key, request: Request, answer: Answer) -> str | None:
    """Check what a target is told of its report; see the answers in the design of correctness, §2.2."""
    place, attempt = key
    if request.body.startswith(b'{"heartbeat"'):
        world.heartbeats.note(place, attempt, answer)
        return None
    attempts = world.ledger.rows.attempts.get(place, [])
    ended = next((row for row in attempts if row.attempt == attempt), None)
    is_stored = ended is not None and ended.state in {AttemptState.SUCCEEDED, AttemptState.FAILED}
    match answer.status:
        case 200 if not is_stored:
            return f"the store says {ended}"
        case 200 if answer.json()["outcome"] == "applied":
            world.applied[key] = world.applied.get(key, 0) + 1
            return "it was applied before" if world.applied[key] > 1 else None
        case 409 if ended is None and not _is_superseded(world, key):
            return "no attempt follows it and it has not ended"
        case 410 if place[0] not in world.ledger.rows.ended:
            return "its run has not ended"
        case 200 | 401 | 409 | 410 | 503:
            return None
    return f"{answer.status} is not among the answers"


def _is_superseded(world: "World", key: Key) -> bool:
    """Return whether an attempt has one after it; or will have, by what some node has just decided."""
    place, attempt = key
    is_said = all(node.is_quiet for node in world.nodes.values())
    return not is_said or any(of == place and number > attempt for of, number in world.ledger.leases)


def check_memory(world: "World") -> None:
    """Check that what nodes hold in memory is what the rows say, when all that they decided is durable."""
    nodes = list(world.nodes.values())
    # Where they hold more than there are, one was taken for dead and does not know it yet.
    if not all(_is_settled(node) for node in nodes) or sum(_shards_held(node) for node in nodes) != SHARDS:
        return
    live: dict[RunId, LiveRun] = {}
    for node in nodes:
        assert node.engine is not None
        live |= node.engine.coordinator.runs
    by_name = {plan.name: plan for plan in world.ledger.plans.values()}
    try:
        invariants.check(world.ledger.rows, live, by_name)
    except AssertionError as error:
        world.violated(f"memory is not as the rows are: {error} {_differing_tasks(world, live)}")
    scarce.check_keys(world, live.values())
    for run in live.values():
        _check_windows(world, run)
    for node in nodes:
        _check_places(world, node)
        scarce.check_holders(world, node)


def _check_windows(world: "World", run: LiveRun) -> None:
    """Check that as many elements of each map are open as may be (I14)."""
    if run.ending is not None:
        return
    for node, live in zip(run.plan.nodes, run.nodes, strict=True):
        opened = live.map
        if not isinstance(opened, LiveMap) or live.state in FINAL_STEP_STATES:
            continue
        if opened.items is None or opened.failure is not None:
            continue
        window = min(node.max_parallel or SETTINGS.map_window, SETTINGS.map_window)
        left = [item for item in range(opened.size) if not opened.is_taken(item)]
        if left and len(opened.units) < window:
            world.violated(f"{run.public_id}/{node.id} has {len(opened.units)} open elements, and {left} wait")


def _differing_tasks(world: "World", live: dict[RunId, LiveRun]) -> list[object]:
    units = [unit for run in live.values() for unit in run.units()]
    tasks = [invariants.as_stored(unit) for unit in units if isinstance(unit, LiveTask)]
    return [
        (task, world.ledger.rows.tasks.get(task.id)) for task in tasks if world.ledger.rows.tasks.get(task.id) != task
    ]


def _is_settled(node: "Node") -> bool:
    if not node.is_quiet or node.engine is None or node.is_in_trouble:
        return False
    resumer, membership = node.engine.resumer, node.engine.membership
    if node.is_lost or membership._coming or membership._going:
        return False
    is_reading = resumer._reading is not None and not resumer._reading.done()
    return not (resumer.is_reading or is_reading or node.engine.coordinator.committing.held_back)


def _shards_held(node: "Node") -> int:
    assert node.engine is not None
    return len(node.engine.membership.held)


def check_tokens(world: "World", node: "Node") -> None:
    """Check that a node that starts has no more tokens than were left, and those that came since."""
    assert node.engine is not None
    for queue in node.engine.admission.queues.values():
        row = world.audit.execute("SELECT tokens, tokens_at FROM queue WHERE name = ?", (queue.name,)).fetchone()
        if queue.bucket is None or queue.is_shared or row is None or not row[1]:
            continue
        tokens, at = row
        there = min(queue.bucket.burst, tokens + max(0.0, queue.bucket.at - at) * queue.bucket.rate)
        if queue.bucket.tokens > there + 0.01:
            world.violated(
                f"queue {queue.name} starts with {queue.bucket.tokens:.2f} tokens, and there are {there:.2f}"
            )


def check_healed(world: "World") -> None:
    """Check that no node ever had to repair what it holds: there is no fault but one that makes that right (I14).

    A clock that is set forward makes times come that are waited for by the loop's own clock, for a minute at most.
    """
    are_clocks_set = bool(world.faults_drawn.clock_jumps or world.faults_drawn.skew)
    for node in world.nodes.values():
        healed = node.engine.reconciler.latest if node.engine is not None else ()
        if repairs := [each for each in healed if not (are_clocks_set and each.finding.audit is STALLED_TASK)]:
            world.violated(f"{node.name} had to repair {repairs}")


def _check_places(world: "World", node: "Node") -> None:
    """Check that places in queues and at workers are taken by requests that are out, and by nothing else (I9)."""
    assert node.engine is not None
    admission, coordinator = node.engine.admission, node.engine.coordinator
    reserved, sent = set(admission._reserved), set(coordinator.sending.under_way)
    if reserved != sent:
        world.violated(f"{node.name}: places are taken by {reserved}, requests are out for {sent}")
    if gone := {task for task in sent if task not in world.ledger.rows.tasks}:
        world.violated(f"{node.name}: requests are out for {gone}, whose steps have ended")
    taken = sum(queue.in_flight for queue in admission.queues.values())
    places = sum(queue is not None for queue, _ in admission._reserved.values())
    if taken != places:
        world.violated(f"{node.name}: queues count {taken} in flight, and {places} are")


async def check_waiting(world: "World") -> None:
    """Check that nothing waits that may be sent: no wake-up was missed (I12)."""
    first = _needlessly_waiting(world)
    if first:
        await asyncio.sleep(NOTICED_SECONDS + 10 * world.loop.disk.longest * bool(world.loop.disk.tail))
        still = _needlessly_waiting(world)
        if needless := sorted(first.keys() & still.keys()):
            world.violated(f"nothing hinders {[first[task] for task in needless]}, and they are not sent")


async def check_deadlines(world: "World") -> None:
    """Check that no run is at work long after its deadline, where clocks run as the loop's own."""
    if world.faults_drawn.clock_jumps or world.faults_drawn.skew:
        return
    if first := _over_deadline(world):
        await asyncio.sleep(NOTICED_SECONDS)
        if late := first & _over_deadline(world):
            world.violated(f"runs {late} are over their deadlines, and go on")


def _over_deadline(world: "World") -> set[tuple[str, RunId]]:
    found: set[tuple[str, RunId]] = set()
    for node in filter(_is_settled, world.nodes.values()):
        assert node.engine is not None
        now = node.clock.now()
        runs = [run for run in node.engine.coordinator.runs.values() if not closing.is_ending(run)]
        found |= {(node.name, run.id) for run in runs if run.deadline_time is not None and run.deadline_time < now}
    return found


async def check_questions(world: "World") -> None:
    """Check that no question is open long after its time, where clocks run as the loop's own."""
    is_exact = not (world.faults_drawn.clock_jumps or world.faults_drawn.skew)
    if is_exact and all(map(_is_settled, world.nodes.values())) and (first := world.approvals.overdue()):
        await asyncio.sleep(LATE_SECONDS)
        is_settled = all(map(_is_settled, world.nodes.values()))
        if is_settled and (late := first & world.approvals.overdue()):
            world.violated(f"the time of the questions {late} is over, and they are open")


async def check_events(world: "World") -> None:
    """Check that no wait goes on whose event is there; only in peace is it known how soon it must end."""
    first = _overdue(world)
    if first and world.is_calm:
        await asyncio.sleep(HANDED_OVER_SECONDS)
        if needless := first & _overdue(world):
            world.violated(f"waits {needless} go on, and their events are there")


def _overdue(world: "World") -> set[int]:
    """Return the tasks that wait for an event that was acknowledged."""
    return {task for task, wait in world.ledger.rows.waits.items() if wait.key in world.events_there}


def _needlessly_waiting(world: "World") -> dict[tuple[str, int], str]:
    nodes = list(world.nodes.values())
    found = scarce.without_turn(world) if all(map(_is_settled, nodes)) else {}
    for node in nodes:
        if not _is_settled(node):
            continue
        assert node.engine is not None
        admission = node.engine.admission
        if not node.engine.coordinator.sending.is_on:
            continue
        found |= scarce.without_key(world, node)
        token_at = admission.next_token_at()
        for queue in admission.queues.values():
            for task in admission.waiting(queue):
                hindrance = admission.hindrance(task)
                is_late = hindrance is Hindrance.RATE and token_at is not None and token_at < node.clock.now() - 0.5
                if hindrance is None or is_late:
                    found[node.name, task.id] = f"task {task.id} of queue {queue.name} ({hindrance})"
    return found


def describe_open(world: "World") -> str:
    """Return what is open, for a message about being stuck."""
    rows = world.ledger.rows
    open_runs = [run.public_id for run in world.ledger.open_runs()]
    tasks = [f"{world.ledger.name((task.run_id, task.node, task.item))}: {task}" for task in rows.tasks.values()]
    return f"runs {open_runs}; tasks {tasks}"
