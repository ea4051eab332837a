"""Which steps of a workflow are inside of which ``recover`` and ``first``.

What happens inside stays there: a failure means what the ``recover`` or ``first`` makes of it, and results leave
through it alone. Steps decided by the engine may look at anything, since they wait for ends and not for success.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """An arm of a ``recover`` or ``first``."""

    owner: str
    arm: int


class Regions:
    """The insides of all ``recover`` and ``first`` of a workflow."""

    def __init__(self, arms: Mapping[str, Sequence[Collection[str]]]) -> None:
        """Note the steps of each arm, by owner. Raises ValueError for a step that is in two of them."""
        self._place: dict[str, Place] = {}
        for owner, each in arms.items():
            for arm, steps in enumerate(each):
                for step in steps:
                    if step in self._place:
                        raise ValueError(f"step {step!r} is inside of {self._place[step].owner!r} and of {owner!r}")
                    self._place[step] = Place(owner, arm)

    def within(self, step: str) -> str | None:
        """Return the innermost owner that a step is inside of."""
        place = self._place.get(step)
        return place.owner if place else None

    def inside(self) -> dict[Place, list[str]]:
        """Return all steps inside of each arm, those of inner ones included."""
        found: dict[Place, list[str]] = {}
        for step in self._place:
            for place in self._around(step):
                found.setdefault(place, []).append(step)
        return found

    def check(self, upstream: Mapping[str, Collection[str]]) -> None:
        """Raise ValueError for a step that waits for one inside of an arm without being inside of it."""
        for step, before in upstream.items():
            around = set(self._around(step))
            for other in before:
                left = next((place for place in self._around(other) if place not in around), None)
                if left is not None:
                    raise ValueError(f"step {step!r} needs {other!r}, which is inside of {left.owner!r}")

    def _around(self, step: str) -> Iterator[Place]:
        """Yield the arms that a step is inside of, the innermost first. There are no rings: owners wait for steps."""
        place = self._place.get(step)
        while place is not None:
            yield place
            place = self._place.get(place.owner)
