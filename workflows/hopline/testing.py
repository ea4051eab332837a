"""Test workflows as plain functions: ``stub`` says what a step answers, no engine and no network needed.

Programs that use Google Cloud Tasks are tested against ``cloud_tasks``, a running service.

with stub(list_shops, [shop]), stub(publish, calls=lambda report: Published(url="u")) as sent:
    assert daily_sales(DAY) == Published(url="u")
assert sent.calls == [{"report": report}]
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from hopline import plain
from hopline.approvals import Decision
from hopline.emulator import CloudTasks, cloud_tasks
from hopline.events import Event
from hopline.steps import Step

if TYPE_CHECKING:
    from hopline_engine.testing import Engine

__all__ = ["CloudTasks", "Engine", "Stub", "answer", "cloud_tasks", "deliver", "stub"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def __getattr__(name: str) -> Any:
    """Return what tests on the real engine need, which is imported only for them."""
    if name == "Engine":
        from hopline_engine.testing import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Stub(Generic[R]):
    """Stands in for a step while a test runs."""

    def __init__(self, answer: Callable[..., R]) -> None:
        self._answer = answer
        self.calls: list[dict[str, Any]] = []
        """The arguments of each call by name, defaults included; one for each element of a ``map``."""

    def answer(self, arguments: dict[str, Any]) -> R:
        """Note the call and return the answer to it."""
        self.calls.append(arguments)
        return self._answer(**arguments)


@overload
def stub(step: Step[P, R], value: R) -> AbstractContextManager[Stub[R]]: ...
@overload
def stub(step: Step[P, R], *, calls: Callable[P, R]) -> AbstractContextManager[Stub[R]]: ...
def stub(step: Any, value: Any = None, *, calls: Callable[..., Any] | None = None) -> AbstractContextManager[Stub[Any]]:
    """Let every call of *step*, a workflow included, give *value*, or what *calls* returns for the same arguments.

    Holds while the block runs, also for the step with other policies or orders; an inner stub of the same step goes
    before an outer one. To let a step fail, raise in *calls*.
    """
    return _standing_in(step, Stub(calls if calls is not None else lambda **_: value))


@contextmanager
def answer(*, approved: bool = True, form: Any = None, by: str = "test", at: datetime = _LONG_AGO) -> Iterator[None]:
    """Let approvals be decided like this: *form* is what the person filled in.

    Holds while the block runs; an inner one goes before an outer one.
    """
    token = plain.decisions.set((*plain.decisions.get(), Decision(approved=approved, form=form, by=by, at=at)))
    try:
        yield
    finally:
        plain.decisions.reset(token)


@contextmanager
def deliver(event: Event[T], value: T, *, key: str | None = None) -> Iterator[None]:
    """Let waits for *event* be over with *value*: those with this key, or with any key.

    Holds while the block runs; an inner one goes before an outer one.
    """
    token = plain.deliveries.set((*plain.deliveries.get(), (event.name, key, value)))
    try:
        yield
    finally:
        plain.deliveries.reset(token)


@contextmanager
def _standing_in(step: Any, substitute: Stub[R]) -> Iterator[Stub[R]]:
    if not isinstance(step, Step):
        raise TypeError(f"stub() takes a step or a workflow, and this is {step!r}; mark it with @step")
    token = plain.substitutes.set({**plain.substitutes.get(), step.fn: substitute})
    try:
        yield substitute
    finally:
        plain.substitutes.reset(token)
