"""What the owner of a run keeps in memory of it: enough to decide on any event without reading the store.

Everything here can be rebuilt from rows (``advance.begin`` with a ``Past``); memory is a cache of them.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from hopline_engine.core.binding import FAILURE, INPUT, ITEM, BindingError, Value
from hopline_engine.core.failures import failure_from_json
from hopline_engine.core.model import (
    WHOLE,
    DefinitionAdded,
    RunId,
    RunState,
    StepEnded,
    StepState,
    TaskId,
    TaskState,
)
from hopline_engine.core.names import public_id, step_name
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.references import Contents, Reference, filled
from hopline_engine.core.retry import Failure
from hopline_engine.core.reusing import Earlier

_OK: Final = b'{"ok":'
"""Begins the outcome of a settled element that has a result."""


class Heard(NamedTuple):
    """What the last heartbeat of an attempt said."""

    attempt: int
    at: float
    progress: str | None


def nowhere(reference: Reference) -> bytes:
    """Say that a value is not there: this engine keeps all values in rows."""
    raise BindingError(f"a value of {reference.size:,} bytes is not here")


@dataclass(slots=True, eq=False)
class LiveTask:
    """The queued task of an open step run."""

    id: TaskId
    run: "LiveRun"
    node: Node
    item: int
    deadline_time: float | None
    state: TaskState = TaskState.SCHEDULED
    attempt: int = 0
    lost: int = 0
    blamed: int = 0
    schedule_time: float = 0.0
    first_attempt_at: float | None = None
    leased_at: float | None = None
    epoch: int = 0
    stored: bool = False
    """Whether it has a row."""
    has_alarm: bool = False
    """Whether a timer watches its deadline."""
    last_failure: Failure | None = None
    """Of the attempt before; memory only, shown to people."""
    heard: Heard | None = None
    """Memory only, as what it says is: after a restart the attempt is another one, or goes on saying it."""
    key: str | None = None
    """What it is about, where few of that are worked on at a time."""

    @property
    def last_heard(self) -> Heard | None:
        """What the last heartbeat of the attempt that is under way said."""
        return self.heard if self.heard is not None and self.heard.attempt == self.attempt else None

    @property
    def priority(self) -> int:
        """How many turns its queue gives it: the level of its step, moved by that of its run."""
        order, moved = self.node.order, self.run.priority
        if order is None:
            return moved
        return order.raised(moved) if moved else order.priority

    @property
    def made(self) -> int:
        """How many attempts count against the retry policy."""
        return self.attempt - self.lost

    @property
    def is_open(self) -> bool:
        """Whether it still is what executes its step run."""
        return self.run.state is RunState.RUNNING and self.run.unit(self.node, self.item) is self

    @classmethod
    def restored(cls, run: "LiveRun", node: Node, row: "StoredTask") -> "LiveTask":
        """Return the task as it is stored."""
        task = cls(row.id, run, node, row.item, row.deadline_time, TaskState(row.state), stored=True)
        task.attempt, task.lost, task.blamed = row.attempt, row.lost, row.blamed
        task.schedule_time, task.first_attempt_at = row.schedule_time, row.first_attempt_at
        task.leased_at, task.epoch = row.leased_at, row.epoch
        with contextlib.suppress(BindingError):  # it was found when the task was opened
            task.find_key()
        return task

    def find_key(self) -> None:
        """Find out what it is about.

        Raises:
            BindingError: what the key is made of is not there, or is no key.
        """
        if self.node.order is not None:
            self.key = self.node.order.key_in(RunScope(self.run, item_of(self.run, self.node, self.item)))

    @property
    def group(self) -> "LiveNode":
        """What it may be sent together with: the other elements of the same map."""
        return self.run.nodes[self.node.index]

    @property
    def name(self) -> str:
        """What people call the step run."""
        return step_name(self.node.id, self.item)

    @property
    def words(self) -> str:
        """What people call it where other runs are spoken of too."""
        return f"run {self.run.public_id} step {self.name}"


class Parent(NamedTuple):
    """The step run that a sub-workflow's run is the execution of."""

    run: "LiveRun"
    node: Node
    item: int


