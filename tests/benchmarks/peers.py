"""Other engines with the same workloads."""

from pathlib import Path


def measure(folder: Path, rounds: int, *, small: bool) -> list[dict[str, object]]:
    return []
