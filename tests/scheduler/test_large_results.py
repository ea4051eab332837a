"""Results that are too large for rows: kept beside them, referred to, and whole again where they are needed."""

import hashlib
import json as plain_json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from hopline import Request, branch, http, workflow
from hopline_engine.blobs.place import Folder
from hopline_engine.core.references import MARK, references_in
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import Asked, accepted, json, target
from tests.support.waiting import WITHIN, until

pytestmark = pytest.mark.anyio

INLINE = 2_000
BIG = [f"{number:0100}" for number in range(50)]

STEPS = """
from typing import Any

from hopline import step, workflow


@step
def make(size: int) -> list[str]:
    return [f"{number:0100}" for number in range(size)]


@step
def count(items: list[str]) -> int:
    return len(items)


@step
def grow(item: str, beside: list[str]) -> list[str]:
    return [item] * 50 if int(item) % 2 else [item, str(len(beside))]


@step
def total(parts: list[list[str]], more: dict[str, Any]) -> dict[str, Any]:
    return {"parts": [len(part) for part in parts], "more": len(more["made"]), "n": more["n"]}


@workflow
def inner(items: list[str], n: int) -> list[str]:
    return items


@workflow
def large(size: int) -> dict[str, Any]:
    made = inner(make(size), 7)
    parts = grow.using(max_parallel=8).map(made, made)
    return total(parts, {"made": made, "n": count(made)})


@workflow
def returned(size: int) -> list[str]:
    return make(size)
"""


@http
def fetch(url: str) -> Request[dict[str, Any]]:
    return http.get(url)


@http
def send(url: str, items: list[str], first: str) -> Request[int]:
    return http.post(url, json={"items": items, "n": 1}, params={"first": first}, headers={"X-First": first})


@http(callback=True)
def later(url: str) -> Request[list[str]]:
    return http.post(f"{url}/later")


@workflow
def passing(url: str) -> int | None:
    fetched = fetch(url)
    return branch(fetched["n"] > 1, then=lambda: send(url, fetched["items"], fetched["items"][0]))


@workflow
def fetching(url: str) -> dict[str, Any]:
    return fetch(url)


@workflow
def waiting(url: str) -> list[str]:
    return later(url)


def answer(asked: Asked) -> Response:
    match asked.path:
        case "/later":
            return accepted(asked)
        case _ if asked.body:
            return json(len(plain_json.loads(asked.body)["items"]))
    return json({"items": BIG, "n": 2})


def small_rows(folder: Path) -> int:
    """Check that no row of a SQLite store has a large value, and return how many refer to one."""
    with closing(sqlite3.connect(folder / ".hopline" / "hopline.db")) as database:
        values = [
            value
            for query in ("SELECT result FROM step_run", "SELECT result FROM run", "SELECT input FROM run")
            for (value,) in database.execute(query)
            if value is not None
        ]
    assert all(len(value) <= INLINE for value in values)
    return sum(MARK in value for value in values)


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    return {"blobs": str(tmp_path / "large"), "result_inline_bytes": INLINE}


async def test_steps_maps_and_sub_workflows_are_given_large_results_whole(
    tmp_path: Path, store: str, place: dict[str, Any]
) -> None:
    file = tmp_path / "flow.py"
    file.write_text(STEPS)
    async with running_engine(tmp_path, file, store=store, **place) as engine:
        run = await engine.client.start("large", {"size": 40})
        ended = await engine.client.ended(run)
        assert ended["result"] == {"parts": [2, 50] * 20, "more": 40, "n": 40}, ended
    if not store:
        assert small_rows(tmp_path) > 0


async def test_requests_and_conditions_look_into_large_results(
    tmp_path: Path, store: str, place: dict[str, Any]
) -> None:
    async with running_engine(tmp_path, store=store, **place) as engine, target(answer) as asked:
        await engine.register(passing)
        assert (await engine.client.ended(await engine.client.start("passing", {"url": asked.url})))["result"] == 50
        assert asked.asked[1].headers["X-First"] == BIG[0]
        assert asked.asked[1].url.endswith(f"first={BIG[0]}")


async def test_a_callback_may_bring_a_large_result_and_bring_it_again(tmp_path: Path, place: dict[str, Any]) -> None:
    async with running_engine(tmp_path, **place) as engine, target(answer) as asked:
        await engine.register(waiting)
        run = await engine.client.start("waiting", {"url": asked.url})
        await engine.client.step_in(run, "later", "waiting")
        for outcome in ("applied", "already"):
            assert (await asked.asked[0].call_back({"result": BIG})).json() == {"outcome": outcome}
        assert await shown_and_fetched(engine, run) == BIG


