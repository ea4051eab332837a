"""What people order runs to do after they were started, as the API takes it."""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

from hopline_engine.api.models import Run
from hopline_engine.api.shown_runs import ShownRuns
from hopline_engine.core.model import WHOLE, RunId, RunState, StepState
from hopline_engine.core.names import parse_step_name, step_name
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.reusing import Again
from hopline_engine.errors import (
    NotMappedError,
    RunEndedError,
    RunNotFinishedError,
    RunNotRetryableError,
    StepNotFoundError,
    StoreUnavailableError,
    closest,
)
from hopline_engine.scheduler.engine import Engine
from hopline_engine.store import steps
from hopline_engine.store.runs import RunRecord


class RunOrders:
    """The part of ``Service`` that changes runs."""

    _engine: Engine
    _shown: ShownRuns

    async def cancel_run(self, run: str) -> Run:
        """End a run as cancelled."""
        return await self._ordered(run, self._engine.orders.cancel)

    async def pause_run(self, run: str) -> Run:
        """Let nothing more of a run start."""
        return await self._ordered(run, self._engine.orders.pause)

    async def resume_run(self, run: str) -> Run:
        """Let a paused run go on."""
        return await self._ordered(run, self._engine.orders.resume)

    async def retry_run(self, run: str, items: Sequence[str] = ()) -> Run:
        """Start a new run that keeps what succeeded, but for *items*."""
        stored = await self._ended(run)
        if stored.state == RunState.SUCCEEDED and not items:
            raise RunNotRetryableError(run=run, state=stored.state)
        plan = await self._engine.catalogue.plan_of(stored.digest)
        again = await self._again(stored, plan, items)
        return await self._shown.run_view(await self._engine.orders.retry(stored, plan, again))

    async def fork_run(self, run: str, step: str, given: dict[str, Any]) -> Run:
        """Start a new run with other arguments that makes a step and what follows it again."""
        stored = await self._ended(run)
        plan = await self._engine.catalogue.plan_of(stored.digest)
        node = _repeatable(run, plan, step)
        return await self._shown.run_view(await self._engine.orders.fork(stored, plan, node.index, given))

    async def _again(self, ended: RunRecord, plan: Plan, items: Sequence[str]) -> Again:
        """Return what is made again although it may have succeeded."""
        wanted: dict[int, set[int]] = {}
        for name in items:
            step, item = parse_step_name(name)
            node = _repeatable(ended.public_id, plan, step)
            if item == WHOLE or node.over is None:
                raise NotMappedError(name=name, step=step, is_mapped=node.over is not None)
            wanted.setdefault(node.index, set()).add(item)
        again = Again()
        for index, some in wanted.items():
            await self._check_items(ended, plan.nodes[index], some)
            again |= Again.of_step(plan, index, some)
        return again

    async def _check_items(self, ended: RunRecord, node: Node, items: AbstractSet[int]) -> None:
        """Check that a mapped step has these elements; how many one has that failed is not known."""
        read = self._engine.store.read
        whole = await read(partial(steps.without_results, run_id=ended.id, nodes=[node.index]))
        if not whole or whole[0].state != StepState.SUCCEEDED:
            return
        last = await read(partial(steps.last_item, run_id=ended.id, node=node.index))
        if max(items) > last:
            raise StepNotFoundError(run=ended.public_id, step=step_name(node.id, max(items)))

    async def _ordered(self, run: str, order: Callable[[RunId], Awaitable[bool]]) -> Run:
        stored = await self._shown.find(run)
        if stored.state is not RunState.RUNNING:  # said by any node: none works on it any more
            raise RunEndedError(run=run, state=stored.state)
        if not await order(stored.id):
            stored = await self._shown.find(run)
            if stored.state is RunState.RUNNING:
                await self._engine.catalogue.plan_of(stored.digest)
                raise StoreUnavailableError(reason=f"run {run} has to be read again")
            raise RunEndedError(run=run, state=stored.state)
        return await self._shown.run_view(await self._shown.find(run))

    async def _ended(self, run: str) -> RunRecord:
        stored = await self._shown.find(run)
        if stored.state == RunState.RUNNING:
            raise RunNotFinishedError(run=run)
        return stored


def _repeatable(run: str, plan: Plan, name: str) -> Node:
    """Return the step of this name; one that undoes another is made only when that is undone."""
    node = node_of(run, plan, name)
    if node.index < 0:
        raise StepNotFoundError(run=run, step=name, did_you_mean=plan.nodes[~node.index].id)
    return node


def node_of(run: str, plan: Plan, name: str) -> Node:
    """Return the step of a run that has this name.

    Raises:
        StepNotFoundError
    """
    node = plan.by_id.get(name)
    if node is None:
        raise StepNotFoundError(run=run, step=name, did_you_mean=closest(name, plan.by_id))
    return node
