"""What would have to be opened anew if runs were taken up again: it is missing, since that should be nothing.

The check of every rule at once that says what an open step has to have: the engine's own decisions are asked, on rows
alone, and what they decide is thrown away.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

from hopline_engine import clock
from hopline_engine.core import advance
from hopline_engine.core.decision import Decision, Limits
from hopline_engine.core.live import LiveRun, Past
from hopline_engine.core.model import WHOLE, RunId, RunState, TaskId
from hopline_engine.core.names import step_name
from hopline_engine.core.plan import Node, Plan
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.store import audit, key_audits, recovery
from hopline_engine.store.audit import Audit, Finding, RunEnd
from hopline_engine.store.interface import Reads
from hopline_engine.store.recovery import LiveChild, StoredRun

_BY_ITSELF: Final = "the server that works on the run repairs it when it takes it up: hopline serve"

OPEN_STEP_WITHOUT_TASK: Final = Audit(
    name="open-step-without-task", means="a step that is to run has neither a task nor a sub-run", hint=_BY_ITSELF
)
END_NOT_RECORDED: Final = Audit(
    name="end-not-recorded", means="what a step or a run waited for is there, and its end is not", hint=_BY_ITSELF
)
UNREADABLE_RUN: Final = Audit(
    name="unreadable-run",
    means="what is stored of a run contradicts itself, so it cannot be taken up",
    hint="look for what wrote to the store besides hopline, or restore a backup",
)
OF_PLANS: Final = (OPEN_STEP_WITHOUT_TASK, END_NOT_RECORDED, UNREADABLE_RUN)


SECONDS_A_TABLE: Final = 3.0
"""How long one table is gone through."""

TASKS_AT_A_TIME: Final = 500
RUNS_AT_A_TIME: Final = 50


class Walk:
    """Goes through the rows of a store with all audits, as far as there is time."""

    def __init__(self, reads: Reads, catalogue: Catalogue, limits: Limits, now: float) -> None:
        self.findings: list[Finding] = []
        self._reads = reads
        self._catalogue = catalogue
        self._limits = limits
        self._now = now
        self._looked_at: Counter[str] = Counter()
        self._left: set[str] = set()

    async def look(self) -> None:
        """Go through tasks, keys, live runs and history."""
        await self._tasks()
        await self._claims()
        await self._live_runs()
        await self._history()

    def scope(self) -> str:
        """Return how much was looked at, for people."""
        parts = [
            f"{'the first ' if what in self._left else 'all '}{self._looked_at[what]:,} {what}"
            for what in ("tasks", "live runs", "runs")
        ]
        return ", ".join(parts)

    async def _tasks(self) -> None:
        after, end = 0, clock.monotonic() + SECONDS_A_TABLE
        look = partial(audit.tasks, limit=TASKS_AT_A_TIME)
        while (part := await self._reads.read(partial(look, after=after))).rows:
            after = part.rows[-1].id
            if self._is_over("tasks", len(part.rows), part.findings, end):
                return

    async def _claims(self) -> None:
        after, end = 0, clock.monotonic() + SECONDS_A_TABLE
        look = partial(key_audits.claims, limit=TASKS_AT_A_TIME)
        while (part := await self._reads.read(partial(look, after=after))).keys and clock.monotonic() <= end:
            after = part.keys[-1]
            self.findings += part.findings

    async def _live_runs(self) -> None:
        after, end = 0, clock.monotonic() + SECONDS_A_TABLE
        look = partial(audit.live_runs, limit=RUNS_AT_A_TIME)
        while (part := await self._reads.read(partial(look, after=after))).keys:
            await self._rehearse(RunId(after))
            after = part.keys[-1]
            if self._is_over("live runs", len(part.keys), part.findings, end):
                return

    async def _history(self) -> None:
        before, end = None, clock.monotonic() + SECONDS_A_TABLE
        look = partial(audit.history, limit=RUNS_AT_A_TIME)
        while (part := await self._reads.read(partial(look, before=before))).keys:
            await self._catalogue.load({each.digest for each in part.ends})
            known = [each for each in part.ends if self._catalogue.has_plan(each.digest)]
            self.findings += filter(None, (_against_plan(each, self._catalogue.plan(each.digest)) for each in known))
            before = part.keys[-1]
            if self._is_over("runs", len(part.keys), part.findings, end):
                return

    def _is_over(self, what: str, looked_at: int, findings: list[Finding], end: float) -> bool:
        self.findings += findings
        self._looked_at[what] += looked_at
        if clock.monotonic() > end:
            self._left.add(what)
        return what in self._left

    async def _rehearse(self, after: RunId) -> None:
        families = await self._reads.read(partial(recovery.live_families, after=after, limit=RUNS_AT_A_TIME))
        await self._catalogue.load({stored.run.digest for stored, _ in families})
        for stored, children in families:
            if self._catalogue.has_plan(stored.run.digest):
                plan = self._catalogue.plan(stored.run.digest)
                self.findings += rehearse(stored, plan, children, now=self._now, limits=self._limits)


def rehearse(
    stored: StoredRun, plan: Plan, children: Sequence[LiveChild], *, now: float, limits: Limits
) -> Iterator[Finding]:
    """Yield what is missing of a live run; *children* are its sub-runs that are live."""
    row = stored.run
    run = LiveRun.fresh(row.id, plan, row.input, row.created_at, None)
    if stored.ending is not None:
        run.begin_ending(RunState(stored.ending))
    past = Past(list(stored.steps), {(task.node, task.item): task for task in stored.tasks})
    decision = Decision(now, lambda: 0.0, _Numbers(), limits)
    evidence: dict[str, Any] = {"id": row.id, "public_id": row.public_id, "workflow": row.workflow}
    try:
        for child in children:
            below = plan.nodes[child.node].child
            assert below is not None, f"step {plan.nodes[child.node].id} calls no workflow, and has run {child.id}"
            past.runs[child.node, child.item] = LiveRun.fresh(child.id, below, b"{}", row.created_at, None)
        advance.begin(run, decision, past)
    except Exception as error:  # noqa: BLE001 - whatever it is, the rows are no run of this plan
        yield Finding(UNREADABLE_RUN, row.id, evidence | {"error": f"{type(error).__name__}: {error}"})
        return
    missing = [step_name(node.id, item) for node, item in _opened(run, decision) if _is_missing(node, item, past)]
    if missing:
        yield Finding(OPEN_STEP_WITHOUT_TASK, row.id, evidence | {"steps": missing})
    rows = [end for end in decision.rows.steps_ended if end.run_id == row.id]
    ended = [step_name(named.id, end.item) for end in rows if (named := plan.node(end.node)) is not None]
    if ended or run.state is not RunState.RUNNING:
        yield Finding(END_NOT_RECORDED, row.id, evidence | {"steps": ended, "run_state": run.state.value})


def _against_plan(end: RunEnd, plan: Plan) -> Finding | None:
    harmless = sum(node.within is not None or node.closes is not None for node in plan.nodes)
    return audit.against_steps(end, len(plan.nodes), harmless)


class _Numbers:
    """Numbers of what is never stored."""

    def __init__(self) -> None:
        self._next = count(-1, -1)

    def next_run(self, parent: RunId | None = None) -> RunId:  # noqa: ARG002
        return RunId(next(self._next))

    def next_task(self, run: RunId) -> TaskId:  # noqa: ARG002
        return TaskId(next(self._next))


def _opened(run: LiveRun, decision: Decision) -> Iterator[tuple[Node, int]]:
    """Yield the step runs of a run that were opened anew."""
    for task in decision.opened:
        if task.run is run:
            yield task.node, task.item
    for began in decision.began:
        if began.parent is not None and began.parent.run is run:
            yield began.parent.node, began.parent.item


def _is_missing(node: Node, item: int, past: Past) -> bool:
    """Return whether a step run that was opened anew should have been open.

    More elements of a map than were open may be opened when the window grew since.
    """
    if item == WHOLE:
        return True
    are_open = [other for of_node, other in (*past.tasks, *past.runs) if of_node == node.index]
    have_ended = [row.item for row in past.steps if row.node == node.index and row.item != WHOLE]
    return not are_open or (node.stream_from is None and item < max(are_open + have_ended))