@dataclass(slots=True, eq=False)
class LiveMap:
    """A mapped step that is open."""

    size: int
    items: list[bytes] | None
    """What is mapped over; ``None`` when the elements come from another map one by one."""
    results: list[bytes | None]
    """Of the elements that are done; where they are settled, also of those that failed."""
    settled: bool = False
    units: "dict[int, LiveTask | LiveRun]" = field(default_factory=dict)
    """The open elements."""
    done: int = 0
    """Elements that succeeded."""
    failed: int = 0
    cursor: int = 0
    """First element that was never looked at, where all are there from the start."""
    ready: deque[int] = field(default_factory=deque)
    """Elements whose own upstream element is done, where they come one by one."""
    failure: Failure | None = None
    """Of the first element that failed; no element is opened after it. Settled elements never fail the map."""
    blocked: bool = False
    """Whether the map it follows ended without success."""
    is_filling: bool = False
    """Whether elements are being opened; one that fails at once must not begin that anew."""

    def take_up(self, row: StepEnded) -> None:
        """Note how an element ended that is stored; the earliest first."""
        if row.state == StepState.SUCCEEDED:
            self.succeed(row.item, row.result or b"null")
        elif row.state == StepState.FAILED:
            self.fail(row.item, failure_from_json(row.error))

    def succeed(self, item: int, result: bytes) -> None:
        """Note the result of an element."""
        self.results[item] = b"%b%b}" % (_OK, result) if self.settled else result
        self.done += 1

    def fail(self, item: int, failure: Failure) -> None:
        """Note that an element failed for good."""
        self.failed += 1
        if self.settled:
            said = {"type": failure.type, "message": failure.message, "status": failure.status}
            self.results[item] = msgspec.json.encode({"err": said})
        else:
            self.failure = self.failure or failure

    def result_of(self, item: int) -> bytes | None:
        """Return what an element gave by itself; ``None`` when it did not succeed."""
        result = self.results[item]
        if result is None or not self.settled:
            return result
        return result[len(_OK) : -1] if result.startswith(_OK) else None  # as it is: it may be a reference

    @property
    def is_complete(self) -> bool:
        """Whether there is a result for every element."""
        return self.done + (self.failed if self.settled else 0) == self.size

    def is_taken(self, item: int) -> bool:
        """Return whether an element is done or open."""
        return self.results[item] is not None or item in self.units

    def take_ready(self) -> int | None:
        """Return the next element that may be opened, or ``None``."""
        if self.items is None:
            return self.ready.popleft() if self.ready else None
        while self.cursor < self.size:
            self.cursor += 1
            if not self.is_taken(self.cursor - 1):
                return self.cursor - 1
        return None


@dataclass(slots=True, eq=False)
class LiveLaps:
    """A loop that is open: one lap at a time, each given the result of the one before."""

    given: bytes
    """What the open lap is given: the result of the last one that is done."""
    done: int = 0
    """How many laps are; the number of the open one."""
    units: "dict[int, LiveTask | LiveRun]" = field(default_factory=dict)
    """The open lap."""

    def take_up(self, row: StepEnded) -> None:
        """Note a lap that is stored."""
        if row.state == StepState.SUCCEEDED and row.item >= self.done:
            self.done = row.item + 1
            self.given = row.result or b"null"


@dataclass(slots=True, eq=False)
class LiveNode:
    """One step of a live run."""

    state: StepState
    waits: int
    value: Value | None = None
    unit: "LiveTask | LiveRun | None" = None
    map: LiveMap | LiveLaps | None = None
    opened_at: float | None = None
    problem: tuple[str, Failure] | None = None
    """Of ``recover`` and ``first``: the first step inside that failed, and why."""


