"""A stored definition that this engine cannot run: its runs wait and say so, and nothing else is held up."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from hopline_engine.api.models import ShownState
from hopline_engine.api.service import Service
from hopline_engine.bootstrap import open_engine
from hopline_engine.core.model import RunState
from hopline_engine.errors import RunEndedError, UnusableDefinitionError
from hopline_engine.settings import Settings
from tests.core.worlds import definition, http_step, ref, step
from tests.support.targets import Target, json, target
from tests.support.waiting import until_seen

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(folder: Path, *, dispatch: bool) -> AsyncIterator[Service]:
    async with open_engine(Settings(state_dir=folder), dispatch=dispatch) as installation:
        await installation.serve(0)
        yield installation.app.state.engine


def spoil(folder: Path, name: str, body: bytes) -> None:
    """Put another definition in the place of the one that workflow *name* has."""
    with closing(sqlite3.connect(folder / "hopline.db", isolation_level=None)) as raw:
        raw.execute("UPDATE definition SET body = ? WHERE name = ?", (body, name))


def of_the_future(name: str) -> bytes:
    return msgspec.json.encode({**definition(name, []), "format": 2})


async def prepared(folder: Path, service: Target) -> dict[str, str]:
    """Start a run of each of three workflows, of which ``above`` calls ``below``; return their ids."""
    async with opened(folder, dispatch=False) as engine:
        await engine.register_definitions(
            [definition(name, [http_step("call", service.url)], ref("call")) for name in ("below", "other")],
            ["below", "other"],
        )
        below = (await engine.workflow("below")).digest
        calling = definition("above", [step("sub", workflow=("below", below))], ref("sub"))
        await engine.register_definitions([calling], ["above"])
        return {name: (await engine.start_run(name, {}, None)).run.id for name in ("above", "other")}


async def ended(engine: Service, run: str) -> ShownState:
    async def look() -> ShownState | None:
        state = (await engine.run_detail(run)).state
        return None if state is RunState.RUNNING else state

    return await until_seen(look, f"run {run} ends")


@pytest.mark.parametrize("body", [of_the_future("below"), b"[]", b"{", b"\xff", b'{"nodes": 3}'])
async def test_runs_of_a_definition_that_cannot_be_planned_wait_and_others_go_on(tmp_path: Path, body: bytes) -> None:
    async with target(lambda _: json(1)) as service:
        runs = await prepared(tmp_path, service)
        spoil(tmp_path, "below", body)
        async with opened(tmp_path, dispatch=True) as engine:
            assert await ended(engine, runs["other"]) is RunState.SUCCEEDED
            waiting = await engine.run_detail(runs["above"])
            assert waiting.state is RunState.RUNNING
            assert (waiting.note or "").startswith("waits: ")
            assert [flow.name for flow in await engine.workflows()] == ["other"]


async def test_why_and_start_say_what_is_wrong_with_the_definition(tmp_path: Path) -> None:
    async with target(lambda _: json(1)) as service:
        runs = await prepared(tmp_path, service)
        spoil(tmp_path, "below", of_the_future("below"))
        async with opened(tmp_path, dispatch=True) as engine:
            for refused in (
                engine.why(runs["above"], None),
                engine.start_run("above", {}, None),
            ):
                with pytest.raises(UnusableDefinitionError, match="definition format 2 is not 1"):
                    await refused


async def test_run_of_a_definition_that_cannot_be_planned_can_be_cancelled(tmp_path: Path) -> None:
    async with target(lambda _: json(1)) as service:
        runs = await prepared(tmp_path, service)
        spoil(tmp_path, "below", of_the_future("below"))
        async with opened(tmp_path, dispatch=True) as engine:
            assert (await engine.cancel_run(runs["above"])).state is RunState.CANCELLED
            with pytest.raises(RunEndedError):
                await engine.cancel_run(runs["above"])
            assert (await engine.run_detail(runs["above"])).note is None
        with closing(sqlite3.connect(tmp_path / "hopline.db")) as raw:
            assert raw.execute("SELECT state FROM run WHERE workflow IN ('above', 'below')").fetchall() == [
                ("cancelled",),
                ("cancelled",),
            ]
            assert raw.execute("SELECT count(*) FROM task WHERE run_id IN (SELECT id FROM run)").fetchone() == (0,)


async def test_run_that_waited_goes_on_under_an_engine_that_can_run_it(tmp_path: Path) -> None:
    async with target(lambda _: json(1)) as service:
        runs = await prepared(tmp_path, service)
        with closing(sqlite3.connect(tmp_path / "hopline.db")) as raw:
            (body,) = raw.execute("SELECT body FROM definition WHERE name = 'below'").fetchone()
        spoil(tmp_path, "below", of_the_future("below"))
        async with opened(tmp_path, dispatch=True) as engine:
            assert (await engine.run_detail(runs["above"])).note is not None
        spoil(tmp_path, "below", body)
        async with opened(tmp_path, dispatch=True) as engine:
            assert await ended(engine, runs["above"]) is RunState.SUCCEEDED
            assert (await engine.run_detail(runs["above"])).note is None
