"""What a new run keeps of one that has ended: the results of its steps, but for those that are to be made again."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from hopline_engine.core.model import WHOLE, Digest, RunId, StepEnded, StepState
from hopline_engine.core.plan import Plan


class Earlier(NamedTuple):
    """A run that another one goes on from."""

    run: RunId
    digest: Digest
    """A dynamic workflow may have another graph each time."""
    input: bytes
    """Arguments of a sub-run: one that is called with others has to begin anew."""
    kept: list[StepEnded]
    below: "dict[tuple[int, int], Earlier]"
    """Sub-runs that did not succeed, by the node and item they executed: they are gone on with."""


@dataclass(slots=True)
class Again:
    """Which step runs are made again, whether or not they succeeded."""

    whole: set[int] = field(default_factory=set)
    items: dict[int, set[int]] = field(default_factory=dict)
    """Elements of mapped steps of which the others are kept."""

    @classmethod
    def of_step(cls, plan: Plan, node: int, items: Collection[int] | None = None) -> "Again":
        """Return what depends on a step, or on some elements of a mapped one, that included."""
        again = cls()
        pending: list[tuple[int, frozenset[int] | None]] = [(node, None if items is None else frozenset(items))]
        while pending:
            index, some = pending.pop()
            if again._covers(index, some):
                continue
            again._add(index, some)
            pending += [(stream, some) for stream in plan.nodes[index].streams]
            pending += [(following, None) for following in plan.nodes[index].downstream]
        return again

    @classmethod
    def of_undone(cls, plan: Plan, rows: Iterable[StepEnded]) -> "Again":
        """Return what depends on results that were undone, or were to be undone, these included."""
        again = cls()
        for node in {~row.node for row in rows if row.node < 0}:
            again |= cls.of_step(plan, node)
        return again

    def __or__(self, other: "Again") -> "Again":
        """Return what is made again when both are."""
        items = {node: self.items.get(node, set()) | other.items.get(node, set()) for node in self.items | other.items}
        return Again(self.whole | other.whole, items)

    def _covers(self, node: int, items: frozenset[int] | None) -> bool:
        return node in self.whole or (items is not None and items <= self.items.get(node, set()))

    def _add(self, node: int, items: frozenset[int] | None) -> None:
        if items is None:
            self.whole.add(node)
        else:
            self.items.setdefault(node, set()).update(items)

    def has(self, node: int, item: int) -> bool:
        """Return whether a step run is made again."""
        return node in self.whole or (node in self.items and (item == WHOLE or item in self.items[node]))


def kept_of(plan: Plan, rows: Iterable[StepEnded], again: Again) -> list[StepEnded]:
    """Return the rows that are kept: results, and whatever became of steps of which the outcome was chosen from.

    An element that failed of a map that succeeded in spite of it, and a step that failed inside of a ``recover`` that
    succeeded, have done their part. The steps that a run closes with, and its turn, are of that run alone.
    """
    every = [row for row in rows if row.node >= 0]
    done = {row.node for row in every if row.item == WHOLE and row.state == StepState.SUCCEEDED}
    for arm in (arm for index in done - again.whole for arm in plan.nodes[index].arms):
        done.update(arm.inside)
    is_kept = (row for row in every if row.state == StepState.SUCCEEDED or row.node in done)
    its_own = {node.index for node in plan.nodes if node.closes is not None or node.kind == "turn"}
    return [row for row in is_kept if row.node not in its_own and not again.has(row.node, row.item)]
