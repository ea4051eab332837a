"""``hopline doctor``: what a server says, what is read without one, and the exit code."""

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hopline_cli.errors import ExitCode
from hopline_engine import clock
from tests.cli.conftest import Cli, Outcome
from tests.cli.fake_api import FakeApi, Json

FLOW = """
from hopline import step, workflow

@step
def first(x: int) -> int:
    return x + 1

@step
def then(x: int) -> int:
    return x * 2

@workflow
def sums(x: int) -> int:
    return then(first(x))
"""

STUCK: Json = {
    "name": "stuck-run", "state": "wrong", "text": "a run hangs (1 found)", "hint": "serve it",
    "evidence": [{"id": number} for number in range(7)], "is_audit": True,
}  # fmt: skip
QUIET: Json = {"name": "orphan-task", "state": "ok", "text": "never", "hint": None, "evidence": [], "is_audit": True}
STORE: Json = QUIET | {"name": "store", "text": "sqlite at x.db", "is_audit": False}


def diagnosis(*checks: Json, at: str | None = None) -> Json:
    now = datetime.fromtimestamp(clock.now(), UTC).isoformat()
    return {"version": "0", "at": at or now, "ok": True, "checks": list(checks), "healed": {}}


def found(done: Outcome) -> dict[str, Json]:
    """Return the checks of a JSON answer by name; of those with the same name, the last."""
    return {check["name"]: check for check in json.loads(done.out)["checks"]}


def test_server_that_finds_nothing_is_told_with_exit_code_0(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/doctor", diagnosis(STORE, QUIET))
    done = cli("doctor")
    assert done.code == 0
    assert f"answers at {api.url}" in done.out
    assert "sqlite at x.db" in done.out
    assert "orphan-task" not in done.out, "rules that hold are told in one line"
    assert "1 that must always hold, none of them broken" in done.out


def test_what_is_wrong_is_told_with_hint_and_evidence_and_exit_code_1(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/doctor", diagnosis(STORE, QUIET, STUCK))
    done = cli("doctor")
    assert done.code == ExitCode.FAILED
    *_, line, hint, one, _, _, _, _, more = done.out.splitlines()
    assert line.split() == ["wrong", "stuck-run", "a", "run", "hangs", "(1", "found)"]
    assert hint.strip() == "hint: serve it"
    assert one.strip() == '{"id": 0}'
    assert more.strip() == "and 2 more: hopline doctor --json"
    assert len(found(cli("doctor", "--json"))["stuck-run"]["evidence"]) == 7


def test_server_whose_clock_is_off_is_wrong(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/doctor", diagnosis(STORE, at="2020-01-01T00:00:00Z"))
    done = cli("doctor", "--json")
    assert done.code == ExitCode.FAILED
    assert found(done)["server-clock"]["state"] == "wrong"


def test_folder_without_a_store_is_no_fault(folder: Path, cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert done.code == 0
    assert found(done)["store"]["state"] == "note"
    assert not (folder / ".hopline").exists()


def test_named_server_that_is_away_is_wrong_and_the_store_is_read_nevertheless(
    folder: Path, cli: Cli, hopline: Cli
) -> None:
    a_store(folder, hopline)
    done = cli("doctor", "--json", "--server", "http://127.0.0.1:9")
    assert done.code == ExitCode.FAILED
    assert found(done)["server"]["state"] == "wrong"
    assert found(done)["schema"]["state"] == "ok"


def a_store(folder: Path, hopline: Cli) -> sqlite3.Connection:
    """Make a store with a run that succeeded, and return a connection to it."""
    (folder / "flow.py").write_text(FLOW)
    assert hopline("run", "flow.py", "x=3").out == "8\n"
    return sqlite3.connect(folder / ".hopline" / "hopline.db", isolation_level=None)


def test_store_of_a_server_that_has_stopped_is_read_without_being_changed(folder: Path, cli: Cli, hopline: Cli) -> None:
    with closing(a_store(folder, hopline)) as raw:
        before = raw.execute("PRAGMA data_version").fetchone()
        done = cli("doctor")
        assert raw.execute("PRAGMA data_version").fetchone() == before
    assert done.code == 0, done.out
    assert "looked at all 0 tasks, all 0 live runs, all 1 runs" in done.out
    assert "none is up" in done.out


def test_deleted_task_is_found_without_a_server_and_repaired_by_the_next(folder: Path, cli: Cli, hopline: Cli) -> None:
    with closing(a_store(folder, hopline)) as raw:
        raw.execute("DROP TRIGGER run_is_final")
        raw.execute("UPDATE run SET state = 'running', ended_at = NULL, result = NULL")
        raw.execute("DELETE FROM step_run WHERE node = 1")
        raw.execute("DELETE FROM attempt WHERE node = 1")
        damaged = cli("doctor", "--json")
        assert damaged.code == ExitCode.FAILED
        wrong = {name: check for name, check in found(damaged).items() if check["state"] == "wrong"}
        assert wrong.keys() == {"stuck-run", "open-step-without-task"}
        (evidence,) = wrong["open-step-without-task"]["evidence"]
        assert evidence["steps"] == ["then"]
        hopline("runs", "list")  # opens the store, and with it takes up the run
        assert raw.execute("SELECT node FROM task").fetchall() == [(1,)]
    assert cli("doctor").code == 0


def test_file_that_is_no_store_is_wrong(folder: Path, cli: Cli) -> None:
    (folder / ".hopline").mkdir()
    (folder / ".hopline" / "hopline.db").write_bytes(b"something else" * 1000)
    done = cli("doctor", "--json")
    assert done.code == ExitCode.FAILED
    assert found(done)["store"]["state"] == "wrong"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_store_that_may_not_be_read_is_wrong(folder: Path, cli: Cli, hopline: Cli) -> None:
    a_store(folder, hopline).close()
    (folder / ".hopline" / "hopline.db").chmod(0)
    done = cli("doctor", "--json")
    assert (done.code, found(done)["store"]["state"]) == (ExitCode.FAILED, "wrong")
