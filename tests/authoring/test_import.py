"""``import hopline`` is cheap: what a command line that only reads files must pay."""

import subprocess
import sys

import pytest

import hopline

HEAVY = [
    "asyncio",
    "pydantic",
    "networkx",
    "httpx",
    "msgspec",
    "typing_extensions",
    "hopline.schema",
    "hopline.compiler",
]


def python(code: str) -> str:
    finished = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("module", ["hopline", "hopline.testing"])
def test_import_is_standard_library_only_and_small(module: str) -> None:
    shown = python(f"import sys; sys.path = {sys.path!r}; import {module}; print(*sys.modules)")
    loaded = shown.split()
    assert [name for name in HEAVY if name in loaded] == []
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"hopline", "__main__"}
    # Whatever .pth files of the environment load is there before us.
    before = python("import sys; print(*sys.modules)").split()
    assert foreign - {name.partition(".")[0] for name in before} == set()
    assert len(loaded) <= 250


def test_steps_and_plain_calls_need_no_pydantic() -> None:
    code = f"""
import sys; sys.path = {sys.path!r}
from hopline import Queue, Retry, step, workflow

@step(retry=Retry(3), timeout="2m", queue=Queue("q", rate="1/s"))
def double(n: int) -> int:
    return 2 * n

@workflow
def twice(n: int) -> int:
    return double(double(n))

print(twice(2), "pydantic" in sys.modules, "asyncio" in sys.modules)
"""
    assert python(code).split() == ["8", "False", "False"]


def test_public_names_are_all_there_and_documented() -> None:
    assert hopline.__all__ == sorted(hopline.__all__)
    for name in hopline.__all__:
        assert getattr(hopline, name).__doc__


def test_async_step_loads_asyncio_when_it_runs() -> None:
    code = f"""
import sys; sys.path = {sys.path!r}
from hopline import step

@step
async def one() -> int:
    return 1

before = "asyncio" in sys.modules
print(one(), before)
"""
    assert python(code).split() == ["1", "False"]
