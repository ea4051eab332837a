"""The engine killed while it starts for the first time: whatever is half done, the next start goes through."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from hopline_engine.queue.signing import load_key
from tests.crash.conftest import GATES, Gate
from tests.support.processes import Site
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.anyio

SIGNS = ("key", "hopline.db-lock", "hopline.db", "hopline.db-journal", "hopline.db-wal", "server.json")
"""Files that a start makes, one after the other."""


@pytest.mark.parametrize("sign", SIGNS)
async def test_engine_killed_while_it_makes_its_folder_starts_again(tmp_path: Path, gate: Gate, sign: str) -> None:
    place = Site(tmp_path, {})
    try:
        async with place.client:
            place.engine.start()
            await asyncio.to_thread(_wait_for, tmp_path / ".hopline", sign)
            place.engine.kill()
            await place.restart_engine()
            await place.hire(GATES).ready()
            gate.open()
            run = await place.client.start("one", {"gate": str(gate)})
            assert (await place.client.ended(run))["state"] == "succeeded"
    finally:
        for process in (*place.workers, place.engine):
            process.kill()


def _wait_for(folder: Path, sign: str) -> None:
    """Return as soon as a file is there, however briefly; or the last of them is, when that one was too brief."""
    end = time.monotonic() + WITHIN
    while not ((folder / sign).exists() or (folder / SIGNS[-1]).exists()):
        assert time.monotonic() < end, f"the engine never made {sign}"


def test_death_while_the_key_is_made_leaves_no_half_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(os, "fdopen", die)
        with pytest.raises(KeyboardInterrupt):
            load_key(tmp_path / "key")
    assert len(load_key(tmp_path / "key")) == 64
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
