"""Ticks on engines whose clocks are wrong and which are killed: each has one run, none is lost."""

import pytest

from tests.scheduler.schedule_kills import Size, trial

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]


async def test_each_tick_has_one_run_whoever_dies_and_whatever_clocks_say() -> None:
    """The whole of it is ``python -m tests.scheduler.schedule_kills``."""
    outcome = await trial(Size(schedules=40, ticks=25, nodes=3, kills=5, within=400.0), seed=1)
    assert (outcome.ticks, outcome.kills) == (1000, 5)
    assert (outcome.missed, outcome.doubled) == (0, 0)
