"""What people order a run to do: durable before it is acknowledged, to everybody who ordered the same."""

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest

from hopline_engine.bootstrap import open_engine
from hopline_engine.core.names import run_id
from hopline_engine.settings import Settings
from hopline_engine.store import runs
from tests.core.worlds import definition, event_step

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("order", ["pause", "resume"])
async def test_who_repeats_an_order_that_is_on_its_way_hears_of_it_when_it_is_durable(
    tmp_path: Path, order: str
) -> None:
    async with open_engine(Settings(state_dir=tmp_path)) as installation:
        await installation.serve(0)
        service = installation.app.state.engine
        await service.register_definitions([definition("waits", [event_step("wait", "k")])], ["waits"])
        run = run_id((await service.start_run("waits", {}, None)).run.id)
        assert run is not None
        orders, store = installation._engine.orders, installation._engine.store
        if order == "resume":
            assert await orders.pause(run)
        writes = threading.Event()
        held = asyncio.ensure_future(store.execute(lambda _: writes.wait()))
        await asyncio.sleep(0)

        ordered = [asyncio.ensure_future(getattr(orders, order)(run)) for _ in range(2)]
        for _ in range(3):
            await store.read(partial(runs.get, run_id=run))
        heard = [each.done() for each in ordered]
        writes.set()

        assert await asyncio.gather(held, *ordered) == [True, True, True]
        stored = await store.read(partial(runs.get, run_id=run))
        assert not any(heard)
        assert stored is not None
        assert (stored.paused_at is not None) == (order == "pause")
