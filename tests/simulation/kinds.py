"""Kinds of steps and policies that only some simulations have.

Keys, limits of runs, dynamic workflows, maps in batches, priorities, deadlines of runs, heartbeats, results that are
kept in blobs, since they are too large for rows, runs that leave memory while they only wait, choices, steps in
which people decide, steps with which runs close, maps that give what became of each element, steps that look again,
and forks.

Each kind is drawn from a stream of the seed of its own, so that a new one leaves the simulations alone that do not
have it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.core.flows import Conduct, Flow, outcome, take_turns
from tests.core.worlds import ref, retry
from tests.simulation import forks
from tests.simulation.approvals import add_approval
from tests.simulation.choices import Choices
from tests.simulation.closings import add_closings
from tests.simulation.outcomes import add_pipeline, settle
from tests.simulation.sensors import add_sensor

SHARES = {
    "keys": 0.15,
    "turns": 0.12,
    "dynamic": 0.15,
    "batches": 0.15,
    "priorities": 0.1,
    "deadlines": 0.1,
    "blobs": 0.1,
    "heartbeats": 0.15,
    "parking": 0.15,
    "choices": 0.13,
    "approvals": 0.12,
    "closings": 0.13,
    "settled": 0.13,
    "sensors": 0.12,
    "forks": 0.12,
}
"""Of the simulations that have each kind."""
_DECIDED_LATE = {"choices", "approvals", "closings", "settled", "forks"}
SUBJECTS = ("s0", "s1", "s2")
"""What steps with keys are about; of the first one is worked on at a time, of the second two, and so on."""
SIGNATURE = "s"


@dataclass
class Kinds:
    """The kinds that one simulation has, and what its workflows have of them."""

    seed: int
    names: frozenset[str] = field(init=False)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    """What steps are about, by workflow and step, where it is the same in all runs."""
    turns: dict[str, int] = field(default_factory=dict)
    """How many runs of each workflow may be under way at a time."""
    looks: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often sensors look in vain, by workflow and step."""

    def __post_init__(self) -> None:
        shares = SHARES.items()
        self.names = frozenset(name for name, share in shares if Random(f"{name} {self.seed}").random() < share)

    @property
    def is_decided_late(self) -> bool:
        """Whether it is not known from the definitions alone how runs have to end."""
        return not self.names.isdisjoint(_DECIDED_LATE)

    def add_to(self, workflow: str, nodes: list[dict[str, Any]]) -> dict[tuple[str, str], Conduct]:
        """Let the steps of a workflow have something of each kind; return the conducts that are new."""
        conducts: dict[tuple[str, str], Conduct] = {}
        for name in sorted(self.names):
            random = Random(f"{name} of {workflow} {self.seed}")
            match name:
                case "keys":
                    self._add_keys(random, workflow, nodes)
                case "turns":
                    self._add_turn(random, workflow, nodes)
                case "dynamic":
                    conducts |= _make_dynamic(random, workflow, nodes)
                case "batches":
                    _add_batches(random, nodes)
                case "priorities":
                    _add_priorities(random, nodes)
                case "settled":
                    conducts |= settle(random, workflow, nodes)
        return conducts

    def extend(
        self, workflow: str, nodes: list[dict[str, Any]], called: dict[str, str] | None
    ) -> tuple[list[str], dict[tuple[str, str], Conduct]]:
        """Let a workflow have more steps; return those that are part of its result, and the conducts that are new."""
        shown: list[str] = []
        conducts: dict[tuple[str, str], Conduct] = {}
        names = [node["id"] for node in nodes]
        if "choices" in self.names:
            choices = Choices(Random(f"choices of {workflow} {self.seed}"), workflow, called)
            choices.draw(nodes)
            nodes += choices.nodes
            shown += choices.shown
            conducts |= choices.conducts
        if "approvals" in self.names:
            shown += add_approval(Random(f"approvals of {workflow} {self.seed}"), nodes, names)
        if "sensors" in self.names:
            shown += add_sensor(Random(f"sensor of {workflow} {self.seed}"), workflow, nodes, names, self.looks)
        if "forks" in self.names:
            shown += forks.add_steps(Random(f"given to {workflow} {self.seed}"), workflow, nodes)
        if "settled" in self.names:
            shown += add_pipeline(Random(f"pipeline of {workflow} {self.seed}"), nodes)
        if "closings" in self.names:
            conducts |= add_closings(Random(f"closings of {workflow} {self.seed}"), workflow, nodes)
        return shown, conducts

    @property
    def given(self) -> dict[str, Any]:
        """What is said of the parameter of each workflow."""
        return forks.GIVEN if "forks" in self.names else {}

    def deadline_of(self, workflow: str) -> float | None:
        """Return the seconds after which runs of a workflow fail."""
        random = Random(f"deadline of {workflow} {self.seed}")
        return random.choice((None, 3.0, 10.0, 30.0)) if "deadlines" in self.names else None

    def conduct(self, workflow: str, name: str, drawn: Conduct) -> Conduct:
        """Return what a step does: where it has a key, it holds that for longer than others would."""
        is_long = (workflow, name) in self.keys and Random(f"{name} of {workflow} {self.seed}").random() < 0.5
        return replace(drawn, accepts=True) if is_long else drawn

    def _add_keys(self, random: Random, workflow: str, nodes: list[dict[str, Any]]) -> None:
        usual = random.randrange(len(SUBJECTS))
        for node in nodes:
            if node["kind"] not in {"python", "http", "loop"} or "batch" in node["policy"] or random.random() < 0.3:
                continue
            place = usual if random.random() < 0.6 else random.randrange(len(SUBJECTS))
            node["policy"]["queue"] = random.choice(("default", node["policy"]["queue"]))
            node["policy"] |= {"key": SUBJECTS[place], "key_limit": 1 + place}
            if isinstance(node["inputs"].get(node["over"]), list) and random.random() < 0.3:
                node["policy"]["key"] = ref("$item")
            else:
                self.keys[workflow, node["id"]] = SUBJECTS[place]

    def _add_turn(self, random: Random, workflow: str, nodes: list[dict[str, Any]]) -> None:
        """Limit the runs of a workflow, as the compiler does for ``max_runs``."""
        if random.random() < 0.3:
            return
        self.turns[workflow] = limit = random.choice((1, 1, 2, 3))
        take_turns(nodes, limit)


