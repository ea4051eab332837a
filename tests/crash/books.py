"""What is left after kills: the rows of the store and the side-effect log, read once and looked up in."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from hopline_engine.core.model import WHOLE, Digest
from hopline_engine.core.names import step_name
from hopline_engine.core.plan import Node, Plan
from hopline_engine.scheduler.definitions import add_plans
from hopline_engine.store.definitions import StoredDefinition

Row = Mapping[str, Any]
"""A row by the names of its columns."""

TABLES: Final = {
    "definition": "SELECT digest, name, body FROM definition",
    "run": "SELECT * FROM run",
    "step_run": "SELECT * FROM step_run",
    "attempt": "SELECT * FROM attempt",
    "task": "SELECT * FROM task",
}
"""What is read of a store."""


class StepRun(NamedTuple):
    """A step of a run, or one element of a mapped one."""

    run: int
    node: int
    item: int


class Execution(NamedTuple):
    """One execution as the side-effect log has it."""

    attempt: int
    key: str
    started_at: float


class Books:
    """The store and the side-effect log, read once after everything has ended."""

    def __init__(self, stored: Mapping[str, Sequence[Row]], log: Path) -> None:
        """Read the rows that a store has, by table, and the log."""
        self.runs: dict[int, Row] = {row["id"]: row for row in stored["run"]}
        self.tasks = stored["task"]
        self.steps = {place_of(row): row for row in stored["step_run"]}
        self.items: dict[tuple[int, int], list[int]] = defaultdict(list)
        for step in sorted(self.steps):
            if step.item != WHOLE:
                self.items[step.run, step.node].append(step.item)
        self.attempts: dict[StepRun, list[Row]] = defaultdict(list)
        self.tried: dict[int, list[StepRun]] = defaultdict(list)
        """The step runs of each run that have attempts."""
        for row in sorted(stored["attempt"], key=lambda row: (place_of(row), row["attempt"])):
            self.attempts[place_of(row)].append(row)
        for step in self.attempts:
            self.tried[step.run].append(step)
        self._plans: dict[Digest, Plan] = {}
        add_plans((StoredDefinition(**row) for row in stored["definition"]), self._plans)
        self.public = {row["public_id"]: row["id"] for row in self.runs.values()}
        self.executions: dict[StepRun, list[Execution]] = defaultdict(list)
        self.finished: set[tuple[StepRun, int]] = set()
        self.strange: set[str] = set()
        """Runs that were executed and are not in the store."""
        self._read(log)

    def plan(self, run: int) -> Plan:
        """Return the plan of a run."""
        return self._plans[self.runs[run]["digest"]]

    def root(self, run: int) -> int:
        """Return the run that somebody started, of which *run* is a part."""
        while (parent := self.runs[run]["parent_id"]) is not None:
            run = parent
        return run

    def node(self, step: StepRun) -> Node:
        """Return the plan's node of a step run."""
        return self.plan(step.run).nodes[step.node]

    def name(self, step: StepRun) -> str:
        """Return what people call a step run."""
        return f"{self.runs[step.run]['public_id']}/{step_name(self.node(step).id, step.item)}"

    def place(self, run: str, step: str) -> StepRun:
        """Return the step run that the log calls *step* of *run*."""
        number = self.public[run]
        node, _, item = step.partition("[")
        return StepRun(number, self.plan(number).by_id[node].index, int(item[:-1]) if item else WHOLE)

    def _read(self, log: Path) -> None:
        for line in log.read_text().splitlines():
            entry: Mapping[str, Any] = json.loads(line)
            if entry["run"] not in self.public:
                self.strange.add(entry["run"])
                continue
            step = self.place(entry["run"], entry["step"])
            if entry["phase"] == "start":
                self.executions[step].append(Execution(entry["attempt"], entry["key"], entry["at"]))
            else:
                self.finished.add((step, entry["attempt"]))


def place_of(row: Row) -> StepRun:
    """Return the step run that a row is about."""
    return StepRun(row["run_id"], row["node"], row["item"])


def in_sqlite(store: Path) -> dict[str, list[Row]]:
    """Return the rows of a store in a file, by table."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return {table: list(map(dict, connection.execute(query))) for table, query in TABLES.items()}


async def in_postgres(url: str) -> dict[str, list[Row]]:
    """Return the rows of a store on Postgres, by table."""
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return {table: list(map(dict, await connection.fetch(query))) for table, query in TABLES.items()}
    finally:
        await connection.close()
