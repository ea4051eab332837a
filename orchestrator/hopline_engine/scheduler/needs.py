"""Which steps of which signatures runs still need: what workers have to serve until those runs have ended."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from hopline_engine.core.model import Digest
from hopline_engine.core.plan import HTTP_ROUTE, Node, Plan
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.store import needs
from hopline_engine.store.interface import Reads

SHOWN: Final = 3
"""How many runs are named for each need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A step of one version of a workflow, which some live runs have not finished."""

    workflow: str
    digest: Digest
    step: str
    signature: str
    runs: int
    examples: list[str]
    """Ids of the oldest of them."""


async def needs_of_live_runs(reads: Reads, catalogue: Catalogue) -> list[Need]:
    """Return what live runs need of workers, by workflow and step; versions that cannot be planned are left out."""
    progress = await reads.read(needs.progress)
    await catalogue.load(set(progress))
    left = [
        (catalogue.plan(digest), node, runs - ended[node.index])
        for digest, (runs, ended) in progress.items()
        if catalogue.has_plan(digest)
        for node in catalogue.plan(digest).nodes
        if node.route != HTTP_ROUTE and ended[node.index] < runs
    ]
    found = [await _need(reads, plan, node, runs) for plan, node, runs in left]
    return sorted(found, key=lambda need: (need.workflow, need.step, need.digest))


async def _need(reads: Reads, plan: Plan, node: Node, runs: int) -> Need:
    examples = await reads.read(partial(needs.runs_before, digest=plan.digest, node=node.index, limit=SHOWN))
    return Need(
        workflow=plan.name,
        digest=plan.digest,
        step=node.route.step,
        signature=node.route.signature,
        runs=runs,
        examples=examples,
    )
