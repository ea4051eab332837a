"""``key=``: what a step is about, of which few tasks are worked on at a time, as an expression."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hopline.definition import Expr
from hopline.fit import disagreement
from hopline.shape import Shape
from hopline.trace import is_symbol, reference_of

if TYPE_CHECKING:
    from hopline.steps import Step
    from hopline.wiring import BodyTrace

_KEY = Shape({"anyOf": [{"type": "string"}, {"type": "integer"}]})
_LONGEST = 500
"""Characters; databases index it."""


def key_of(trace: "BodyTrace", step: "Step[..., Any]", arguments: Mapping[str, Any]) -> dict[str, Expr]:
    """Return the key of a call as it stands in the step's policy, which names it only if there is one.

    *arguments* are those of the call, of a mapped step with what stands for one element.
    """
    policy = step.policy
    if step.kind in {"workflow", "dynamic"}:
        _check_sent(trace, step)
    if policy.key is None:
        if policy.key_limit is not None:
            trace.refuse(
                f"{step.name} has key_limit={policy.key_limit} and no key", 'say of what: key="customer-{customer}"'
            )
        return {}
    if policy.batch is not None:
        trace.refuse(
            f"{step.name} has a key and batch={policy.batch}: each element of a batch has a key of its own",
            "leave one of them out",
        )
    return {"key": _expression(trace, step, policy.key, arguments)}


def _check_sent(trace: "BodyTrace", step: "Step[..., Any]") -> None:
    given = [name for name in ("key", "key_limit", "priority") if getattr(step.policy, name) is not None]
    if given:
        trace.refuse(
            f"{step.name} is a workflow and is given {given[0]}=, which is for steps that are sent",
            "give it to the steps inside it; @workflow(max_runs=) limits how many runs there are",
        )


def _expression(trace: "BodyTrace", step: "Step[..., Any]", key: object, arguments: Mapping[str, Any]) -> Expr:
    what = f"the key of {step.name}"
    if is_symbol(key):
        problem = disagreement(reference_of(key).shape, _KEY)
        if problem:
            trace.refuse(f"{what} does not fit: {problem}", "give a text or a whole number")
        return trace.encoder(what).encode(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return trace.encoder(what).encode(str(key))
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST:
        trace.refuse(f"{what} is {key!r}", f"give a text of 1 to {_LONGEST} characters, or a result that is one")
    return trace.encoder(what).encode(_filled(trace, step, key, arguments))


def _filled(trace: "BodyTrace", step: "Step[..., Any]", template: str, arguments: Mapping[str, Any]) -> str:
    try:
        return template.format(**arguments)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        trace.refuse(
            f"the key {template!r} of {step.name} cannot be made: {error}",
            f'name its parameters in it, as in "customer-{{customer}}"; they are {step.name}{step.parameter_list}',
        )
