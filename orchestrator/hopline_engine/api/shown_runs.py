"""Runs as people see them: their rows, with what memory knows of those that go on at this node."""

import contextlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from hopline_engine.api.models import Parent, Run, RunSummary, ScheduledTick, Step
from hopline_engine.api.reasons import Explainer
from hopline_engine.api.schedule_service import scheduled_tick
from hopline_engine.api.views import MOST_SUB_RUNS, reused_steps, run_view, step_views, summary_view
from hopline_engine.clock import Clock
from hopline_engine.core.model import WHOLE, RunId, RunState
from hopline_engine.core.names import public_id, run_id
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.schedules import tick_of_key
from hopline_engine.errors import RunNotFoundError, UnusableDefinitionError, WorkflowNotFoundError
from hopline_engine.scheduler.engine import Engine
from hopline_engine.store import runs, schedules, steps
from hopline_engine.store.runs import RunRecord
from hopline_engine.store.runs import RunSummary as StoredSummary
from hopline_engine.store.steps import Overview


class ShownRuns:
    """Finds runs and shows them."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._store = engine.store
        self._clock = clock

    async def find(self, public: str) -> RunRecord:
        """Return a run by the id that people see.

        Raises:
            RunNotFoundError
        """
        number = run_id(public)
        if number is None:
            raise RunNotFoundError(run=public)
        return await self.stored(number)

    async def stored(self, number: RunId) -> RunRecord:
        """Return a run by its number.

        Raises:
            RunNotFoundError
        """
        stored = await self._store.read(lambda connection: runs.get(connection, number))
        if stored is None:
            raise RunNotFoundError(run=public_id(number))
        return stored

    async def plan_of(self, stored: StoredSummary) -> Plan | None:
        """Return the plan of a run; ``None`` when this server cannot run its version, which its view notes."""
        with contextlib.suppress(UnusableDefinitionError):
            return await self._engine.catalogue.plan_of(stored.digest)
        return None

    async def run_view(self, stored: RunRecord) -> Run:
        """Return a run as it is shown by itself."""
        plan = await self.plan_of(stored)
        done = self._done(stored, plan, await self._ended_steps([stored]))
        view = run_view(stored, plan, await self._parent(stored), done, self._note(stored))
        tick = tick_of_key(stored.idempotency_key) if stored.idempotency_key is not None else None
        return view if tick is None else view.model_copy(update={"scheduled": await self._scheduled(stored, *tick)})

    async def summaries(self, found: Sequence[StoredSummary], above: RunRecord | None) -> list[RunSummary]:
        """Return runs as they are listed; *above* is the one that they are sub-runs of, if that was asked for."""
        ended = await self._ended_steps(found)
        views = []
        for stored in found:
            plan = await self.plan_of(stored)
            below = await self._parent(stored, above) if above is not None else None
            views.append(summary_view(stored, plan, below, self._done(stored, plan, ended), self._note(stored)))
        return views

    async def steps_of(self, of: StoredSummary, plan: Plan, nodes: Sequence[Node] | None = None) -> list[Step]:
        """Return the steps of a run, or some of them."""
        run = of.id
        # Undo steps are shown of runs that came to undo what they did.
        wanted = ((*plan.nodes, *plan.undos.values()) if of.ending else plan.nodes) if nodes is None else nodes
        single = [node.index for node in wanted if node.over is None and node.loop is None]
        mapped = [node.index for node in wanted if node.over is not None or node.loop is not None]
        # Taken before the rows are read: a step that ends in between is then seen as ended by one of the two.
        live = self._engine.coordinator.runs.get(run)
        rows = await self._store.read(partial(steps.overview, run_id=run, single=single, mapped=mapped))
        called = [node.index for node in wanted if node.kind in {"workflow", "dynamic"}]
        below = (
            await self._store.read(partial(runs.sub_runs, parent=run, nodes=called, limit=MOST_SUB_RUNS))
            if called
            else []
        )
        reused = await self._reused(of, rows)
        return step_views(plan, rows, below, live, self.explainer(), wanted, reused)

    def explainer(self) -> Explainer:
        """Return what says why steps are where they are now."""
        return Explainer(self._engine.admission, self._newest, self._engine.approvals.link, self._clock.now())

    def _newest(self, workflow: str) -> Plan | None:
        with contextlib.suppress(WorkflowNotFoundError, UnusableDefinitionError):
            return self._engine.catalogue.current(workflow)
        return None

    async def _scheduled(self, stored: RunRecord, schedule: str, at: float) -> ScheduledTick | None:
        """Return the tick that a run was started for; ``None`` when the schedule is no more."""
        known = await self._store.read(partial(schedules.get, name=schedule))
        tick = await self._store.read(partial(schedules.tick_at, name=schedule, at=at))
        return None if known is None or tick is None else scheduled_tick(known, tick, stored.created_at)

    def _note(self, stored: StoredSummary) -> str | None:
        if stored.state is not RunState.RUNNING or stored.id not in self._engine.resumer.left_out:
            return None
        reason = self._engine.catalogue.unusable.get(stored.digest)
        if reason is None:
            is_below = stored.parent_id is not None
            reason = "the run above it cannot be taken up" if is_below else "it cannot be taken up, as the log says"
        return f"waits: {reason}"

    async def _ended_steps(self, stored: Sequence[StoredSummary]) -> dict[RunId, int]:
        """Return how many steps have ended of those of the runs that are open and not in this node's memory."""
        live = self._engine.coordinator.runs
        elsewhere = [run.id for run in stored if run.state is RunState.RUNNING and run.id not in live]
        return await self._store.read(partial(steps.ended_counts, run_ids=elsewhere)) if elsewhere else {}

    def _done(self, stored: StoredSummary, plan: Plan | None, ended: dict[RunId, int]) -> int:
        """Return how many steps are over: all of them once the run is."""
        if plan is None:
            return 0
        live = self._engine.coordinator.runs.get(stored.id)
        if live is not None:
            return len(plan.nodes) - live.open_nodes
        return ended.get(stored.id, 0) if stored.state is RunState.RUNNING else len(plan.nodes)

    async def _parent(self, stored: StoredSummary, above: RunRecord | None = None) -> Parent | None:
        if stored.parent_id is None or stored.parent_node is None:
            return None
        above = above or await self.stored(stored.parent_id)
        plan = await self.plan_of(above)
        step = plan.nodes[stored.parent_node].id if plan is not None else str(stored.parent_node)
        item = stored.parent_item
        return Parent(run=above.public_id, step=step, item=None if item in {None, WHOLE} else item)

    async def _reused(self, of: StoredSummary, rows: Overview) -> AbstractSet[int]:
        """Return the steps whose results are those of the run that this one goes on from."""
        origin = of.retry_of or of.fork_of
        if origin is None:
            return frozenset()
        return reused_steps(
            rows, await self._store.read(partial(steps.without_results, run_id=origin, nodes=rows.ended))
        )
