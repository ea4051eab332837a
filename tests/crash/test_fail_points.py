"""One kill at each point where the engine could be torn apart; ``fail_points.py`` is the same in full."""

import asyncio
from pathlib import Path

import pytest

from tests.crash import points
from tests.crash.fail_points import Bench, report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("store", list(points.STORES))
def test_kill_at_any_point_loses_nothing_and_repeats_nothing_that_was_done(tmp_path: Path, store: str) -> None:
    results = asyncio.run(Bench(tmp_path, store).try_all(2))
    assert [problem for result in results for problem in result.problems] == []
    kills = [death for result in results for death in result.trial.deaths if death not in result.missed]
    assert len(kills) >= 80, report(results)
