"""What must be true when everything has ended, whatever happened on the way."""

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec

from hopline_engine.core.model import WHOLE, AttemptState, RunId, RunState, StepState
from hopline_engine.core.plan import Node, Plan
from tests.core.flows import evaluate
from tests.core.rows import Place
from tests.simulation.ledger import Lease
from tests.simulation.reckoning import Reckoning
from tests.simulation.world import World

COMMITS_A_STEP = 6.0
"""Most commits for each step run of a calm simulation: it is begun, answered, perhaps accepted, perhaps retried."""
_TABLES = {
    "run": "SELECT id, state FROM run ORDER BY id",
    "step_run": "SELECT run_id, node, item, state, attempts, result FROM step_run ORDER BY run_id, node, item",
    "attempt": "SELECT run_id, node, item, attempt, state FROM attempt ORDER BY run_id, node, item, attempt",
    "task": "SELECT id FROM task ORDER BY id",
}


class Verdict:
    """Looks through the books of a simulation that is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger = world.ledger
        self._rows = world.ledger.rows

    def pronounce(self) -> None:
        """Stop the world if anything is wrong."""
        for check in (
            self._check_store,
            self._check_runs,
            self._check_followed,
            self._check_steps,
            self._check_attempts,
            self._check_kept,
            self._check_undone,
            self._check_rate,
            self._check_memory,
            self._check_log,
        ):
            check()
        if self._world.timetable is not None:
            self._world.timetable.ledger.pronounce()
        self._world.approvals.pronounce()
        self._world.forks.pronounce()
        if self._world.is_calm:
            self._check_calm()
        self._fill_in()

    def _wrong(self, what: str) -> None:
        self._world.violated(what)

    # --- the store

    def _check_store(self) -> None:
        """Check that the store holds what the transactions said, and nothing else."""
        rows = self._rows
        said: dict[str, list[tuple[Any, ...]]] = {
            "run": [(run, rows.ended[run].state if run in rows.ended else "running") for run in sorted(rows.runs)],
            "step_run": [
                (run, node, item, row.state, row.attempts, row.result)
                for run in sorted(rows.steps)
                for (node, item), row in sorted(rows.steps[run].items())
            ],
            "attempt": [
                (*place, row.attempt, row.state) for place in sorted(rows.attempts) for row in rows.attempts[place]
            ],
            "task": [(task,) for task in sorted(rows.tasks)],
        }
        for table, query in _TABLES.items():
            stored = self._world.audit.execute(query).fetchall()
            if stored != said[table]:
                missing, more = set(said[table]) - set(stored), set(stored) - set(said[table])
                self._wrong(f"table {table} lacks {missing} and has {more}")

    # --- runs

    def _check_runs(self) -> None:
        """Check that there are no more runs than were asked for, and how each of them ended."""
        roots = [run for run in self._rows.runs.values() if run.parent_id is None]
        # A client that gave a key may have been cut off before it heard of its run; one key is one run at most.
        in_doubt = [run for run in roots if run.public_id not in self._world.wanted and run.idempotency_key is None]
        if len(in_doubt) > 2 * self._world.starts_in_doubt:
            self._wrong(f"nobody asked for {in_doubt}")
        keys = Counter(run.idempotency_key for run in roots if run.idempotency_key is not None)
        if doubled := [key for key, times in keys.items() if times > 1]:
            self._wrong(f"keys {doubled} have several runs")
        for run in roots:
            self._check_end(run.id)

    def _check_end(self, run: RunId) -> None:
        """Check how a run ended against a plain evaluation of its workflow."""
        row, end = self._rows.runs[run], self._rows.ended[run]
        if not self._world.kinds.is_decided_late:
            self._check_outcome(run)
        if run in self._world.cancel_acknowledged and end.state != RunState.CANCELLED:
            self._wrong(f"run {row.public_id} was cancelled, and {end.state}")
        if b" bytes is gone: " in (end.error or b""):
            self._wrong(f"run {row.public_id} lost a value: {end.error!r}")
        if end.state == RunState.CANCELLED and row.parent_id is None:
            self._check_cancelled(run)

    def _check_outcome(self, run: RunId) -> None:
        """Check that a run had the result, or failed, that its definition says."""
        row, end = self._rows.runs[run], self._rows.ended[run]
        flow = self._world.flow_of(row.workflow)
        succeeded, result = evaluate(flow, row.workflow)
        must_fail = len(succeeded) < len(flow.definitions[row.workflow]["nodes"])
        if end.state == RunState.SUCCEEDED:
            if must_fail:
                self._wrong(f"run {row.public_id} succeeded, and cannot")
            elif msgspec.json.decode(self._world.bucket.whole(end.result or b"")) != result:
                self._wrong(f"run {row.public_id} returned {end.result!r}, not {result}")
        if end.state == RunState.FAILED and self._world.is_calm and not must_fail:
            self._wrong(f"run {row.public_id} failed for no reason: {end.error!r}")

    def _check_followed(self) -> None:
        """Check that every step of every run ended as follows from how those ended that it needed."""
        for run in self._rows.runs.values():
            flow = self._world.flow_of(run.workflow)
            whole, asked = self._world.bucket.whole, self._world.approvals.stored
            root = self._rows.runs[self._ledger.root(run.id)]
            may_be_cut = self._world.cancels[root.public_id] > 0
            for wrong in Reckoning(self._ledger, flow, run, whole, asked, may_be_cut).wrong():
                self._wrong(wrong)

    def _check_cancelled(self, run: RunId) -> None:
        """Check that nothing below a run went on after it was cancelled, where clocks tell what came after what."""
        if self._world.faults_drawn.clock_jumps or self._world.faults_drawn.skew:
            return
        for child in [child for child in self._rows.runs.values() if child.parent_id == run]:
            place = run, child.parent_node or 0, child.parent_item or 0
            if self._ledger.has_lost(place):
                continue  # nothing waits for it
            if self._rows.ended[child.id].ended_at > self._rows.ended[run].ended_at:
                self._wrong(f"sub-run {child.public_id} went on after the run above it was cancelled")

    # --- steps and attempts

    def _has_task(self, place: Place) -> bool:
        node = self._node(place)
        is_single = node.over is None and node.loop is None
        return node.kind in {"python", "http"} and (is_single or place[2] != WHOLE)

    def _plan(self, run: RunId) -> Plan:
        return self._ledger.plan_of(run)

    def _node(self, place: Place) -> Node:
        return self._ledger.node(place[0], place[1])

    def _check_steps(self) -> None:
        for run, steps in self._rows.steps.items():
            for (node, item), row in steps.items():
                place = (run, node, item)
                if not self._has_task(place):
                    continue
                attempts = self._rows.attempts.get(place, [])
                is_kept = not attempts and self._ledger.earlier(run) is not None
                if not is_kept and row.attempts != len(attempts):
                    self._wrong(f"{self._ledger.name(place)} says {row.attempts} attempts and has {len(attempts)}")
                if row.state == StepState.FAILED and not is_kept:
                    self._check_failed(place, row.error)
        for place, _ in self._world.conducts.executions:
            if (place[1], place[2]) not in self._rows.steps[place[0]]:
                self._wrong(f"{self._ledger.name(place)} was executed, and its end is not recorded")

    def _check_failed(self, place: Place, error: bytes | None) -> None:
        """Check that a step did not give up before its policy says so, nor go on after (I13)."""
        name, policy = self._ledger.name(place), self._node(place).retry
        kind = msgspec.json.decode(error or b"{}", type=dict[str, Any]).get("type")
        counted = [row for row in self._rows.attempts.get(place, []) if row.state != AttemptState.LOST]
        if len(counted) > policy.attempts:
            self._wrong(f"{name} was attempted {len(counted)} times, its policy allows {policy.attempts}")
        may_give_up = kind in {"DeadlineExceeded", "BindingError"} or self._ends_before_retry(place)
        if len(counted) < policy.attempts and not may_give_up:
            self._wrong(f"{name} failed with {kind} after {len(counted)} of {policy.attempts} attempts")

    def _ends_before_retry(self, place: Place) -> bool:
        """Return whether the deadline of a failed step may have come before its next attempt."""
        deadline = self._ledger.deadlines.get(place)
        return (
            deadline is not None and self._rows.attempts[place][-1].ended_at + self._node(place).retry.max >= deadline
        )

    def _check_attempts(self) -> None:
        """Check that what is recorded of attempts is what those who executed them know."""
        conducts, disturbed = self._world.conducts, self._world.conducts.disturbed
        for place, attempts in self._rows.attempts.items():
            name = self._ledger.name(place)
            for one, following in pairwise(attempts):
                if one.state in {AttemptState.SUCCEEDED, AttemptState.CANCELLED}:
                    self._wrong(f"{name}: attempt {following.attempt} follows one that {one.state}")
            for row in attempts:
                key = (place, row.attempt)
                said = conducts.said.get(key, set())
                if row.state == AttemptState.SUCCEEDED and "succeeded" not in said:
                    self._wrong(f"{name}: attempt {row.attempt} counts, and never succeeded")
                if row.state == AttemptState.FAILED and "failed" not in said and key not in disturbed:
                    self._wrong(f"{name}: attempt {row.attempt} failed, and nobody said so: {row}")
        for (place, attempt), times in conducts.executions.items():
            if times > 1 and (place, attempt) not in disturbed:
                self._wrong(f"{self._ledger.name(place)}: attempt {attempt} was executed {times} times")

    def _check_kept(self) -> None:
        """Check that a retry or a fork kept what succeeded and was not to be made again, and nothing else."""
        for run in self._rows.runs.values():
            earlier = self._ledger.earlier(run.id)
            again = self._made_again(run.id, earlier) if earlier is not None else None
            if earlier is None or again is None:
                continue
            before = self._rows.steps[earlier]
            for (node, item), row in self._rows.steps[run.id].items():
                if node < 0:
                    continue
                place = (run.id, node, item)
                is_new = node in again or self._node(place).closes is not None
                had = before.get((node, item)) if not is_new else None
                is_kept = had is not None and had.state == StepState.SUCCEEDED
                was_tried = place in self._rows.attempts
                whole = before.get((node, WHOLE)) if not is_new else None
                is_done = whole is not None and whole.state == StepState.SUCCEEDED  # whatever became of elements
                if (is_kept or is_done) and was_tried:
                    self._wrong(f"{self._ledger.name(place)} had succeeded, and was executed again")
                if self._has_task(place) and not was_tried and not is_kept and row.state == StepState.SUCCEEDED:
                    self._wrong(f"{self._ledger.name(place)} succeeded without having been executed")
                if is_kept and had is not None and row.result != had.result:
                    self._wrong(f"{self._ledger.name(place)} had the result {had.result!r}, and now {row.result!r}")

    def _made_again(self, run: RunId, earlier: RunId) -> set[int] | None:
        """Return the steps that a retry or fork makes again although they may have succeeded, if that is known."""
        nodes = self._plan(run).nodes
        pending = [~node for node, _ in self._rows.steps[earlier] if node < 0]
        found: set[int] = set()
        if self._rows.runs[run].fork_of is not None:
            forked = self._world.forks.made_again(run)
            if forked is None:
                return None
            found = {self._plan(run).by_id[name].index for name in forked}
        while pending:
            index = pending.pop()
            if index not in found:
                found.add(index)
                pending += [*nodes[index].downstream, *nodes[index].streams]
        return found

    def _check_undone(self) -> None:
        """Check that what has a result is undone in runs that do not succeed, last things first, and nothing else."""
        for run, end in self._rows.ended.items():
            plan, rows = self._plan(run), self._rows.steps[run]
            undone = {place for place in rows if place[0] < 0 and self._has_task((run, *place))}
            should = {
                (~node, item)
                for (node, item), row in rows.items()
                if plan.compensates and ~node in plan.undos and row.state == StepState.SUCCEEDED
                if self._has_task((run, ~node, item))
            }
            if end.state == RunState.SUCCEEDED:
                should = set()
            is_right = undone <= should if self._is_cut_short(run) else undone == should
            if not is_right:
                self._wrong(f"run {run} {end.state}, and undid {undone} instead of {should}")
            if not (self._world.faults_drawn.clock_jumps or self._world.faults_drawn.skew):
                ends = [rows[~node, WHOLE].ended_at for node, item in rows if node < 0 and item == WHOLE]
                if ends != sorted(ends, reverse=True):
                    self._wrong(f"run {run} did not undo the last things first: {ends}")

    def _is_cut_short(self, run: RunId) -> bool:
        """Return whether a run may have been cancelled while it undid what it did: then it ends at once."""
        root = self._rows.runs[self._ledger.root(run)]
        had_failed = self._ledger.ending(root.id) == RunState.FAILED
        return self._world.cancels[root.public_id] > (0 if had_failed else 1)

    # --- queues and memory

    def _check_rate(self) -> None:
        """Check that a queue never gave out more than its rate and burst allow, restarts or not."""
        world = self._world
        if world.faults_drawn.skew or world.faults_drawn.clock_jumps:
            return
        spec = next(queue for queue in world.queues if queue["name"] == "slow")
        rate, burst = spec["max_dispatches_per_second"], float(spec["max_burst_size"])
        # Of several nodes each may have been granted tokens that it uses a little later.
        slack = burst + 2.0 if world.is_shared else 0.01
        tokens, at = burst, 0.0
        for lease in sorted((each for each in self._ledger.all_leases if each.queue == "slow"), key=_leased_at):
            tokens = min(burst, tokens + (lease.leased_at - at) * rate) if at else burst
            at, tokens = lease.leased_at, tokens - 1.0
            if tokens < -slack:
                self._wrong(f"queue slow gave out more than {rate} a second: {tokens:.2f} tokens left at {lease}")
                return

    def _check_memory(self) -> None:
        """Check that nothing is left in memory of runs that have ended."""
        for node in self._world.nodes.values():
            assert node.engine is not None
            coordinator, admission = node.engine.coordinator, node.engine.admission
            left = (coordinator.runs, coordinator.sending.under_way, admission._reserved, admission._waiting)
            if any(left):
                self._wrong(f"{node.name} still holds {left}")
            for queue in admission.queues.values():
                if queue.in_flight or queue.ready:
                    self._wrong(
                        f"{node.name}: queue {queue.name} counts {queue.in_flight} in flight, {queue.ready} due"
                    )
            for worker in node.engine.workers:
                if worker.in_flight:
                    self._wrong(f"{node.name}: worker {worker.id} counts {worker.in_flight} in flight")

    def _check_log(self) -> None:
        world = self._world
        for context in world.loop.errors:
            self._wrong(f"an exception nobody took: {context}")

    # --- calm

    def _check_calm(self) -> None:
        """Check that nothing was done that had not to be: attempts = dispatches = completions (I14)."""
        world, rows = self._world, self._rows
        attempts = {(place, row.attempt): row for place in rows.attempts for row in rows.attempts[place]}
        cancelled = {key for key, row in attempts.items() if row.state == AttemptState.CANCELLED}
        executed = world.conducts.executions
        if wrong := {key: times for key, times in executed.items() if times != 1}:
            self._wrong(f"calm, but executed more than once: {wrong}")
        if attempts.keys() - cancelled - executed.keys() or executed.keys() - attempts.keys():
            self._wrong(f"calm, but {attempts.keys() ^ executed.keys()} were attempted or executed only")
        leases = [lease.place for lease in world.ledger.all_leases if self._node(lease.place).every is None]
        counted = [place for place, _ in attempts if self._node(place).every is None]  # vain looks leave no record
        if len(leases) != len(counted):
            self._wrong(f"calm, but {len(leases)} leases for {len(counted)} attempts")
        for (place, _), row in attempts.items():
            if row.state in {AttemptState.LOST, AttemptState.TIMED_OUT}:
                self._wrong(f"calm, but {self._ledger.name(place)} {row}")
        for place in rows.attempts:
            self._check_calm_attempts(place)
        steps = sum(len(steps) for steps in rows.steps.values())
        if world.row_commits > COMMITS_A_STEP * steps + 20 + world.extra_commits:
            self._wrong(f"calm, but {world.row_commits} commits for {steps} steps")

    def _check_calm_attempts(self, place: Place) -> None:
        """Check that a step was attempted as often as its conduct asks for, and after the waits of its policy."""
        run, _, item = place
        workflow, node = self._rows.runs[run].workflow, self._node(place)
        conduct = self._world.flow_of(workflow).conduct(workflow, node.id)
        is_bad = conduct.bad_element is None or conduct.bad_element == (item if item != WHOLE else None)
        fails = conduct.fails if is_bad else 0
        expected = min(node.retry.attempts, fails + 1)
        attempts = self._rows.attempts[place]
        if attempts[-1].state != AttemptState.CANCELLED and not self._is_cancelled(place) and len(attempts) != expected:
            self._wrong(f"calm, but {self._ledger.name(place)} took {len(attempts)} attempts, not {expected}")
        must_fail, state = fails >= node.retry.attempts, self._rows.steps[run][node.index, item].state
        if state != StepState.CANCELLED and node.kind != "dynamic" and (state == StepState.FAILED) != must_fail:
            self._wrong(f"calm, but {self._ledger.name(place)} {state} after {len(attempts)} attempts")
        if node.loop is not None and item > 0:
            before = self._rows.steps[run][node.index, item - 1]
            if attempts[0].started_at < before.ended_at + node.loop.every - 0.001:
                self._wrong(f"{self._ledger.name(place)} began too soon after the lap before it")
        for number, (one, following) in enumerate(pairwise(attempts), start=1):
            least = min(node.retry.first * node.retry.factor ** (number - 1), node.retry.max)
            share = {"none": 1.0, "equal": 0.5, "full": 0.0}[node.retry.jitter]
            if following.started_at < one.ended_at + least * share - 0.001:
                self._wrong(f"{self._ledger.name(place)}: attempt {following.attempt} came too early")

    def _is_cancelled(self, place: Place) -> bool:
        return self._rows.steps[place[0]][place[1], place[2]].state == StepState.CANCELLED

    def _fill_in(self) -> None:
        world, figures = self._world, self._world.figures
        figures.runs = len(self._rows.runs)
        figures.steps = sum(len(steps) for steps in self._rows.steps.values())
        figures.attempts = sum(len(attempts) for attempts in self._rows.attempts.values())
        figures.executions = sum(world.conducts.executions.values())
        figures.callbacks = sum(world.applied.values())


def _leased_at(lease: Lease) -> float:
    return lease.leased_at
