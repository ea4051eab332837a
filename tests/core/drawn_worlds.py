"""What the property tests of runs have in common: worlds drawn from a seed, and faults that change no end of a run."""

from hypothesis import strategies as st

from hopline_engine.core.decision import Limits
from tests.core.flows import Flow
from tests.core.worlds import Faults, World

SEEDS = st.integers(0, 2**32)
LIMITS = Limits(map_window=2, lost_limit=1000)
FAULTS = Faults(crash=0.05, undo=0.05, lose=0.1, unlease=0.1, beat=0.1)
"""What may go wrong without a change to how a run ends."""


def world_of(flow: Flow, seed: int, limits: Limits = LIMITS) -> World:
    """Return a world in which a flow can be run; its haste comes from the seed, too, and which results are large."""
    return World(flow.plans(), flow.execute, seed=seed, limits=limits, haste=seed % 3 / 2, spills=seed % 5 / 4)
