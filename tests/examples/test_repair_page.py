"""What docs/repair.md says of its example, done with it."""

from pathlib import Path

import pytest

from tests.packaging.test_docs import BLOCK, ROOT
from tests.support.running_engine import running_engine

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program of the page, as a file."""
    blocks = BLOCK.finditer((ROOT / "docs" / "repair.md").read_text())
    (body,) = [match["body"] for match in blocks if "@workflow\n" in match["body"] and "def buy" in match["body"]]
    file = tmp_path / "buy.py"
    file.write_text(body)
    return file


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
