"""Runs of sub-workflows with those that they are a part of."""

from collections.abc import Iterable, Iterator

from hopline_engine.core.live import LiveRun


def above(run: LiveRun) -> Iterator[LiveRun]:
    """Yield the runs that a run is a part of, the nearest first."""
    while run.parent is not None:
        run = run.parent.run
        yield run


def families(runs: Iterable[LiveRun]) -> dict[LiveRun, set[LiveRun]]:
    """Return the runs, and all others below the same ones, by the run that somebody started."""
    found: dict[LiveRun, set[LiveRun]] = {}
    for run in runs:
        root = run
        while root.parent is not None:
            root = root.parent.run
        found.setdefault(root, {root}).add(run)
    for family in found.values():
        family.update(*map(family_of, tuple(family)))
    return found


def family_of(run: LiveRun) -> list[LiveRun]:
    """Return a run and all below it, the run itself first."""
    family = [run]
    for each in family:
        family += [unit for unit in each.units() if isinstance(unit, LiveRun)]
    return family
