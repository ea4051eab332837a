"""``Engine``: the real engine under a test, in virtual time; steps run in this process, and servers are doubles."""

import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from hopline import Event, HoplineError, Workflow
from hopline.definition import canonical
from hopline.durations import parse
from hopline.schema import codec, jsonable
from hopline_engine.api.asked import ApprovalAnswer, RunQuery
from hopline_engine.api.interface import StepFailure, StepResult
from hopline_engine.api.models import Attempt, Failure, RunDetail
from hopline_engine.api.models import Step as StepDetail
from hopline_engine.api.service import Service
from hopline_engine.core.states import FINAL_RUN_STATES
from hopline_engine.errors import ApprovalNotOpenError, RunNotFinishedError, RunNotSucceededError
from hopline_engine.scheduler.callbacks import CallbackOutcome
from hopline_engine.testing.crashes import CrashPoint, Drive, crash_points
from hopline_engine.testing.doubles import Doubles, Server
from hopline_engine.testing.installation import Execution, Happened, Heartbeats, Installation
from hopline_engine.testing.steps import InProcessWorker, python_steps
from hopline_engine.testing.virtual_loop import KilledError

R = TypeVar("R")
T = TypeVar("T")

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When tests begin, unless they say otherwise."""
_RUNS_AT_A_TIME: Final = 500
_LONGEST_DAYS: Final = 366
"""For how long a run is given time to end, where the test does not say what happens meanwhile."""


class CallbackRefusedError(AssertionError):
    """The engine did not take a callback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """A step of a run, as it was when it was asked for."""

    run: str
    id: str
    state: str
    """``pending``, ``queued``, ``scheduled``, ``running``, ``waiting``, ``succeeded``, ``failed``, ``skipped`` ..."""
    attempts: int
    error: Failure | None
    detail: StepDetail
    """All that the API shows of it."""


class Run(Generic[R]):
    """A run that a test started."""

    def __init__(self, engine: "Engine", run: str, workflow: Workflow[..., R] | None) -> None:
        self.id = run
        self._engine = engine
        self._workflow = workflow

    @property
    def detail(self) -> RunDetail:
        """All that the API shows of it."""
        return self._engine.ask(lambda service: service.run_detail(self.id))

    @property
    def state(self) -> str:
        """``running``, ``succeeded``, ``failed``, ``cancelled``, or what else the API says of it."""
        return str(self.detail.state)

    @property
    def error(self) -> Failure | None:
        """Why it failed."""
        return self.detail.error

    def step(self, name: str) -> StepRun:
        """Return one of its steps as it is now.

        Raises:
            KeyError: it has none of this name.
        """
        for found in self.detail.steps:
            if found.id == name:
                return StepRun(
                    run=self.id,
                    id=name,
                    state=found.state.value,
                    attempts=found.attempts,
                    error=found.error,
                    detail=found,
                )
        raise KeyError(f"run {self.id} has no step {name}; it has {', '.join(step.id for step in self.detail.steps)}")

    def attempts(self, step: str | None = None) -> list[Attempt]:
        """Return the attempts that are over, of one step or of all."""
        return self._engine.ask(lambda service: service.run_attempts(self.id, step, None))

    def result(self) -> R:
        """Return its result as the type that the workflow declares; as JSON, if the test did not start the run.

        Raises:
            AssertionError: it has not succeeded.
        """
        try:
            output = self._engine.ask(lambda service: service.run_output(self.id))
        except RunNotSucceededError as error:
            why = f": step {self.error.step}: {self.error.message}" if self.error else ""
            raise AssertionError(f"{error}{why}") from None
        except RunNotFinishedError as error:
            reasons = self._engine.ask(lambda service: service.why(self.id, None)).reasons
            raise AssertionError("; ".join([str(error), *(reason.text for reason in reasons)])) from None
        return cast("R", codec(self._workflow.fn).load_result(output) if self._workflow else json.loads(output))

    def runs(self, step: str) -> "list[Run[Any]]":
        """Return the runs that a step is executed by, where that is a workflow."""
        return [Run(self._engine, below.run, None) for below in self.step(step).detail.runs]


def _leave_as_it_is(_: "Engine") -> None:
    """Say nothing of servers."""


def _drive_to_the_end(engine: "Engine", run: Run[Any]) -> None:
    for _ in range(_LONGEST_DAYS):
        engine.advance("1d")
        if run.state in FINAL_RUN_STATES:
            return


def _checked(workflow: Workflow[..., Any]) -> Workflow[..., Any]:
    given: object = workflow
    if not isinstance(given, Workflow):
        raise TypeError(f"the engine takes workflows, and this is {given!r}; mark it with @workflow")
    return workflow


