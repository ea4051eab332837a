"""Choices in workflow bodies: ``branch``, ``switch``, ``recover``, ``first``, and conditions put together.

Each means the same in a workflow that is compiled and in one that is called as a plain function.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

from hopline import plain, trace
from hopline.errors import Failure, HoplineError
from hopline.policy import Retryable, named_failures

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


@overload
def recover(primary: Callable[[], A], fallback: Callable[[], B], *, on: Sequence[Retryable] = ()) -> A | B: ...
@overload
def recover(primary: Callable[[], A], fallback: Callable[[Failure], B], *, on: Sequence[Retryable] = ()) -> A | B: ...
def recover(primary: Callable[[], Any], fallback: Callable[..., Any], *, on: Sequence[Retryable] = ()) -> Any:
    """Return what *primary* returns; if one of its steps fails for good, what *fallback* returns instead.

    The fallback may take the ``Failure``. It begins when everything in the primary part has ended. *on* names the
    failures it is for, as that of ``Retry`` does: exception types, HTTP statuses, ranges of them; others fail the run.

    recover(lambda: charge_card(order), lambda why: send_invoice(order, why), on=(402,))
    """
    wiring = trace.current.get()
    if wiring is not None:
        return wiring.control.recover(primary, fallback, on)
    named_failures("recover()", on)
    try:
        return primary()
    except HoplineError:
        raise
    except Exception as error:
        if on and not _is_named(error, on):
            raise
        return fallback(plain.failure_of(error)) if takes_failure(fallback) else fallback()


@overload
def first(a: Callable[[], A], /) -> A: ...
@overload
def first(a: Callable[[], A], b: Callable[[], B], /) -> A | B: ...
@overload
def first(a: Callable[[], A], b: Callable[[], B], c: Callable[[], C], /) -> A | B | C: ...
@overload
def first(*arms: Callable[[], A]) -> A: ...
def first(*arms: Callable[[], Any]) -> Any:
    """Return what the arm returns that succeeds first; the steps of the others are cancelled then.

    An arm has succeeded when all of its steps have. If all arms fail, this fails. In a plain call the arms are tried
    one after the other.

    first(lambda: ask_mirror_one(key), lambda: ask_mirror_two(key))
    """
    wiring = trace.current.get()
    if wiring is not None:
        return wiring.control.first(arms)
    *before, last = arms
    for arm in before:
        try:
            return arm()
        except HoplineError:
            raise
        except Exception:  # noqa: BLE001, S112 - the next arm may do better; the last one's failure is told
            continue
    return last()


def takes_failure(fallback: Callable[..., Any]) -> bool:
    """Return whether a fallback wants to be told of the failure."""
    return bool(inspect.signature(fallback).parameters)


def _is_named(error: Exception, on: Sequence[Retryable]) -> bool:
    status = plain.status_of(error)
    for item in on:
        if isinstance(item, type):
            if isinstance(error, item):
                return True
        elif status is not None and (status in item if isinstance(item, range) else status == item):
            return True
    return False
