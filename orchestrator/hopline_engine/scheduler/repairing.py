"""Reads what a new run can keep of one that has ended, sub-runs included."""

from functools import partial

from hopline_engine.core.model import RunId
from hopline_engine.core.plan import Plan
from hopline_engine.core.reusing import Again, Earlier, kept_of
from hopline_engine.store import runs, steps
from hopline_engine.store.interface import Reads


async def earlier(reads: Reads, plan: Plan, run: RunId, run_input: bytes, again: Again) -> Earlier:
    """Return what a run has got, without what is made again and what was undone."""
    rows = await reads.read(partial(steps.of_run, run_id=run))
    again |= Again.of_undone(plan, rows)
    return Earlier(run, plan.digest, run_input, kept_of(plan, rows, again), await below(reads, plan, run, again))


async def below(reads: Reads, plan: Plan, run: RunId, again: Again) -> dict[tuple[int, int], Earlier]:
    """Return the sub-runs of a run that can be gone on with, by the node and item that they executed."""
    found: dict[tuple[int, int], Earlier] = {}
    if not any(node.child for node in plan.nodes):
        return found
    for sub_run in await reads.read(partial(runs.unsuccessful_sub_runs, parent=run)):
        child = plan.nodes[sub_run.node].child
        if child is not None and not again.has(sub_run.node, sub_run.item):
            found[sub_run.node, sub_run.item] = await earlier(reads, child, sub_run.id, sub_run.input, Again())
    return found
