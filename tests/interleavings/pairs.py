"""Which of the engine's transactions meet: every two, and a sample in which those meet that have tables in common."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations_with_replacement, product
from typing import Final, NamedTuple

from tests.interleavings.cloud_kinds import CLOUD_KINDS
from tests.interleavings.kinds import GROUPS, KINDS, PLANTED, Kind
from tests.interleavings.world import ALIVE, SILENT

ALL_KINDS: Final = (*KINDS, *CLOUD_KINDS)
FENCING: Final = frozenset({"beats", "takes over", "leaves"})
"""What ends nodes. Each transaction of a node looks whether it still is one, so these meet all others."""
_OF_BOTH: Final = frozenset({"takes attempts back", "sweeps"})
_PULLING: Final = frozenset({"leases a cloud task", "acknowledges a cloud task", "renews a lease", *_OF_BOTH})
TABLES_IN_COMMON: Final = (
    frozenset({*GROUPS, "removes a task that nothing needs", "registers a version", "decides on a tick"}),
    frozenset({"takes a token", "sets limits", "pauses or resumes a queue", "asks for slots and tokens"}),
    frozenset({"decides on a tick", "edits a schedule"}),
    frozenset({"gives up shards", "lets a node join", "needs the key", "takes attempts back"}),
    frozenset(kind.name for kind in CLOUD_KINDS) - _PULLING | _OF_BOTH,
    _PULLING,
)
"""Kinds that read or write the same rows, besides those of nodes."""


class Pair(NamedTuple):
    """Two transactions and the nodes that carry them out."""

    kinds: tuple[Kind, Kind]
    members: tuple[str, str]

    def __str__(self) -> str:
        return " | ".join(f"{member} {kind.name}" for kind, member in zip(self.kinds, self.members, strict=True))


def all_pairs(kinds: Sequence[Kind] = ALL_KINDS) -> Iterator[Pair]:
    """Yield every two kinds, by two nodes that are alive, and by one that is and one that fell silent."""
    yield from _pairs(combinations_with_replacement(kinds, 2), ALIVE)
    yield from _pairs(product(kinds, kinds), (ALIVE[0], SILENT))


def sample() -> Iterator[Pair]:
    """Yield the pairs that have tables in common; of the queue service's by a silent node those that are fenced."""
    for pair in all_pairs():
        if meet(pair.kinds) and (pair.members == ALIVE or pair.kinds[0].name in FENCING or _is_of_runs(pair.kinds)):
            yield pair


def meet(kinds: tuple[Kind, Kind]) -> bool:
    """Return whether two kinds have tables in common."""
    names = {kind.name for kind in kinds}
    return not names.isdisjoint(FENCING) or any(names <= those for those in TABLES_IN_COMMON)


def _is_of_runs(kinds: tuple[Kind, Kind]) -> bool:
    return all(kind in KINDS for kind in kinds)


def planted_pairs() -> Iterator[Pair]:
    """Yield the pairs of which one side is not guarded."""
    known = {kind.name: kind for kind in (*KINDS, *(kind for kind, _ in PLANTED))}
    for (kind, other), members in PLANTED.items():
        yield Pair((kind, known[other]), members)


def _pairs(all_kinds: Iterable[tuple[Kind, Kind]], members: tuple[str, str]) -> Iterator[Pair]:
    return (Pair(kinds, members) for kinds in all_kinds)
