"""An engine on Postgres as a process of its own, that fires schedules until it is killed; its clock is wrong."""

import asyncio
from typing import cast

from hopline_engine.clock import DatabaseClock, SystemClock, token
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.signing import Signer
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings
from hopline_engine.store.postgres.store import open_store
from tests.scheduler.several_nodes import Calling, Skewed, Targets

SILENCE_SECONDS = 6.0
"""After which the others take a killed engine for dead."""


def fire(url: str, skew: float) -> None:
    """Be such an engine on the database at *url*, with a clock that is wrong by *skew* seconds."""
    asyncio.run(_main(url, skew))


async def _main(url: str, skew: float) -> None:
    """Open the store as a node, as ``hopline serve`` does, and fire schedules until killed."""
    store = await open_store(url, node=f"n_{token(8)}", random=SystemClock().random)
    engine = Engine(
        store=store,
        dispatcher=cast("Dispatcher", Calling(store.owner.node, Targets())),
        signer=Signer(b"key"),
        clock=DatabaseClock(Skewed(skew)),
        settings=Settings(node_silence_seconds=SILENCE_SECONDS),
    )
    await engine.open()
    engine.dispatch(f"http://{store.owner.node}", schedules=True)
    await engine.membership.lost  # as a server does, it ends when the others took it for dead
