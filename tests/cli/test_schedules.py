"""``hopline schedules`` in front of a whole server, and what a one-off run leaves alone."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hopline.schedules import At, Cron, Every
from hopline_cli.errors import ExitCode
from hopline_cli.scheduling import Flags
from tests.cli.conftest import Cli, Start, developing, save

pytestmark = pytest.mark.timeout(600)  # tests of up to twenty commands, each a process

FILE = """
from datetime import date

from hopline import Cron, scheduled, step, workflow


@step
def load(day: date) -> str:
    return f"{day}"


@workflow(schedule=Cron("30 2 * * *", tz="Europe/Berlin"))
def daily(day: date = scheduled.date) -> str:
    return load(day)
"""


@pytest.fixture
def file(folder: Path) -> str:
    (folder / "daily.py").write_text(FILE)
    return "daily.py"


def test_check_warns_of_times_that_clock_changes_touch(hopline: Cli, file: str) -> None:
    done = hopline("workflows", "check", file)
    assert done.code == 0
    assert "does not exist, as the clocks go forward" in done.out
    found = json.loads(hopline("workflows", "check", file, "--json").out)
    assert [warning["workflow"] for warning in found["warnings"]] == ["daily", "daily"]


def test_one_off_run_leaves_schedules_alone(hopline: Cli, file: str) -> None:
    hopline("run", file, "day=2026-11-21")
    assert json.loads(hopline("schedules", "list", "--json").out) == []
    refused = hopline("run", file, code=ExitCode.USAGE)
    assert "missing parameter day" in refused.err


def test_schedule_of_a_served_file_is_there_and_can_be_steered(hopline: Cli, start: Start, file: str) -> None:
    running = developing(start, file)
    (listed,) = json.loads(hopline("schedules", "list", "--json").out)
    assert (listed["name"], listed["text"], listed["state"]) == ("daily", "30 2 * * * (Europe/Berlin)", "active")
    assert "file" in hopline("schedules", "list").out
    assert len(hopline("schedules", "next", "daily", "--count", "3").out.splitlines()) == 3

    changed = hopline("schedules", "update", "daily", "--cron", "0 6 * * *", "--overlap", "allow", "--gap", "skip")
    assert "0 6 * * * (Europe/Berlin)" in changed.out
    assert "gap        skip" in changed.out
    assert "the workflow's file says otherwise" in changed.out
    save(Path("daily.py"), FILE.replace("30 2", "45 2"))
    running.wait_for("what was set by hand stays in force")
    assert "45 2 * * *" in hopline("schedules", "reset", "daily").out

    run = hopline("schedules", "trigger", "daily").out.strip()
    shown = hopline("runs", "show", run).out
    assert "of schedule daily" in shown
    assert ": started by hand" in shown
    assert run in hopline("schedules", "show", "daily").out

    planned = hopline("schedules", "backfill", "daily", "--from", "2026-03-28", "--to", "2026-03-30", "--dry-run")
    assert planned.out.splitlines() == [
        "Sat 2026-03-28 02:30:00 CET",
        "Sun 2026-03-29 03:00:00 CEST",
        "Mon 2026-03-30 02:30:00 CEST",
    ], "by what was in force first, as that is the nearest to what was in force then"
    begun = hopline(
        "schedules", "backfill", "daily", "--from", "2026-03-28", "--to", "2026-03-30", "--yes", "--rate", "1/h"
    )
    assert "begun" in begun.err
    assert "wait (1 at a time" in hopline("schedules", "backfill", "daily", "--order", "pause").out

    running.process.terminate()
    running.end()
    with closing(sqlite3.connect(".hopline/hopline.db")) as raw, raw:
        raw.execute("UPDATE schedule SET next_tick = next_tick - 172800, due_at = due_at - 172800")
    missed, *_, coming = hopline("schedules", "next", "daily", "--count", "9").out.splitlines()
    assert "no server has looked at it" in missed
    assert "no server" not in coming

    once = ("schedules", "create", "once", "--workflow", "daily", "--at", "2040-01-01", "day=2026-11-21")
    assert "no tick within 5 years" in hopline(*once, code=ExitCode.USAGE).err
    hopline("schedules", "create", "often", "--workflow", "daily", "--every", "15m")
    assert hopline("schedules", "pause", "often").out.count("paused") == 1
    assert "these would not fire" in hopline("schedules", "next", "often").err
    backwards = ("schedules", "backfill", "often", "--from", "2026-03-29", "--to", "2026-03-27", "--dry-run")
    assert "ends before it begins" in hopline(*backwards, code=ExitCode.USAGE).err
    hopline("schedules", "delete", "often", "--yes")
    hopline("schedules", "delete", "daily", "--yes", code=ExitCode.FAILED)


FLAGS = ("cron", "every", "tz", "aligned", "overlap", "catchup", "jitter", "gap", "fold")
NONE_SAID: dict[str, Any] = {**dict.fromkeys(FLAGS), "at": ()}
BERLIN = Cron("30 2 * * *", "Europe/Berlin", gap="skip", fold="twice", catchup="all").to_json()


@pytest.mark.parametrize(
    "known, said, changed",
    [
        (BERLIN, {"cron": "45 2 * * *"}, {"expression": "45 2 * * *"}),
        (BERLIN, {"tz": "Asia/Tokyo", "gap": "shift"}, {"tz": "Asia/Tokyo", "gap": "shift"}),
        (Every("15m", aligned=False).to_json(), {"every": "20m"}, {"seconds": 1200.0}),
        (
            At("2026-12-24T18:00", tz="Asia/Tokyo").to_json(),
            {"at": ("2026-12-25",)},
            {"times": ["2026-12-25T00:00:00"]},
        ),
    ],
)
def test_change_leaves_what_is_not_named(known: dict[str, Any], said: dict[str, Any], changed: dict[str, Any]) -> None:
    assert Flags(**{**NONE_SAID, **said}).schedule(known) == {**known, **changed}


@pytest.mark.parametrize(
    "words, told",
    [
        (["create", "s", "--workflow", "w"], "it is not said when to run"),
        (["create", "s", "--workflow", "w", "--cron", "0 6 * * *", "--every", "5m"], "--cron and --every are given"),
        (["create", "s", "--workflow", "w", "--every", "often"], "not a duration"),
        (["create", "s", "--workflow", "w", "--at", "tomorrow"], "not a time"),
        (
            ["create", "s", "--workflow", "w", "--every", "5m", "--tz", "Europe/Berlin"],
            "--tz means nothing for --every",
        ),
        (
            ["create", "s", "--workflow", "w", "--cron", "@daily", "--from-start"],
            "--from-start means nothing for --cron",
        ),
        (["backfill", "s"], "it is not said for which time"),
        (["backfill", "s", "--from", "2026-01-01", "--to", "2026-01-02", "--rate", "fast"], "is not a rate"),
    ],
)
def test_what_makes_no_schedule_is_refused_before_anything_is_asked(cli: Cli, words: list[str], told: str) -> None:
    done = cli("schedules", *words)
    assert done.code == ExitCode.USAGE
    assert told in done.err
