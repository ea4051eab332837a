"""``on_failure`` and ``finally_`` in runs of a real engine with a real worker."""

from pathlib import Path
from typing import Any

import pytest

from tests.scheduler.test_choices import program
from tests.support.running_engine import running_engine
from tests.support.waiting import until_seen
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio

FILE = """
    import time
    from pathlib import Path
    from hopline import Failure, step, workflow

    @step
    def work(folder: str, how: str) -> int:
        if how == "bad":
            raise ValueError("no space left")
        if how == "slow":
            Path(folder, "reached").touch()
            time.sleep(60)
        return 5

    @step
    def tell(why: Failure, folder: str) -> None:
        Path(folder, "told").write_text(f"{why.step}: {why.error}, {why.attempts}, {why.run_url}")

    @step
    def clean(folder: str) -> None:
        Path(folder, "cleaned").touch()

    @workflow(on_failure=tell, finally_=clean)
    def job(folder: str, how: str) -> int:
        return work(folder, how)
"""


def states(run: dict[str, Any]) -> dict[str, str]:
    return {step["id"]: step["state"] for step in run["steps"]}


async def test_failed_run_tells_and_closes_and_stays_failed(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", FILE)) as engine:
        run = await engine.client.ended(await engine.client.start("job", {"folder": str(tmp_path), "how": "bad"}))
        assert (run["state"], run["error"]["step"]) == ("failed", "work")
        assert states(run) == {"work": "failed", "tell": "succeeded", "clean": "succeeded"}
        assert [step["id"] for step in run["steps"]] == ["work", "tell", "clean"]
        url = f"{engine.url}/api/v1/runs/{run['id']}"
        assert (tmp_path / "told").read_text() == f"work: no space left, 1, {url}"
        assert (tmp_path / "cleaned").exists()


async def test_run_that_succeeds_closes_and_says_why_nobody_was_told(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", FILE)) as engine:
        run = await engine.client.ended(await engine.client.start("job", {"folder": str(tmp_path), "how": "well"}))
        assert (run["state"], run["result"]) == ("succeeded", 5)
        assert states(run) == {"work": "succeeded", "tell": "skipped", "clean": "succeeded"}
        assert run["steps"][1]["note"] == "the run succeeded"


async def test_cancelled_run_closes_and_is_shown_as_cancelling_meanwhile(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "wf.py", FILE)) as engine:
        run = await engine.client.start("job", {"folder": str(tmp_path), "how": "slow"})

        async def reached() -> bool | None:
            return (tmp_path / "reached").exists() or None

        await until_seen(reached, "the step has begun")
        why = await engine.client.ask("GET", f"/runs/{run}/why")
        assert [reason["text"] for reason in why["reasons"] if reason["step"] != "work"] == [
            "tell waits until everything else has ended, if the run has failed",
            "clean waits until everything else has ended",
        ]
        cancelled = await engine.client.ask("POST", f"/runs/{run}/cancel")
        assert cancelled["state"] in {"cancelling", "cancelled"}
        ended = await engine.client.ended(run)
        assert ended["state"] == "cancelled"
        assert states(ended) == {"work": "cancelled", "tell": "skipped", "clean": "succeeded"}
        assert not (tmp_path / "told").exists()


async def test_program_of_the_page_cleans_up(tmp_path: Path) -> None:
    async with running_engine(tmp_path, program(tmp_path, "nightly")) as engine:
        run = await engine.client.ended(await engine.client.start("nightly", {"table": "missing"}))
        assert run["state"] == "failed"
        assert states(run) == {"copy": "failed", "tell_team": "succeeded", "drop_copy": "succeeded"}
