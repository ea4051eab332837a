"""``hopline run`` of a file that a ``hopline dev`` next to it serves, and how both end."""

import json
import time
from pathlib import Path

import httpx
import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli, Start, developing, save
from tests.support.waiting import WITHIN, eventually

RETRIED = """
import time
from pathlib import Path

from hopline import Retry, step, workflow

@step(retry=Retry(attempts=100, first="50ms", factor=1, jitter="none"))
def answer() -> int:
    Path("tried").touch()
    {body}

@workflow
def asking() -> int:
    return answer()
"""
STUCK = """
import asyncio
import time

from hopline import step, workflow

@step(timeout="300ms")
{step}

@workflow
def hanging() -> None:
    hang()
"""
SLOW_TO_LOAD = """
import time
from pathlib import Path

from hopline import step, workflow

Path("loading").touch()
while not Path("loaded").exists():
    time.sleep(0.01)

@step
def answer() -> int:
    return 42

@workflow
def asking() -> int:
    return answer()
"""


def put(path: Path, body: str) -> None:
    save(path, RETRIED.format(body=body))


def test_change_of_a_file_that_dev_serves_reaches_a_run_that_was_started_beside_it(
    folder: Path, start: Start, hopline: Cli
) -> None:
    put(folder / "wf.py", 'raise ValueError("not yet")')
    developing(start, "wf.py")
    running = start("run", "./wf.py")
    running.wait_for("wf.py is served at http://127.0.0.1:")
    eventually((folder / "tried").exists, "it is tried")
    put(folder / "wf.py", "return 42")
    done = running.end()
    assert (done.code, done.out) == (0, "42\n")


def test_file_that_was_just_saved_is_run_as_it_is_now(folder: Path, start: Start, hopline: Cli) -> None:
    put(folder / "wf.py", "return 1")
    developing(start, "wf.py")
    put(folder / "wf.py", "return 2")
    assert hopline("run", "wf.py").out == "2\n"


def test_file_that_dev_does_not_serve_gets_a_worker_of_its_own(folder: Path, start: Start, hopline: Cli) -> None:
    put(folder / "wf.py", "return 1")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "wf.py").write_text(RETRIED.format(body="return 2").replace("answer", "reply"))
    developing(start, "wf.py")
    done = hopline("run", "elsewhere/wf.py")
    assert (done.out, "is served at" in done.err) == ("2\n", False)


def test_file_that_does_not_load_any_more_is_told_and_not_run_as_it_was(
    folder: Path, start: Start, hopline: Cli
) -> None:
    put(folder / "wf.py", "return 1")
    developing(start, "wf.py")
    save(folder / "wf.py", "def (\n")
    done = hopline("run", "wf.py", code=ExitCode.FAILED)
    assert done.out == ""
    assert "error[syntax-error]" in done.err


def test_names_that_a_file_may_have_are_not_unknown_while_dev_still_loads_it(
    folder: Path, start: Start, hopline: Cli
) -> None:
    (folder / "wf.py").write_text(SLOW_TO_LOAD)
    start("dev", "wf.py", "--port", "0")
    eventually((folder / "loading").exists, "it is being loaded")
    url = json.loads((folder / ".hopline" / "server.json").read_text())["url"]
    with httpx.Client(base_url=f"{url}/api/v1", timeout=WITHIN) as client:
        event = {"name": "happened", "key": "k", "payload": None}
        for answer in (
            client.post("/runs", json={"workflow": "asking", "input": {}}),
            client.get("/workflows/asking"),
            client.get("/schedules/asking"),
            client.get("/queues/asking"),
            client.post("/events", json=event),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["error"]["code"] == "still-loading"
    (folder / "loaded").touch()
    assert hopline("run", "asking").out == "42\n"
    assert "error[workflow-not-found]" in hopline("run", "nothing", code=ExitCode.NOT_FOUND).err


@pytest.mark.parametrize(
    "step",
    [
        "def hang() -> None:\n    time.sleep(600)",
        "async def hang() -> None:\n    await asyncio.to_thread(time.sleep, 600)",
        "async def hang() -> None:\n    time.sleep(600)",
    ],
)
def test_run_whose_step_is_stuck_ends_when_it_is_over(folder: Path, start: Start, hopline: Cli, step: str) -> None:
    (folder / "wf.py").write_text(STUCK.format(step=step))
    running = start("run", "wf.py", "--json")
    running.wait_for("  hanging  failed")
    over = time.monotonic()
    done = running.end()
    assert time.monotonic() - over < 10, "which is what a worker gives steps that run"
    assert done.code == ExitCode.RUN_FAILED
    assert json.loads(done.out)["error"]["type"] == "TimeoutError"
