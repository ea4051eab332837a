"""``@step``, ``@http`` and ``@workflow``: what they make of a function, and what calling that does.

In a workflow body that is being compiled, a call adds a node to the graph. Everywhere else it runs the function.
"""

import hashlib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar, cast, overload

from hopline import plain, source, trace
from hopline.definition import Definition, Kind, canonical
from hopline.errors import definition_error
from hopline.events import Event
from hopline.outcomes import Err, Ok
from hopline.pending import Pending
from hopline.policy import Policy, Queue, Retry, check_priority, whole_number
from hopline.request import Request, Verbs
from hopline.schedules import Schedule, ScheduledValue

P = ParamSpec("P")
Q = ParamSpec("Q")
A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")

_SIGNATURE_DIGITS = 16


class Step(Generic[P, R]):
    """A function as a node of workflows; made by ``@step`` and ``@http``, never changed after."""

    fn: Callable[..., Any]
    """The undecorated function."""
    name: str
    kind: Kind
    policy: Policy
    upstream: tuple[object, ...]
    """What ``after`` was given."""
    undos: "list[Step[..., Any]]"
    """The step that undoes this one, if there is one; the same list for all that ``using`` and ``after`` make."""

    def __init__(self, fn: Callable[..., Any], kind: Kind, policy: Policy) -> None:
        self.fn = fn
        self.kind = kind
        self.policy = policy
        self.upstream = ()
        self.undos = []
        self._bindable = _checked_signature(fn, kind)
        self.name = fn.__name__
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """In a workflow body, add a node and return the symbol of its result; elsewhere, run the function."""
        wiring = trace.current.get()
        if wiring is not None:
            return cast("R", wiring.call(self, args, kwargs))
        return cast("R", plain.run(self, args, kwargs))

    # self is declared as a Callable because only then mypy and pyright both solve the element type from the step.
    def map(
        self: Callable[Concatenate[A, Q], R],  # pyright: ignore[reportGeneralTypeIssues]
        items: Iterable[A],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> list[R]:
        """Return the results of this step for each of *items*, in order; the other arguments are the same for all.

        Elements run in parallel. Mapping over the result of another ``map`` starts each element as soon as its own
        predecessor is done; every other use of such a result waits for the whole list.
        """
        this = cast("Step[..., R]", self)
        wiring = trace.current.get()
        if wiring is not None:
            return cast("list[R]", wiring.map(this, items, args, kwargs))
        return [cast("R", plain.run(this, (item, *args), kwargs)) for item in items]

    def map_settled(
        self: Callable[Concatenate[A, Q], R],  # pyright: ignore[reportGeneralTypeIssues]
        items: Iterable[A],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> list[Ok[R] | Err]:
        """Do as ``map``, and return what became of each of *items*: an ``Ok`` with its result, or an ``Err``.

        An element that fails for good stops neither the others nor the workflow.
        """
        this = cast("Step[..., R]", self)
        wiring = trace.current.get()
        if wiring is not None:
            return cast("list[Ok[R] | Err]", wiring.map(this, items, args, kwargs, settled=True))
        return [plain.run_settled(this, (item, *args), kwargs) for item in items]

    def after(self, *results: object) -> Self:
        """Return this step, to be started only when the steps that gave *results* have ended well.

        For order without data; what is passed as an argument is waited for anyway.
        """
        copy = self._copied(self.policy)
        copy.upstream = (*self.upstream, *results)
        return copy

    def using(
        self,
        *,
        retry: Retry | None = None,
        timeout: str | None = None,
        deadline: str | None = None,
        queue: Queue | str | None = None,
        max_parallel: int | None = None,
        batch: int | None = None,
        key: str | int | None = None,
        key_limit: int | None = None,
        priority: int | None = None,
    ) -> Self:
        """Return this step with the given parts of its policy replaced.

        With ``batch=n`` one call of a worker takes up to *n* elements of a map, one after the other. Each keeps its
        own result, attempts and timeout. For Python steps that take milliseconds.

        Of one *key* at most *key_limit* tasks, or else one, of a queue are worked on at a time, whatever steps and runs
        they belong to. It is a result, a text with results in it, or a template of the step's parameters:
        ``key="customer-{customer}"``. In a queue, tasks of a higher *priority*, from -5 to 5, have more turns.
        """
        other = Policy(
            retry=retry,
            timeout=timeout,
            deadline=deadline,
            queue=queue,
            max_parallel=max_parallel,
            batch=batch,
            key=key,
            key_limit=key_limit,
            priority=priority,
        )
        return self._copied(self.policy.overridden_by(other))

    def undo(self, fn: Callable[[R], B], /) -> "Step[[R], B]":
        """Make a function, or an ``@http`` or ``@step`` one, the step that undoes this one: ``@reserve.undo``.

        It is given the result of this step. It runs in workflows with ``compensate=True``, when a run fails or is
        cancelled after this step succeeded, and has a policy of its own: give it one that retries.
        """
        made: Step[..., Any] = fn if isinstance(fn, Step) else Step(fn, "python", Policy())
        if made.kind not in {"python", "http"}:
            _refuse_function(made.fn, f"is a {made.kind} and cannot undo a step", "use a @step or @http function")
        required = [one for one in made.parameters.values() if one.default is inspect.Parameter.empty]
        if not made.parameters or len(required) > 1:
            hint = f"write def {made.name}(result): ...; other parameters need defaults"
            _refuse_function(made.fn, f"does not take just the result of {self.name}, which it undoes", hint)
        if self.undos:
            _refuse_function(made.fn, f"is a second undo step of {self.name}", "a step has one; let it do all of it")
        self.undos.append(made)
        return cast("Step[[R], B]", made)

    @cached_property
    def signature(self) -> str:
        """Hash of name, parameters and result, 16 hex digits: a worker serves the steps whose signatures it has.

        Raises DefinitionError for a type that has no JSON schema.
        """
        from hopline import schema  # imports pydantic, which authoring alone does not need

        own = [self.name, schema.parameters_schema(self.fn), schema.result_schema(self.fn)]
        return hashlib.sha256(canonical(own)).hexdigest()[:_SIGNATURE_DIGITS]

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the function, in order."""
        return self._bindable.parameters

    @property
    def parameter_list(self) -> str:
        """The parameters as they are written, for messages."""
        bare = [parameter.replace(default=inspect.Parameter.empty) for parameter in self.parameters.values()]
        return str(self._bindable.replace(parameters=bare, return_annotation=inspect.Signature.empty))

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, defaults included. Raises TypeError as the call would."""
        bound = self._bindable.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _copied(self, policy: Policy) -> Self:
        copy = type(self)(self.fn, self.kind, policy)
        copy.upstream = self.upstream
        copy.undos = self.undos  # shared: the undo step may be defined after the copy was made
        return copy

    def __repr__(self) -> str:
        return f"<{self.kind} step {self.name}>"


class Workflow(Step[P, R]):
    """A function that wires steps; made by ``@workflow``. In the body of another workflow it is a step as well."""

    schedule: Schedule | None = None
    """When it runs by itself."""
    on: Event[Any] | None = None
    """The event that starts runs of it."""
    key: str | None = None
    """The template of the key of which an event starts one run."""
    max_runs: int | None = None
    """How many runs of it may be under way at a time."""
    priority: int | None = None
    """That of its steps that name none."""
    compensate: bool = False
    """Whether what its steps did is undone when a run fails or is cancelled."""
    deadline: float | None = None
    """Seconds after which a run of it fails that is still at work."""
    on_failure: "Step[..., Any] | None" = None
    """The step that is told when a run has failed."""
    finally_: "Step[..., Any] | None" = None
    """The step that runs at the end of every run."""

    def _copied(self, policy: Policy) -> Self:
        copy = super()._copied(policy)
        copy.schedule, copy.on, copy.key = self.schedule, self.on, self.key
        copy.compensate, copy.deadline = self.compensate, self.deadline
        copy.max_runs, copy.priority = self.max_runs, self.priority
        copy.on_failure, copy.finally_ = self.on_failure, self.finally_
        return copy

    def compile(self) -> Definition:
        """Trace the body once and return the definition. Raises DefinitionError for whatever is wrong in it."""
        from hopline.compiler import compile_workflow  # imports pydantic

        return compile_workflow(self)

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


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


def _checked_signature(fn: Callable[..., Any], kind: Kind) -> inspect.Signature:
    """Return the signature of *fn* if it can be a step: a named function whose arguments can be given by name."""
    if not inspect.isfunction(fn):
        raise definition_error(f"@{_WORD[kind]} is put on {fn!r}", "put it on a function defined with def")
    if fn.__name__ == "<lambda>":
        raise definition_error("a lambda cannot be a step", "define it with def; steps are known by their names")
    if not fn.__name__.isascii():
        _refuse_function(fn, "has a name that HTTP headers cannot carry", "use ASCII letters, digits and _ in its name")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        _refuse_function(fn, "is a generator", "return a list instead of yielding")
    if kind != "python" and inspect.iscoroutinefunction(fn):
        _refuse_function(fn, "is async, but it only describes", "write def; only @step functions may be async")
    signature = inspect.signature(fn)
    if next(iter(signature.parameters), None) in ("self", "cls") and _is_in_class(fn):
        _refuse_function(fn, "is a method", "move it to the top level of the file; steps have no object to belong to")
    for parameter in signature.parameters.values():
        _check_parameter(fn, kind, parameter)
    return signature


def _check_parameter(fn: Callable[..., Any], kind: Kind, parameter: inspect.Parameter) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        _refuse_function(fn, f"takes {parameter}", "name every parameter; take a list or a dict for many values")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        _refuse_function(
            fn, f"has the positional-only parameter {parameter.name!r}", "remove the / from its parameters"
        )
    if type(parameter.default) is ScheduledValue and kind != "workflow":
        _refuse_function(
            fn, f"has the default {parameter.default!r}, which only workflows know", "pass it to the step instead"
        )


_WORD = {"python": "step", "http": "http", "workflow": "workflow", "dynamic": "dynamic"}


def _is_in_class(fn: Callable[..., Any]) -> bool:
    owner = fn.__qualname__.rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>")


def _refuse_function(fn: Callable[..., Any], problem: str, hint: str) -> NoReturn:
    raise definition_error(f"{fn.__name__}() {problem}", hint, source.of_function(fn))
