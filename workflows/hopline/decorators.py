"""``@step``, ``@sensor``, ``@http`` and ``@workflow``: what they are given, and the step or workflow that they make."""

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from hopline.errors import definition_error
from hopline.events import Event
from hopline.pending import Pending
from hopline.policy import Policy, Queue, Retry, check_priority, whole_number
from hopline.request import Request, Verbs
from hopline.schedules import Schedule
from hopline.steps import Step, Workflow

P = ParamSpec("P")
R = TypeVar("R")


class StepDecorator:
    """``@step(...)`` with its policy, waiting for the function."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, Pending[R]]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Pending[R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Step[..., Any]:
        """Return the step that *fn* becomes."""
        return Step(fn, "python", self._policy)


@overload
def step(fn: Callable[P, Coroutine[Any, Any, Pending[R]]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, Pending[R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    retry: Retry | None = None,
    timeout: str | None = None,
    deadline: str | None = None,
    queue: Queue | str | None = None,
    max_parallel: int | None = None,
    key: str | None = None,
    key_limit: int | None = None,
    priority: int | None = None,
) -> StepDecorator: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    retry: Retry | None = None,
    timeout: str | None = None,
    deadline: str | None = None,
    queue: Queue | str | None = None,
    max_parallel: int | None = None,
    key: str | None = None,
    key_limit: int | None = None,
    priority: int | None = None,
) -> Step[..., Any] | StepDecorator:
    """Make a function, sync or async, a step that a worker runs: ``@step`` or ``@step(retry=Retry(3), timeout="2m")``.

    ``timeout`` is for each attempt, ``deadline`` for all together, ``max_parallel`` for the elements of one ``map``.
    ``key``, ``key_limit`` and ``priority`` are those of ``using``.
    """
    decorator = StepDecorator(
        Policy(
            retry=retry,
            timeout=timeout,
            deadline=deadline,
            queue=queue,
            max_parallel=max_parallel,
            key=key,
            key_limit=key_limit,
            priority=priority,
        )
    )
    return decorator if fn is None else decorator(fn)


class SensorDecorator:
    """``@sensor(...)`` with its policy, waiting for the function."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R | None]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R | None], /) -> Step[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Step[..., Any]:
        """Return the step that *fn* becomes."""
        return Step(fn, "python", self._policy)


def sensor(
    *,
    every: str,
    timeout: str | None = None,
    retry: Retry | None = None,
    queue: Queue | str | None = None,
    max_parallel: int | None = None,
) -> SensorDecorator:
    """Make a function that looks for something a step that waits until it is there: ``@sensor(every="30s")``.

    The function returns what it found, or None for "not yet"; then it is called again after *every*, and nothing is
    held meanwhile. Its callers see what it found. Such a look is no failure, and ``retry`` is for those that raise. The
    step fails with ``TimeoutError`` when there is nothing within *timeout*.
    """
    return SensorDecorator(Policy(every=every, deadline=timeout, retry=retry, queue=queue, max_parallel=max_parallel))


