"""Maps that give what became of each element, in some simulations: one that fails for good keeps no other one back.

Besides those that a workflow has anyway there may be two more, of which one follows the other.
"""

from random import Random
from typing import Any

from tests.core.flows import ALWAYS, Conduct
from tests.core.worlds import ref, retry, step


def add_pipeline(random: Random, nodes: list[dict[str, Any]]) -> list[str]:
    """Let a workflow have a map that follows another one; return what is part of the result."""
    if random.random() < 0.3:
        return []
    items = random.choice(([1, 2, 3], list(range(6))))
    first = step("s0", {"x": items}, over="x", max_parallel=random.choice((None, 2)))
    second = step("s1", {"x": ref("s0")}, over="x")
    for node in (first, second):
        node["step"] = "a"
        node["policy"]["retry"] = retry(random.choice((1, 2)), random.choice((0.0, 0.5)), 2.0, 8.0)
    nodes += [first, second]
    return ["s1"]


def settle(random: Random, workflow: str, nodes: list[dict[str, Any]]) -> dict[tuple[str, str], Conduct]:
    """Let maps give what became of each element; of some, elements fail for good. Return what these do."""
    conducts: dict[tuple[str, str], Conduct] = {}
    for node in nodes:
        if node["over"] is None or random.random() < 0.2:
            continue
        node["settled"] = True
        if node["kind"] != "workflow" and random.random() < 0.6:
            conducts[workflow, node["id"]] = Conduct(ALWAYS, random.choice((None, 0, 1)), random.random() < 0.2)
    return conducts
