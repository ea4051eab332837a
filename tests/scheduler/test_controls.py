"""What operators decide for a whole queue: durable before it is acknowledged, to everybody."""

import asyncio
import threading
from pathlib import Path

import pytest

from hopline_engine.clock import SystemClock
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.workers import Workers
from hopline_engine.scheduler.controls import Controls
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.store import queues
from tests.store.opened import opened_sqlite

pytestmark = pytest.mark.anyio


async def test_who_pauses_a_queue_that_is_being_paused_hears_of_it_when_it_is_durable(tmp_path: Path) -> None:
    async with opened_sqlite(tmp_path) as store:
        admission = Admission(Workers(), Queue("default"))
        controls = Controls(
            store=store,
            catalogue=Catalogue(store),
            admission=admission,
            clock=SystemClock(),
            look_again=lambda: None,
        )
        writes = threading.Event()
        held = asyncio.ensure_future(store.execute(lambda _: writes.wait()))
        await asyncio.sleep(0)

        pausing = [asyncio.ensure_future(controls.pause_queue("default", paused=True)) for _ in range(2)]
        for _ in range(3):
            await store.read(queues.all_queues)
        assert not any(pause.done() for pause in pausing)

        writes.set()
        await asyncio.gather(held, *pausing)
        (stored,) = await store.read(queues.all_queues)
        assert stored.state == "paused"
