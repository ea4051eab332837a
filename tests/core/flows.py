"""Random workflows, what their steps do, and what must come of them.

``evaluate`` says what a workflow has to end with, by walking its definition in the plainest way. It shares no code
with the engine, and knows nothing of attempts, queues, commits or crashes.
"""

import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from hypothesis import strategies as st

from hopline_engine.core.live import LiveTask, Traced
from hopline_engine.core.model import Digest, TaskState
from hopline_engine.core.plan import Plan
from hopline_engine.core.planning import build_plan
from hopline_engine.core.retry import Failure
from tests.core.worlds import ACCEPT, Outcome, definition, event_step, ref, sleep_step, step, turn_step

ALWAYS = 1000
MAIN = "main"
HALF = 2**31
"""Half of all results of steps are at least this."""


@dataclass(frozen=True)
class Conduct:
    """What a step does when it is called."""

    fails: int = 0
    """How many of its first attempts fail."""
    bad_element: int | None = None
    """The only element of a map that fails; every one if ``None``."""
    accepts: bool = False
    """Whether it answers 202 and calls back."""


@dataclass(frozen=True)
class Flow:
    """A workflow with the workflows that it calls, and the conduct of all their steps."""

    definitions: Mapping[str, dict[str, Any]]
    """By name, sub-workflows before those that call them."""
    conducts: Mapping[tuple[str, str], Conduct] = field(default_factory=dict)
    """By workflow and step."""

    built: dict[str, Plan] = field(default_factory=dict, compare=False)

    def plans(self) -> dict[str, Plan]:
        for name, body in self.definitions.items():
            if name not in self.built:
                self.built[name] = build_plan(body, Digest(name), self.built)
        return self.built

    def execute(self, task: LiveTask, arguments: dict[str, Any]) -> Outcome:
        """Do what the step does, the same way each time."""
        conduct = self.conduct(task.run.plan.name, task.node.id)
        if conduct.accepts and task.state is TaskState.LEASED:
            return ACCEPT
        if task.made <= conduct.fails and conduct.bad_element in {None, task.item}:
            return Failure("ValueError", f"attempt {task.made}", ("ValueError", "Exception"))
        if task.node.kind == "dynamic":
            return self._graph(task, arguments)
        return msgspec.json.encode(outcome(task.node.id, arguments))

    def _graph(self, task: LiveTask, arguments: dict[str, Any]) -> Outcome:
        """Return what a worker would trace: one of the other workflows."""
        nodes = {node["id"]: node for node in self.definitions[task.run.plan.name]["nodes"]}
        return Traced(self.plans()[nodes[task.node.id]["traces"]], msgspec.json.encode(arguments), [])

    def conduct(self, workflow: str, node: str) -> Conduct:
        return self.conducts.get((workflow, node), Conduct())

    def healed(self) -> "Flow":
        """Return the same workflow with steps that never fail."""
        return Flow(self.definitions)

    @property
    def is_calm(self) -> bool:
        return not any(conduct.fails for conduct in self.conducts.values())


