"""``@workflow(max_runs=)``: the first step of a run, in which it waits while others are under way."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hopline.definition import Node
from hopline.policy import Policy

if TYPE_CHECKING:
    from hopline.wiring import BodyTrace

TURN: Final = "turn"


def add_turn(trace: "BodyTrace") -> None:
    """Let every step that waits for nothing else wait for the run's turn, if the workflow limits its runs."""
    limit = trace.workflow.max_runs
    first = [node for node in trace.nodes.values() if not node.upstream()]
    if limit is None or not first:
        return
    turn = Node(
        id=trace.new_id(TURN),
        kind="turn",
        step=TURN,
        signature="",
        inputs={"limit": limit},
        result={"type": "null"},
        policy=Policy().to_json(),
    )
    trace.add_node(turn)
    for node in first:
        trace.nodes[node.id] = replace(node, after=(*node.after, turn.id))
