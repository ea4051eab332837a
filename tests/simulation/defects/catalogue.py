"""Defects that the simulation must find: small mistakes of kinds that engines like this one had.

The kinds are those of the design of correctness (§1.2, §3.1); some were ours, found by the simulation itself.
"""

from typing import Final

from tests.simulation.defects.defect import CORE, QUEUE, SCHEDULER, STORE, Defect
from tests.simulation.defects.of_kinds import OF_KINDS

DEFECTS: Final = (
    # --- effects and commits
    Defect(
        "ack_early",  # B22
        SCHEDULER + "committing",
        "self._commits.submit(changes, lambda error: self._settle(decision, leased, durable, error))",
        "self._commits.submit(changes, lambda error: self._settle(decision, leased, None, error))\n"
        "            if durable: durable.set_result(None)",
    ),
    Defect(
        "effects_before_commit",  # B19
        SCHEDULER + "committing",
        "self._commits.submit(changes, lambda error: self._settle(decision, leased, durable, error))",
        "self._settle(decision, leased, durable, None)\n            self._commits.submit(changes, lambda error: None)",
    ),
    Defect(
        "refused_is_released",  # B1
        SCHEDULER + "committing",
        "        if error is None:\n            self._release(decision, leased)",
        "        if True:\n            self._release(decision, leased)",
    ),
    Defect(
        "trouble_is_success",  # B22
        STORE + "commit",
        "            return error\n",
        "            return [Outcome()] * len(group)\n",
    ),
    Defect("later_entries_first", STORE + "commit", "entry = waiting.popleft()", "entry = waiting.pop()"),
    Defect(
        "split_enqueue",  # B8
        CORE + "decision",
        "        for task in self.opened:\n",
        "        for task in self.opened[:2]:\n",
    ),
    Defect(
        "mem_retry",  # B21
        CORE + "advance",
        "    _move(task, TaskState.SCHEDULED, decision)\n    task.schedule_time = at\n",
        "    task.state = TaskState.SCHEDULED\n    task.schedule_time = at\n",
    ),
    Defect(
        "no_fence",  # B7
        STORE + "transaction",
        'if not self.raw.execute("SELECT 1 FROM node WHERE id = ? AND epoch = ?", self._owner).fetchall():',
        "if False:",
    ),
    # --- callbacks
    Defect(
        "late_token",  # B19
        SCHEDULER + "callbacks",
        "        if task.state is not TaskState.ACCEPTED:\n            return CallbackAnswer(CallbackOutcome.UNKNOWN, ",
        "        if False:\n            return CallbackAnswer(CallbackOutcome.UNKNOWN, ",
    ),
    Defect(
        "old_attempt_applied",  # B18
        SCHEDULER + "callbacks",
        "if task is None or task.attempt != attempt or task.state is TaskState.SCHEDULED:\n"
        "            return CallbackAnswer(await self._late(run, node, item, attempt, task, report))",
        "if task is None or task.state is TaskState.SCHEDULED:\n"
        "            return CallbackAnswer(await self._late(run, node, item, attempt, task, report))",
    ),
    Defect(
        "forged_token_taken",
        SCHEDULER + "callbacks",
        "if not self._signer.is_signed(token, public, step, attempt):\n"
        "            return CallbackAnswer(CallbackOutcome.FORGED)",
        "if len(token) != 64:\n            return CallbackAnswer(CallbackOutcome.FORGED)",
    ),
    Defect(
        "dup_apply",  # B18
        SCHEDULER + "callbacks",
        "            return CallbackOutcome.ALREADY\n",
        "            return CallbackOutcome.APPLIED\n",
    ),
    # --- fan-in, maps, sub-workflows
    Defect(
        "lost_update",  # B16
        CORE + "past",
        "live.waits = node.waits - done - _is_streaming(run, node)",
        "live.waits = node.waits - min(done, 1) - _is_streaming(run, node)",
    ),
    Defect(
        "fan_in_too_early",
        CORE + "flow",
        "    if live.waits == 0 and live.state",
        "    if live.waits <= 1 and live.state",
    ),
    Defect(
        "map_begins_again",
        CORE + "live",
        "return self.results[item] is not None or item in self.units",
        "return item in self.units",
    ),
    Defect(
        "map_cursor_off_by_one",
        CORE + "live",
        "if not self.is_taken(self.cursor - 1):",
        "if not self.is_taken(self.cursor):",
    ),
    Defect(
        "window_not_filled",
        CORE + "flow",
        "        if item is None:\n            break\n        _open_unit(run, node, item, decision)\n",
        "        if item is None:\n            break\n        _open_unit(run, node, item, decision)\n        break\n",
    ),
    # --- attempts and time
    Defect("no_take_over", SCHEDULER + "coordinator", "advance.lose(task, decision, reason, blame=blame)", "pass"),
    Defect("lost_counts", CORE + "live", "return self.attempt - self.lost", "return self.attempt"),
    Defect("one_attempt_more", CORE + "retry", "if made >= policy.attempts or", "if made > policy.attempts or"),
    Defect(
        "attempt_not_taken_back",
        CORE + "advance",
        "    task.attempt -= 1\n",
        "    pass\n",
    ),
    Defect(
        "retry_at_once",  # B25
        CORE + "advance",
        "at = decision.now + delay if delay is not None else None",
        "at = decision.now if delay is not None else None",
    ),
    Defect(
        "deadline_timer_dropped",  # B10
        SCHEDULER + "committing",
        "        for task in decision.accepted:\n            self._watch_deadline(task)",
        "        for task in decision.accepted:\n            pass",
    ),
    Defect(
        "timers_not_armed_again",  # B9
        SCHEDULER + "timers",
        "        if self._heap:\n            self._arm(self._heap[0][0])",
        "        if False:\n            self._arm(self._heap[0][0])",
    ),
    Defect(
        "stale_timer_fires",  # B1
        SCHEDULER + "coordinator",
        "            elif task.state is TaskState.SCHEDULED and not self.admission.is_waiting(task):\n",
        "            elif not self.admission.is_waiting(task):\n",
    ),
    # --- reading again
    Defect("forgotten_stays_forgotten", SCHEDULER + "committing", "self._listeners.forgotten(root.id)", "pass"),
    Defect(
        "reap_stale",  # B1: read before what was decided earlier is written or refused
        SCHEDULER + "resuming",
        "            await asyncio.sleep(REST_SECONDS)\n"
        "            # Decisions that were on their way when the runs were forgotten "
        "are written or refused after this.\n"
        "            await self._store.execute(lambda _: None)\n",
        "            await asyncio.sleep(0)\n",
    ),
    # --- cancel and retry
    Defect(
        "cancel_unfenced",  # B20
        SCHEDULER + "coordinator",
        "if task.state is TaskState.LEASED and task.is_open:",
        "if task.state is TaskState.LEASED:",
    ),
    Defect(
        "cancel_cuts_nothing_off",  # B20
        SCHEDULER + "committing",
        "        for task in decision.closed.values():\n            self._sending.cut_off(task)\n"
        "        for task in decision.called_off:",
        "        for task in decision.called_off:",
    ),
    Defect(
        "sub_runs_not_cancelled",
        CORE + "ending",
        "if not _lasts(run, node, live, decision, undo=undo):",
        "if True:",
    ),
    Defect(
        "retry_keeps_failures",
        CORE + "reusing",
        "if row.state == StepState.SUCCEEDED or row.node in done)",
        "if row.state != StepState.CANCELLED or row.node in done)",
    ),
    # --- queues and workers
    Defect(
        "slot_leaks_unsent",  # B32
        SCHEDULER + "sending",
        "            self.give_back(task)\n            return\n",
        "            return\n",
    ),
    Defect(
        "slot_leaks_refused",  # B32
        SCHEDULER + "committing",
        "        for task in leased:\n            self._sending.give_back(task)\n",
        "",
    ),
    Defect(
        "no_poll",  # B11
        SCHEDULER + "engine",
        "        self.workers.add(worker)\n        self.coordinator.look_again()\n",
        "        self.workers.add(worker)\n",
    ),
    Defect(
        "token_timer_dropped",  # B11
        SCHEDULER + "committing",
        "self._token_timer = self._loop.call_later(min(max(0.001, at - now), 60.0), self._look_again)",
        "pass",
    ),
    Defect("limit_overrun", QUEUE + "admission", "self.in_flight >= self.slots", "self.in_flight > self.slots"),  # B14
    Defect(
        "paused_queue_sends",
        QUEUE + "admission",
        "if queue.ready == 0 or queue.is_paused or queue.is_full:",
        "if queue.ready == 0 or queue.is_full:",
    ),
    Defect("pause_forgotten", SCHEDULER + "controls", 'queue.is_paused = row.state == "paused"', "pass"),
    Defect(
        "pause_acknowledged_early",  # ours
        SCHEDULER + "controls",
        "        before = queue.is_paused\n",
        "        before = queue.is_paused\n        if before == paused: return\n",
    ),
    Defect(
        "bucket_not_kept",
        SCHEDULER + "controls",
        "queue.bucket.tokens, queue.bucket.at = row.tokens, row.tokens_at",
        "pass",
    ),
    Defect(
        "worker_slot_leaks", QUEUE + "admission", "            worker.load.in_flight -= 1\n", "            pass\n"
    ),  # B32
    # --- undoing
    Defect("first_things_undone_first", CORE + "undoing", "run.undoing.ended.pop()", "run.undoing.ended.pop(0)"),
    Defect(
        "ending_only_in_memory",  # B21
        CORE + "undoing",
        "    decision.rows.runs_moved = (*decision.rows.runs_moved, RunMoved(run.paused_at, ending.value, run.id))\n",
        "    pass\n",
    ),
    Defect(
        "ending_forgotten",  # B21
        SCHEDULER + "resuming",
        "        if stored.ending is not None:\n",
        "        if False:\n",
    ),
    Defect(
        "cancel_undoes_nothing",
        CORE + "ending",
        "    if undo and undoing.begin(run, RunState.CANCELLED, decision):",
        "    if False:",
    ),
    # --- runs that are paused
    Defect(
        "pause_of_run_forgotten",
        SCHEDULER + "resuming",
        "run.paused_at, run.is_held = stored.paused_at, stored.paused_at is not None",
        "run.paused_at, run.is_held = None, False",
    ),
    Defect(
        "paused_run_sends",
        SCHEDULER + "committing",
        "elif not task.run.is_held and (not self.held_back",
        "elif (not self.held_back",
    ),
    Defect(
        "resumed_run_sends_nothing",  # B10
        CORE + "advance",
        "    decision.rescheduled += [task for task in _hold(run, decision) if task.schedule_time <= decision.now]",
        "    _hold(run, decision)",
    ),
    # --- events and loops
    Defect("event_before_wait_missed", CORE + "waits", "decision.awaiting.append(task.id)", "pass"),  # B11
    Defect(
        "event_not_handed_over",  # B11
        SCHEDULER + "events",
        "        await self._hand_over(of=(name, key))\n",
        "",
    ),
    Defect("wait_left", CORE + "ending", "decision.rows.waits_removed.append(WaitRemoved(task.id))", "pass"),
    Defect("lap_made_again", CORE + "live", "self.done = row.item + 1", "self.done = row.item"),
    Defect("one_lap_more", CORE + "flow", "laps.done >= node.loop.limit", "laps.done > node.loop.limit"),
    Defect("laps_without_rest", CORE + "flow", "at=decision.now + node.loop.every", "at=decision.now"),
    # --- schedules
    Defect(
        "tick_from_now",  # B28
        CORE + "ticks",
        "following = next(standing.timing.ticks(last), None)",
        "following = next(standing.timing.ticks(standing.now), None)",
    ),
    Defect(
        "outage_has_one_tick",
        STORE + "schedules",
        "        insert_missing(connection, tick, rows)\n        _end(",
        "        insert_missing(connection, tick, rows[-1:])\n        _end(",
    ),
    Defect(
        "tick_about_to_start_forgotten",
        STORE + "schedules",
        "        return self.state is TickState.DUE\n",
        "        return False\n",
    ),
    Defect(
        "all_that_waited_starts_at_once",
        SCHEDULER + "scheduling",
        "if tick.state is TickState.QUEUED][:1]",
        "if tick.state is TickState.QUEUED]",
    ),
    Defect(
        "pause_is_made_up_for",
        SCHEDULER + "schedule_book",
        'return {"is_paused": False, **following(known.name, known.schedule, known.anchor_at, moment)}',
        'return {"is_paused": False, "due_at": known.next_tick}',
    ),
    Defect(
        "change_forgets_due_ticks",  # ours
        SCHEDULER + "in_force",
        "        if due is not None:\n",
        "        if False:\n",
    ),
    Defect(
        "schedule_changed_unseen",  # B29
        STORE + "schedules",
        "where(schedule.c.name == known.name, schedule.c.revision == known.revision)",
        "where(schedule.c.name == known.name)",
    ),
    Defect(
        "file_overrules_hand",
        SCHEDULER + "schedule_book",
        "return known.is_edited or (known.declared is None and said is not None)",
        "return known.declared is None and said is not None",
    ),
    Defect(
        "missed_too_soon",
        CORE + "ticks",
        "if standing.now - _due_at(standing, at) > GRACE_SECONDS]",
        "if standing.now - _due_at(standing, at) > 5.0]",
    ),
    Defect(
        "backfill_too_wide",
        CORE + "backfills",
        "max(0, pace.max_parallel - running)",
        "pace.max_parallel",
    ),
    # --- several nodes
    Defect(
        "two_owners",  # B7
        SCHEDULER + "membership",
        "        self._coordinator.drop(shards)\n        self._held -= shards",
        "        self._held -= shards",
    ),
    Defect(
        "slots_granted_twice",
        STORE + "shares",
        "slots = max(ask.keep, min(part, free))",
        "slots = max(ask.keep, part)",
    ),
    *OF_KINDS,
)

BY_NAME: Final = {defect.name: defect for defect in DEFECTS}
