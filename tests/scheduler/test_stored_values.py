"""What users' code returns, prints and raises is stored on either store, or refused alike: nothing loops."""

import json
from pathlib import Path

import pytest

from tests.support.running_engine import running_engine

pytestmark = pytest.mark.anyio

STEPS = r"""
from typing import Any
from hopline import step, workflow

HOSTILE = {"nul": "a\0b", "half": "\ud800", "far": "\U0010ffff\u2028", "big": 2**63, "huge": 10**300, "tiny": 5e-324}

@step
def show(name: str) -> Any:
    print("before", repr(name), "\0 after", HOSTILE.get("far"))
    return name

@step
def give(name: str) -> Any:
    return HOSTILE[name]

@step
def fail(name: str) -> Any:
    raise ValueError(f"of {HOSTILE[name]}")

@workflow
def shown(name: str) -> Any:
    return show(name=name)

@workflow
def given(name: str) -> Any:
    return give(name=name)

@workflow
def failed(name: str) -> Any:
    return fail(name=name)
"""

ENDS = {
    ("shown", "nul"): ("succeeded", "nul"),
    ("given", "far"): ("succeeded", "\U0010ffff\u2028"),
    ("given", "big"): ("succeeded", 2**63),
    ("given", "huge"): ("succeeded", 10**300),
    ("given", "tiny"): ("succeeded", 5e-324),
    ("given", "nul"): ("failed", None),
    ("given", "half"): ("failed", None),
    ("failed", "nul"): ("failed", None),
    ("failed", "half"): ("failed", None),
}
"""State and result of a run of a workflow with each of the values."""


async def test_every_run_ends_after_one_attempt_whatever_its_step_gives(tmp_path: Path, store: str) -> None:
    file = tmp_path / "steps.py"
    file.write_text(STEPS, encoding="utf-8")
    ends = {}
    async with running_engine(tmp_path, file, store=store) as engine:
        runs = {key: await engine.client.start(key[0], {"name": key[1]}) for key in ENDS}
        for key, run in runs.items():
            ended = await engine.client.ended(run)
            ends[key] = (ended["state"], ended["result"])
            (attempt,) = await engine.client.attempts(run)
            if key[0] == "shown":
                assert "before 'nul' \ufffd after \U0010ffff\u2028" in attempt["logs"]

    assert ends == ENDS


async def test_a_text_with_a_nul_character_finds_nothing_and_breaks_nothing(tmp_path: Path, store: str) -> None:
    async with running_engine(tmp_path, store=store) as engine:
        http = engine.client.http

        found = await http.get("/runs/r_%00")
        listed = await http.get("/runs", params={"workflow": "a\0b"})
        keyed = await http.post("/runs", content=json.dumps({"workflow": "w", "idempotency_key": "\0"}))
        others = [await http.get(path) for path in ("/schedules/a%00", "/schedules?after=%00", "/events?name=a%00b")]
        deleted = await http.delete("/schedules/a%00")

    assert (found.status_code, listed.status_code, keyed.status_code) == (404, 200, 400)
    assert listed.json()["runs"] == []
    assert [response.status_code for response in (*others, deleted)] == [422] * 4


async def test_a_number_that_no_database_can_be_asked_for_finds_nothing(tmp_path: Path, store: str) -> None:
    file = tmp_path / "steps.py"
    file.write_text(STEPS, encoding="utf-8")
    async with running_engine(tmp_path, file, store=store) as engine:
        run = await engine.client.start("shown", {"name": "nul"})
        await engine.client.ended(run)
        http = engine.client.http

        asked = ("attempt=2147483647", "attempt=2147483648", f"attempt={10**30}", "step=show[2147483648]")
        found = [await http.get(f"/runs/{run}/logs?{params}") for params in asked]

    assert [response.status_code for response in found] == [200, 422, 422, 404]