def _make_dynamic(random: Random, workflow: str, nodes: list[dict[str, Any]]) -> dict[tuple[str, str], Conduct]:
    """Let workers trace the graphs of workflows that steps call."""
    conducts: dict[tuple[str, str], Conduct] = {}
    for node in nodes:
        if node["kind"] != "workflow" or random.random() < 0.3:
            continue
        node |= {"kind": "dynamic", "signature": SIGNATURE, "traces": node["workflow"]["name"], "workflow": None}
        node["policy"]["retry"] = retry(3, random.choice((0.0, 0.5)), 2.0, 8.0)
        conducts[workflow, node["id"]] = Conduct(fails=random.choice((0, 0, 0, 1, 2)))
    return conducts


def _add_batches(random: Random, nodes: list[dict[str, Any]]) -> None:
    for node in nodes:
        if node["kind"] == "python" and node["over"] is not None:
            node["policy"]["batch"] = random.choice((2, 3, 8))
            if node["policy"]["queue"] == "slow":  # whose rate is checked by the attempt, and a batch takes one token
                node["policy"]["queue"] = "narrow"


def _add_priorities(random: Random, nodes: list[dict[str, Any]]) -> None:
    for node in nodes:
        if node["kind"] in {"python", "http", "loop"}:
            node["policy"]["priority"] = random.choice((-5, -1, 0, 1, 5))


def answer_of(flow: Flow, workflow: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a step answers when it succeeds: its result, or the graph of a dynamic workflow."""
    nodes = flow.definitions[workflow]["nodes"]
    traces = next((node.get("traces") for node in nodes if node["id"] == name), None)
    if traces is None:
        return outcome(name, arguments)
    return {"definitions": [flow.definitions[each] for each in called_from(flow, traces)], "input": arguments}


def called_from(flow: Flow, workflow: str) -> Iterator[str]:
    """Yield a workflow and those that have to be known so that it can be run."""
    called = {node["workflow"]["name"] for node in flow.definitions[workflow]["nodes"] if node["workflow"] is not None}
    yield workflow
    for each in sorted(called):
        yield from called_from(flow, each)
