"""SIGKILL at any moment: what was acknowledged stays, and what stays is whole."""

import random
import sqlite3
from pathlib import Path

from tests.store.children import child
from tests.store.opened import column, looking_into

KILLS = 10
SEED = 34
MOST_LINES = 200
"""A kill comes after up to so many acknowledgements; the log is copied about every 70 runs, which are 140 lines."""

TORN = """
    SELECT run.id, run.state, task.id, step_run.node, attempt.attempt
    FROM run
    LEFT JOIN task ON task.run_id = run.id
    LEFT JOIN step_run ON step_run.run_id = run.id
    LEFT JOIN attempt ON attempt.run_id = run.id
    WHERE (run.state = 'running') <> (task.id IS NOT NULL)
       OR (run.state = 'running') <> (step_run.node IS NULL)
       OR (run.state = 'running') <> (attempt.attempt IS NULL)
"""
"""Runs of which only a part of a decision is there."""

STRAY = """
    SELECT run_id FROM (SELECT run_id FROM task UNION SELECT run_id FROM step_run UNION SELECT run_id FROM attempt)
    WHERE run_id NOT IN (SELECT id FROM run)
"""


def acknowledged(lines: list[str], word: str) -> set[object]:
    """Return the runs of which that was printed."""
    return {int(line.split()[1]) for line in lines if line.startswith(word)}


def check(raw: sqlite3.Connection, lines: list[str]) -> None:
    """Fail if an acknowledged decision is not there, or one that is there is not whole."""
    assert column(raw, "PRAGMA integrity_check") == ["ok"]
    assert raw.execute(TORN).fetchall() == []
    assert raw.execute(STRAY).fetchall() == []
    assert acknowledged(lines, "started") <= set(column(raw, "SELECT id FROM run"))
    assert acknowledged(lines, "ended") <= set(column(raw, "SELECT id FROM run WHERE state = 'succeeded'"))


def test_what_was_acknowledged_survives_sigkill_and_every_decision_is_whole(folder_on_disk: Path) -> None:
    chance = random.Random(SEED)
    lines: list[str] = []

    for _ in range(KILLS):
        with child(folder_on_disk) as process:
            lines += [process.line() for _ in range(chance.randint(1, MOST_LINES))]
            lines += process.kill()
        with looking_into(folder_on_disk) as raw:
            check(raw, lines)

    assert "" not in lines, "a process ended by itself"
    assert len(lines) >= KILLS


def test_a_store_that_was_killed_while_another_looked_into_it_opens_again(folder_on_disk: Path) -> None:
    with child(folder_on_disk) as process, looking_into(folder_on_disk) as raw:
        lines = [process.line() for _ in range(20)]
        raw.execute("BEGIN")
        seen = column(raw, "SELECT count(*) FROM run")
        lines += [process.line() for _ in range(20)]
        lines += process.kill()

        with child(folder_on_disk) as next_process:
            lines += [next_process.line() for _ in range(20)]
            assert column(raw, "SELECT count(*) FROM run") == seen  # still its own snapshot
            raw.execute("COMMIT")
            lines += next_process.kill()
        check(raw, lines)
