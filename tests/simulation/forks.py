"""Forks of runs that have ended, in some simulations: what they make again, and with what."""

import asyncio
import json
from random import Random
from typing import TYPE_CHECKING, Any

from hopline_engine.core.model import RunId
from tests.core.flows import Flow
from tests.core.worlds import ref, step
from tests.simulation.network import Answer, Request

if TYPE_CHECKING:
    from tests.simulation.world import Wanted, World

GIVEN = {"default": 3}
"""What a run is given unless somebody says otherwise."""


def add_steps(random: Random, workflow: str, nodes: list[dict[str, Any]]) -> list[str]:
    """Let the result of a workflow that people start depend on what it is given."""
    if "-" in workflow or random.random() < 0.3:
        return []
    for node in (step("f0", {"given": ref("$input", "x")}), step("f1", {"from_f0": ref("f0")})):
        node["step"] = "a"
        nodes.append(node)
    return ["f1"]


class Forks:
    """Those of one simulation."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = Random(f"forking {world.seed}")
        self._steps: dict[str, str] = {}
        """From which step each fork was made, as far as that was acknowledged."""

    async def fork(self, wanted: "Wanted") -> None:
        """Make a part of a run again when it has ended, perhaps with something else that it is given."""
        world, random = self._world, self._random
        if "forks" not in world.kinds.names or random.random() < 0.4:
            return
        run = world.ledger.run(wanted.run)
        assert run is not None
        while run.id not in world.ledger.rows.ended:  # noqa: ASYNC110 - virtual time costs nothing
            await asyncio.sleep(random.uniform(0.5, 2))
        nodes = wanted.flow.definitions[wanted.workflow]["nodes"]
        name = random.choice([node["id"] for node in nodes if "closes" not in node and node["kind"] != "turn"])
        given = random.choice(({}, {}, {"x": random.randint(4, 9)}))
        listening = world.listening()
        if listening:
            world.starts_in_doubt += 1
            slot = random.choice(listening).slot
            await world.ask(slot, "POST", f"/runs/{wanted.run}/fork", {"step": name, "input": given})

    def note(self, run: str, request: Request, answer: Answer) -> str | None:
        """Note a fork that is acknowledged; return what is wrong with it."""
        world = self._world
        asked, fork = json.loads(request.body), world.ledger.run(str(answer.json()["id"]))
        origin = world.ledger.run(run)
        if fork is None or origin is None:
            return "the run is not durable"
        self._steps[fork.public_id] = asked["step"]
        must = json.loads(origin.input) | asked["input"]
        if (fork.fork_of, json.loads(fork.input)) != (origin.id, must):
            return f"it is {fork}, and had to be given {must}"
        return None

    def made_again(self, fork: RunId) -> set[str] | None:
        """Return the steps that a fork makes again, whatever became of them before; ``None`` if nobody knows."""
        world = self._world
        row = world.ledger.rows.runs[fork]
        name = self._steps.get(row.public_id)
        return None if name is None else _depending(world.flow_of(row.workflow), row.workflow, name)

    def pronounce(self) -> None:
        """Check that no fork goes on with what was begun below the run that it is of."""
        rows = self._world.ledger.rows.runs
        for row in rows.values():
            root = rows[self._world.ledger.root(row.id)]
            if root.fork_of is not None and row.retry_of is not None:
                self._world.violated(f"{row.public_id} goes on with {row.retry_of}, and is part of a fork")


def _depending(flow: Flow, workflow: str, name: str) -> set[str]:
    """Return a step and all that needs it."""
    found = {name}
    nodes = flow.definitions[workflow]["nodes"]
    while more := {node["id"] for node in nodes if node["id"] not in found and _needed(node) & found}:
        found |= more
    return found


def _needed(node: dict[str, Any]) -> set[str]:
    """Return the steps that are named anywhere in a step."""
    inside = {name for arm in node.get("arms", ()) for name in arm.get("steps", ())}
    return _named(node) | inside | set(node["after"])


def _named(value: Any) -> set[str]:
    match value:
        case {"$ref": str(source)}:
            return {source}
        case dict():
            return {source for member in value.values() for source in _named(member)}
        case list():
            return {source for member in value for source in _named(member)}
    return set()