class Engine:
    """See the module. The pytest fixture ``engine`` gives one for each test."""

    def __init__(
        self,
        folder: Path,
        *,
        start: datetime = START,
        secrets: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Open an engine.

        Args:
            folder: for its store.
            start: what the clock says at first.
            secrets: by name, for ``secret(...)``.
            settings: of the server, such as ``{"map_window": 10}``.
        """
        self._folder = folder
        self._doubles = Doubles()
        self.executions: list[Execution] = []
        """All requests that were sent for attempts, oldest first."""
        self._start = start
        self._secrets = dict(secrets or {})
        self._settings = dict(settings or {})
        self._happened: Happened = lambda _: False
        self._workflows: dict[str, Workflow[..., Any]] = {}
        self._scheduled: set[str] = set()
        """The workflows whose schedules were put in force."""
        self._gone: list[Installation] = []
        self._installation = self._opened(start)

    # --- time -------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """What the clock says."""
        return datetime.fromtimestamp(self._installation.clock.now(), UTC)

    def advance(self, duration: str) -> None:
        """Let time pass, such as ``"90s"`` or ``"3d"``, and everything happen that happens until then, then included.

        Raises:
            NoDoubleError: a step sent a request that the test says nothing about.
        """
        loop = self._installation.loop
        self._run_to(loop.time() + parse(duration))
        self._installation.engine.scheduling.wake()  # a timer may be late by less than a microsecond
        self.settle()

    def settle(self) -> None:
        """Let everything happen that takes no time; every other method does that, too."""
        self._run_to(self._installation.loop.time())

    def _run_to(self, time: float) -> None:
        installation = self._installation
        installation.loop.run_to(time)
        if installation.is_dead:
            self._replace()
            self._run_to(time - installation.loop.time())  # the clock of the new loop begins at nought
            return
        self._check()

    def _check(self) -> None:
        problem, self._installation.problem = self._installation.problem, None
        if problem is not None:
            raise problem

    # --- runs -------------------------------------------------------------------------------------------------------

    def start(self, workflow: Workflow[..., R], *args: Any, key: str | None = None, **kwargs: Any) -> "Run[R]":
        """Start a run with the arguments of the workflow, and let everything happen that takes no time.

        With *key*, a second start is the same run.
        """
        self._make_known([workflow])
        given = {name: jsonable(value) for name, value in workflow.bind(args, kwargs).items()}
        started = self.ask(lambda service: service.start_run(workflow.name, given, key))
        return Run(self, started.run.id, workflow)

    def register(self, *workflows: Workflow[..., Any]) -> None:
        """Make workflows known, as a worker does with those of its files, and put their schedules in force.

        ``start`` makes a workflow known by itself, and leaves its schedule alone.
        """
        self._make_known(workflows)
        self._register([each for each in workflows if each.name not in self._scheduled], schedules=True)
        self._scheduled.update(workflow.name for workflow in workflows)

    def _make_known(self, workflows: Iterable[Workflow[..., Any]]) -> None:
        new = [workflow for workflow in map(_checked, workflows) if self._workflows.get(workflow.name) is not workflow]
        if new:
            before = self._workflows
            self._workflows = {**before, **{workflow.name: workflow for workflow in new}}
            try:
                self._register(new)
            except HoplineError:  # what cannot be registered must not stand in the way of others
                self._workflows = before
                raise
            self._scheduled.difference_update(workflow.name for workflow in new)

    def runs(self, workflow: Workflow[..., R]) -> "list[Run[R]]":
        """Return the runs of a workflow, those that its schedule or an event started too; oldest first."""
        found: list[str] = []
        after: str | None = None
        while True:
            query = RunQuery(workflow=workflow.name, limit=_RUNS_AT_A_TIME, after=after)
            page = self.ask(partial(Service.list_runs, query=query))
            found += [each.id for each in page.runs]
            after = page.next
            if after is None:
                break
        return [Run(self, each, workflow) for each in reversed(found)]

    def cancel(self, run: Run[Any]) -> None:
        """Cancel a run."""
        self.ask(lambda service: service.cancel_run(run.id))

    def callback(self, step: StepRun, result: object = None, *, error: Exception | None = None) -> None:
        """Call back what a waiting step waits for: its result, or the error with which it failed.

        Raises:
            CallbackRefusedError: it does not wait for one.
        """
        token = self._installation.signer.sign(step.run, step.id, step.attempts)
        failed = StepFailure(type=type(error).__name__, message=str(error)) if error is not None else None
        report = failed or StepResult(body=canonical(jsonable(result)))
        answer = self.ask(lambda service: service.callback(step.run, step.id, step.attempts, token, report))
        if answer.outcome not in {CallbackOutcome.APPLIED, CallbackOutcome.ALREADY}:
            raise CallbackRefusedError(f"{step.id} did not take the callback: {answer.message or answer.outcome.value}")

    def approve(self, step: StepRun, *, approved: bool = True, form: object = None, by: str = "tester") -> None:
        """Decide an approval that waits, as a person does; to decide it again in the same way changes nothing.

        Raises:
            ApprovalNotOpenError: it does not wait.
            InvalidApprovalError: the form is not filled in as it must be.
        """
        given = ApprovalAnswer(approved=approved, form=jsonable(form), by=by)
        try:
            self.ask(lambda service: service.decide_approval(step.run, step.id, given))
        except ApprovalNotOpenError:  # perhaps the engine died after it had taken the decision
            kept = self.ask(lambda service: service.approval(step.run, step.id))
            if (kept.state, kept.by) != ("approved" if approved else "rejected", by):
                raise

    def emit(self, event: Event[Any], payload: object, *, key: str) -> list[Run[Any]]:
        """Say that something happened that runs wait for, or are started by; return the runs that it started."""
        body = canonical(jsonable(payload))
        emitted = self.ask(lambda service: service.emit_event(event.name, key, body))
        return [self._known(run) for run in emitted.runs]

    def _known(self, run: str) -> Run[Any]:
        detail = self.ask(lambda service: service.run_detail(run))
        return Run(self, run, self._workflows.get(detail.workflow))

    def ask(self, call: Callable[[Service], Coroutine[Any, Any, T]]) -> T:
        """Return what a method of the engine's API returns, and let everything happen that takes no time.

        When the engine dies meanwhile, it is asked again, as a client would.
        """
        while True:
            installation = self._installation
            try:
                answer = installation.loop.run(call(installation.service))
                break
            except KilledError:
                self._replace()
        self.settle()
        return answer

    # --- the world around -------------------------------------------------------------------------------------------

    def server(self, url: str) -> Server:
        """Return the double of a server, such as ``engine.server("https://pay.example.com")``."""
        return self._doubles.server(url)

    # --- dying ------------------------------------------------------------------------------------------------------

    def crash(self, *, down: str = "0s") -> None:
        """Kill the engine as ``kill -9`` does, and start it again on its store, at once or after some time."""
        self._installation.kill()
        self._replace(parse(down))
        self.settle()

    def die_when(self, happened: Happened) -> None:
        """Have *happened* told of each moment at which the engine may die, and return whether it does.

        Killed so, it is started again at the same moment.
        """
        self._happened = happened

    def crash_points(
        self,
        workflow: Workflow[..., Any],
        *args: Any,
        prepare: Callable[["Engine"], object] = _leave_as_it_is,
        drive: Drive = _drive_to_the_end,
        **kwargs: Any,
    ) -> Iterator[CrashPoint]:
        """Run a workflow with these arguments again and again, killing the engine at one moment further each time.

        Each run has an engine of its own, which begins as this one did.

        Args:
            workflow: to be run.
            args: of the workflow.
            prepare: says what servers answer, for each run anew.
            drive: lets time pass and things happen until the run has ended; without it time passes, a year at most.
            kwargs: of the workflow.
        """

        def opened(folder: Path) -> "Engine":
            return Engine(folder, start=self._start, secrets=self._secrets, settings=self._settings)

        def carry_out(engine: "Engine") -> "Run[Any]":
            prepare(engine)
            run = engine.start(workflow, *args, key="crash point", **kwargs)
            drive(engine, run)
            return run

        self._folder.mkdir(parents=True, exist_ok=True)
        return crash_points(self._folder, opened, carry_out)

    def close(self) -> None:
        """End; the fixture does it."""
        self._installation.close()
        for gone in self._gone:
            gone.close()

    def _replace(self, seconds: float = 0.0) -> None:
        dead = self._installation
        self._gone.append(dead)
        self._installation = self._opened(datetime.fromtimestamp(dead.clock.now() + seconds, UTC))
        if self._workflows:
            self._register(list(self._workflows.values()))

    def _opened(self, start: datetime) -> Installation:
        while True:
            opened = Installation(
                self._folder,
                start,
                self._doubles,
                self.executions,
                secrets=self._secrets,
                settings=self._settings,
                happened=self._dies,
            )
            try:
                opened.open()
            except KilledError:
                self._gone.append(opened)
            else:
                return opened

    def _dies(self, moment: str) -> bool:
        return self._happened(moment)

    def _register(self, new: list[Workflow[..., Any]], *, schedules: bool = False) -> None:
        installation = self._installation
        compiled = {workflow.name: workflow.compile() for workflow in new}
        definitions = {
            digest: one.to_json()
            for definition in compiled.values()
            for digest, one in {definition.digest: definition, **definition.children}.items()
        }
        given, names = list(definitions.values()), sorted(compiled)
        self.ask(lambda service: service.register_definitions(given, names, schedules=schedules))
        steps = python_steps(self._workflows.values())
        installation.worker = InProcessWorker(
            steps, installation.settings.result_max_bytes, installation.clock.now, Heartbeats(installation)
        )
        installation.engine.register_worker(installation.worker.as_registered(installation.clock.now()))
        self.settle()