async def test_a_heartbeat_may_come_while_a_large_result_is_kept(
    tmp_path: Path, place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_there, may_go, write = threading.Event(), threading.Event(), Folder.write

    def slowly(folder: Folder, name: str, content: bytes) -> None:
        is_there.set()
        assert may_go.wait(WITHIN)
        write(folder, name, content)

    async with running_engine(tmp_path, **place) as engine, target(answer) as asked:
        await engine.register(fetching)
        monkeypatch.setattr(Folder, "write", slowly)
        run = await engine.client.start("fetching", {"url": asked.url})
        await until(is_there.is_set, "the result is there")
        try:
            heard = await asked.asked[0].call_back({"heartbeat": 86_400})
        finally:
            may_go.set()
        assert heard.status_code == 200
        assert (await engine.client.ended(run))["state"] == "succeeded"


async def shown_and_fetched(engine: RunningEngine, run: str) -> Any:
    """Return the result of a run that shows a reference to it."""
    seen = (await engine.client.ended(run))["result"]["$blob"]
    fetched = (await engine.client.ask("GET", f"/runs/{run}/output"))["result"]
    raw = plain_json.dumps(fetched, separators=(",", ":")).encode()
    assert (seen["sha256"], seen["size"]) == (hashlib.sha256(raw).hexdigest(), len(raw))
    return fetched


async def test_runs_show_a_reference_and_give_the_whole_when_asked(tmp_path: Path, place: dict[str, Any]) -> None:
    file = tmp_path / "flow.py"
    file.write_text(STEPS)
    async with running_engine(tmp_path, file, **place) as engine:
        run = await engine.client.start("returned", {"size": 40})
        assert await shown_and_fetched(engine, run) == BIG[:40]
        fork = (await engine.client.ask("POST", f"/runs/{run}/fork", json={"step": "make", "input": {"size": 41}}))[
            "id"
        ]
        assert await shown_and_fetched(engine, fork) == BIG[:41]


async def test_runs_go_on_with_large_results_after_a_restart(tmp_path: Path, store: str, place: dict[str, Any]) -> None:
    async with target(answer) as asked:
        asked.answer = lambda each: json({"items": BIG, "n": 2}) if not each.body else json(None, 503)
        async with running_engine(tmp_path, store=store, **place) as engine:
            await engine.register(passing)
            run = await engine.client.start("passing", {"url": asked.url})
            failed = await engine.client.ended(run)
            assert failed["state"] == "failed"
        asked.answer = answer
        async with running_engine(tmp_path, store=store, **place) as engine:
            again = await engine.client.ask("POST", f"/runs/{run}/retry", json={})
            assert (await engine.client.ended(again["id"]))["result"] == 50
        assert sum(not each.body for each in asked.asked) == 1, "what succeeded was kept"


async def test_a_large_result_that_is_gone_fails_what_needs_it_and_says_so(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    async with target(answer) as asked:
        asked.answer = lambda each: json({"items": BIG, "n": 2}) if not each.body else json(None, 503)
        async with running_engine(tmp_path, **place) as engine:
            await engine.register(passing)
            run = await engine.client.start("passing", {"url": asked.url})
            await engine.client.ended(run)
        folder = Folder(tmp_path / "large")
        for name in list(folder.names("99999999")):
            folder.remove(name)
        async with running_engine(tmp_path, finds_nothing=False, **place) as engine:
            again = (await engine.client.ask("POST", f"/runs/{run}/retry", json={}))["id"]
            ended = await engine.client.ended(again)
            assert ended["state"] == "failed"
            assert "bytes is gone" in ended["error"]["message"]
            (check,) = [c for c in (await engine.client.ask("GET", "/doctor"))["checks"] if c["name"] == "blobs"]
            assert check["state"] == "wrong"


async def test_servers_on_one_database_must_mean_the_same_place(tmp_path: Path) -> None:
    from hopline_engine.blobs.opening import BlobsError
    from tests.support.postgres import STORES

    async with STORES["postgres"]() as store:
        for name, is_right in (("one", True), ("two", False), ("one", True)):
            settings: dict[str, Any] = {"store": store, "blobs": str(tmp_path / name)}
            if is_right:
                async with running_engine(tmp_path / f"of_{name}", **settings):
                    pass
            else:
                with pytest.raises(BlobsError, match="is not where the large results of this store are"):
                    async with running_engine(tmp_path / f"of_{name}", **settings):
                        pass


async def test_servers_that_mark_a_new_place_at_one_moment_mean_the_same(tmp_path: Path) -> None:
    from hopline_engine.blobs.opening import MARK_NAME, open_place
    from hopline_engine.settings import Settings
    from tests.store.opened import opened_sqlite

    settings = Settings(state_dir=tmp_path, blobs=str(tmp_path / "shared"))
    mark = tmp_path / "shared" / MARK_NAME
    async with opened_sqlite(tmp_path) as store:
        await open_place(settings, store)
        for written_over in (True, False):
            if written_over:
                mark.unlink()  # as another finds it that looked before the first wrote
            place = await open_place(settings, store)
            assert place is not None
            assert place.shown == str(tmp_path / "shared")


def test_nothing_that_is_json_can_be_taken_for_a_reference() -> None:
    raw = plain_json.dumps({"a": "\x01" + "2" * 8 + "/" + "a" * 64 + ":5\x01"}).encode()
    assert MARK not in raw
    assert list(references_in(raw)) == []
