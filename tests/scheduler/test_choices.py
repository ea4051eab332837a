"""Choices in runs of a real engine with a real worker, with the program of the page about them."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.running_engine import running_engine

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
