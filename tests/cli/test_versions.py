"""``hopline workflows versions|diff`` and ``check --against live``: what a change of a file means for open runs."""

import json
from pathlib import Path

import pytest

from hopline_cli.differences import Change, differences
from tests.cli.conftest import Cli, Running, Start, developing, save
from tests.cli.fake_api import FakeApi
from tests.cli.test_end_to_end import FILE
from tests.support.waiting import eventually


@pytest.fixture
def dev(folder: Path, start: Start) -> Running:
    (folder / "wf.py").write_text(FILE)
    return developing(start, "wf.py")


def test_a_change_that_would_strand_an_open_run_is_told_with_the_run(dev: Running, folder: Path, hopline: Cli) -> None:
    run = json.loads(hopline("run", "squares", "wait=opened", "--detach", "--json").out)["id"]
    eventually((folder / "opened.reached").exists, "the gate is reached")
    (folder / "new").mkdir()
    changed = FILE.replace("attempts: int) -> int", "attempts: int, extra: int = 0) -> int")
    (folder / "new" / "wf.py").write_text(changed)

    told = hopline("workflows", "check", "new/wf.py", "--against", "live", code=1)
    assert f"step total has another signature now; 1 live run needs it: {run}" in told.out
    found = json.loads(hopline("workflows", "check", "new/wf.py", "--against", "live", "--json", code=1).out)
    assert [(lost["step"], lost["runs"], lost["examples"]) for lost in found["stranded"]] == [("total", 1, [run])]
    hopline("workflows", "check", "wf.py", "--against", "live")

    (folder / "opened").touch()
    assert hopline("runs", "watch", run).out == "14\n"
    hopline("workflows", "check", "new/wf.py", "--against", "live")


def test_versions_are_listed_and_compared(dev: Running, folder: Path, hopline: Cli) -> None:
    (old,) = hopline("workflows", "versions", "squares", "-q").out.split()
    assert hopline("workflows", "diff", "squares", "wf.py").out == ""
    save(folder / "wf.py", FILE.replace("attempts=3,", "attempts=5,").replace("number * number", "number ** 2"))
    dev.wait_for("loaded again (squares)")
    new, kept = hopline("workflows", "versions", "squares", "-q").out.split()
    assert kept == old
    compared = hopline("workflows", "diff", f"squares@{old[:8]}", "squares", "--exit-code", code=1)
    assert compared.out == " ~ total\n     policy.retry.attempts  3 → 5\n"
    missing = hopline("workflows", "diff", "squares@0123", f"squares@{new}", code=5)
    assert "no version of" in missing.err


def test_steps_that_came_went_and_changed_are_told_apart() -> None:
    step = {"id": "a", "signature": "1", "policy": {"timeout": 60.0}, "inputs": {}}
    before = {"name": "w", "nodes": [step, step | {"id": "gone"}], "parameters": {"required": ["x"]}}
    after = {"name": "w", "nodes": [step | {"signature": "2", "policy": {}}, step | {"id": "new"}], "parameters": {}}
    found = differences(before, after)
    assert (found.added, found.removed) == (["new"], ["gone"])
    assert found.changed == {
        "a": [Change(path="policy.timeout", before=60.0), Change(path="signature", before="1", after="2")]
    }
    assert found.workflow == [Change(path="parameters.required", before=["x"])]
    assert not differences(before, before)


def test_files_that_have_nothing_to_do_with_an_open_run_do_not_strand_it(
    api: FakeApi, folder: Path, hopline: Cli
) -> None:
    need = {"workflow": "w", "digest": "d", "step": "s", "signature": "x", "runs": 1, "examples": ["r_1"]}
    api.answer("GET", "/needs", {"needs": [need]})
    (folder / "wf.py").write_text(FILE)
    hopline("workflows", "check", "wf.py", "--against", "live")
