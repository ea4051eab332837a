"""A step and a workflow, as the decorators make them: what calling one does, and what is made from one.

In a workflow body that is being compiled, a call adds a node to the graph. Everywhere else it runs the function.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from hopline import plain, trace
from hopline.definition import Definition, Kind, canonical
from hopline.events import Event
from hopline.outcomes import Err, Ok
from hopline.policy import Policy, Queue, Retry
from hopline.schedules import Schedule
from hopline.step_functions import checked_signature, refuse_function

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
        self._bindable = checked_signature(fn, kind)
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
            refuse_function(made.fn, f"is a {made.kind} and cannot undo a step", "use a @step or @http function")
        required = [one for one in made.parameters.values() if one.default is inspect.Parameter.empty]
        if not made.parameters or len(required) > 1:
            hint = f"write def {made.name}(result): ...; other parameters need defaults"
            refuse_function(made.fn, f"does not take just the result of {self.name}, which it undoes", hint)
        if self.undos:
            refuse_function(made.fn, f"is a second undo step of {self.name}", "a step has one; let it do all of it")
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
