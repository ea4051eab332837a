"""What is durable of schedules and their ticks, commit by commit, and what must be true of it.

When ticks are is said here in the plainest way, and shares no code with the engine. Each commit after which a schedule
or a tick is not as it was before is held against the one before: no tick of a schedule is left out, none comes twice or
before its time, and each becomes what the schedule's policies promise.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import floor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hopline_engine.core.model import RunId
from hopline_engine.core.ticks import TickState

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

SECONDS: Final[Mapping[str, frozenset[int]]] = {
    "*/10 * * * * *": frozenset(range(0, 60, 10)),
    "*/15 * * * * *": frozenset(range(0, 60, 15)),
    "7,37 * * * * *": frozenset({7, 37}),
    "5,25,41 * * * * *": frozenset({5, 25, 41}),
}
"""Expressions, and on which seconds of every minute they fire."""
GRACE: Final = 60.0
"""Seconds after which a tick was missed."""
IN_DOUBT: Final = 45.0
"""Seconds for which a decision may have been on its way to the disk."""
NOTICED: Final = 7.0
"""Within so many seconds a tick that is due is decided on, when nothing goes wrong any more."""
CALM: Final = 1.0
"""The same in a calm simulation with one node."""
LONGEST: Final = 120.0
"""Seconds within which each schedule has a tick."""
_WAITING, _QUEUED, _DUE, _STARTED = TickState.WAITING, TickState.QUEUED, TickState.DUE, TickState.STARTED
_DONE, _SKIPPED, _MISSED, _FAILED = TickState.DONE, TickState.SKIPPED, TickState.MISSED, TickState.FAILED
_MOVES: Final = {
    _WAITING: {_DUE, _SKIPPED},
    _QUEUED: {_DUE},
    _DUE: {_STARTED},
    _STARTED: {_DONE},
    _SKIPPED: {_WAITING},
    _MISSED: {_WAITING},
}
_BEGINS: Final = {"tick": {_QUEUED, _DUE, _SKIPPED, _MISSED}, "trigger": {_DUE}, "backfill": {_WAITING}}
_SCHEDULES: Final = (
    "SELECT name, spec, declared, is_edited, is_paused, revision, anchor_at, next_tick, due_at, backfill FROM schedule"
)
_TICKS: Final = "SELECT schedule, at, state, kind, decided_at, run_id FROM tick"


class Schedule(NamedTuple):
    """A schedule as it is stored."""

    name: str
    text: bytes
    declared: bytes | None
    is_edited: bool
    is_paused: bool
    revision: int
    anchor: float
    next_tick: float
    due_at: float | None
    backfill: bytes | None

    @property
    def says(self) -> dict[str, Any]:
        """What is in force."""
        says: dict[str, Any] = json.loads(self.text)
        return says

    @property
    def times(self) -> dict[str, Any]:
        """What that says of when its ticks are."""
        return {name: value for name, value in self.says.items() if name not in {"overlap", "catchup", "jitter"}}


class Tick(NamedTuple):
    """A tick as it is stored."""

    schedule: str
    at: float
    state: int
    kind: str
    decided_at: float
    run: RunId | None


Key = tuple[str, float]


class ScheduleLedger:
    """All schedules and ticks, and how they came to be as they are."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.schedules: dict[str, Schedule] = {}
        self.ticks: dict[Key, Tick] = {}
        self.is_closing = False
        """Whether all is healed, and what was due has had its time."""
        self._busy_at: dict[str, float] = {}
        """When each schedule had a run that went on, or a tick that waited, by the time of the simulation."""
        self._busy: set[str] = set()
        """Schedules that have one."""
        self._delays: dict[Key, float] = {}
        """How long after its time each tick is due."""

    @property
    def is_open(self) -> bool:
        """Whether runs are still to be started."""
        return any(tick.state in {_WAITING, _QUEUED, _DUE} for tick in self.ticks.values())

    # --- looking

    def look(self, node: "Node") -> None:
        """Take in what a node has just committed."""
        audit = self._world.audit
        schedules = {row[0]: Schedule(*row) for row in audit.execute(_SCHEDULES)}
        ticks = {(row[0], row[1]): Tick(*row) for row in audit.execute(_TICKS)}
        before, self.schedules = self.schedules, schedules
        ticks_before, self.ticks = self.ticks, ticks
        self._busy_at |= dict.fromkeys(self._busy, self._world.loop.time())
        self._busy = {tick.schedule for tick in ticks.values() if self._is_open(tick)}
        if before == schedules and ticks_before == ticks:
            return
        now = self._world.now() if self._world.is_shared else node.machine.now()
        for name, schedule in schedules.items():
            new = [ticks[key] for key in sorted(ticks.keys() - ticks_before.keys()) if key[0] == name]
            own = [tick for tick in new if tick.kind == "tick"]
            self._check_schedule(before.get(name), schedule, [tick.at for tick in own], now)
            if own:
                self._check_decision(before[name], own, now, is_changed=before[name].times != schedule.times)
        for key in sorted(ticks_before.keys() | ticks.keys()):
            self._check_tick(ticks_before.get(key), ticks.get(key))

    def _wrong(self, what: str) -> None:
        self._world.violated(what)

    def _is_open(self, tick: Tick) -> bool:
        """Return whether a tick waits, or has a run that goes on."""
        if tick.state == _STARTED:
            return tick.run not in self._world.ledger.rows.ended
        return tick.state in {_QUEUED, _DUE}

    @property
    def _is_time_right(self) -> bool:
        """Whether the clock of the database never goes back: that of one node alone is the clock of its machine."""
        drawn = self._world.faults_drawn
        return self._world.is_shared or not (drawn.clock_jumps or drawn.skew)

    # --- schedules

    def _check_schedule(self, old: Schedule | None, new: Schedule, decided: list[float], now: float) -> None:
        """Check how a schedule moved: from its tick to the following one, and from now on where others count."""
        self._check_due(new)
        if old is None:
            return
        expected = instants(old, old.next_tick - 0.001, decided[-1]) if decided else []
        if decided != expected:
            self._wrong(f"{old} had the ticks {decided}, not {expected}")
        if decided and (old.is_paused or old.revision == new.revision):
            self._wrong(f"{old} is paused or did not move, and had the ticks {decided}")
        if not decided and not self._is_time_right and (old.name, old.next_tick) in self.ticks:
            return  # a tick that was decided on came again, since a clock was set back, and is the same one
        if 0 < new.revision - old.revision <= 1 + bool(decided):  # else several people changed it within one commit
            self._check_move(old, new, decided[-1] if decided else old.next_tick - 0.001, now)

    def _check_move(self, old: Schedule, new: Schedule, decided_to: float, now: float) -> None:
        are_others = old.times != new.times
        begin = now if are_others or (old.is_paused and not new.is_paused) else decided_to
        following = instants(new, begin, begin + LONGEST)[0]
        if new.next_tick != following:
            self._wrong(f"the tick after {begin} of {new} is {following}; it was {old}")
        if are_others and not old.is_paused and (left := instants(old, decided_to, now)):
            self._wrong(f"{old} is changed, and its ticks {left} were not decided on")
        if old.is_edited and old.text != new.text and old.declared != new.declared:
            self._wrong(f"{old} was set by hand, and is {new} now")
        if self.is_closing and old.due_at is not None and old.due_at < now - NOTICED:
            self._wrong(f"{old} has been due for {now - old.due_at:.1f} s, and nobody looked")

    def _check_due(self, schedule: Schedule) -> None:
        """Check that a schedule is due at its tick, or as long after it as its jitter says, and at no other time."""
        if schedule.is_paused or schedule.due_at is None:
            if schedule.is_paused != (schedule.due_at is None):
                self._wrong(f"{schedule} is paused and due, or neither")
            return
        delay, most = schedule.due_at - schedule.next_tick, schedule.says["jitter"]
        known = self._delays.setdefault((f"{schedule.name} {most}", schedule.next_tick), delay)
        if not 0 <= delay <= most + 0.001 or abs(known - delay) > 0.001:
            self._wrong(f"{schedule} is due {delay} s after its time, and was {known} s before")

    # --- decisions

    def _check_decision(self, of: Schedule, ticks: list[Tick], now: float, *, is_changed: bool) -> None:
        """Check what a transaction made of the ticks that were due; of all before now, where it changed the times."""
        if any(tick.decided_at != now for tick in ticks):
            self._wrong(f"{ticks} were decided on at another time than {now}")
        due_at = of.next_tick if is_changed or of.due_at is None else of.due_at
        if self._is_time_right and (ticks[-1].at > now or due_at > now):
            self._wrong(f"{ticks} of {of} were decided on before their time, at {now}")
        if self._world.is_calm:
            late = now - due_at
            if not is_changed and late > (NOTICED if self._world.is_shared else CALM):
                self._wrong(f"calm, but {ticks[0]} was decided on {late:.1f} s after it was due")
        self._check_catchup(of, ticks, now)
        is_busy = False
        for tick in ticks:
            self._check_overlap(of, tick, is_busy=is_busy)
            is_busy |= tick.state in {_DUE, _QUEUED}

    def _check_catchup(self, of: Schedule, ticks: list[Tick], now: float) -> None:
        catchup, jitter = of.says["catchup"], of.says["jitter"]
        missed = [tick for tick in ticks if tick.state == _MISSED]
        if missed and catchup == "all":
            self._wrong(f"{missed} of {of} were missed")
        if self._is_time_right and any(now - tick.at <= GRACE for tick in missed):
            self._wrong(f"{missed} of {of} were missed at {now}")
        late = [tick for tick in ticks if now - tick.at - jitter > GRACE + IN_DOUBT]
        on_time = [tick for tick in ticks if now - tick.at <= GRACE]
        may_start = {"none": 0, "latest": 0 if on_time else 1, "all": len(late)}[catchup]
        if len(made_up_for := [tick for tick in late if tick.state != _MISSED]) > may_start:
            self._wrong(f"{made_up_for} of {of} were made up for at {now}")

    def _check_overlap(self, of: Schedule, tick: Tick, *, is_busy: bool) -> None:
        """Check that a tick is passed over, or waits, for a run of the same schedule only."""
        overlap, catchup = of.says["overlap"], of.says["catchup"]
        if tick.state == _SKIPPED:
            idle = self._world.loop.time() - self._busy_at.get(tick.schedule, float("-inf"))
            is_idle = not is_busy and idle > (CALM if self._world.is_calm else IN_DOUBT)
            if is_idle or overlap not in {"skip", "queue_one"}:
                self._wrong(f"{tick} of {of} was passed over, and nothing was going on for {idle:.1f} s")
        if tick.state == _QUEUED and (overlap == "allow" or (overlap == "cancel_running" and catchup != "all")):
            self._wrong(f"{tick} of {of} waits")

    # --- ticks

    def _check_tick(self, old: Tick | None, new: Tick | None) -> None:
        if new is None:
            self._wrong(f"{old} is gone")
            return
        if old is not None and old.state == new.state:
            return
        may = _BEGINS[new.kind] if old is None else _MOVES.get(TickState(old.state), set())
        if new.state not in may:
            self._wrong(f"{new} was {old}")
        if new.state == _DUE:
            self._check_alone(new)
        elif new.state == _STARTED:
            self._check_run(new)
        elif new.state == _DONE and new.run not in self._world.ledger.rows.ended:
            self._wrong(f"{new} is done, and its run goes on")

    def _check_alone(self, tick: Tick) -> None:
        """Check that runs of a schedule do not overlap unless they may."""
        schedule = self.schedules[tick.schedule]
        others = [
            other
            for other in self.ticks.values()
            if other.schedule == tick.schedule and other.at != tick.at and other.kind == tick.kind
            if other.state in {_DUE, _STARTED} and self._is_open(other)
        ]
        if tick.kind == "tick" and others and schedule.says["overlap"] in {"skip", "queue_one", "queue_all"}:
            self._wrong(f"{tick} is to start while {others} go on")
        if tick.kind == "backfill" and schedule.backfill is not None:
            most = json.loads(schedule.backfill)["max_parallel"]
            if len(others) >= most:
                self._wrong(f"{tick} is to start while {others} go on, and only {most} may")

    def _check_run(self, tick: Tick) -> None:
        """Check that a tick has a run of its own, which is told of its time."""
        run = self._world.ledger.rows.runs.get(tick.run or RunId(0))
        if run is None or run.idempotency_key != key_of(tick):
            self._wrong(f"{tick} has the run {run}")
            return
        told = datetime.fromisoformat(json.loads(run.input)["at"]).timestamp()
        if abs(told - tick.at) > 0.001:
            self._wrong(f"{tick} has a run that is told of {told}")

    # --- the end

    def pronounce(self) -> None:
        """Check that each tick that was decided on has ended, and that runs and ticks belong to each other."""
        if left := [tick for tick in self.ticks.values() if tick.state in {_WAITING, _QUEUED, _DUE, _FAILED}]:
            self._wrong(f"{left} have not come to an end")
        keys = {
            run.idempotency_key: number
            for number, run in self._world.ledger.rows.runs.items()
            if run.idempotency_key is not None and run.idempotency_key.startswith("@schedule/")
        }
        own = {key_of(tick): tick.run for tick in self.ticks.values() if tick.run is not None}
        if keys != own:
            self._wrong(f"runs of ticks are {keys}, and ticks have {own}")
        self._world.figures.ticks = len(own)


def instants(schedule: Schedule, after: float, until: float) -> list[float]:
    """Return the ticks of a schedule after a time, up to another one."""
    says = schedule.says
    if says["kind"] == "cron":
        seconds = SECONDS[says["expression"]]
        return [float(at) for at in range(floor(after) + 1, floor(until) + 1) if at % 60 in seconds]
    start = 0.0 if says["aligned"] else round(schedule.anchor, 3)
    number = max(floor((after - start) / says["seconds"]), 0 if says["aligned"] else 1)
    found = []
    while (at := round(start + number * says["seconds"], 3)) <= until:
        if at > after:
            found.append(at)
        number += 1
    return found


def key_of(tick: Tick) -> str:
    """Return the idempotency key that the run of a tick has."""
    moment = datetime.fromtimestamp(tick.at, UTC)
    precision = "seconds" if tick.at == int(tick.at) else "milliseconds"
    return f"@schedule/{tick.schedule}/{moment.replace(tzinfo=None).isoformat(timespec=precision)}Z"
