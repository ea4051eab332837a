"""Choices in runs of a real engine with a real worker, with the program of the page about them."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.running_engine import running_engine
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "control-flow.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def program(folder: Path, workflow: str) -> Path:
    """Write the program of the page that has *workflow* into a file."""
    (found,) = [text for text in PROGRAMS if f"def {workflow}(" in text]
    path = folder / "wf.py"
    path.write_text(found)
    return path


@pytest.mark.parametrize(
    ("order", "states", "result"),
    [
        (
            {"id": "a", "kind": "book", "total": 1},
            {"approve": "skipped", "print_label": "succeeded", "send_link": "skipped"},
            "label of a",
        ),
        (
            {"id": "x", "kind": "file", "total": 9000},
            {"approve": "succeeded", "print_label": "skipped", "send_link": "skipped"},
            None,
        ),
    ],
)
async def test_branch_skips_what_is_not_chosen_and_says_why(
    tmp_path: Path, order: dict[str, Any], states: dict[str, str], result: str | None
) -> None:
    async with running_engine(tmp_path, program(tmp_path, "deliver")) as engine:
        run = await engine.client.ended(await engine.client.start("deliver", {"order": order}))
        assert (run["state"], run["result"]) == ("succeeded", result)
        steps = {step["id"]: step for step in run["steps"]}
        assert {name: steps[name]["state"] for name in states} == states
        skipped = next(step for step in run["steps"] if step["state"] == "skipped")
        assert skipped["error"] is None
        assert (skipped["attempts"], skipped["started_at"]) == (0, None)
        said = "order.total > 5000 is false" if skipped["id"] == "approve" else 'order.kind == "book" is false'
        expected = said if order["id"] == "a" else "branch is false"
        assert skipped["note"] == expected
        why = await engine.client.ask("GET", f"/runs/{run['id']}/why", params={"step": skipped["id"]})
        assert [reason["text"] for reason in why["reasons"]] == [f"{skipped['id']} was skipped: {expected}"]


async def test_recover_runs_the_fallback_and_the_run_succeeds(tmp_path: Path) -> None:
    async with running_engine(tmp_path, program(tmp_path, "collect")) as engine:
        run = await engine.client.ended(await engine.client.start("collect", {"order": {"id": "a", "total": 500}}))
        assert (run["state"], run["result"]) == ("succeeded", "invoice for a, because the card was declined")
        steps = {step["id"]: step for step in run["steps"]}
        assert (steps["charge_card"]["state"], steps["charge_card"]["attempts"]) == ("failed", 3)
        assert steps["recover"]["state"] == steps["recovered"]["state"] == "succeeded"


async def test_fallback_is_told_what_failed_and_where_the_run_is_looked_at(tmp_path: Path) -> None:
    text = """
        from hopline import Failure, Retry, recover, step, workflow

        class CardError(Exception): ...

        @step(retry=Retry(2, first="10ms"))
        def charge() -> str:
            raise CardError("declined")

        @step
        def note(why: Failure) -> str:
            return f"{why.step} {why.type} {why.error} {why.attempts} {why.status} {why.run} {why.run_url}"

        @workflow
        def told() -> str:
            return recover(charge, note, on=(CardError,))
    """
    async with running_engine(tmp_path, write(tmp_path, "wf.py", text)) as engine:
        run = await engine.client.ended(await engine.client.start("told", {}))
        url = f"{engine.url}/api/v1/runs/{run['id']}"
        assert run["result"] == f"charge wf.CardError declined 2 None {run['id']} {url}"
        assert (await engine.client.http.get(url)).json()["id"] == run["id"]


async def test_recovered_step_is_not_called_again_by_a_retry(tmp_path: Path) -> None:
    text = """
        from pathlib import Path
        from hopline import recover, step, workflow

        @step
        def bad(file: str) -> int:
            with open(file, "a") as calls:
                calls.write("bad ")
            raise ValueError("no")

        @step
        def last(file: str, x: int) -> int:
            if not Path(file + ".healed").exists():
                raise ValueError("not yet")
            return x

        @workflow
        def twice(file: str) -> int:
            return last(file, recover(lambda: bad(file), lambda: 7))
    """
    calls = tmp_path / "calls"
    async with running_engine(tmp_path, write(tmp_path, "wf.py", text)) as engine:
        run = await engine.client.ended(await engine.client.start("twice", {"file": str(calls)}))
        assert run["error"]["step"] == "last"
        (tmp_path / "calls.healed").touch()
        again = await engine.client.ask("POST", f"/runs/{run['id']}/retry")
        ended = await engine.client.ended(again["id"])
        assert (ended["state"], ended["result"]) == ("succeeded", 7)
        assert calls.read_text() == "bad "


async def test_first_takes_what_succeeds(tmp_path: Path) -> None:
    async with running_engine(tmp_path, program(tmp_path, "look_up")) as engine:
        run = await engine.client.ended(await engine.client.start("look_up", {"key": "k"}))
        assert (run["state"], run["result"]) == ("succeeded", "k of the south")
        states = {step["id"]: step["state"] for step in run["steps"]}
        assert states["ask_north"] in {"failed", "cancelled"}
        assert states["first"] == "succeeded"


async def test_losers_of_a_race_are_cut_off_and_told_as_cancelled(tmp_path: Path) -> None:
    text = """
        import time
        from hopline import first, step, workflow

        @step
        def slow() -> str:
            time.sleep(60)
            return "slow"

        @step
        def never(x: str) -> str:
            return x

        @step
        def fast() -> str:
            return "fast"

        @workflow
        def race() -> str:
            return first(lambda: never(slow()), fast)
    """
    async with running_engine(tmp_path, write(tmp_path, "wf.py", text)) as engine:
        run = await engine.client.ended(await engine.client.start("race", {}))
        assert (run["state"], run["result"]) == ("succeeded", "fast")
        states = {step["id"]: step["state"] for step in run["steps"]}
        assert (states["slow"], states["never"]) == ("cancelled", "cancelled")
