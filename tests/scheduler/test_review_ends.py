"""What happens to a run while its end is decided and not yet durable."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hopline_engine.api.service import Service
from hopline_engine.bootstrap import open_engine
from hopline_engine.errors import RunEndedError
from hopline_engine.settings import Settings
from tests.core.worlds import definition, step

pytestmark = pytest.mark.anyio


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """An engine that sends nothing, as its API sees it."""
    async with open_engine(Settings(state_dir=tmp_path)) as installation:
        service: Service = installation.app.state.engine
        body = definition("w", [step("work")])
        await service.register_definitions([body], ["w"])
        yield service


async def test_of_cancels_at_the_same_time_one_is_applied_and_the_others_are_told_how_it_ended(
    service: Service,
) -> None:
    run = (await service.start_run("w", {}, None)).run.id
    outcomes: list[Any] = await asyncio.gather(*(service.cancel_run(run) for _ in range(4)), return_exceptions=True)
    refusals = [str(outcome) for outcome in outcomes if isinstance(outcome, RunEndedError)]
    assert refusals == [f"run {run} has ended: it was cancelled"] * 3
