"""What docs/limits.md shows works: in a plain call, and on the engine."""

import runpy
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
    (body,) = [
        m["body"] for m in BLOCK.finditer((ROOT / "docs" / "limits.md").read_text()) if m["language"] == "python"
    ]
    file = tmp_path / "bank.py"
    file.write_text(body)
    return file


ORDERS = [{"id": number, "customer": "ada" if number % 2 else "bob", "total": 5.0} for number in range(6)]


def test_program_of_the_page_runs_as_a_plain_call(program: Path) -> None:
    names = runpy.run_path(str(program))
    assert names["settle"]([names["Order"](**order) for order in ORDERS]) == 6


async def test_program_of_the_page_runs_on_the_engine(program: Path, tmp_path: Path) -> None:
    async with running_engine(tmp_path, program) as engine:
        run = await engine.client.ended(await engine.client.start("settle", {"orders": ORDERS}))
        assert (run["state"], run["result"]) == ("succeeded", 6)
