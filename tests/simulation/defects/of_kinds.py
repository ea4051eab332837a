"""Planted defects in what only some simulations have: see ``tests.simulation.kinds``."""

from typing import Final

from tests.simulation.defects.defect import CORE, QUEUE, SCHEDULER, STORE, Defect

OF_KINDS: Final = (
    # --- keys, and turns of runs
    Defect(
        "key_overrun", QUEUE + "keys", "len(key.holders) < _limit(first)", "len(key.holders) <= _limit(first)"
    ),  # B14
    Defect(
        "key_not_passed_on",  # B11
        QUEUE + "admission",
        "        for following in self.keys.leave(task):\n            self._line_up(following)\n",
        "        self.keys.leave(task)\n",
    ),
    Defect(
        "key_of_accepted_forgotten",  # B21
        SCHEDULER + "coordinator",
        "                    self.admission.hold_key(task)\n",
        "                    pass\n",
    ),
    Defect(
        "key_kept_after_failure",  # B32
        CORE + "advance",
        "    task.last_failure = failure\n    if task.key is not None:\n",
        "    task.last_failure = failure\n    if False:\n",
    ),
    Defect(
        "claims_granted_twice",  # B14
        STORE + "key_claims",
        "if held + len(granted) >= row.key_limit:",
        "if len(granted) >= row.key_limit:",
    ),
    Defect(
        "turn_kept",  # B32
        CORE + "ending",
        "    if run.plan.turn is not None:\n        decision.rows.release_key(turn_of(run.id))\n    decision.touched",
        "    decision.touched",
    ),
    Defect(
        "turn_not_asked_for_again", SCHEDULER + "coordinator", "decision.in_turn = (*decision.in_turn, task)", "pass"
    ),
    Defect(
        "turn_not_passed_on",  # B11
        SCHEDULER + "run_turns",
        "[turn_of(task.run.id)] = task\n        self._wake.set()\n",
        "[turn_of(task.run.id)] = task\n        if tasks: self._wake.set()\n",
    ),
    # --- dynamic workflows, batches
    Defect(
        "graph_not_stored",  # B21
        SCHEDULER + "pinning",
        "        if graph.digest in self._stored:",
        "        if graph.digest in self._plans:",
    ),
    Defect(
        "places_of_batch_leak",  # B32
        SCHEDULER + "sending",
        "            for task in batch:\n                self.give_back(task)\n            raise",
        "            self.give_back(batch[0])\n            raise",
    ),
    Defect(
        "rest_of_batch_lost",
        QUEUE + "dispatcher",
        "return [outcomes.get(task.id, _NO_ROOM) for task in tasks]",
        "return [outcomes.get(task.id, Succeeded(b'null', 200)) for task in tasks]",
    ),
    # --- deadlines of runs, heartbeats, priorities, results in blobs
    Defect(
        "heartbeat_not_heard",  # B10
        QUEUE + "patience",
        "        if before is not None and at > before:\n",
        "        if False:\n",
    ),
    Defect(
        "heartbeat_only_in_memory",  # B21
        CORE + "advance",
        "        task.has_alarm = False\n        decision.moved[task.id] = task\n",
        "        task.has_alarm = False\n",
    ),
    Defect(
        "deadline_of_run_not_watched",  # B10
        SCHEDULER + "committing",
        "            if run.plan.deadline is not None:",
        "            if False:",
    ),
    Defect(
        "low_priorities_wait_for_ever",  # B11
        QUEUE + "turns",
        "for priority, lanes in self.lanes.items() if lanes]",
        "for priority, lanes in self.lanes.items() if lanes and priority >= 0]",
    ),
    Defect(
        "blob_only_in_memory",  # B22
        "hopline_engine.blobs.blobs",
        "        await self._ask(self.place.write, reference.location, value)\n",
        "",
    ),
    Defect(
        "callback_outlives_its_attempt",  # B19
        SCHEDULER + "callbacks",
        "if task is not self._coordinator.find(task.run.id, node, item) or task.state",
        "if False and task.state",
    ),
    # --- runs that leave memory
    Defect(
        "parked_run_not_woken",  # B10
        SCHEDULER + "parking",
        "        self._next = first if self._next is None else min(self._next, first)\n",
        "",
    ),
    # --- choices
    Defect(
        "skip_does_not_travel",
        CORE + "choices",
        "next((_skipped(run, index) for index in before if run.nodes[index].state is StepState.SKIPPED), None)",
        "None",
    ),
    Defect(
        "recovers_from_everything",
        CORE + "choices",
        "if any(node.on) and not node.on.has(failure):",
        "if False:",
    ),
    Defect(
        "skip_forgotten",  # B21
        CORE + "past",
        "_PASSED: Final = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})",
        "_PASSED: Final = frozenset({StepState.SUCCEEDED})",
    ),
    Defect(
        "failure_forgotten_by_choice",  # B21
        CORE + "past",
        "counted = FINAL_STEP_STATES if node.arms else _PASSED",
        "counted = _PASSED",
    ),
    Defect("losers_go_on", CORE + "flow", "            cancel_nodes(run, losers, decision)\n", ""),
    # --- approvals
    Defect(
        "decision_not_kept",  # B22
        CORE + "waiting",
        "    decision.rows.approvals_decided.append(answer)\n",
        "",
    ),
    Defect(
        "time_of_question_forgotten",  # B10
        CORE + "waits",
        "        return now + node.deadline if node.deadline is not None else NEVER\n",
        "        return NEVER\n",
    ),
    # --- maps that give what became of each element, steps with which runs close
    Defect(
        "settled_failure_not_passed_on",  # B11
        CORE + "flow",
        "    if node.settled:\n        _pass_on(run, node, item, decision)\n",
        "",
    ),
    Defect(
        "settled_failure_made_again",
        CORE + "reusing",
        "if row.state == StepState.SUCCEEDED or row.node in done)",
        "if row.state == StepState.SUCCEEDED)",
    ),
    Defect(
        "cancelled_run_does_not_close",
        CORE + "ending",
        "    if undo and closing.go_on(run, RunState.CANCELLED, decision):",
        "    if False:",
    ),
    Defect(
        "closing_kept_by_retry",
        CORE + "reusing",
        'if node.closes is not None or node.kind == "turn"}',
        'if node.kind == "turn"}',
    ),
    Defect(
        "tick_cuts_off_what_closes",  # ours
        SCHEDULER + "orders",
        "if live is None or not closing.is_ending(live):",
        "if True:",
    ),
    Defect(
        "stale_task_in_lane",  # ours
        QUEUE + "admission",
        "        return self._waiting.get(task.id) is task\n",
        "        return task.id in self._waiting\n",
    ),
    # --- steps that look again, forks
    Defect(
        "sensor_does_not_rest",
        CORE + "advance",
        "    task.schedule_time = decision.now + task.node.every\n",
        "",
    ),
    Defect(
        "fork_goes_on_with_sub_runs",
        SCHEDULER + "orders",
        "        earlier = earlier._replace(below={})\n",
        "",
    ),
    Defect(
        "fork_keeps_what_follows",
        CORE + "reusing",
        "            pending += [(following, None) for following in plan.nodes[index].downstream]\n",
        "",
    ),
)
