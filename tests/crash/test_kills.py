"""Random kills in small; ``kill_harness.py`` is the same in full."""

import asyncio
from pathlib import Path

import pytest

from tests.crash.kill_harness import Campaign, Order

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", [1])
def test_ten_kills_lose_nothing_repeat_nothing_that_was_done_and_leave_nothing_stuck(tmp_path: Path, seed: int) -> None:
    order = Order(victim="mixed", kills=10, seed=seed, runs=2)
    outcome = asyncio.run(Campaign(order, tmp_path).carry_out())
    assert outcome.problems == [], f"again with: {order.command}"
    assert outcome.findings.counts["runs"] >= 2
    assert outcome.findings.counts["lost attempts"] > 0, "no kill hit anything"
