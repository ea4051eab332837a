"""An engine stops when it is told to, whatever it is woken for at the same moment."""

import asyncio
from pathlib import Path

import pytest

from tests.scheduler.several_nodes import several_nodes
from tests.support.waiting import WITHIN, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("turns", range(4))
async def test_engine_stops_also_when_what_it_waits_for_comes_that_moment(tmp_path: Path, turns: int) -> None:
    """``asyncio.wait_for`` of Python 3.11 forgets that it was cancelled when what it waited for is there."""
    async with asyncio.timeout(WITHIN), several_nodes("sqlite", tmp_path) as nodes:
        engine = (await nodes.join()).engine
        engine.dispatch(schedules=True)
        await engine.membership.beat()
        await engine.membership.moved()
        bells = [each._wake for each in (engine.events, engine.scheduling, engine.membership, *engine._shared)]
        await until(lambda: all(bell._waiters for bell in bells), "each waits to be woken")
        for bell in bells:
            bell.set()
        for _ in range(turns):
            await asyncio.sleep(0)
