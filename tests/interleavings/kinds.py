"""The engine's transactions, as a node carries each of them out; and some that are not guarded, to be found out."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from hopline_engine.core.changes import Changes, QueueMoved
from hopline_engine.core.model import (
    AttemptState,
    Digest,
    EventAdded,
    RunId,
    RunMoved,
    RunParked,
    RunState,
    RunWoken,
    StepState,
    TaskId,
    TaskRemoved,
    TaskState,
    WaitAdded,
)
from hopline_engine.core.shards import SHARDS
from hopline_engine.core.ticks import DecidedTick, TickState, Verdict
from hopline_engine.store import definitions, keys, nodes, queues, recovery, schedules, shares, tasks
from hopline_engine.store.definitions import StoredDefinition
from hopline_engine.store.dialect import now
from hopline_engine.store.queues import QueueLimits
from hopline_engine.store.schedules import Advanced, StoredSchedule
from hopline_engine.store.shares import Ask
from hopline_engine.store.tables import node, queue, run, schedule, shard, step_run, task
from tests.interleavings.world import (
    QUEUE,
    RUN,
    RUN_OF_SILENT,
    SCHEDULE,
    SHARDS_OF,
    SILENCE,
    SILENT,
    SLOTS,
    TICK,
    Member,
)
from tests.store import rows

LONG: Final = 1e9
"""Seconds of silence of which nobody dies."""


class Kind(NamedTuple):
    """A kind of transaction."""

    name: str
    act: Callable[[Member], Awaitable[Any]]
    """Carries it out and returns what the node learned."""
    lazy: tuple[Callable[[Member], Awaitable[Any]], ...] = ()
    """What it may do instead without harm: what it leaves to the next heartbeat."""


def _own_run(member: Member) -> int:
    """Return a new run of a shard of the node."""
    return 10 * SHARDS + SHARDS_OF[member.owner.node][0]


def _run_at_hand(member: Member) -> int:
    """Return the run that a node works on, rightly or by mistake."""
    return RUN_OF_SILENT if member.owner.node == SILENT else RUN


def _kind_of_changes(name: str, changes: Callable[[Member], tuple[Changes, ...]]) -> Kind:
    return Kind(name, lambda member: member.commit(*changes(member)))


def _starts(member: Member) -> tuple[Changes, ...]:
    return (rows.started(_own_run(member)),)


def _starts_with_key(member: Member) -> tuple[Changes, ...]:
    return (rows.started(_own_run(member), idempotency_key="the same"),)


def _leases(member: Member) -> tuple[Changes, ...]:
    task = _run_at_hand(member)
    return (Changes(tasks_moved=[rows.task_moved(task, attempt=2, epoch=member.owner.epoch)]),)


def _retries(member: Member) -> tuple[Changes, ...]:
    number = _run_at_hand(member)
    ended = rows.attempt_ended(number, state=AttemptState.FAILED.value)
    moved = rows.task_moved(number, state=int(TaskState.SCHEDULED))
    return (Changes(attempts_ended=[ended], tasks_moved=[moved]),)


def _succeeds(member: Member) -> tuple[Changes, ...]:
    number = _run_at_hand(member)
    return (
        Changes(
            steps_ended=[rows.step_ended(number)],
            attempts_ended=[rows.attempt_ended(number)],
            tasks_removed=[TaskRemoved(TaskId(number))],
            runs_ended=[rows.run_ended(number)],
        ),
    )


def _cancels(member: Member) -> tuple[Changes, ...]:
    number = _run_at_hand(member)
    return (
        Changes(
            steps_ended=[rows.step_ended(number, state=StepState.CANCELLED.value, result=None)],
            attempts_ended=[rows.attempt_ended(number, state=AttemptState.CANCELLED.value)],
            tasks_removed=[TaskRemoved(TaskId(number))],
            runs_ended=[rows.run_ended(number, RunState.CANCELLED)],
        ),
    )


def _is_partly_refused(member: Member) -> tuple[Changes, ...]:
    return (*_starts_with_key(member), Changes(runs_ended=[rows.run_ended(7)]), *_retries(member))


def _takes_token(member: Member) -> tuple[Changes, ...]:
    return (Changes(queues_moved=[QueueMoved("running", 5.0 + member.owner.epoch, rows.NOW, QUEUE)]),)


def _pauses_a_run(member: Member) -> tuple[Changes, ...]:
    return (Changes(runs_moved=[RunMoved(rows.NOW, None, RunId(_run_at_hand(member)))]),)


def _undoes(member: Member) -> tuple[Changes, ...]:
    """End the step of a run and begin to undo it."""
    number = _run_at_hand(member)
    undo = rows.task_added(number, node=-1, id=TaskId(number + 10 * SHARDS))
    return (
        Changes(
            steps_ended=[rows.step_ended(number)],
            attempts_ended=[rows.attempt_ended(number)],
            tasks_added=[undo],
            tasks_removed=[TaskRemoved(TaskId(number))],
            runs_moved=[RunMoved(None, RunState.FAILED.value, RunId(number))],
        ),
    )


def _parks(member: Member) -> tuple[Changes, ...]:
    return (Changes(runs_parked=[RunParked(RunId(_run_at_hand(member)), rows.NOW + 60)]),)


def _wakes(member: Member) -> tuple[Changes, ...]:
    parked, woken = _parks(member)[0], Changes(runs_woken=[RunWoken(RunId(_run_at_hand(member)))])
    return (parked, woken)


def _waits(member: Member) -> tuple[Changes, ...]:
    """Open a step that waits for an event."""
    number = _run_at_hand(member)
    task = rows.task_added(number, node=1, id=TaskId(number + 20 * SHARDS), state=int(TaskState.PARKED))
    return (Changes(tasks_added=[task], waits_added=[WaitAdded(task.id, RunId(number), "paid", "7")]),)


def _emits(member: Member) -> tuple[Changes, ...]:
    """Keep an event, and start the run that it starts."""
    event = EventAdded("paid", "7", rows.NOW, b"%d" % member.owner.epoch)
    started = rows.started(_own_run(member), idempotency_key="paid:7")
    started.events_added.append(event)
    return (started,)


async def _registers(member: Member) -> Any:
    version = StoredDefinition(
        digest=Digest(member.owner.node * 64), name=rows.DEFINITION.name, body=rows.DEFINITION.body
    )
    registering = partial(definitions.register, definitions=[version], current=[version.name], now=rows.NOW)
    return await member.call(registering)


async def _sets_limits(member: Member) -> Any:
    limits = [
        QueueLimits(name=QUEUE, max_concurrent_dispatches=member.owner.epoch),
        QueueLimits(name="new", max_concurrent_dispatches=member.owner.epoch),
    ]
    return await member.call(partial(queues.set_limits, limits=limits))


async def _pauses(member: Member) -> Any:
    limits = QueueLimits(name=QUEUE, max_concurrent_dispatches=SLOTS)
    return await member.call(partial(queues.pause, limits=limits, paused=member.owner.epoch > 1, is_stored=False))


async def _asks_for_slots(member: Member) -> Any:
    ask = Ask(QUEUE, keep=0, wanted=2, tokens=2, returned=0.0)
    granted = await member.call(partial(shares.settle, owner=member.owner, asks=[ask]))
    if isinstance(granted, str):
        return granted
    member.tokens = sum(grant.tokens for grant in granted)
    return "granted"  # how much depends on the time, so it is judged otherwise


async def _repairs(member: Member) -> Any:
    """Remove a task if nothing needs it, as the reconciler does."""
    return await member.call(partial(tasks.remove_closed, task_id=TaskId(_run_at_hand(member))))


async def _needs_the_key(member: Member) -> Any:
    """Read the key that all nodes sign with, or make it."""
    key = await member.call(keys.signing_key)
    if isinstance(key, str):
        return key
    member.key = key
    return "has one"


async def _decides_on_a_tick(member: Member, decides: bool = True) -> Any:
    """Read a schedule, and move it on if its tick is due, as the engine does in two transactions."""
    known = await member.call(partial(schedules.get, name=SCHEDULE))
    if isinstance(known, StoredSchedule) and known.next_tick == TICK and decides:
        ticks = [DecidedTick(TICK, TickState.DUE, None)]
        verdict = Verdict(ticks=ticks, next_tick=TICK + 3600, due_at=TICK + 3600)
        await member.call(partial(schedules.advance, decided=[Advanced(known, verdict, ())]))
    return "looked"  # whether another one has decided before, it is not told


async def _edits_a_schedule(member: Member) -> Any:
    """Change a schedule as it is known, and again if it is not so any more."""

    def edit(connection: Connection) -> bool:
        known = schedules.get(connection, SCHEDULE)
        return known is not None and schedules.change(connection, known, is_paused=True)

    while (edited := await member.call(edit)) is False:
        pass
    return edited


class Beaten(NamedTuple):
    """What a heartbeat did. The shards depend on who was there at which moment, so they are judged otherwise."""

    fenced: tuple[str, ...]


async def _beats(member: Member, silence: float = SILENCE, claims: bool = True) -> Any:
    heard = await member.call(partial(nodes.beat, owner=member.owner, silence=silence, claims=claims))
    if isinstance(heard, str):
        return heard
    name = member.owner.node
    held = next((each.shards for each in heard.nodes if each.id == name), ())
    member.claimed = [number for number in held if number not in SHARDS_OF[name]]
    return Beaten(tuple(heard.fenced))


async def _takes_over(member: Member, silence: float = SILENCE, claims: bool = True) -> Any:
    """Beat, read the runs of the shards that were claimed, and begin to work on them."""
    beaten = await _beats(member, silence, claims)
    if isinstance(beaten, str):
        return beaten
    found = await member.call(partial(recovery.live_runs, limit=10, shards=member.claimed)) if member.claimed else []
    open_tasks = [task for stored in found for task in stored.tasks]
    lost = [(stored.run.id, task.attempt) for stored in found for task in stored.tasks]
    changes = Changes(
        attempts_ended=[rows.attempt_ended(run, attempt=number, state=AttemptState.LOST.value) for run, number in lost],
        tasks_moved=[
            rows.task_moved(task.id, attempt=task.attempt + 1, epoch=member.owner.epoch) for task in open_tasks
        ],
    )
    found_ids = sorted(task.id for task in open_tasks)  # in which order Postgres has them is its affair
    return beaten, found_ids, await member.commit(changes) if open_tasks else ()


async def _leaves(member: Member) -> Any:
    return await member.call(partial(nodes.leave, owner=member.owner))


async def _gives_up(member: Member) -> Any:
    shards = list(SHARDS_OF[member.owner.node])[:5]
    return await member.call(partial(nodes.give_up, owner=member.owner, shards=shards))


async def _lets_join(member: Member) -> Any:
    """Let another process become a node."""
    name = f"new {member.owner.node}"
    owner = await member.unguarded(partial(nodes.join, node_id=name, url=f"http://{name}", alone=False))
    return owner if isinstance(owner, str) else "joined"


GROUPS: Final[dict[str, Callable[[Member], tuple[Changes, ...]]]] = {
    "starts a run": _starts,
    "starts a run with a key": _starts_with_key,
    "leases a task": _leases,
    "tries again": _retries,
    "ends a run": _succeeds,
    "cancels a run": _cancels,
    "commits a group of which one is refused": _is_partly_refused,
    "takes a token": _takes_token,
    "pauses a run": _pauses_a_run,
    "begins to undo": _undoes,
    "parks a run": _parks,
    "wakes a run": _wakes,
    "waits for an event": _waits,
    "emits an event": _emits,
}
"""What is decided in memory and committed."""

KINDS: Final = (
    *(_kind_of_changes(name, changes) for name, changes in GROUPS.items()),
    Kind("registers a version", _registers),
    Kind("sets limits", _sets_limits),
    Kind("pauses or resumes a queue", _pauses),
    Kind("asks for slots and tokens", _asks_for_slots),
    Kind("removes a task that nothing needs", _repairs),
    Kind("needs the key", _needs_the_key),
    Kind("decides on a tick", _decides_on_a_tick, (partial(_decides_on_a_tick, decides=False),)),
    Kind("edits a schedule", _edits_a_schedule),
    Kind("beats", _beats, (partial(_beats, silence=LONG),)),
    Kind("takes over", _takes_over, (partial(_takes_over, silence=LONG), partial(_takes_over, claims=False))),
    Kind("leaves", _leaves),
    Kind("gives up shards", _gives_up),
    Kind("lets a node join", _lets_join),
)
"""All that the engine does."""


# --- planted ---------------------------------------------------------------------------------------------------------


async def _ends_unguarded(member: Member) -> Any:
    """End a run without looking whether this is still a node."""
    number = _run_at_hand(member)

    def write(connection: Connection) -> str:
        connection.execute(insert(step_run), rows.step_ended(number)._asdict())
        connection.execute(delete(task).where(task.c.id == number))
        connection.execute(update(run).where(run.c.id == number).values(state="succeeded", ended_at=rows.NOW))
        return "written"

    return (await member.unguarded(write),)


async def _beats_and_fences_by_a_stale_look(member: Member) -> Any:
    """Fence the nodes that were silent a moment ago."""

    def beat(connection: Connection) -> list[str]:
        found = list(connection.execute(select(node.c.id).where(node.c.heartbeat_at < now() - SILENCE)).scalars())
        connection.execute(delete(node).where(node.c.id.in_(found)))
        return found

    return Beaten(tuple(await member.call(beat)))


async def _claims_by_a_stale_look(member: Member) -> Any:
    """Take shards that were nobody's a moment ago."""

    def claim(connection: Connection) -> list[int]:
        free = select(shard.c.id).where(shard.c.node.is_(None)).order_by(shard.c.id).limit(5)
        found = list(connection.execute(free).scalars())
        connection.execute(update(shard).where(shard.c.id.in_(found)).values(node=member.owner.node))
        return found

    member.claimed = await member.call(claim)
    return Beaten(())


