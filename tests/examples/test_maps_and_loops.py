"""The programs of ``docs/maps-and-loops.md`` do what the page says: plainly, and on a server."""

import re
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import STORES
from tests.support.running_engine import RunningEngine, running_engine

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "maps-and-loops.md"
PROGRAMS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

CALLS: dict[str, tuple[dict[str, Any], Any]] = {
    "album": (
        {"names": ["a.jpg", "notes.txt"]},
        {"made": ["a.jpg at 320"], "failed": ["notes.txt is no picture"]},
    ),
    "squares": ({"count": 130}, sum(number * number for number in range(130))),
    "thumbnails": ({"names": ["a.jpg", "b.mov"]}, ["small a.jpg", "small first frame of b.mov"]),
    "exported": ({"name": "a"}, "a has 62 rows"),
    "thumbnail": ({"name": "b.mov"}, "small first frame of b.mov"),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=STORES)
async def engine(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[RunningEngine]:
    files = written(tmp_path)
    async with STORES[request.param]() as store, running_engine(tmp_path, *files, store=store) as engine:
        yield engine


def written(folder: Path) -> list[Path]:
    """Write each program into a file of its own."""
    files = [folder / f"program_{number}.py" for number in range(len(PROGRAMS))]
    for file, program in zip(files, PROGRAMS, strict=True):
        file.write_text(program)
    return files


@pytest.mark.parametrize("name", CALLS)
def test_program_of_the_page_does_so_as_plain_python(name: str, tmp_path: Path) -> None:
    found = [runpy.run_path(str(file)) for file in written(tmp_path)]
    given, result = CALLS[name]
    (workflow,) = [module[name] for module in found if name in module]
    assert workflow(**given) == result


async def test_programs_of_the_page_do_so_on_a_server(engine: RunningEngine) -> None:
    for name, (given, result) in CALLS.items():
        run = await engine.client.ended(await engine.client.start(name, given))
        assert (run["state"], run["result"]) == ("succeeded", result), run
