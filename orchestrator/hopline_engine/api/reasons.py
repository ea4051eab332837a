"""Why a step is where it is, in one sentence."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, get_args

from hopline_engine.api.models import Reason, ReasonName
from hopline_engine.core.failures import failure_from_json
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import WHOLE, StepEnded, StepState, TaskState
from hopline_engine.core.names import step_name
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.states import FINAL_STEP_STATES
from hopline_engine.core.waits import NEVER, key_of, question_of, runs_at_a_time
from hopline_engine.queue.admission import Admission, Hindrance

_MOST_ITEMS = 20
_MOST_HOLDERS = 3
_DAY = 86_400.0
assert set(Hindrance) <= set(get_args(ReasonName))


class Standing(NamedTuple):
    """Where an open step run stands."""

    state: StepState
    why: ReasonName
    text: str
    """Without the name of the step: ``is retrying, attempt 3 of 5 at 02:00:46 (in 4 s)``."""
    next_at: float | None = None


class Explainer:
    """Explains live steps as they are at one moment."""

    def __init__(
        self,
        admission: Admission,
        newest: Callable[[str], Plan | None],
        link: Callable[[LiveTask], str],
        now: float,
    ) -> None:
        """Explain as of *now*.

        Args:
            admission: what hinders tasks.
            newest: returns the newest version of a workflow.
            link: returns the link by which an approval is decided.
            now: the time.
        """
        self._admission = admission
        self._link = link
        self._newest = newest
        self._now = now

    def standing(self, task: LiveTask) -> Standing:
        """Return where a task stands."""
        match task.state:
            case TaskState.LEASED:
                since = self._now - (task.leased_at or self._now)
                count = f", attempt {_count(task, task.attempt)}" if task.attempt > 1 else ""
                text = f"is running for {_seconds(since)}{count}{self._heard(task)}"
                return Standing(StepState.RUNNING, "running", text)
            case TaskState.ACCEPTED:
                until = task.deadline_time
                at = f", until {self._at(until)}" if until is not None else ""
                text = f"was accepted by its target and waits for the callback{at}{self._heard(task)}"
                return Standing(StepState.WAITING, "waiting_for_callback", text, until)
            case TaskState.PARKED:
                return self._parked(task)
            case TaskState.SCHEDULED if task.schedule_time > self._now:
                return self._scheduled(task)
            case TaskState.SCHEDULED if task.run.is_held:
                return Standing(StepState.QUEUED, "paused", _paused(task.run))
            case TaskState.SCHEDULED:
                hindrance = self._admission.hindrance(task)
                if hindrance is None:
                    return Standing(StepState.QUEUED, "running", "is about to be sent")
                return Standing(StepState.QUEUED, hindrance.value, self._hindered(task, hindrance))

    def _heard(self, task: LiveTask) -> str:
        heard = task.last_heard
        if heard is None:
            return ""
        said = f": {_short(heard.progress)}" if heard.progress else ""
        return f", heard of {_seconds(self._now - heard.at)} ago{said}"

    def _scheduled(self, task: LiveTask) -> Standing:
        """Return where a task stands that waits for its time."""
        if _is_looking(task):
            since = self._now if task.first_attempt_at is None else task.first_attempt_at
            looks = f"looks every {_seconds(task.node.every or 0.0)}, next at {self._at(task.schedule_time)}"
            text = f"has found nothing for {_seconds(self._now - since)} and {looks}"
            if task.deadline_time is not None:
                text += f", until {self._at(task.deadline_time)}"
            return Standing(StepState.SCHEDULED, "polling", text, task.schedule_time)
        if _is_between_laps(task):
            return self._resting(task)
        after = f"; {_short(task.last_failure.message)}" if task.last_failure else ""
        text = f"is retrying, attempt {_count(task, task.attempt + 1)} at {self._at(task.schedule_time)}{after}"
        return Standing(StepState.SCHEDULED, "retry", text, task.schedule_time)

    def _resting(self, task: LiveTask) -> Standing:
        text = f"begins at {self._at(task.schedule_time)}, after the rest between laps"
        state = StepState.WAITING if task.state is TaskState.PARKED else StepState.SCHEDULED
        return Standing(state, "sleeping", text, task.schedule_time)

    def _parked(self, task: LiveTask) -> Standing:
        if task.node.loop is not None:
            return self._resting(task)
        if task.node.kind == "turn":
            workflow, limit = task.run.plan.name, runs_at_a_time(task)
            text = f"waits until fewer than {limit} runs of {workflow} that came first are under way"
            return Standing(StepState.WAITING, "waiting_for_turn", text)
        until = task.schedule_time if task.schedule_time < NEVER else None
        if task.node.kind == "sleep":
            return Standing(StepState.WAITING, "sleeping", f"sleeps until {self._at(task.schedule_time)}", until)
        at = f", until {self._at(until)}" if until is not None else ""
        if task.node.kind == "approval":
            prompt, to = question_of(task.run, task.node)
            whose = f" of {', '.join(to)}" if to else ""
            text = f"waits for the decision{whose}{at}: {_short(prompt)} {self._link(task)}"
            return Standing(StepState.WAITING, "waiting_for_approval", text, until)
        text = f'waits for the event "{task.node.step}" with the key "{key_of(task.run, task.node)}"{at}'
        return Standing(StepState.WAITING, "waiting_for_event", text, until)

    def reasons(self, run: LiveRun, node: Node, ended: StepEnded | None = None) -> list[Reason]:
        """Return why a step of a live run is not done: one reason, or one for each open element of a map.

        *ended* is the row of a step that has ended; it says why a step was skipped.
        """
        if node.undoes is not None and run.ending is None:
            where = "only runs when the run undoes what it did"
            said = where if ended is None else f"is {_words(StepState(ended.state))}"
            return [Reason(step=node.id, item=None, reason="done", text=f"{node.id} {said}")]
        live = run.nodes[node.index]
        if live.state in FINAL_STEP_STATES:
            text = f"{node.id} is {_words(live.state)}"
            if live.state is StepState.SKIPPED and ended is not None:
                text = f"{node.id} was skipped: {failure_from_json(ended.error).message}"
            return [Reason(step=node.id, item=None, reason="done", text=text)]
        if live.state is StepState.PENDING:
            return [Reason(step=node.id, item=None, reason="upstream", text=self._upstream(run, node))]
        units = {WHOLE: live.unit} if live.map is None else live.map.units
        shown = [self._unit(run, node, item) for item in sorted(units)[:_MOST_ITEMS]]
        if not shown:
            text = f"{node.id} waits for elements of {self._stream_name(run, node)}"
            return [Reason(step=node.id, item=None, reason="upstream", text=text)]
        return shown

    def _unit(self, run: LiveRun, node: Node, item: int) -> Reason:
        name, unit = step_name(node.id, item), run.unit(node, item)
        if isinstance(unit, LiveTask):
            standing = self.standing(unit)
            why, text = standing.why, standing.text
        else:
            why, text = "running", f"is run {unit.public_id}" if unit else "is starting"
        return Reason(step=node.id, item=None if item == WHOLE else item, reason=why, text=f"{name} {text}")

    def _upstream(self, run: LiveRun, node: Node) -> str:
        if node.closes is not None:
            unless = ", if the run has failed" if node.closes == "on_failure" else ""
            return f"{node.id} waits until everything else has ended{unless}"
        waits = [*node.upstream, *([node.stream_from] if node.stream_from is not None else [])]
        open_ones = [run.plan.nodes[index] for index in waits if run.nodes[index].state not in FINAL_STEP_STATES]
        reasons = [
            self.reasons(run, upstream)[0].text
            for upstream in open_ones
            if run.nodes[upstream.index].state is not StepState.PENDING
        ]
        names = ", ".join(upstream.id for upstream in open_ones)
        return "; ".join([f"{node.id} waits for {names}", *reasons])

    @staticmethod
    def _stream_name(run: LiveRun, node: Node) -> str:
        return run.plan.nodes[node.stream_from].id if node.stream_from is not None else "its list"

    def _hindered(self, task: LiveTask, hindrance: Hindrance) -> str:
        queue = self._admission.queue_of(task)
        match hindrance:
            case Hindrance.QUEUE_PAUSED:
                return f'waits: queue "{queue.name}" is paused'
            case Hindrance.NO_WORKER:
                return f"waits: {self._unserved(task)}"
            case Hindrance.CONCURRENCY:
                limit = queue.max_concurrent_dispatches
                return f'waits: queue "{queue.name}" has {queue.in_flight} of {limit} tasks in flight'
            case Hindrance.KEY:
                return self._keyed_out(task)
            case Hindrance.RATE:
                rate = queue.max_dispatches_per_second
                return f'waits: queue "{queue.name}" sends {rate:g} tasks a second at most'
            case Hindrance.WORKER_BUSY:
                serving = self._admission.workers.serving(task.node.route)
                return f"waits: every worker that serves it is busy ({sum(w.in_flight for w in serving)} steps)"

    def _keyed_out(self, task: LiveTask) -> str:
        """Return which others hold the key of a task."""
        holders = self._admission.keys.holders(task)
        if not holders:
            return f"waits for key {task.key}, for which others came first"
        others = f" and {len(holders) - _MOST_HOLDERS} others" if len(holders) > _MOST_HOLDERS else ""
        return f"waits for key {task.key}, held by {', '.join(holders[:_MOST_HOLDERS])}{others}"

    def _unserved(self, task: LiveTask) -> str:
        """Return why no worker can be sent a task, and what to do about it."""
        workers, wanted = list(self._admission.workers), task.node.route
        if not workers:
            return "no worker is there; start one: hopline worker FILE"
        served = {route.signature for worker in workers for route in worker.routes if route.step == wanted.step}
        if not served:
            who = "the worker that is there does" if len(workers) == 1 else f"{len(workers)} workers are there and do"
            return f"{who} not serve {wanted.step}; start one that does: hopline worker FILE"
        newest = self._newest(task.run.plan.name)
        current = {node.route.signature for node in newest.nodes if node.route.step == wanted.step} if newest else set()
        if wanted.signature in current:
            return f"workers serve only an older version of {wanted.step}; start them again: hopline worker FILE"
        which = "a newer version" if served & current else "another version"
        return (
            f"workers serve only {which} of {wanted.step} than this run began with; "
            "begin a new run, or start one on the file as it was: hopline worker FILE"
        )

    def _at(self, time: float) -> str:
        form = "%H:%M:%S UTC" if time - self._now < _DAY else "%Y-%m-%d %H:%M UTC"
        shown = datetime.fromtimestamp(time, UTC).strftime(form)
        return f"{shown} (in {_seconds(time - self._now)})"


def _is_between_laps(task: LiveTask) -> bool:
    """Return whether a task rests because its lap is not to begin yet, and not because it failed."""
    return task.node.loop is not None and task.attempt == 0


def _is_looking(task: LiveTask) -> bool:
    """Return whether a task rests because it found nothing, and not because it failed."""
    return task.node.every is not None and task.attempt == 0


def _paused(run: LiveRun) -> str:
    while run.paused_at is None and run.parent is not None:
        run = run.parent.run
    return f"waits: run {run.public_id} is paused; hopline runs resume {run.public_id}"


def _count(task: LiveTask, attempt: int) -> str:
    """Return ``3 of 5``, or ``4, 2 lost``: lost attempts are not counted against the five.

    With losses ``of 5`` is said of those that count: ``4, 2 lost, 2 of 5 count``.
    """
    allowed = task.node.retry.attempts
    if not task.lost:
        return f"{attempt} of {allowed}"
    counted = f", {attempt - task.lost} of {allowed} count" if allowed > 1 else ""
    return f"{attempt}, {task.lost} lost{counted}"


def _seconds(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * _DAY:
        return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
    return f"{seconds / _DAY:,.0f} days"


def _short(message: str) -> str:
    line = message.strip().splitlines()[0] if message.strip() else ""
    return line if len(line) <= 120 else f"{line[:119]}…"


def _words(state: StepState) -> str:
    return {"upstream_failed": "not run, since an upstream step failed"}.get(state.value, state.value)