class HttpDecorator:
    """``@http(...)`` with its policy, waiting for the function."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __call__(self, fn: Callable[P, Request[R]], /) -> Step[P, R]:
        """Return the step that *fn* becomes."""
        return Step(fn, "http", self._policy)


class Http(Verbs):
    """``http``: as a decorator, a step that is one HTTP request; its methods make the request."""

    @overload
    def __call__(self, fn: Callable[P, Request[R]], /) -> Step[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        retry: Retry | None = None,
        timeout: str | None = None,
        deadline: str | None = None,
        queue: Queue | str | None = None,
        max_parallel: int | None = None,
        callback: bool | None = None,
        key: str | None = None,
        key_limit: int | None = None,
        priority: int | None = None,
    ) -> HttpDecorator: ...
    def __call__(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        retry: Retry | None = None,
        timeout: str | None = None,
        deadline: str | None = None,
        queue: Queue | str | None = None,
        max_parallel: int | None = None,
        callback: bool | None = None,
        key: str | None = None,
        key_limit: int | None = None,
        priority: int | None = None,
    ) -> Step[..., Any] | HttpDecorator:
        """Make a function that returns a request a step that sends it. The engine sends it; no worker is needed.

        The function runs when the workflow is compiled, on symbols: it puts its arguments in texts, dicts and lists.
        With ``callback=True`` the answer, of any status 2xx, is not the result: the target reports it later to the URL
        in the header ``Hopline-Callback-Url``. An answer of 202 means that without it too. ``key``, ``key_limit`` and
        ``priority`` are those of ``using``.
        """
        decorator = HttpDecorator(
            Policy(
                retry=retry,
                timeout=timeout,
                deadline=deadline,
                queue=queue,
                max_parallel=max_parallel,
                callback=callback,
                key=key,
                key_limit=key_limit,
                priority=priority,
            )
        )
        return decorator if fn is None else decorator(fn)


http = Http()


class WorkflowDecorator:
    """``@workflow(...)`` with what it says of the workflow as a whole, waiting for the function."""

    def __init__(
        self,
        schedule: Schedule | None,
        on: Event[Any] | None,
        key: str | None,
        *,
        compensate: bool,
        deadline: str | None,
        max_runs: int | None,
        priority: int | None,
        on_failure: Step[..., Any] | None,
        finally_: Step[..., Any] | None,
    ) -> None:
        if schedule is not None and not isinstance(schedule, Schedule):
            raise definition_error(f"schedule is {schedule!r}", 'give schedule=Cron("0 6 * * *", tz="Europe/Berlin")')
        self._schedule = schedule
        if key is not None and on is None:
            hint = "the key is for runs that an event starts: on=Event(...)"
            raise definition_error("workflow(key=) without on=", hint)
        for word, closing in (("on_failure", on_failure), ("finally_", finally_)):
            if closing is not None and not isinstance(closing, Step):
                raise definition_error(f"{word} is {closing!r}", f"give a step: {word}=notify")
        self._on = on
        self._key = key
        if max_runs is not None:
            whole_number("workflow(max_runs=)", max_runs)
        if priority is not None:
            check_priority("workflow(priority=)", priority)
        self._max_runs, self._priority = max_runs, priority
        self._compensate = compensate
        self._deadline = Policy(deadline=deadline).to_json()["deadline"]
        self._on_failure = on_failure
        self._finally = finally_

    def __call__(self, fn: Callable[P, R], /) -> Workflow[P, R]:
        """Return the workflow that *fn* becomes."""
        made: Workflow[P, R] = Workflow(fn, "workflow", Policy())
        made.schedule = self._schedule
        made.on, made.key = self._on, self._key
        made.compensate, made.deadline = self._compensate, self._deadline
        made.max_runs, made.priority = self._max_runs, self._priority
        made.on_failure, made.finally_ = self._on_failure, self._finally
        return made


@overload
def workflow(fn: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    schedule: Schedule | None = None,
    on: Event[Any] | None = None,
    key: str | None = None,
    compensate: bool = False,
    deadline: str | None = None,
    max_runs: int | None = None,
    priority: int | None = None,
    on_failure: Step[..., Any] | None = None,
    finally_: Step[..., Any] | None = None,
) -> WorkflowDecorator: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    schedule: Schedule | None = None,
    on: Event[Any] | None = None,
    key: str | None = None,
    compensate: bool = False,
    deadline: str | None = None,
    max_runs: int | None = None,
    priority: int | None = None,
    on_failure: Step[..., Any] | None = None,
    finally_: Step[..., Any] | None = None,
) -> Workflow[..., Any] | WorkflowDecorator:
    """Make a function that wires steps a workflow. Its body runs once for each compilation, never in a run.

    Parameters and return type are annotated; parameters may have defaults. With a ``schedule`` it runs by itself, once
    a server knows it: ``@workflow(schedule=Cron("0 6 * * *", tz="Europe/Berlin"))``.

    With ``on=event``, each event starts a run, of which what the event says is the first argument. Of each key there is
    one run: ``key="order-{order.id}"`` is made from the parameters; without it, the key of the event is taken.

    With ``compensate=True``, a run that fails or is cancelled first runs the undo steps (``@step.undo``) of the steps
    that have succeeded, the last one first.

    At most ``max_runs`` runs are under way at a time; the others wait in a first step, ``turn``, and begin in the
    order in which they were started. ``priority``, from -5 to 5, is that of all steps of the body that name none.

    A run that is still at work after ``deadline`` fails, and what is open in it is cancelled.

    When a run has failed, the step ``on_failure`` is given the ``Failure``; at the end of every run, also of one that
    was cancelled, ``finally_`` runs. Both may take parameters of the workflow by their names, and change nothing about
    how the run ends.
    """
    decorator = WorkflowDecorator(
        schedule,
        on,
        key,
        compensate=compensate,
        deadline=deadline,
        max_runs=max_runs,
        priority=priority,
        on_failure=on_failure,
        finally_=finally_,
    )
    return decorator if fn is None else decorator(fn)
