"""What ends the wait of a step that is never sent: its time, or that for which it waited."""

from hopline_engine.core.decision import Decision
from hopline_engine.core.ending import close_task
from hopline_engine.core.flow import settle, start_sub_run, unit_failed, unit_succeeded
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import ApprovalDecided, StepState
from hopline_engine.core.records import record_step
from hopline_engine.core.retry import Failure
from hopline_engine.core.spans import span
from hopline_engine.core.waits import key_of


def fire(task: LiveTask, decision: Decision) -> None:
    """End a wait whose time has come: a lap begins, a sleep has its result, the others have failed.

    Too early, it goes on.
    """
    if task.schedule_time > decision.now:
        return
    if task.node.loop is not None:
        close_task(task, decision)
        start_sub_run(task.run, task.node, task.item, decision)
        settle(decision)
    elif task.node.kind == "sleep":
        fulfil(task, b"null", decision)
    else:
        give_up(task, Failure("TimeoutError", _not_come(task), ("TimeoutError",), final=True), decision)


def fulfil(task: LiveTask, result: bytes, decision: Decision) -> None:
    """End a wait with what it was for, and open what follows."""
    close_task(task, decision)
    record_step(task, StepState.SUCCEEDED, decision, result=result)
    unit_succeeded(task.run, task.node, task.item, result, decision)
    settle(decision)


def decide(task: LiveTask, answer: ApprovalDecided, result: bytes, decision: Decision) -> None:
    """End a wait with what a person decided."""
    decision.rows.approvals_decided.append(answer)
    fulfil(task, result, decision)


def give_up(task: LiveTask, failure: Failure, decision: Decision) -> None:
    """End a wait without that for which it was."""
    close_task(task, decision)
    record_step(task, StepState.FAILED, decision, failure=failure)
    unit_failed(task.run, task.node, task.item, failure, decision)
    settle(decision)


def _not_come(task: LiveTask) -> str:
    assert task.node.deadline is not None
    within = f"within {span(task.node.deadline)}"
    if task.node.kind == "approval":
        return f"nobody decided {within}"
    return f'no event "{task.node.step}" with the key "{key_of(task.run, task.node)}" came {within}'
