"""Choices in workflow bodies: ``branch``, ``switch``, ``recover``, ``first``, and conditions put together.

Each means the same in a workflow that is compiled and in one that is called as a plain function.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from hopline import trace

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
K = TypeVar("K")


def all_of(*conditions: bool) -> bool:
    """Return the condition that all *conditions* hold: ``and`` for results."""
    wiring = trace.current.get()
    return all(conditions) if wiring is None else wiring.control.combine("all_of", conditions)


def any_of(*conditions: bool) -> bool:
    """Return the condition that one of *conditions* holds: ``or`` for results."""
    wiring = trace.current.get()
    return any(conditions) if wiring is None else wiring.control.combine("any_of", conditions)


def not_(condition: bool, /) -> bool:
    """Return the condition that *condition* does not hold: ``not`` for results."""
    wiring = trace.current.get()
    return not condition if wiring is None else wiring.control.combine("not_", (condition,))


@overload
def branch(condition: bool, then: Callable[[], A], otherwise: Callable[[], B]) -> A | B: ...
@overload
def branch(condition: bool, then: Callable[[], A]) -> A | None: ...
def branch(condition: bool, then: Callable[[], Any], otherwise: Callable[[], Any] | None = None) -> Any:
    """Return what *then* returns where *condition* holds, else what *otherwise* returns, or None without it.

    A condition is a comparison of results, conditions put together, or a result that is a bool. The steps of the arm
    that is not chosen are skipped; what an arm makes leaves it through its result alone.

    branch(order.total > 5000, then=lambda: approve(order), otherwise=lambda: order)
    """
    wiring = trace.current.get()
    if wiring is not None:
        return wiring.control.branch(condition, then, otherwise)
    if condition:
        return then()
    return None if otherwise is None else otherwise()


@overload
def switch(value: K, cases: Mapping[K, Callable[[], A]], default: Callable[[], B]) -> A | B: ...
@overload
def switch(value: K, cases: Mapping[K, Callable[[], A]]) -> A | None: ...
def switch(value: Any, cases: Mapping[Any, Callable[[], Any]], default: Callable[[], Any] | None = None) -> Any:
    """Return what the arm of *cases* returns that *value* names, else what *default* returns, or None without it.

    switch(order.kind, {"book": lambda: post(order), "file": lambda: mail(order)}, default=lambda: refuse(order))
    """
    wiring = trace.current.get()
    if wiring is not None:
        return wiring.control.switch(value, cases, default)
    chosen = cases.get(value, default)
    return None if chosen is None else chosen()
