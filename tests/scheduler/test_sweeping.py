"""Large values that nothing refers to any more are removed, and no others."""

from pathlib import Path

import pytest

from hopline_engine.blobs import blobs as in_memory
from hopline_engine.blobs.blobs import Blobs
from hopline_engine.blobs.place import Folder
from hopline_engine.bootstrap import open_engine
from hopline_engine.clock import SystemClock
from hopline_engine.core.binding import BindingError
from hopline_engine.settings import Settings
from tests.scheduler.test_large_results import BIG, answer, passing
from tests.support.client import Client
from tests.support.running_engine import RunningEngine
from tests.support.targets import target

pytestmark = pytest.mark.anyio

ORPHAN = f"20200101/{'a' * 64}"


async def test_what_rows_refer_to_stays_and_orphans_go(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Folder(tmp_path / "large")
    chosen = Settings.load(state_dir=tmp_path, store=store, blobs=str(tmp_path / "large"), result_inline_bytes=2_000)
    async with open_engine(chosen) as installation, target(answer) as asked:
        url = await installation.serve(0)
        async with Client(url) as client:
            await client.ask("GET", "/health")  # a 503 until it takes work
            await RunningEngine(url=url, client=client, worker=None).register(passing)
            run = await client.start("passing", {"url": asked.url})
            assert (await client.ended(run))["result"] == len(BIG)
        place.write(ORPHAN, b"whoever wrote it died")
        sweeper = installation.app.state.engine._engine.sweeper
        monkeypatch.setattr(Blobs, "oldest_day", lambda _: "99999999")
        kept = [name for name in place.names("99999999") if name != ORPHAN]
        assert len(kept) == 1
        assert await sweeper.sweep() == 1
        assert list(place.names("99999999")) == kept
        assert await sweeper.sweep() == 0


async def test_what_was_just_written_is_left_for_its_writer_to_refer_to(tmp_path: Path) -> None:
    blobs = Blobs(Folder(tmp_path), SystemClock(), inline_bytes=1)
    await blobs.kept(b'"large"')
    assert list(Folder(tmp_path).names(blobs.oldest_day())) == []
    assert len(list(Folder(tmp_path).names("99999999"))) == 1


async def test_of_the_values_in_memory_those_stay_that_were_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_memory, "KEPT_BYTES", 8)
    place = Folder(tmp_path)
    blobs = Blobs(place, SystemClock(), inline_bytes=1)
    used, unused = await blobs.kept(b'"a"'), await blobs.kept(b'"b"')
    assert await blobs.whole(used) == b'"a"'
    await blobs.kept(b'"c"')
    for name in list(place.names("99999999")):
        place.remove(name)
    assert await blobs.whole(used) == b'"a"'
    with pytest.raises(BindingError, match="is gone"):
        await blobs.whole(unused)