async def _changes_limits_by_a_stale_look(member: Member) -> Any:
    """Add to a number that was read before."""

    def change(connection: Connection) -> None:
        where = queue.c.name == QUEUE
        found = connection.execute(select(queue.c.max_concurrent_dispatches).where(where)).scalar_one()
        connection.execute(update(queue).where(where).values(max_concurrent_dispatches=found + 1))

    return await member.call(change)


async def _edits_by_a_stale_look(member: Member) -> Any:
    """Change a schedule as it was a moment ago, whoever has changed it since."""

    def change(connection: Connection) -> None:
        known = schedules.get(connection, SCHEDULE)
        assert known is not None
        values = {"is_paused": True, "revision": known.revision + 1}
        connection.execute(update(schedule).where(schedule.c.name == SCHEDULE).values(**values))

    return await member.call(change)


async def _starts_by_a_stale_look(member: Member) -> Any:
    """Start a run if nobody has started one with its name, and keep no key."""

    def start(connection: Connection) -> str:
        if connection.execute(select(run.c.id).where(run.c.retry_of == 17)).first() is not None:
            return "there already"
        connection.execute(insert(run), rows.run_added(_own_run(member), retry_of=17)._asdict())
        return "written"

    return await member.call(start)


PLANTED: Final = {
    (Kind("ends a run unguarded", _ends_unguarded), "takes over"): (SILENT, "a"),
    (Kind("fences by a stale look", _beats_and_fences_by_a_stale_look), "beats"): ("a", SILENT),
    (Kind("claims by a stale look", _claims_by_a_stale_look), "claims by a stale look"): ("a", "b"),
    (Kind("changes limits by a stale look", _changes_limits_by_a_stale_look), "changes limits by a stale look"): (
        "a",
        "b",
    ),
    (Kind("edits by a stale look", _edits_by_a_stale_look), "edits by a stale look"): ("a", "b"),
    (Kind("starts by a stale look", _starts_by_a_stale_look), "starts by a stale look"): ("a", "b"),
}
"""What the engine must not do, and what shows it: the other transaction, and as whom both are carried out."""