def outcome(node: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a step: it depends on everything the step was given."""
    digest = zlib.crc32(json.dumps([node, arguments], sort_keys=True).encode())
    return {"v": digest, "list": list(range(digest % 4))}


class StepFailedError(Exception):
    """The step, and so what needs it, does not succeed."""


def evaluate(flow: Flow, name: str = MAIN, given: Mapping[str, Any] | None = None) -> tuple[set[str], Any]:
    """Return the steps that succeed, and the result; the result is ``None`` if any step does not."""
    body = flow.definitions[name]
    values: dict[str, Any] = {"$input": dict(given or {})}
    waiting = {node["id"]: node for node in body["nodes"]}
    while True:
        ready = [node for node in waiting.values() if _sources(node) <= values.keys()]
        for node in ready:
            del waiting[node["id"]]
            with suppress(StepFailedError):  # it has no value then, so nothing that needs it becomes ready
                values[node["id"]] = _call(flow, name, node, values)
        if not ready:
            break
    succeeded = set(values) - {"$input"}
    if len(succeeded) < len(body["nodes"]):
        return succeeded, None
    return succeeded, _bind(body["result"], values)


def _call(flow: Flow, workflow: str, node: dict[str, Any], values: dict[str, Any]) -> Any:
    arguments = {key: _bind(value, values) for key, value in node["inputs"].items()}
    over = node["over"]
    if node.get("loop"):
        return _looped(flow, workflow, node, arguments)
    if over is None:
        return _call_once(flow, workflow, node, arguments, None)
    called = [(arguments | {over: value}, item) for item, value in enumerate(arguments[over])]
    if not node.get("settled"):
        return [_call_once(flow, workflow, node, *call) for call in called]
    return [_settled(flow, workflow, node, *call) for call in called]


def _looped(flow: Flow, workflow: str, node: dict[str, Any], arguments: dict[str, Any]) -> Any:
    loop = node["loop"]
    given = arguments[loop["over"]]
    for lap in range(loop["limit"]):
        given = _call_once(flow, workflow, node, arguments | {loop["over"]: given}, lap)
        if not isinstance(given, dict) or "v" not in given:
            break  # the condition cannot be told
        if given["v"] >= HALF:
            return given
    raise StepFailedError


def _settled(flow: Flow, workflow: str, node: dict[str, Any], arguments: dict[str, Any], item: int) -> Any:
    try:
        return {"ok": _call_once(flow, workflow, node, arguments, item)}
    except StepFailedError:
        last = node["policy"]["retry"]["attempts"]
        return {"err": {"type": "ValueError", "message": f"attempt {last}", "status": None}}


def _call_once(flow: Flow, workflow: str, node: dict[str, Any], arguments: dict[str, Any], item: int | None) -> Any:
    if node["kind"] in {"sleep", "event", "turn"}:
        return None
    conduct = flow.conduct(workflow, node["id"])
    is_bad = conduct.bad_element is None or conduct.bad_element == item
    if is_bad and conduct.fails >= node["policy"]["retry"]["attempts"]:
        raise StepFailedError
    called = node["workflow"]["name"] if node["workflow"] is not None else node.get("traces")
    if called is None:
        return outcome(node["id"], arguments)
    succeeded, result = evaluate(flow, called, arguments)
    if len(succeeded) < len(flow.definitions[called]["nodes"]):
        raise StepFailedError
    return result


def _sources(value: Any) -> set[str]:
    """Return the steps that a node, or a value in it, needs."""
    match value:
        case {"$ref": source}:
            return {source}
        case {"inputs": inputs, "after": after}:
            return _sources(inputs) | set(after)
        case dict():
            return {source for member in value.values() for source in _sources(member)}
        case list():
            return {source for member in value for source in _sources(member)}
    return set()


def _bind(value: Any, values: Mapping[str, Any]) -> Any:
    match value:
        case {"$ref": source, "path": path}:
            found = values[source]
            for key in path:
                found = found[key]
            return found
        case dict():
            return {key: _bind(member, values) for key, member in value.items()}
        case list():
            return [_bind(member, values) for member in value]
    return value


# --- strategies -----------------------------------------------------------------------------------------------------


@st.composite
def _nodes(
    draw: st.DrawFn, called: str | None, *, has_input: bool, deadlines: bool, settled: bool, failures: bool
) -> list[dict[str, Any]]:
    """Draw steps that need some of the steps before them."""
    nodes: list[dict[str, Any]] = []
    for name in "abcdef"[: draw(st.integers(1, 6))]:
        before = [node["id"] for node in nodes]
        kinds = {node["id"]: node["kind"] for node in nodes}
        if draw(st.integers(0, 7)) == 0:
            waits = draw(
                st.sampled_from([sleep_step(name, 0.0, after=before[-1:]), event_step(name, "k", after=before[-1:])])
            )
            nodes.append(waits)
            continue
        maps = [node["id"] for node in nodes if node["over"] is not None]
        own = [node["id"] for node in nodes if node["over"] is None and node["workflow"] is None]
        plain = [name for name in own if kinds[name] in {"python", "loop"}]
        calls = called is not None and draw(st.integers(0, 3)) == 0
        inputs: dict[str, Any] = {}
        for source in draw(st.sets(st.sampled_from(before), max_size=2)) if before else ():
            inputs[f"from_{source}"] = ref(source)
        if has_input and draw(st.booleans()):
            inputs["from_input"] = ref("$input", "x")
        over = None
        if draw(st.booleans()):
            over = "x"
            lists: list[Any] = [[1, 2, 3], [7], []]
            inputs["x"] = draw(
                st.sampled_from([*lists, *(ref(source, "list") for source in plain), *(ref(source) for source in maps)])
            )
        elif calls:
            inputs["x"] = ref(draw(st.sampled_from(before))) if before else 5
        node = step(
            name,
            inputs,
            over=over,
            after=sorted(draw(st.sets(st.sampled_from(before), max_size=1))) if before else [],
            attempts=draw(st.integers(1, 3)),
            deadline=draw(st.sampled_from([None, None, 1.5, 100.0])) if deadlines else None,
            max_parallel=draw(st.sampled_from([None, 1, 2])),
            workflow=(called, called) if calls and called else None,
        )
        _exclude(draw, node, [source for source in plain if f"from_{source}" in inputs])
        if settled and over is not None and not calls and draw(st.booleans()):
            node["settled"] = True
        if over is None and draw(st.integers(0, 4)) == 0 and (failures or not calls):
            _repeat(node, draw(st.integers(1, 3)) if failures else 100, draw(st.sampled_from([None, 1.0])))
        elif calls and draw(st.booleans()):
            node |= {"kind": "dynamic", "signature": "s", "workflow": None, "traces": called}
        nodes.append(node)
    return nodes


def take_turns(nodes: list[dict[str, Any]], limit: int) -> None:
    """Let runs wait for turns, as the compiler does."""
    for node in nodes:
        if "closes" not in node and not _sources(node) - {"$input"}:
            node["after"] = [*node["after"], "turn"]
    nodes.append(turn_step(limit))


def _exclude(draw: st.DrawFn, node: dict[str, Any], numbers: list[str]) -> None:
    """Let few tasks of one key be worked on at a time, of some steps; *numbers* are steps that may say which it is."""
    if node["kind"] != "python" or draw(st.integers(0, 2)) > 0:
        return
    limit = draw(st.integers(1, 2))
    key = {"key": ref(numbers[0], "v"), "key_limit": 1} if numbers else {"key": f"of {limit}", "key_limit": limit}
    node["policy"] |= key


def _repeat(node: dict[str, Any], limit: int, every: float | None) -> None:
    """Make a step a loop."""
    until = {"$op": ">=", "args": [ref("$item", "v"), HALF]}
    node["inputs"].setdefault("x", 0)
    node["loop"] = {"kind": node["kind"], "over": "x", "until": until, "limit": limit, "every": every}
    node["kind"] = "loop"


def _conducts(failures: bool) -> st.SearchStrategy[Conduct]:
    if not failures:
        return st.builds(Conduct, accepts=st.booleans())
    return st.builds(
        Conduct,
        fails=st.sampled_from([0, 0, 0, 1, 2, ALWAYS]),
        bad_element=st.sampled_from([None, 0, 1]),
        accepts=st.sampled_from([False, False, True]),
    )


@st.composite
def flows(draw: st.DrawFn, *, failures: bool = True, deadlines: bool = False, settled: bool = True) -> Flow:
    """Draw a workflow, perhaps with sub-workflows and with steps that fail; with deadlines nobody knows how it ends."""
    names = ["leaf", "child", MAIN][-draw(st.integers(1, 3)) :]
    definitions: dict[str, dict[str, Any]] = {}
    conducts: dict[tuple[str, str], Conduct] = {}
    for name in names:
        called = next(reversed(definitions), None)
        nodes = draw(_nodes(called, has_input=name != MAIN, deadlines=deadlines, settled=settled, failures=failures))
        result = {"all": [ref(node["id"]) for node in nodes]}
        if draw(st.integers(0, 3)) == 0:
            take_turns(nodes, draw(st.integers(1, 2)))
        definitions[name] = definition(name, nodes, result)
        for node in nodes:
            if node["workflow"] is None and node["kind"] not in {"sleep", "event", "turn"}:
                conduct = draw(_conducts(failures))
                is_traced = node["kind"] == "dynamic"  # by a worker, which answers at once
                conducts[name, node["id"]] = replace(conduct, accepts=False) if is_traced else conduct
    return Flow(definitions, conducts)


def compensating(flow: Flow, bad_undos: frozenset[str] = frozenset()) -> Flow:
    """Return the same workflow with an undo step for each of its Python steps; *bad_undos* never succeed."""
    definitions = {
        name: body | {"compensate": True, "nodes": [with_undo(node) for node in body["nodes"]]}
        for name, body in flow.definitions.items()
    }
    undos = {(name, f"undo_{node}"): Conduct(fails=ALWAYS) for name in definitions for node in bad_undos}
    return Flow(definitions, {**flow.conducts, **undos})


def with_undo(node: dict[str, Any]) -> dict[str, Any]:
    """Return a step with an undo step, if it is one that a worker executes; others as they are."""
    if node["kind"] != "python" or "closes" in node:
        return node
    name = f"undo_{node['id']}"
    undo = step(name, {"result": ref("$item")}, attempts=2) | {"step": f"undo_{node['step']}"}
    return node | {"undo": {part: undo[part] for part in _UNDO_PARTS}}


_UNDO_PARTS = ("id", "kind", "step", "signature", "inputs", "request", "result", "policy")
