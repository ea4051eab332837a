"""What docs/repair.md says of its example, done with it."""

import runpy
from pathlib import Path

import pytest

from tests.packaging.test_docs import BLOCK, ROOT
from tests.support.running_engine import running_engine

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def block_with(text: str) -> str:
    """Return the program of the page that has *text*."""
    blocks = BLOCK.finditer((ROOT / "docs" / "repair.md").read_text())
    (body,) = [match["body"] for match in blocks if text in match["body"]]
    return body


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The first program of the page, as a file."""
    file = tmp_path / "buy.py"
    file.write_text(block_with("def buy("))
    return file


def test_order_that_fails_is_undone_in_a_plain_call(tmp_path: Path) -> None:
    file = tmp_path / "orders.py"
    file.write_text(block_with("@workflow(compensate=True)"))
    names = runpy.run_path(str(file))
    with pytest.raises(PermissionError):
        names["order"](7)
    assert names["log"] == ["reserve 7", "release reservation 7"]


async def test_order_that_fails_is_undone_by_the_engine(tmp_path: Path) -> None:
    file = tmp_path / "orders.py"
    file.write_text(block_with("@workflow(compensate=True)"))
    async with running_engine(tmp_path, file) as engine:
        run = await engine.client.ended(await engine.client.start("order", {"number": 7}))
        assert run["error"]["message"] == "the card was declined"
        states = {step["id"]: step["state"] for step in run["steps"]}
        assert states == {"reserve": "succeeded", "charge": "failed", "release": "succeeded"}


async def test_declined_card_is_retried_and_another_one_is_forked(program: Path) -> None:
    async with running_engine(program.parent, program) as engine:
        run = await engine.client.start("buy", {"order": 7})
        assert (await engine.client.ended(run))["error"]["message"] == "the card was declined"
        fork = {"step": "charge", "input": {"card": "valid"}}
        forked = await engine.client.ended((await engine.client.ask("POST", f"/runs/{run}/fork", json=fork))["id"])
        assert forked["result"] == "reservation 7 paid by valid"
        (program.parent / "card-renewed").touch()
        retried = await engine.client.ended((await engine.client.ask("POST", f"/runs/{run}/retry"))["id"])
        assert retried["result"] == "reservation 7 paid by expired"
        for one in (forked, retried):
            assert [step["id"] for step in one["steps"] if step["reused"]] == ["reserve"]
