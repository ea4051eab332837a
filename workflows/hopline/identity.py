"""``is`` and ``case None`` on results: the one question about a value that no stand-in hears.

``x is None`` never asks ``x``. On a stand-in it is quietly false, and a body with it would do one thing as a plain call
and another as a compiled workflow. So it is looked for in the source, where there is any. Only what surely stands for
a result is refused; ``FLAG is None`` on a value of the file is left alone.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from hopline import source
from hopline.control import branch, first, recover, switch
from hopline.errors import DefinitionError, definition_error
from hopline.steps import Step

_CHOICES = (branch, switch, recover, first)


def identity_test(fn: Callable[..., Any], symbolic: Collection[str]) -> DefinitionError | None:
    """Return the refusal of the first ``is`` in the body of *fn* that asks about a result, or None.

    *symbolic* are the parameters that stand for values of the run.
    """
    fn = inspect.unwrap(fn)
    body = _body(fn)
    asked = [] if body is None else list(_asked(body))
    if body is None or not asked:
        return None
    names = _Names(fn, symbolic, body)
    for expression in asked:
        if names.is_result(expression):
            line = fn.__code__.co_firstlineno + expression.lineno - 1
            return definition_error(
                f"`is` needs the value of {ast.unparse(expression)}, which no workflow body has",
                "`is` and `case None` do not see that there is no value yet: choose with branch(x == None, ...)",
                source.Location(fn.__code__.co_filename, line),
            )
    return None


@lru_cache(maxsize=256)  # the body of a dynamic workflow is looked at for each of its calls
def _body(fn: Callable[..., Any]) -> ast.FunctionDef | None:
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(fn))).body
    except (OSError, TypeError, SyntaxError):
        return None  # there is no source, or it is another text by now
    return next((node for node in parsed if isinstance(node, ast.FunctionDef) and node.name == fn.__name__), None)


def _asked(body: ast.FunctionDef) -> Iterator[ast.expr]:
    """Yield the expressions whose identity is asked for."""
    for node in ast.walk(body):
        if isinstance(node, ast.Compare) and any(isinstance(test, ast.Is | ast.IsNot) for test in node.ops):
            yield from (node.left, *node.comparators)
        elif isinstance(node, ast.Match) and any(isinstance(case.pattern, ast.MatchSingleton) for case in node.cases):
            yield node.subject


class _Names:
    """Which expressions in one function surely are results."""

    def __init__(self, fn: Callable[..., Any], symbolic: Collection[str], body: ast.FunctionDef) -> None:
        self._outside = inspect.getclosurevars(fn)
        bound = _bound(body)
        self._results = {name for name in symbolic if name not in bound}
        size = -1
        while size < len(self._results):  # a name may hold a part of one that is found later
            size = len(self._results)
            self._results |= {name for name, values in bound.items() if all(map(self.is_result, values))}

    def is_result(self, expression: ast.expr | None) -> bool:
        """Return whether *expression* surely is a result, or a part of one."""
        while isinstance(expression, ast.Attribute | ast.Subscript):
            expression = expression.value
        if isinstance(expression, ast.Call):
            return self._is_step(expression.func)
        return isinstance(expression, ast.Name) and expression.id in self._results

    def _is_step(self, called: ast.expr) -> bool:
        """Return whether *called* is a step, also with ``.map``, ``.using(...)`` or ``.after(...)`` behind it."""
        if isinstance(called, ast.Call):
            return self._is_step(called.func)
        value = self._value(called)
        if issubclass(type(value), Step) or value in _CHOICES:
            return True
        return isinstance(called, ast.Attribute) and self._is_step(called.value)

    def _value(self, expression: ast.expr) -> object:
        if isinstance(expression, ast.Name):
            return self._outside.nonlocals.get(expression.id, self._outside.globals.get(expression.id))
        owner = self._value(expression.value) if isinstance(expression, ast.Attribute) else None
        return vars(owner).get(expression.attr) if isinstance(owner, ModuleType) else None  # type: ignore[attr-defined]


def _bound(body: ast.FunctionDef) -> dict[str, list[ast.expr | None]]:
    """Return the names that are bound in *body*, each with what it is bound to: None in loops, lambdas and the like."""
    found: dict[str, list[ast.expr | None]] = {}
    plain: set[ast.AST] = set()
    for node in ast.walk(body):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    plain.add(target)
                    found.setdefault(target.id, []).append(node.value)
    own = {*body.args.posonlyargs, *body.args.args, *body.args.kwonlyargs}
    for node in ast.walk(body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in plain:
            found.setdefault(node.id, []).append(None)
        elif isinstance(node, ast.arg) and node not in own:
            found.setdefault(node.arg, []).append(None)
    return found
