"""What people order a run to do after it was started: end, pause, go on, or be done again in part by a new run."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from hopline_engine.core import closing
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import RunId, RunState
from hopline_engine.core.names import public_id
from hopline_engine.core.plan import Plan
from hopline_engine.core.reusing import Again, Earlier
from hopline_engine.errors import RunMovingError
from hopline_engine.scheduler import repairing
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.inputs import complete_input
from hopline_engine.scheduler.membership import Membership
from hopline_engine.scheduler.parking import Parking
from hopline_engine.scheduler.resuming import Resumer
from hopline_engine.store.interface import Reads
from hopline_engine.store.runs import RunRecord


class Begin(Protocol):
    """Starts a run that goes on from an earlier one."""

    async def __call__(
        self,
        plan: Plan,
        run_input: bytes,
        *,
        earlier: Earlier,
        priority: int,
        retry_of: RunRecord | None = None,
        fork_of: RunId | None = None,
    ) -> RunRecord:
        """Return the run when it is durable."""
        ...


class Orders:
    """Carries orders out, durably."""

    def __init__(
        self,
        *,
        reads: Reads,
        coordinator: Coordinator,
        resumer: Resumer,
        parking: Parking,
        membership: Membership,
        begin: Begin,
        whole: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        self._reads = reads
        self._coordinator = coordinator
        self._resumer = resumer
        self._parking = parking
        self._membership = membership
        self._begin = begin
        self._whole = whole

    async def cancel(self, run: RunId) -> bool:
        """End a run now; return whether it was alive. When this returns, no further attempt starts.

        Raises:
            RunMovingError: it is on its way from one node to another.
        """
        return await self._cancel(run, await self.alive(run))

    async def _cancel(self, run: RunId, live: LiveRun | None) -> bool:
        if live is not None:
            await self._coordinator.cancel(live)
        elif run in self._resumer.left_out:
            await self._resumer.cancel_left_out(run)
        else:
            return False
        return True

    async def replace(self, run: RunId) -> None:
        """Cancel a run of which another one takes the place; what it undoes, or closes with, already is left to it.

        Raises:
            RunMovingError: it is on its way from one node to another.
        """
        live = await self.alive(run)
        if live is None or not closing.is_ending(live):
            await self._cancel(run, live)

    async def pause(self, run: RunId) -> bool:
        """Send nothing more of a run; return whether it was alive. What is in flight is answered as ever.

        Raises:
            RunMovingError: it is on its way from one node to another.
        """
        live = await self.alive(run)
        if live is not None and live.paused_at is not None:
            live = await self._durable(run)
        if live is not None and live.paused_at is None:
            await self._coordinator.pause(live)
        return live is not None

    async def resume(self, run: RunId) -> bool:
        """Let a paused run go on; return whether it was alive.

        Raises:
            RunMovingError: it is on its way from one node to another.
        """
        live = await self.alive(run)
        if live is not None and live.paused_at is None:
            live = await self._durable(run)
        if live is not None and live.paused_at is not None:
            await self._coordinator.unpause(live)
        return live is not None

    async def _durable(self, run: RunId) -> LiveRun | None:
        """Return a run as ``alive``, once an earlier order is durable or refused that memory shows already."""
        await self._resumer.settled()
        return await self.alive(run)

    async def retry(self, ended: RunRecord, plan: Plan, again: Again) -> RunRecord:
        """Start a run that keeps what succeeded in one that has ended, but for what is made *again*."""
        earlier = await repairing.earlier(self._reads, plan, ended.id, ended.input, again)
        return await self._begin(plan, ended.input, earlier=earlier, priority=ended.priority, retry_of=ended)

    async def fork(self, ended: RunRecord, plan: Plan, node: int, given: Mapping[str, Any]) -> RunRecord:
        """Start a run with some arguments changed that makes a step, and all that depends on it, again.

        Raises:
            InvalidInputError: what is given does not fit the parameters.
        """
        run_input = await self._changed(plan, ended, given) if given else ended.input
        earlier = await repairing.earlier(self._reads, plan, ended.id, ended.input, Again.of_step(plan, node))
        # Nothing is gone on with: a fork is for another outcome, a retry for the same one.
        earlier = earlier._replace(below={})
        return await self._begin(plan, run_input, earlier=earlier, priority=ended.priority, fork_of=ended.id)

    async def _changed(self, plan: Plan, ended: RunRecord, given: Mapping[str, Any]) -> bytes:
        whole = await self._whole(ended.input)
        return complete_input(plan, {**msgspec.json.decode(whole), **given})

    async def alive(self, run: RunId) -> LiveRun | None:
        """Return a run that has not ended; one that is being read again is waited for.

        Raises:
            RunMovingError: it is on its way from one node to another.
        """
        await self._parking.wake(run)
        live = self._coordinator.runs.get(run)
        if live is None or live.state is not RunState.RUNNING:
            await self._resumer.settled()  # its end may be decided and not durable, or it is just read again
            live = self._coordinator.runs.get(run)
            if live is None and not self._membership.is_ours(run):
                raise RunMovingError(run=public_id(run))
        return live if live is not None and live.state is RunState.RUNNING else None
