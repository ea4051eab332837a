"""Steps with which runs close, in some simulations: that they come last, and once, whatever became of the run."""

from random import Random
from typing import TYPE_CHECKING, Any

from hopline_engine.core.model import WHOLE, RunId
from hopline_engine.core.plan import Node
from tests.core.flows import ALWAYS, Conduct
from tests.core.worlds import closing, ref, retry

if TYPE_CHECKING:
    from tests.simulation.ledger import Ledger

TOLD = {"where": ref("$failure", "step"), "why": ref("$failure", "type")}
"""What the step is given that tells of a failure."""


def add_closings(random: Random, workflow: str, nodes: list[dict[str, Any]]) -> dict[tuple[str, str], Conduct]:
    """Let the runs of a workflow close with a step or two; return what these do."""
    conducts: dict[tuple[str, str], Conduct] = {}
    for closes, inputs in (("on_failure", TOLD), ("finally", {"x": 7})):
        if random.random() < 0.3:
            continue
        node = closing(closes, f"y-{closes}", **inputs)
        node["step"] = "a"
        node["policy"]["retry"] = retry(random.choice((1, 2)), 0.5, 2.0, 8.0)
        nodes.append(node)
        accepts = random.random() < 0.3
        conducts[workflow, node["id"]] = Conduct(random.choice((0, 0, 0, 1, ALWAYS)), accepts=accepts)
    return conducts


def left_before(ledger: "Ledger", run: RunId, node: Node) -> list[str]:
    """Return what has to end before a run closes with a step."""
    plan, steps = ledger.plan_of(run), ledger.rows.steps[run]
    before = [other for other in plan.nodes if other.closes is None]
    if node.closes == "finally":
        before += [other for other in plan.closing if other is not node]
    undone = [task for task in ledger.rows.tasks.values() if task.run_id == run and task.node < 0]
    return [other.id for other in before if (other.index, WHOLE) not in steps] + [
        plan.undos[task.node].id for task in undone
    ]


def is_cut_off(ledger: "Ledger", run: RunId) -> bool:
    """Return whether a run was cancelled while it closed: then it ends as it would have."""
    steps = ledger.rows.steps[run]
    ends = [steps[node.index, WHOLE] for node in ledger.plan_of(run).closing if (node.index, WHOLE) in steps]
    return any(end.state == "cancelled" for end in ends)