@dataclass(slots=True, eq=False)
class Undoing:
    """What a run that undoes has to know: kept from its start, as the order in which its steps end counts."""

    ended: list[int] = field(default_factory=list)
    """Steps that have ended, in that order; while the run is undone, those that are left."""
    current: int | None = None
    """The undo step that is open."""


@dataclass(slots=True, eq=False)
class LiveRun:
    """One run that has not ended."""

    id: RunId
    plan: Plan
    input: Value
    created_at: float
    nodes: list[LiveNode]
    """The steps by index; once it is undone, also the undo steps, at their negative indexes."""
    open_nodes: int
    parent: Parent | None = None
    priority: int = 0
    """What moves the priorities of all its steps, and of those of the runs below it."""
    paused_at: float | None = None
    ending: RunState | None = None
    """How it will end when its undo steps are done."""
    is_held: bool = False
    """Whether nothing of it is sent: it is paused, or a run above it is."""
    undoing: Undoing | None = None
    earlier: "Mapping[tuple[int, int], Earlier] | None" = None
    """Sub-runs of the run that this one goes on from, which are gone on with too."""
    kept: Sequence[StepEnded] = ()
    """What it has of the elements and laps of steps that wait for its turn."""
    contents: Contents = field(default=nowhere, repr=False)
    """What large values say that are not in rows."""
    public_id: str = field(init=False)
    """The id that people see; every request of the run says it."""
    state: RunState = RunState.RUNNING
    failure: tuple[str, Failure] | None = None
    """The first step that failed, and why."""

    def __post_init__(self) -> None:
        """Name it."""
        self.public_id = public_id(self.id)

    @classmethod
    def fresh(
        cls, run: RunId, plan: Plan, input_: bytes, created_at: float, parent: Parent | None, priority: int = 0
    ) -> "LiveRun":
        """Return a run in which nothing has happened."""
        nodes = [LiveNode(StepState.PENDING, node.waits) for node in plan.nodes]
        undoing = Undoing() if plan.compensates and plan.undos else None
        return cls(run, plan, Value(input_), created_at, nodes, len(nodes), parent, priority, undoing=undoing)

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state is RunState.RUNNING

    @property
    def deadline_time(self) -> float | None:
        """When it fails if it is still at work; ``None`` for never."""
        return None if self.plan.deadline is None else self.created_at + self.plan.deadline

    def begin_ending(self, ending: RunState) -> None:
        """Note how the run will end when its undo steps are done."""
        self.ending = ending
        if self.undoing is not None and len(self.nodes) == len(self.plan.nodes):
            self.nodes += [LiveNode(StepState.PENDING, 1) for _ in self.plan.nodes]

    def note_end(self, node: int) -> None:
        """Note that a step has ended, and when it did among the others if that will count."""
        self.open_nodes -= 1
        if self.undoing is not None:
            self.undoing.ended.append(node)

    def note_failure(self, node: Node, step: str, failure: Failure) -> None:
        """Note that *node* failed because of *step*, for whoever decides what that means; the first failure counts."""
        if node.closes is not None:
            return
        if node.within is None:
            self.failure = self.failure or (step, failure)
        else:
            owner = self.nodes[node.within]
            owner.problem = owner.problem or (step, failure)

    def told(self, step: str, failure: Failure, runs_url: str) -> dict[str, object]:
        """Return a failure as steps are told of it: ``hopline.Failure``."""
        return {
            "step": step,
            "error": failure.message,
            "type": failure.type,
            "status": failure.status,
            "attempts": failure.attempts,
            "run": self.public_id,
            "run_url": f"{runs_url}/{self.public_id}",
        }

    def result_of(self, node: Node) -> Value:
        """Return the result of a step that succeeded; of a map, the list of its elements' results.

        Raises:
            BindingError: it did not succeed, as where it was skipped.
        """
        live = self.nodes[node.index]
        if live.value is None:
            if not isinstance(live.map, LiveMap):
                raise BindingError(f"{node.id!r} has no result: it is {live.state}")
            live.value = Value(b"[" + b",".join(result or b"null" for result in live.map.results) + b"]")
        return live.value

    def units(self) -> "Iterator[LiveTask | LiveRun]":
        """Yield the open tasks and sub-runs."""
        for live in self.nodes:
            if live.unit is not None:
                yield live.unit
            if live.map is not None:
                yield from live.map.units.values()

    def unit(self, node: Node, item: int) -> "LiveTask | LiveRun | None":
        """Return what executes a step run, if it is open."""
        if node.undoes is not None and self.ending is None:
            return None
        live = self.nodes[node.index]
        return live.unit if item == WHOLE else live.map.units.get(item) if live.map else None


