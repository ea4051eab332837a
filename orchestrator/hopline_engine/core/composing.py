"""Values that are put together from results, and stored: the result of a run, the input of a sub-run."""

from hopline_engine.core.binding import BindingError, Expression
from hopline_engine.core.decision import Decision
from hopline_engine.core.doubts import MisfitError, Part
from hopline_engine.core.live import RunScope
from hopline_engine.core.plan import Plan


def composed(expression: Expression, scope: RunScope, decision: Decision) -> bytes:
    """Return a value that is to be stored.

    Raises:
        BindingError: it cannot be bound, or is too large.
    """
    value = expression.render(scope)
    check_size(value, decision)
    return value


def check_type(plan: Plan, part: Part, value: bytes, decision: Decision) -> None:
    """Refuse a value that is no input of a workflow, or no result of it.

    Raises:
        MisfitError: the message names the place in the value.
    """
    problem = decision.limits.misfit(plan, part, value)
    if problem is not None:
        whose = "of" if part == "result" else "for"
        raise MisfitError(f"the {part} {whose} workflow {plan.name} is not of the type that it declares: {problem}")


def check_size(value: bytes, decision: Decision) -> None:
    """Refuse a value that is too large to be stored."""
    if len(value) > decision.limits.composed_bytes:
        raise BindingError(f"it has {len(value):,} bytes; at most {decision.limits.composed_bytes:,} are stored")
