"""Turns and keys that become free without the end of a run that this process works on: the next one has them at once.

Here by the end of a run of which only rows are known, and by damage that the reconciler finds.
"""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from hopline_engine.api.service import Service
from hopline_engine.bootstrap import open_engine
from hopline_engine.core.model import RunId, RunState
from hopline_engine.core.names import run_id
from hopline_engine.core.order import turn_of
from hopline_engine.settings import Settings
from tests.core.worlds import definition, http_step, step
from tests.support.targets import Target, accepted, target
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Service]:
    async with open_engine(Settings(state_dir=folder)) as installation:
        await installation.serve(0)
        yield installation.app.state.engine


@pytest.fixture
async def service() -> AsyncIterator[Target]:
    """Return what answers that it will call back, and never does."""
    async with target(accepted) as called:
        yield called


async def define(engine: Service, called: Target, path: str) -> str:
    """Register a version of a workflow of which one run may be under way; return its digest."""
    turn = step("turn", {"limit": 1}) | {"kind": "turn", "signature": ""}
    call = {**http_step("call", f"{called.url}/{path}"), "after": ["turn"]}
    await engine.register_definitions([definition("one", [turn, call])], ["one"])
    return (await engine.workflow("one")).digest


async def start(engine: Service) -> str:
    return (await engine.start_run("one", {}, None)).run.id


def write(folder: Path, statement: str, given: Sequence[object]) -> None:
    with closing(sqlite3.connect(folder / "hopline.db", isolation_level=None)) as raw:
        assert raw.execute(statement, given).rowcount == 1


def number(run: str) -> RunId:
    found = run_id(run)
    assert found is not None
    return found


def turn(run: str) -> int:
    return turn_of(number(run))


def spoil(folder: Path, digest: str) -> None:
    """Let this engine be unable to run a version."""
    write(folder, "UPDATE definition SET body = ? WHERE digest = ?", [b"{", digest])


async def begun(called: Target, *paths: str) -> None:
    await until(lambda: [asked.path for asked in called.asked] == [f"/{path}" for path in paths], f"{paths} began")


async def one_that_another_waits_for(engine: Service, folder: Path, called: Target) -> str:
    """Return a run that has the only turn, and that another one has claimed too."""
    await define(engine, called, "new")
    first = await start(engine)
    await begun(called, "new")
    await has_claim(folder, await start(engine))
    return first


async def test_end_of_a_run_that_only_rows_tell_of_lets_the_next_begin(tmp_path: Path, service: Target) -> None:
    async with opened(tmp_path) as engine:
        old = await define(engine, service, "old")
        first = await start(engine)
        await begun(service, "old")
        await define(engine, service, "new")
        await start(engine)
    spoil(tmp_path, old)
    async with opened(tmp_path) as engine:
        assert len(service.asked) == 1
        assert (await engine.cancel_run(first)).state is RunState.CANCELLED
        await begun(service, "old", "new")


async def test_run_that_cannot_be_taken_up_keeps_no_turn_from_the_others(tmp_path: Path, service: Target) -> None:
    async with opened(tmp_path) as engine:
        await define(engine, service, "new")
        first = await start(engine)
        await begun(service, "new")
        old = await define(engine, service, "old")
        await start(engine)
        await define(engine, service, "new")
        await start(engine)
    spoil(tmp_path, old)
    async with opened(tmp_path) as engine:
        await engine.cancel_run(first)
        await begun(service, "new", "new")


async def test_turn_of_a_run_that_is_over_is_released_and_given_to_the_next(tmp_path: Path, service: Target) -> None:
    async with opened(tmp_path) as engine:
        first = await one_that_another_waits_for(engine, tmp_path, service)
        write(tmp_path, "UPDATE run SET state = 'cancelled', ended_at = 1 WHERE id = ?", [number(first)])
        await heal(engine)
        await until(lambda: not engine._engine.resumer.is_reading, "the run is dropped")
        await heal(engine)
        assert engine._engine.reconciler.healed["key-of-nobody"] == 1
        await begun(service, "new", "new")


async def test_turn_that_is_free_is_given_to_the_run_that_waits(tmp_path: Path, service: Target) -> None:
    async with opened(tmp_path) as engine:
        first = await one_that_another_waits_for(engine, tmp_path, service)
        write(tmp_path, "DELETE FROM key_claim WHERE task_id = ?", [turn(first)])
        await heal(engine)
        assert engine._engine.reconciler.healed == {"free-key": 1}
        await begun(service, "new", "new")


async def has_claim(folder: Path, run: str) -> None:
    async def look() -> bool | None:
        with closing(sqlite3.connect(folder / "hopline.db")) as raw:
            found = raw.execute("SELECT true FROM key_claim WHERE task_id = ?", [turn(run)]).fetchone()
        return None if found is None else True

    await until_seen(look, "the store knows that the run waits")


async def heal(engine: Service) -> None:
    """Repair as the reconciler does when it has looked twice."""
    reconciler = engine._engine.reconciler
    for finding in await reconciler.look():
        await reconciler.heal(finding)
