"""Events: kept when they are emitted, and handed to the steps that wait for them, whichever comes first.

What makes the order not matter: an event is durable before it is looked who waits for it, and a wait is durable before
it is looked whether its event is there. So one of the two always sees the other. Where there are several nodes, each
also looks from time to time for what the others took in, and at everything when it takes over runs.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from hopline_engine.clock import Clock
from hopline_engine.core.binding import BindingError
from hopline_engine.core.live import LiveRun, LiveTask, RunScope
from hopline_engine.core.model import EventAdded, RunId, TaskId, TaskState
from hopline_engine.core.plan import On, Plan
from hopline_engine.core.retry import Failure
from hopline_engine.core.strict_json import parse
from hopline_engine.core.waits import LONGEST_KEY
from hopline_engine.errors import EventNotFoundError, InvalidEventError, closest
from hopline_engine.queue.results import InvalidResultError, ResultType
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.scheduler.inputs import complete_input
from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store import events, runs
from hopline_engine.store.errors import ChangesRefusedError
from hopline_engine.store.events import Match
from hopline_engine.store.interface import Store

MATCHES_AT_A_TIME: Final = 500
ROUND_SECONDS: Final = 1.0
"""How often it is looked for events that other nodes took in."""

ROUNDS_ALONE: Final = 10
"""Of so many rounds one looks while no other node is known."""

OVERLAP_SECONDS: Final = 60.0
"""How far each look goes back: an event may be seen later than it was emitted."""

FORGET_SECONDS: Final = 600.0
FORGOTTEN_AT_A_TIME: Final = 1000
_TRIES: Final = 3
_OWN: Final = "hopline."
"""What the names of events begin with that only the engine emits."""


class Emitted(NamedTuple):
    """An event that was asked to be kept."""

    event: EventAdded
    """The one that is kept."""
    created: bool
    """Whether it is this one, and not an earlier one of the same name and key."""
    runs: list[str]
    """Public ids of the runs that it started."""


class Events:
    """Takes in events, starts runs by them, and ends waits."""

    def __init__(
        self,
        *,
        store: Store,
        coordinator: Coordinator,
        catalogue: Catalogue,
        clock: Clock,
        held: Callable[[], Collection[int]],
        has_company: Callable[[], bool],
        result_max_bytes: int,
        retention_seconds: float,
    ) -> None:
        """Make the events of an engine; nothing is looked for before ``run``.

        Args:
            store: that the engine has open.
            coordinator: of the runs.
            catalogue: which workflows wait for what, and are started by what.
            clock: of the engine.
            held: returns the shards that this node works on.
            has_company: returns whether there may be other nodes.
            result_max_bytes: the largest payload.
            retention_seconds: how long events are kept.
        """
        self._store = store
        self._coordinator = coordinator
        self._catalogue = catalogue
        self._clock = clock
        self._held = held
        self._has_company = has_company
        self._max_bytes = result_max_bytes
        self._retention = retention_seconds
        self._new: set[TaskId] = set()
        """Parked tasks of which it is to be looked whether their event is there."""
        self._taken: set[int] = set()
        """Shards that were taken over and not looked at."""
        self._wake = asyncio.Event()
        self._rounds = 0
        self._handed_since: float | None = None
        """Since when what other nodes took in is to be looked at; ``None`` for all of it."""
        self._forget_at = float("inf")
        self.wake: Callable[[RunId], Awaitable[None]] = _leave_asleep
        """Has a run in memory again that was parked."""
        coordinator.listeners.awaiting = self._note

    async def run(self, *, forgets: bool = True) -> None:
        """Look for what is to be handed over, and forget what is old unless everything is to be kept, for ever."""
        if forgets:
            self._forget_at = self._clock.now()
        longest = FORGET_SECONDS if forgets else None
        await go_round(
            self._look,
            wake=self._wake,
            rest_seconds=lambda: longest if self._store.owner.alone else ROUND_SECONDS,
            again_seconds=ROUND_SECONDS,
            trouble="events could not be handed over",
        )

    def take_up(self, shards: Collection[int]) -> None:
        """Look at shards that this node has taken over: their last node may not have handed over all events."""
        self._taken.update(shards)
        self._wake.set()

    async def emit(self, name: str, key: str, payload: bytes) -> Emitted:
        """Keep an event, start the runs that it starts, and end the waits for it.

        When this returns, the event and its runs are durable, and so are the ends of the waits on this node.

        Raises:
            EventNotFoundError: no workflow waits for such an event, or is started by one.
            InvalidEventError: the payload is not what they declare, or only the engine emits such an event.
        """
        if name.startswith(_OWN):
            raise InvalidEventError(event=name, problems=[f"the server emits it itself, as all that begin with {_OWN}"])
        return await self.emit_own(name, key, payload)

    async def emit_own(self, name: str, key: str, payload: bytes) -> Emitted:
        """Do as ``emit``, for the engine."""
        await self._check(name, payload)
        emitted = await self._kept(EventAdded(name, key, self._clock.now(), payload))
        await self._hand_over(of=(name, key))
        return emitted

    def starts_runs(self, name: str) -> bool:
        """Return whether an event starts runs of some workflow."""
        return any(plan.on is not None and plan.on.event == name for plan in self._catalogue.all_current())

    async def newest(self, name: str | None, limit: int) -> list[EventAdded]:
        """Return events, the newest first."""
        return await self._store.read(partial(events.newest, name=name, limit=limit))

    # --- taking in --------------------------------------------------------------------------------------------------

    async def _check(self, name: str, payload: bytes) -> None:
        declared = dict(self._declared(name))
        if not declared:
            await self._catalogue.catch_up()
            declared = dict(self._declared(name))
        if not declared and not await self._store.read(partial(events.is_awaited, name=name)):
            raise self._catalogue.missing(EventNotFoundError(event=name, did_you_mean=closest(name, self._names())))
        problems = []
        for who, schema in declared.items():
            try:
                ResultType(schema, self._max_bytes).read(payload)
            except InvalidResultError as error:
                problems.append(f"{who}: {error}")
        if problems:
            raise InvalidEventError(event=name, problems=problems)

    def _declared(self, name: str) -> Iterator[tuple[str, Any]]:
        """Yield who waits for an event, or is started by it, with the schema of the payload."""
        for plan in self._catalogue.all_current():
            if plan.on is not None and plan.on.event == name:
                yield f"workflow {plan.name}", _parameter_schema(plan, plan.on.parameter)
            for owner, node in _waits_in(plan):
                if node.step == name:
                    yield f"step {node.id} of {owner.name}", node.result

    def _names(self) -> set[str]:
        """Return the events that workflows know."""
        names = {node.step for plan in self._catalogue.all_current() for _, node in _waits_in(plan)}
        return names | {plan.on.event for plan in self._catalogue.all_current() if plan.on is not None}

    async def _kept(self, event: EventAdded) -> Emitted:
        for _ in range(_TRIES):
            stored = await self._store.read(partial(events.get, name=event.name, key=event.key))
            if stored is not None:
                return Emitted(stored, created=False, runs=[])
            begun = [(run, key) for run, key in self._begun_by(event) if not await self._is_taken(key)]
            with contextlib.suppress(ChangesRefusedError):  # the event, or a run that it starts, is there by now
                await self._coordinator.emit(event, begun)
                return Emitted(event, created=True, runs=[run.public_id for run, _ in begun])
        raise ChangesRefusedError(f"event {event.name} with the key {event.key} was refused")

    def _begun_by(self, event: EventAdded) -> Iterator[tuple[LiveRun, str]]:
        """Yield the runs that an event starts, each with its idempotency key."""
        for plan in self._catalogue.all_current():
            if plan.on is not None and plan.on.event == event.name:
                run_input = complete_input(plan, {plan.on.parameter: parse(event.payload)})
                run = LiveRun.fresh(self._coordinator.ids.next_run(), plan, run_input, self._clock.now(), None)
                yield run, f"{plan.name}:{_run_key(run, plan.on, event)}"

    async def _is_taken(self, key: str) -> bool:
        return await self._store.read(partial(runs.by_idempotency_key, key=key)) is not None

    # --- handing over -----------------------------------------------------------------------------------------------

    def _note(self, tasks: list[TaskId]) -> None:
        self._new.update(tasks)
        self._wake.set()

    async def _look(self) -> None:
        self._rounds += 1
        await self._look_at_new()
        await self._look_at_taken()
        if not self._store.owner.alone and (self._has_company() or self._rounds % ROUNDS_ALONE == 1):
            await self._hand_over(since=self._handed_since)
            self._handed_since = self._clock.now() - OVERLAP_SECONDS
        if self._clock.now() >= self._forget_at:
            await self._forget()
            self._forget_at = self._clock.now() + FORGET_SECONDS

    async def _look_at_new(self) -> None:
        while self._new:
            some = {self._new.pop() for _ in range(min(len(self._new), MATCHES_AT_A_TIME))}
            try:
                await self._hand_over(tasks=some)
            except Exception:
                self._new |= some
                raise

    async def _look_at_taken(self) -> None:
        if self._taken:
            shards = self._taken.copy()
            await self._hand_over(shards=shards & set(self._held()))
            self._taken -= shards

    async def _hand_over(self, *, shards: Collection[int] | None = None, **wanted: Any) -> None:
        last = TaskId(0)
        held = self._held() if shards is None else shards
        look = partial(events.matches, shards=held, limit=MATCHES_AT_A_TIME, **wanted)
        while found := await self._store.read(partial(look, after=last)):
            for match in found:
                await self._deliver(match)
            last = found[-1].task_id

    async def _deliver(self, match: Match) -> None:
        if match.run_id not in self._coordinator.runs:
            await self.wake(match.run_id)
        task = self._task_of(match)
        if task is None:
            return
        declared = ResultType(task.node.result, self._max_bytes)
        with contextlib.suppress(ChangesRefusedError):  # then its run is read again, and this comes again
            try:
                result = declared.read(match.payload)
            except InvalidResultError as error:
                message = f'the event "{task.node.step}" is not what this step declares: {error}'
                await self._coordinator.give_up(task, Failure("InvalidEvent", message, ("InvalidEvent",), final=True))
            else:
                await self._coordinator.fulfil(task, result)

    def _task_of(self, match: Match) -> LiveTask | None:
        run = self._coordinator.runs.get(match.run_id)
        unit = run.unit(run.plan.nodes[match.node], match.item) if run is not None else None
        is_it = isinstance(unit, LiveTask) and unit.id == match.task_id and unit.state is TaskState.PARKED
        return unit if is_it and isinstance(unit, LiveTask) else None

    async def _forget(self) -> None:
        """Delete what is older than events are kept."""
        before = self._clock.now() - self._retention
        forget = partial(events.forget, before=before, limit=FORGOTTEN_AT_A_TIME)
        while await self._store.execute(forget) == FORGOTTEN_AT_A_TIME:
            pass


async def _leave_asleep(_: RunId) -> None:
    """Do nothing: without parking all runs are in memory."""


def _waits_in(plan: Plan) -> Iterator[tuple[Plan, Any]]:
    """Yield the steps that wait for events in a workflow, and in those that it calls, each with its workflow."""
    for node in plan.nodes:
        if node.kind == "event":
            yield plan, node
        if node.child is not None:
            yield from _waits_in(node.child)


def _run_key(run: LiveRun, on: On, event: EventAdded) -> str:
    """Return the key of which an event starts one run."""
    if on.key is None:
        return event.key
    try:
        key = msgspec.json.decode(on.key.render(RunScope(run, None)))
    except BindingError as error:
        raise InvalidEventError(event=event.name, problems=[f"the key of the run cannot be made: {error}"]) from None
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        problem = f"the key of the run is to be a text of 1 to {LONGEST_KEY} characters"
        raise InvalidEventError(event=event.name, problems=[problem])
    return key


def _parameter_schema(plan: Plan, parameter: str) -> dict[str, Any]:
    schema = plan.parameters["properties"][parameter]
    return {**schema, "$defs": plan.parameters.get("$defs", {})}
