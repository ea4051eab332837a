"""Random workflows with branches, recoveries and races, and what must come of them.

``evaluate`` says how each step has to end, from the definition alone and in the plainest way. Only which arm of a race
wins is taken from the run, since time decides it; whether that arm may have won is checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from hopline_engine.core.model import StepState
from tests.core.flows import ALWAYS, MAIN, Conduct, Flow, outcome
from tests.core.worlds import branch, choice, closing, definition, guard, op, ref, step

OK, SKIPPED, FAILED, BLOCKED, LOST = "ok", "skipped", "failed", "blocked", "lost"
SHOWN = {
    OK: {StepState.SUCCEEDED},
    SKIPPED: {StepState.SKIPPED},
    FAILED: {StepState.FAILED},
    BLOCKED: {StepState.UPSTREAM_FAILED},
}
WRONG_ERROR = [{"error": "KeyError"}]
ERRORS: list[list[dict[str, Any]]] = [[], [{"error": "ValueError"}], WRONG_ERROR]


@dataclass
class Drawing:
    """A workflow while it is drawn."""

    draw: st.DrawFn
    nodes: list[dict[str, Any]] = field(default_factory=list)
    conducts: dict[tuple[str, str], Conduct] = field(default_factory=dict)

    def name(self, prefix: str) -> str:
        return f"{prefix}{len(self.nodes)}"


@dataclass(frozen=True)
class Place:
    """Where in a workflow steps are drawn."""

    guards: tuple[dict[str, Any], ...] = ()
    depth: int = 0


def _block(drawing: Drawing, place: Place, visible: list[str], plain: list[str]) -> list[str]:
    """Draw a few steps and choices; return the steps that are directly in it."""
    visible, plain, made = list(visible), list(plain), []
    for _ in range(drawing.draw(st.integers(1, 3))):
        kinds = ["step", "step", "map"] + (["branch", "recover", "first"] if place.depth < 2 else [])
        kind = drawing.draw(st.sampled_from(kinds))
        if kind in {"step", "map"}:
            names = [_step(drawing, place, visible, plain, is_map=kind == "map")]
            if kind == "step":
                plain.append(names[0])
        else:
            names = {"branch": _branch, "recover": _recover, "first": _first}[kind](drawing, place, visible, plain)
        made += names
        visible.append(names[-1])
    return made


def _step(drawing: Drawing, place: Place, visible: list[str], plain: list[str], *, is_map: bool) -> str:
    draw, name = drawing.draw, drawing.name("s")
    sources = draw(st.sets(st.sampled_from(visible), max_size=2)) if visible else set()
    inputs: dict[str, Any] = {f"from_{source}": ref(source) for source in sorted(sources)}
    if is_map:
        inputs["x"] = draw(st.sampled_from([[1, 2], [], *(ref(source, "list") for source in plain)]))
    node = step(name, inputs, over="x" if is_map else None, attempts=draw(st.integers(1, 2)))
    drawing.nodes.append(node | ({"guards": list(place.guards)} if place.guards else {}))
    fails = draw(st.sampled_from([0, 0, 0, 1, ALWAYS]))
    drawing.conducts[MAIN, name] = Conduct(fails, draw(st.sampled_from([None, 0])), draw(st.booleans()))
    return name


def _branch(drawing: Drawing, place: Place, visible: list[str], plain: list[str]) -> list[str]:
    draw = drawing.draw
    simple = op("==", 1, draw(st.integers(1, 2)))
    condition = op("<", ref(draw(st.sampled_from(plain)), "v"), draw(st.integers(0, 2**32))) if plain else simple
    arms: list[tuple[list[dict[str, Any]], Any]] = []
    made: list[str] = []
    for expected in (True, False)[: draw(st.integers(1, 2))]:
        own = guard(condition, expected)
        inner = _block(drawing, Place((*place.guards, own), place.depth + 1), visible, plain)
        made += inner
        arms.append(([own], ref(inner[-1])))
    return [*made, _choice(drawing, place, branch(drawing.name("b"), *arms))]


def _recover(drawing: Drawing, place: Place, visible: list[str], plain: list[str]) -> list[str]:
    draw = drawing.draw
    inside = _block(drawing, Place(place.guards, place.depth + 1), visible, plain)
    on = draw(st.sampled_from(ERRORS))
    caught = _choice(drawing, place, choice("recover", drawing.name("r"), [{"value": None, "steps": inside}], on=on))
    yes, no = guard(ref(caught, "failed")), guard(ref(caught, "failed"), expected=False)
    instead = _block(drawing, Place((*place.guards, yes), place.depth + 1), visible, plain)
    merged = branch(drawing.name("m"), ([no], ref(inside[-1])), ([yes], ref(instead[-1])))
    return [caught, *instead, _choice(drawing, place, merged)]


def _first(drawing: Drawing, place: Place, visible: list[str], plain: list[str]) -> list[str]:
    arms = []
    for _ in range(drawing.draw(st.integers(1, 3))):
        inside = _block(drawing, Place(place.guards, place.depth + 1), visible, plain)
        arms.append({"value": ref(inside[-1]), "steps": inside})
    return [_choice(drawing, place, choice("first", drawing.name("f"), arms))]


def _choice(drawing: Drawing, place: Place, node: dict[str, Any]) -> str:
    drawing.nodes.append(node | ({"guards": list(place.guards)} if place.guards else {}))
    return str(node["id"])


def _closing(drawing: Drawing) -> None:
    for closes in ("on_failure", "finally"):
        if drawing.draw(st.booleans()):
            drawing.nodes.append(closing(closes))
            drawing.conducts[MAIN, closes] = Conduct(drawing.draw(st.sampled_from([0, 0, ALWAYS])))


@st.composite
def choice_flows(draw: st.DrawFn) -> Flow:
    """Draw a workflow with choices; its steps may fail."""
    drawing = Drawing(draw)
    _block(drawing, Place(), [], [])
    _closing(drawing)
    owned = {name for node in drawing.nodes for arm in node.get("arms", ()) for name in arm.get("steps", ())}
    free = [
        node["id"]
        for node in drawing.nodes
        if node["id"] not in owned and not node.get("guards") and node["kind"] != "recover" and "closes" not in node
    ]
    body = definition(MAIN, drawing.nodes, {"all": [ref(name) for name in free]})
    return Flow({MAIN: body}, drawing.conducts)


# --- what must come of them -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ends:
    """How the steps of a workflow have to end."""

    states: Mapping[str, str]
    values: Mapping[str, Any]
    succeeds: bool


def evaluate(flow: Flow, shown: Mapping[str, StepState]) -> Ends:
    """Return how everything has to end; *shown* is how it did, asked for nothing but the winners of races."""
    return _Evaluation(flow, shown).ends()


class _Evaluation:
    def __init__(self, flow: Flow, shown: Mapping[str, StepState]) -> None:
        self.flow, self.shown = flow, shown
        self.nodes = {node["id"]: node for node in flow.definitions[MAIN]["nodes"] if "closes" not in node}
        self.owner = {
            name: node["id"]
            for node in self.nodes.values()
            for arm in node.get("arms", ())
            for name in arm.get("steps", ())
        }
        self.states: dict[str, str] = {}
        self.values: dict[str, Any] = {"$input": {}}

    def ends(self) -> Ends:
        for name in self.nodes:
            self.state(name)
        for name, node in self.nodes.items():
            if node["kind"] == "first" and self.states[name] == OK and self.shown[name] is StepState.SUCCEEDED:
                won = self._winner(node)
                for arm in node["arms"]:
                    if arm is not won:
                        self._lose(arm)
        failed = {name for name, state in self.states.items() if state == FAILED and name not in self.owner}
        for node in self.flow.definitions[MAIN]["nodes"]:
            if "closes" in node:
                runs = node["closes"] == "finally" or bool(failed)
                fails = self.flow.conduct(MAIN, node["id"]).fails > 0
                self.states[node["id"]] = (FAILED if fails else OK) if runs else SKIPPED
        return Ends(self.states, self.values, not failed)

    def _lose(self, arm: dict[str, Any]) -> None:
        for name in arm["steps"]:
            self.states[name] = LOST
            for inner in self.nodes[name].get("arms", ()):
                self._lose({"steps": inner.get("steps", ())})

    def state(self, name: str) -> str:
        if name not in self.states:
            node = self.nodes[name]
            self.states[name], self.values[name] = self._choice(node) if node.get("arms") else self._step(node)
        return self.states[name]

    def _step(self, node: dict[str, Any]) -> tuple[str, Any]:
        sources = _sources([node["inputs"], [each["if"] for each in node.get("guards", ())]])
        states = {self.state(source) for source in sorted(sources)}
        if states & {FAILED, BLOCKED}:
            return BLOCKED, None
        found = self._guarded(node)
        if found is not None or SKIPPED in states:
            return found or SKIPPED, None
        return self._call(node)

    def _call(self, node: dict[str, Any]) -> tuple[str, Any]:
        arguments = {key: self._bind(value) for key, value in node["inputs"].items()}
        conduct = self.flow.conduct(MAIN, node["id"])
        fails = conduct.fails >= node["policy"]["retry"]["attempts"]
        if node["over"] is None:
            fails = fails and conduct.bad_element is None
            return (FAILED, None) if fails else (OK, outcome(node["id"], arguments))
        elements = list(enumerate(arguments["x"]))
        if fails and any(conduct.bad_element in {None, item} for item, _ in elements):
            return FAILED, None
        return OK, [outcome(node["id"], arguments | {"x": value}) for _, value in elements]

    def _choice(self, node: dict[str, Any]) -> tuple[str, Any]:
        found = self._guarded(node)
        if found is not None:
            return found, None
        if node["kind"] == "branch":
            return self._branch(node)
        return self._recover(node) if node["kind"] == "recover" else self._first(node)

    def _guarded(self, node: dict[str, Any]) -> str | None:
        for each in node.get("guards", ()):
            found = self._passes(each)
            if found is not True:
                return found or SKIPPED
        return None

    def _passes(self, each: dict[str, Any]) -> bool | str:
        """Return whether a guard passes, or what becomes of a choice because it cannot be told."""
        states = {self.state(source) for source in _sources(each["if"])}
        if states - {OK}:
            return SKIPPED if SKIPPED in states else BLOCKED
        return _holds(each["if"], self._bind) is each["is"]

    def _branch(self, node: dict[str, Any]) -> tuple[str, Any]:
        for arm in node["arms"]:
            found = self._passes(arm["guards"][0])
            if found is True:
                states = {self.state(source) for source in _sources(arm["value"])}
                return (BLOCKED, None) if states & {FAILED, BLOCKED} else (OK, self._bind(arm["value"]))
            if found is not False:
                return found, None
        return OK, None

    def _recover(self, node: dict[str, Any]) -> tuple[str, Any]:
        (arm,) = node["arms"]
        states = {self.state(name) for name in arm["steps"]}
        if FAILED in states:
            return (FAILED, None) if node["on"] == WRONG_ERROR else (OK, {"failed": True})
        return (BLOCKED, None) if BLOCKED in states else (OK, {"failed": False})

    def _first(self, node: dict[str, Any]) -> tuple[str, Any]:
        arms = [{self.state(name) for name in arm["steps"]} for arm in node["arms"]]
        if self.shown[node["id"]] is StepState.CANCELLED:  # inside of an arm that lost
            return OK, None
        if any(not states & {FAILED, BLOCKED} and OK in states for states in arms):
            won = self._winner(node)
            return OK, self._bind(won["value"])
        if any(FAILED in states for states in arms):
            return FAILED, None
        return BLOCKED, None

    def _winner(self, node: dict[str, Any]) -> dict[str, Any]:
        """Return an arm that succeeded, in the run and by what its steps do."""
        well = {StepState.SUCCEEDED, StepState.SKIPPED}
        for arm in node["arms"]:
            states = {self.state(name) for name in arm["steps"]}
            if {self.shown[name] for name in arm["steps"]} <= well and not states & {FAILED, BLOCKED}:
                return dict(arm)
        raise AssertionError(f"no arm of {node['id']} succeeded, but one could: {self.shown}")

    def _bind(self, value: Any) -> Any:
        match value:
            case {"$ref": source, "path": path}:
                found = self.values[source]
                for key in path:
                    found = found[key]
                return found
        return value


def _sources(value: Any) -> set[str]:
    match value:
        case {"$ref": source}:
            return {source} - {"$input"}
        case dict():
            return {source for member in value.values() for source in _sources(member)}
        case list():
            return {source for member in value for source in _sources(member)}
    return set()


def _holds(condition: Any, bind: Any) -> bool:
    match condition:
        case {"$op": "==", "args": [left, right]}:
            return bool(bind(left) == bind(right))
        case {"$op": "<", "args": [left, right]}:
            return bool(bind(left) < bind(right))
    return bool(bind(condition))
