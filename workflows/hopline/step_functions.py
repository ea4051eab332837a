"""Which functions can be steps."""

import inspect
from collections.abc import Callable
from typing import Any, Final, NoReturn

from hopline import source
from hopline.definition import Kind
from hopline.errors import definition_error
from hopline.schedules import ScheduledValue

LONGEST_NAME: Final = 400
"""Characters of a name; servers take 500, with what tells several calls of one step apart."""
_WORD: Final = {"python": "step", "http": "http", "workflow": "workflow", "dynamic": "dynamic"}


def checked_signature(fn: Callable[..., Any], kind: Kind) -> inspect.Signature:
    """Return the signature of *fn* if it can be a step: a named function whose arguments can be given by name."""
    if not inspect.isfunction(fn):
        raise definition_error(f"@{_WORD[kind]} is put on {fn!r}", "put it on a function defined with def")
    if fn.__name__ == "<lambda>":
        raise definition_error("a lambda cannot be a step", "define it with def; steps are known by their names")
    if not fn.__name__.isascii():
        refuse_function(fn, "has a name that HTTP headers cannot carry", "use ASCII letters, digits and _ in its name")
    if len(fn.__name__) > LONGEST_NAME:
        refuse_function(fn, f"has a name of {len(fn.__name__)} characters", f"use at most {LONGEST_NAME}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        refuse_function(fn, "is a generator", "return a list instead of yielding")
    if kind != "python" and inspect.iscoroutinefunction(fn):
        refuse_function(fn, "is async, but it only describes", "write def; only @step functions may be async")
    signature = inspect.signature(fn)
    if next(iter(signature.parameters), None) in ("self", "cls") and _is_in_class(fn):
        refuse_function(fn, "is a method", "move it to the top level of the file; steps have no object to belong to")
    for parameter in signature.parameters.values():
        _check_parameter(fn, kind, parameter)
    return signature


def _check_parameter(fn: Callable[..., Any], kind: Kind, parameter: inspect.Parameter) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        refuse_function(fn, f"takes {parameter}", "name every parameter; take a list or a dict for many values")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        refuse_function(fn, f"has the positional-only parameter {parameter.name!r}", "remove the / from its parameters")
    if type(parameter.default) is ScheduledValue and kind != "workflow":
        refuse_function(
            fn, f"has the default {parameter.default!r}, which only workflows know", "pass it to the step instead"
        )


def _is_in_class(fn: Callable[..., Any]) -> bool:
    owner = fn.__qualname__.rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>")


def refuse_function(fn: Callable[..., Any], problem: str, hint: str) -> NoReturn:
    """Say what is wrong with a function, where it stands, and what to do."""
    raise definition_error(f"{fn.__name__}() {problem}", hint, source.of_function(fn))