class Traced(NamedTuple):
    """The graph that a worker traced for one call of a dynamic workflow."""

    plan: Plan
    input: bytes
    """Of the run."""
    definitions: list[DefinitionAdded]
    """What may not be stored yet of it."""


class RunScope:
    """The values that one step run may refer to."""

    __slots__ = ("_item", "_run", "_runs_url", "_secrets")

    def __init__(
        self, run: LiveRun, item: bytes | None, secrets: Mapping[str, str] | None = None, runs_url: str = ""
    ) -> None:
        self._run = run
        self._runs_url = runs_url
        self._item = item
        self._secrets = secrets

    def value(self, source: str) -> Value:
        """Return the input of the run, the current item or a step's result."""
        if source == INPUT:
            return self._run.input
        if source == ITEM:
            assert self._item is not None
            return Value(self._item)
        if source == FAILURE:
            assert self._run.failure is not None
            return Value(msgspec.json.encode(self._run.told(*self._run.failure, self._runs_url)))
        return self._run.result_of(self._run.plan.by_id[source])

    def whole(self, raw: bytes) -> bytes:
        """Return a value with all that it refers to in place."""
        return filled(raw, self._run.contents)

    def secret(self, name: str) -> str:
        """Return a secret that was read for the request."""
        found = self._secrets.get(name) if self._secrets is not None else None
        if found is None:
            raise BindingError(f"secret {name!r} cannot be used here: only requests of HTTP steps take secrets")
        return found


def item_of(run: LiveRun, node: Node, item: int) -> bytes | None:
    """Return the element that a mapped step run works on, or the result that an undo step undoes."""
    if node.undoes is not None:
        undone = run.nodes[node.undoes]
        if item != WHOLE:
            assert isinstance(undone.map, LiveMap)
            return undone.map.result_of(item)
        return undone.value.raw if undone.value is not None else None
    if item == WHOLE:
        return None
    live_map = run.nodes[node.index].map
    if isinstance(live_map, LiveLaps):
        return live_map.given
    assert live_map is not None
    if live_map.items is not None:
        return live_map.items[item]
    assert node.stream_from is not None
    return map_of(run, node.stream_from).results[item]


def map_of(run: LiveRun, index: int) -> LiveMap:
    """Return the map that a mapped step is, which was opened."""
    live_map = run.nodes[index].map
    assert isinstance(live_map, LiveMap)
    return live_map


class StoredTask(NamedTuple):
    """A task's row as it is read back; fields as of ``TaskAdded``."""

    id: TaskId
    run_id: RunId
    node: int
    item: int
    queue: str
    state: int
    attempt: int
    lost: int
    blamed: int
    schedule_time: float
    deadline_time: float | None
    first_attempt_at: float | None
    leased_at: float | None
    epoch: int


@dataclass(slots=True)
class Past:
    """What is already stored of a run that is begun again."""

    steps: list[StepEnded]
    tasks: dict[tuple[int, int], StoredTask] = field(default_factory=dict)
    """By node and item."""
    runs: "dict[tuple[int, int], LiveRun]" = field(default_factory=dict)
    """Live sub-runs, by the node and item they execute."""
