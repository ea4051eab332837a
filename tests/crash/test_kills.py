"""Random kills in small; ``kill_harness.py`` is the same in full."""

import asyncio
from pathlib import Path

import pytest

from tests.crash.cluster import STORES
from tests.crash.kill_harness import Campaign, Order

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("store", STORES)
def test_thirty_kills_lose_nothing_repeat_nothing_that_was_done_and_leave_nothing_stuck(
    tmp_path: Path, store: str
) -> None:
    order = Order(store=store, victim="mixed", kills=30, seed=1, runs=2, restart_every=10)
    outcome = asyncio.run(Campaign(order, tmp_path).carry_out())
    assert outcome.problems == [], f"again with: {order.command}"
    assert outcome.findings.counts["runs"] >= 2
    assert outcome.findings.counts["lost attempts"] > 0, "no kill hit anything"
    assert outcome.healed == {}, "the engine had to put something right"
