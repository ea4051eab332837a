"""Random workflows: chains, diamonds, maps that follow each other, maps of sub-workflows, HTTP steps, loops, waits.

Some undo what they did when they do not succeed.

What they have to return is what ``tests.core.flows.evaluate`` says, which shares no code with the engine.
"""

import hashlib
import json
from random import Random
from typing import Any

from tests.core.flows import ALWAYS, HALF, Conduct, Flow, with_undo
from tests.core.worlds import definition, event_step, ref, retry, sleep_step, step
from tests.simulation.kinds import Kinds

TARGET = "http://target.test/steps"
STEPS = "abcde"
EVENT = "happened"
KEYS = ("k0", "k1", "k2")
"""Of the events that steps wait for."""
COMPENSATING = 0.3
"""Share of the workflows that undo what they did."""


def draw_queues(random: Random) -> list[dict[str, Any]]:
    """Return the queues that workflows of one simulation name besides ``default``."""
    return [
        {
            "name": "narrow",
            "max_dispatches_per_second": None,
            "max_burst_size": None,
            "max_concurrent_dispatches": random.randint(1, 2),
        },
        {
            "name": "slow",
            "max_dispatches_per_second": float(random.randint(1, 4)),
            "max_burst_size": random.randint(1, 6),
            "max_concurrent_dispatches": None,
        },
    ]


def draw_flow(random: Random, name: str, queues: list[dict[str, Any]], kinds: Kinds, *, is_calm: bool) -> Flow:
    """Return a workflow, perhaps with sub-workflows, and what its steps do."""
    definitions: dict[str, dict[str, Any]] = {}
    conducts: dict[tuple[str, str], Conduct] = {}
    for each in [f"{name}-leaf", f"{name}-child", name][-random.choice((1, 1, 2, 3)) :]:
        called = next(reversed(definitions), None)
        nodes: list[dict[str, Any]] = []
        for shape in _shape(random):
            before = {node["id"]: node for node in nodes}
            child = definitions.get(called or "")
            nodes.append(_draw_node(random, shape, before, child, has_input=each != name, is_calm=is_calm))
        names = [node["id"] for node in nodes]
        shown, known = kinds.extend(each, nodes, _call_of(definitions.get(called or "")))
        result = {"all": [ref(name) for name in (*names, *shown)]}
        compensates = random.random() < COMPENSATING
        if compensates:
            nodes = [with_undo(node) for node in nodes]
        known |= kinds.add_to(each, nodes)
        conducts |= known
        body = definition(each, nodes, result)
        if compensates:
            body["compensate"] = True
        if not is_calm and (deadline := kinds.deadline_of(each)) is not None:
            body["deadline"] = deadline
        body["parameters"] = {"type": "object", "properties": {"x": kinds.given}}
        body["queues"] = queues
        definitions[each] = body
        for node in nodes:
            if node["kind"] in {"python", "http", "loop"} and (each, node["id"]) not in known:
                conducts[each, node["id"]] = kinds.conduct(each, node["id"], _draw_conduct(random, node))
            if "undo" in node:
                conducts[each, node["undo"]["id"]] = _draw_conduct(random, node["undo"])
    return Flow(definitions, conducts)


def main_of(flow: Flow) -> str:
    """Return the name of the workflow that calls the others."""
    return list(flow.definitions)[-1]


def digest_of(body: dict[str, Any]) -> str:
    """Return the version of a definition, as ``hopline.Definition`` computes it."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


_Shape = tuple[str, list[str]]


def _shape(random: Random) -> list[_Shape]:
    """Return names of steps, each with those it needs."""
    match random.randrange(5):
        case 0:
            names = STEPS[: random.randint(2, 4)]
            return [(name, [names[place - 1]] if place else []) for place, name in enumerate(names)]
        case 1:
            return [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"])]
        case 2:
            return [("a", []), ("b", ["a"]), ("c", ["b"])]
        case _:
            names = STEPS[: random.randint(1, 5)]
            return [
                (name, random.sample(names[:place], min(place, random.randint(0, 2))))
                for place, name in enumerate(names)
            ]


def _draw_node(
    random: Random,
    shape: _Shape,
    before: dict[str, dict[str, Any]],
    called: dict[str, Any] | None,
    *,
    has_input: bool,
    is_calm: bool,
) -> dict[str, Any]:
    name, needed = shape
    if random.random() < 0.08:
        return sleep_step(name, random.choice((0.0, 0.5, 20.0)), after=needed)
    if random.random() < 0.06:
        return event_step(name, random.choice(KEYS), after=needed)
    inputs: dict[str, Any] = {f"from_{source}": ref(source) for source in needed}
    if has_input and random.random() < 0.5:
        inputs["given"] = ref("$input", "x")
    calls = called is not None and random.random() < 0.4
    over = "x" if random.random() < 0.35 else None
    if over is not None:
        inputs[over] = _draw_items(random, [before[source] for source in needed])
    elif calls:
        inputs["x"] = random.randint(0, 9)
    node = step(name, inputs, over=over, max_parallel=random.choice((None, None, 1, 2)))
    if calls and called is not None:
        node |= {"kind": "workflow", "signature": "", "workflow": _call_of(called)}
        return node
    policy = node["policy"]
    policy["queue"] = random.choice(("default", "default", "narrow", "slow"))
    policy["retry"] = retry(random.choice((1, 2, 3, 4)), random.choice((0.0, 0.5, 2.0)), 2.0, 8.0)
    policy["retry"]["jitter"] = random.choice(("none", "full", "equal"))
    if not is_calm:
        policy["timeout"] = random.choice((None, 2.0, 10.0))
        policy["deadline"] = random.choice((None, None, None, 20.0, 90.0))
    if random.random() < 0.4:
        body = inputs | ({over: ref("$item")} if over is not None else {})
        request = {"method": "POST", "url": TARGET, "json": body, "has_json": True}
        node |= {"kind": "http", "signature": "", "request": request}
    elif over is None and random.random() < 0.2:
        _repeat(random, node)
    return node


def _call_of(called: dict[str, Any] | None) -> dict[str, str] | None:
    """Return how a step names the workflow that it calls."""
    return {"name": called["name"], "digest": digest_of(called)} if called is not None else None


def _repeat(random: Random, node: dict[str, Any]) -> None:
    """Make a step a loop."""
    node["inputs"].setdefault("x", 0)
    until = {"$op": ">=", "args": [ref("$item", "v"), HALF]}
    rest = random.choice((None, 0.5, 10.0))
    node["loop"] = {"kind": "python", "over": "x", "until": until, "limit": random.randint(1, 9), "every": rest}
    node["kind"] = "loop"


def _draw_items(random: Random, needed: list[dict[str, Any]]) -> Any:
    """Return what a step maps over: a list that stands there, or one in the result of a step."""
    source = needed[0] if needed else None
    if source is None or source["kind"] in {"sleep", "event"} or random.random() < 0.3:
        return random.choice(([1, 2, 3], [7], [], list(range(8))))
    if source["over"] is not None:
        return ref(source["id"])
    return ref(source["id"], "list" if source["workflow"] is None else "all")


def _draw_conduct(random: Random, node: dict[str, Any]) -> Conduct:
    attempts = node["policy"]["retry"]["attempts"]
    fails = random.choice((0, 0, 0, 0, 1, 2))
    if random.random() < 0.04:
        fails = ALWAYS
    elif fails >= attempts:  # lost attempts would make it depend on luck whether it succeeds
        fails = 0
    return Conduct(fails, random.choice((None, 0, 1)), accepts=random.random() < 0.25)
