"""How the slots of a queue are divided among nodes that want different numbers of them."""

from collections.abc import Mapping


def fair_part(limit: int, wants: Mapping[str, int], node: str, turn: int = 0) -> int:
    """Return how many of *limit* slots are a node's: not more than it wants, and as evenly as the wants allow.

    Where there are more nodes than slots, they have them by turns.

    >>> wants = {"a": 2, "b": 50, "c": 50}
    >>> [fair_part(12, wants, node) for node in "abc"]
    [2, 5, 5]
    >>> [fair_part(1, wants, "b", turn) for turn in range(4)]
    [0, 1, 0, 0]
    """
    wanting = sorted((wanted, name) for name, wanted in wants.items() if wanted > 0)
    if len(wanting) > limit:
        names = sorted(name for _, name in wanting)
        chosen = {names[(turn + place) % len(names)] for place in range(limit)}
        return int(node in chosen)
    left = limit
    for place, (wanted, name) in enumerate(wanting):
        part = min(wanted, left // (len(wanting) - place))
        if name == node:
            return part
        left -= part
    return 0
