"""How each step of a run had to end, given how those ended that it needed.

A definition is read in the plainest way, together with the rows of one run that is over. What time, workers and faults
decide is taken from the rows: whether what was executed failed, and which arm of a race was first. Everything else
follows: what was not to run was not run, what was chosen fits, and every result is what the step says when it is given
what the rows say that it was given. It shares no code with the engine.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from hopline_engine.core.model import WHOLE, RunAdded, RunEnded, StepEnded
from tests.core.flows import HALF, Flow, outcome
from tests.core.rows import Place
from tests.simulation.ledger import Ledger

OK, FAILED, BLOCKED, SKIPPED, CANCELLED = "succeeded", "failed", "upstream_failed", "skipped", "cancelled"
WELL = frozenset({OK, SKIPPED})
ILL = frozenset({FAILED, BLOCKED})
NO_RESULT = frozenset({"sleep", "event", "turn"})
"""Kinds of steps that say nothing."""
_OUTSIDE = {"$input", "$item", "$failure"}


class _Untold(Exception):
    """A condition is not looked at, since a step that it needs ended without a result."""

    def __init__(self, state: str) -> None:
        self.state = state


@dataclass
class Reckoning:
    """One run that is over."""

    ledger: Ledger
    flow: Flow
    run: RunAdded
    whole: Callable[[bytes], bytes]
    """Puts in place what a stored value refers to."""
    asked: Callable[[Place], Any]
    """Returns what a person said who was asked by a step run, if anybody was."""
    may_be_cut: bool
    """Whether somebody asked for it to end, and so may have cut off what it closes with."""

    def __post_init__(self) -> None:
        self.body = self.flow.definitions[self.run.workflow]
        self.nodes: dict[str, dict[str, Any]] = {node["id"]: node for node in self.body["nodes"]}
        by_id = self.ledger.plan_of(self.run.id).by_id
        self._index = {name: by_id[name].index for name in self.nodes}
        self._rows = self.ledger.rows.steps[self.run.id]
        self._end: RunEnded = self.ledger.rows.ended[self.run.id]
        self._values: dict[str, Any] = {"$input": self._read(self.run.input), "$failure": self._read(self._end.error)}
        self._owner = {
            inner: (name, number)
            for name, node in self.nodes.items()
            for number, arm in enumerate(node.get("arms", ()))
            for inner in arm.get("steps", ())
        }
        self._goes_on = self.ledger.earlier(self.run.id) is not None
        """Whether it may have results of an earlier run."""
        self._was_over_deadline = self._is_over_deadline()
        self.is_called_off = self._end.state == CANCELLED or self._was_over_deadline

    def _is_over_deadline(self) -> bool:
        """Return whether what was open was cancelled, since the run was over its deadline."""
        why = f"run {self.run.public_id} was over its deadline".encode()
        return any(why in (error or b"") for error in (self._end.error, *(row.error for row in self._rows.values())))

    def wrong(self) -> Iterator[str]:
        """Yield what did not end as it had to."""
        for name, node in self.nodes.items():
            state, may = self.state(name), self._of_closing(node) if "closes" in node else self._may(node)
            if state not in may:
                yield f"{self._name(name)} {state}, and had to be {sorted(may)}: {self._before(node)}"
            elif state == OK:
                yield from self._wrong_value(name, node)
        yield from self._wrong_end()

    def _wrong_end(self) -> Iterator[str]:
        outside = {name: self.state(name) for name in self.nodes if self._counts(name)}
        ill = {name: state for name, state in outside.items() if state not in WELL}
        if bool(ill) == (self._end.state == OK) and not (ill == {} and self.is_called_off):
            yield f"run {self.run.public_id} {self._end.state}, and of its steps {ill} did not succeed"
        if self._end.state == OK and not ill:
            result, must = self._read(self._end.result), self._bind(self.body["result"])
            if result != must:
                yield f"run {self.run.public_id} returned {result}, and not {must}"

    def _counts(self, name: str) -> bool:
        return name not in self._owner and "closes" not in self.nodes[name]

    # --- how steps may end

    def state(self, name: str) -> str:
        """Return how a step ended."""
        return self._row(name).state

    def _may(self, node: dict[str, Any]) -> set[str]:
        """Return how a step may have ended."""
        may = self._of_choice(node) if node.get("arms") else self._of_step(node)
        if self.is_called_off or self._has_lost(node["id"]):
            may = may | {CANCELLED}
        has_failed = self._end.state == FAILED or self._was_over_deadline  # and may have been cancelled afterwards
        if self.is_called_off and has_failed and self._counts(node["id"]):
            may = may | {FAILED}  # the one that tells why
        return may

    def _of_closing(self, node: dict[str, Any]) -> set[str]:
        has_failed = any(self.state(name) == FAILED for name in self.nodes if self._counts(name))
        is_due = node["closes"] == "finally" or self._end.state == FAILED
        may = {OK, FAILED} if is_due else {SKIPPED}
        if self._end.state == CANCELLED and has_failed:
            may |= {OK, FAILED}  # it was telling of that already
        if is_due and not self.ledger.rows.attempts.get((self.run.id, self._index[node["id"]], WHOLE)):
            may = set()  # it is made anew by each run
        return may | {CANCELLED} if self.may_be_cut else may

    def _of_step(self, node: dict[str, Any]) -> set[str]:
        before = set(self._before(node).values())
        if before & ILL:
            return {BLOCKED, FAILED} if self._is_following(node) else {BLOCKED}
        if CANCELLED in before:
            return {CANCELLED}
        try:
            if not self._passes(node):
                return {SKIPPED}
        except _Untold as untold:
            return {untold.state}
        if SKIPPED in before:
            return {SKIPPED}
        if node["kind"] in NO_RESULT:
            return {OK}
        return self._of_elements(node) if node["over"] is not None else {OK, FAILED}

    def _of_elements(self, node: dict[str, Any]) -> set[str]:
        states = {row.state for row in self._elements(node["id"])}
        ill = {CANCELLED} if node.get("settled") else {FAILED, CANCELLED}
        if states & ill:
            return states & ill
        return {OK} if len(self._elements(node["id"])) == len(self._items(node)) else {CANCELLED}

    def _of_choice(self, node: dict[str, Any]) -> set[str]:
        if CANCELLED in self._before(node).values() and node["kind"] != "first":
            return {CANCELLED}
        try:
            if not self._passes(node):
                return {SKIPPED}
            match node["kind"]:
                case "branch":
                    return self._of_branch(node)
                case "recover":
                    return self._of_recover(node)
        except _Untold as untold:
            return {untold.state}
        return self._of_first(node)

    def _of_branch(self, node: dict[str, Any]) -> set[str]:
        arm = self._chosen(node)
        if arm is None or not {self.state(source) for source in _sources(arm["value"])} & ILL:
            return {OK}
        return {BLOCKED}

    def _of_recover(self, node: dict[str, Any]) -> set[str]:
        inside = {name: self.state(name) for name in node["arms"][0]["steps"]}
        failures = {self._kind_of(self._row(name).error) for name, state in inside.items() if state == FAILED}
        if not failures:
            return {BLOCKED} if BLOCKED in inside.values() else {OK}
        named = {each["error"] for each in node["on"]}
        is_for = {not named or kind in named for kind in failures}
        return {OK if each else FAILED for each in is_for}

    def _of_first(self, node: dict[str, Any]) -> set[str]:
        if self._well_arms(node):
            return {OK}
        states = {self.state(name) for arm in node["arms"] for name in arm["steps"]}
        return next(({state} for state in (CANCELLED, FAILED, BLOCKED) if state in states), {SKIPPED})

    def _has_lost(self, name: str) -> bool:
        """Return whether a step is inside of an arm of a race that another arm has won."""
        while name in self._owner:
            name, number = self._owner[name]
            node = self.nodes[name]
            if node["kind"] == "first" and self.state(name) == OK:
                return any(arm is not node["arms"][number] for arm in self._well_arms(node))
        return False

    def _well_arms(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the arms of a race that may have won it."""
        found = []
        for arm in node["arms"]:
            states = {self.state(name) for name in arm["steps"]}
            needed = {self.state(source) for source in _sources(arm["value"])}
            if OK in states and states | needed <= WELL:
                found.append(arm)
        return found

    def _chosen(self, node: dict[str, Any]) -> dict[str, Any] | None:
        """Return the arm of a branch that its conditions choose."""
        for arm in node["arms"]:
            if all(self._holds(each["if"]) is each["is"] for each in arm["guards"]):
                return dict(arm)
        return None

    def _passes(self, node: dict[str, Any]) -> bool:
        return all(self._holds(each["if"]) is each["is"] for each in node.get("guards", ()))

    def _holds(self, condition: Any) -> bool:
        for source in sorted(_sources(condition)):
            if self.state(source) != OK:
                raise _Untold(SKIPPED if self.state(source) == SKIPPED else BLOCKED)
        match condition:
            case {"$op": "==", "args": [left, right]}:
                return bool(self._bind(left) == self._bind(right))
            case {"$op": "<", "args": [left, right]}:
                return bool(self._bind(left) < self._bind(right))
        return bool(self._bind(condition))

    def _before(self, node: dict[str, Any]) -> dict[str, str]:
        """Return how those ended that a step needs."""
        parts = [node["inputs"], [each["if"] for each in node.get("guards", ())], node.get("arms", ())]
        inside = {name for arm in node.get("arms", ()) for name in arm.get("steps", ())}
        return {name: self.state(name) for name in sorted(_sources(parts) | inside | set(node["after"]))}

    def _is_following(self, node: dict[str, Any]) -> bool:
        """Return whether a step takes the elements of another one, one by one, and so begins before that has ended."""
        return self._followed(node) is not None

    def _followed(self, node: dict[str, Any]) -> str | None:
        match node["inputs"].get(node["over"]):
            case {"$ref": source, "path": []} if source in self.nodes and self.nodes[source]["over"] is not None:
                return str(source)
        return None

    # --- what steps had to say

    def _wrong_value(self, name: str, node: dict[str, Any]) -> Iterator[str]:
        if node.get("closes") == "on_failure" and self._end.error is None:
            return  # it told of a failure, and then its run was cancelled
        if node["over"] is not None:
            yield from self._wrong_elements(name, node)
            return
        if node["kind"] == "loop":
            yield from self._wrong_laps(name, node)
            return
        said = self.value(name)
        match node["kind"]:
            case "branch":
                arm = self._chosen(node)
                fitting = [self._bind(arm["value"]) if arm is not None else None]
            case "first":
                fitting = [self._bind(arm["value"]) for arm in self._well_arms(node)]
            case "recover":
                failed = any(self.state(inner) == FAILED for inner in node["arms"][0]["steps"])
                said, fitting = said["failed"], [failed]
            case "approval":
                asked = self.asked((self.run.id, self._index[name], WHOLE))
                said = {"approved": said["approved"], "by": said["by"]}
                fitting = [asked] if asked is not None or not self._goes_on else [said]
            case kind if kind in NO_RESULT:
                fitting = [None]
            case _:
                fitting = [self._answer(name, node, WHOLE, self._arguments(node))]
        if said not in fitting:
            yield f"{self._name(name)} says {said}, which is not among {fitting}"

    def _wrong_elements(self, name: str, node: dict[str, Any]) -> Iterator[str]:
        for item, (row, given) in enumerate(zip(self._elements(name), self._items(node), strict=True)):
            if row.state != OK:
                continue
            must = self._answer(name, node, item, self._arguments(node) | {node["over"]: given})
            if self._read(row.result) != must:
                yield f"{self._name(name)}[{item}] says {self._read(row.result)}, and not {must}"

    def _wrong_laps(self, name: str, node: dict[str, Any]) -> Iterator[str]:
        arguments, over = self._arguments(node), node["loop"]["over"]
        for row in self._elements(name):
            must = self._answer(name, node, row.item, arguments)
            said = arguments[over] = self._read(row.result)
            if said != must:
                yield f"{self._name(name)}[{row.item}] says {said}, and not {must}"
        if self.value(name) != arguments[over] or arguments[over]["v"] < HALF:
            yield f"{self._name(name)} says {self.value(name)} after the lap that said {arguments[over]}"

    def _answer(self, name: str, node: dict[str, Any], item: int, arguments: dict[str, Any]) -> Any:
        """Return what a step run that succeeded had to say."""
        place = self.run.id, self._index[name], item
        is_kept = self._goes_on and place not in self.ledger.rows.attempts
        if node["kind"] not in {"workflow", "dynamic"}:
            return self._read(self._rows[place[1:]].result) if is_kept else outcome(name, arguments)
        below = self._below(name, item)
        if below is None:
            assert self._goes_on
            return self._read(self._rows[place[1:]].result)
        assert self._read(below.input) == arguments, f"{below} was not given {arguments}"
        return self._read(self.ledger.rows.ended[below.id].result)

    def _below(self, name: str, item: int) -> RunAdded | None:
        place = (self.run.id, self._index[name], item)
        runs = self.ledger.rows.runs.values()
        return next((run for run in runs if (run.parent_id, run.parent_node, run.parent_item) == place), None)

    def value(self, name: str) -> Any:
        """Return the result of a step that succeeded."""
        if name not in self._values:
            if self.nodes[name]["over"] is None:
                self._values[name] = self._read(self._row(name).result)
            else:
                said = self._became if self.nodes[name].get("settled") else lambda row: self._read(row.result)
                self._values[name] = [said(row) for row in self._elements(name)]
        return self._values[name]

    def _became(self, row: StepEnded) -> dict[str, Any]:
        if row.state == OK:
            return {"ok": self._read(row.result)}
        error = msgspec.json.decode(row.error or b"{}", type=dict[str, Any])
        return {"err": {name: error[name] for name in ("type", "message", "status")}}

    def _arguments(self, node: dict[str, Any]) -> dict[str, Any]:
        return {key: self._bind(value) for key, value in node["inputs"].items()}

    def _items(self, node: dict[str, Any]) -> list[Any]:
        return list(self._bind(node["inputs"][node["over"]]))

    def _bind(self, value: Any) -> Any:
        match value:
            case {"$ref": "$input", "path": path}:
                return _at(self._values["$input"], path)
            case {"$ref": source, "path": path}:
                return _at(self.value(source), path)
            case dict():
                return {key: self._bind(member) for key, member in value.items()}
            case list():
                return [self._bind(member) for member in value]
        return value

    # --- rows

    def _row(self, name: str) -> StepEnded:
        return self._rows[self._index[name], WHOLE]

    def _elements(self, name: str) -> list[StepEnded]:
        index = self._index[name]
        return [row for (node, item), row in sorted(self._rows.items()) if node == index and item != WHOLE]

    def _read(self, value: bytes | None) -> Any:
        return msgspec.json.decode(self.whole(value)) if value is not None else None

    def _kind_of(self, error: bytes | None) -> str | None:
        told: Mapping[str, Any] = msgspec.json.decode(error) if error is not None else {}
        return told.get("type")

    def _name(self, name: str) -> str:
        return f"{self.run.public_id}/{name}"


def _at(value: Any, path: list[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


def _sources(value: Any) -> set[str]:
    match value:
        case {"$ref": source}:
            return {source} - _OUTSIDE
        case dict():
            return {source for member in value.values() for source in _sources(member)}
        case list() | tuple():
            return {source for member in value for source in _sources(member)}
    return set()
