"""A run that cannot be taken up, whatever the reason, keeps no other from going on, and can be cancelled."""

from pathlib import Path
from typing import Any

import pytest

from hopline import Event, workflow
from hopline_engine.core import advance
from hopline_engine.core.decision import Decision
from hopline_engine.core.live import LiveRun, Past
from tests.support.running_engine import running_engine

pytestmark = pytest.mark.anyio

paid = Event("paid", int)
begin = advance.begin


@workflow
def inner(order: str) -> int:
    return paid.wait(key=order, timeout="1d")


@workflow
def outer(order: str) -> int:
    return inner(order)


async def test_others_go_on_beside_a_run_that_cannot_be_taken_up(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_engine(tmp_path, store=store) as engine:
        await engine.register(outer, inner)
        broken, *others = [await engine.client.start("outer", {"order": order}) for order in ("a", "b", "c")]

    def breaking(run: LiveRun, decision: Decision, past: Past | None = None) -> None:
        if run.public_id == broken:
            raise LookupError("a row too many")
        begin(run, decision, past)

    monkeypatch.setattr(advance, "begin", breaking)
    async with running_engine(tmp_path, store=store) as engine:
        ask = engine.client.ask
        for order in ("b", "c"):
            await ask("POST", "/events", json={"name": "paid", "key": order, "payload": 7})
        assert [(await engine.client.ended(run))["result"] for run in others] == [7, 7]
        assert (await ask("GET", f"/runs/{broken}"))["note"] == "waits: it cannot be taken up, as the log says"
        below: dict[str, Any] = (await ask("GET", f"/runs?parent={broken}"))["runs"][0]
        assert below["note"] == "waits: the run above it cannot be taken up"
        await ask("POST", f"/runs/{broken}/cancel")
        assert (await engine.client.ended(broken))["state"] == "cancelled"
        assert (await engine.client.ended(below["id"]))["state"] == "cancelled"
    assert "a row too many" in caplog.text


async def test_a_run_that_could_not_be_taken_up_goes_on_after_a_start_at_which_it_can(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_engine(tmp_path, store=store) as engine:
        await engine.register(outer, inner)
        run = await engine.client.start("outer", {"order": "a"})

    def breaking(*_: object) -> None:
        raise LookupError("a row too many")

    with monkeypatch.context() as broken:
        broken.setattr(advance, "begin", breaking)
        async with running_engine(tmp_path, store=store) as engine:
            assert (await engine.client.ask("GET", f"/runs/{run}"))["state"] == "running"
    async with running_engine(tmp_path, store=store) as engine:
        await engine.client.ask("POST", "/events", json={"name": "paid", "key": "a", "payload": 7})
        assert (await engine.client.ended(run))["result"] == 7
