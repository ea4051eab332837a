"""Shards: the fixed parts into which runs are divided, so that several nodes can share them.

A run, its sub-runs and their tasks have numbers of one shard, so a family of runs is never divided.
"""

from typing import Final

SHARDS: Final = 64
"""As many rows has the table ``shard``; other numbers would need a migration."""


def shard_of(number: int) -> int:
    """Return the shard of a run or a task.

    >>> shard_of(130)
    2
    """
    return number % SHARDS


def fair_share(nodes: int) -> int:
    """Return how many shards each of so many nodes holds at most.

    >>> [fair_share(nodes) for nodes in (1, 2, 3, 100)]
    [64, 32, 22, 1]
    """
    return -(-SHARDS // max(1, nodes))
