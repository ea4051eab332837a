"""What runs that have not ended still have before them, and the versions of a workflow."""

from collections import Counter
from functools import partial

import pytest

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import RunId
from hopline_engine.core.names import public_id
from hopline_engine.store import definitions, needs
from hopline_engine.store.definitions import StoredDefinition
from hopline_engine.store.interface import Store
from tests.store import rows
from tests.store.opened import commit

pytestmark = pytest.mark.anyio

DIGEST = rows.DEFINITION.digest


async def test_only_live_runs_count_and_elements_of_maps_do_not(store: Store) -> None:
    added = [rows.run_added(run) for run in (64, 128, 192)]
    ended = [rows.step_ended(64, 0), rows.step_ended(128, 0), rows.step_ended(128, 1, item=3), rows.step_ended(192, 1)]
    await commit(store, Changes(runs_added=added, steps_ended=ended, runs_ended=[rows.run_ended(192)]))
    assert await store.read(needs.progress) == {DIGEST: needs.Progress(2, Counter({0: 2}))}
    before = partial(needs.runs_before, digest=DIGEST, limit=5)
    assert await store.read(partial(before, node=0)) == []
    assert await store.read(partial(before, node=1)) == [public_id(RunId(64)), public_id(RunId(128))]


async def test_versions_are_told_newest_first_with_their_live_runs(store: Store) -> None:
    newer = StoredDefinition(digest=DIGEST[:-1] + "0", name=rows.DEFINITION.name, body=b"{}")  # type: ignore[arg-type]
    register = partial(definitions.register, definitions=[newer], current=[newer.name], now=rows.NOW + 9)
    await store.execute(register)
    await commit(store, Changes(runs_added=[rows.run_added(64)]))
    found = await store.read(partial(needs.versions, name=rows.DEFINITION.name))
    assert [(version.digest, version.is_current, version.live_runs) for version in found] == [
        (newer.digest, True, 0),
        (DIGEST, False, 1),
    ]
