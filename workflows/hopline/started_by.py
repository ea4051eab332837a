"""``@workflow(on=, key=)``: the event that starts runs of a workflow, and the key that makes each one's run one."""

from typing import TYPE_CHECKING, Any

from hopline.definition import Expr
from hopline.fit import disagreement
from hopline.schema import codec
from hopline.shape import Shape
from hopline.trace import reference_of

if TYPE_CHECKING:
    from hopline.wiring import BodyTrace


def started_by(trace: "BodyTrace") -> dict[str, Any] | None:
    """Return what starts runs of a workflow besides people and programs, as it stands in the definition."""
    own = trace.workflow
    event, template = own.on, own.key
    if event is None:
        return None
    parameter = next(iter(own.parameters), None)
    if parameter is None:
        trace.refuse(
            f"{own.name} is started by {event.name} and has no parameter",
            "give it one for what the event says",
        )
    _, shape = event.schemas()
    problem = disagreement(Shape.of(shape), reference_of(trace.symbols()[parameter]).shape)
    others = [name for name in codec(own.fn).parameters_schema["required"] if name != parameter]
    if problem or others:
        trace.refuse(
            f"{own.name} cannot be started by {event.name}: "
            + (f"{parameter!r} does not fit: {problem}" if problem else f"nothing gives {others[0]!r}"),
            "what the event says goes to the first parameter; give the others defaults",
        )
    on = {"event": event.name, "parameter": parameter}
    return on if template is None else {**on, "key": _key(trace, template)}


def _key(trace: "BodyTrace", template: str) -> Expr:
    """Return the expression of a text such as ``"order-{order.id}"``, which names parameters."""
    try:
        text = template.format(**trace.symbols())
    except (KeyError, IndexError, ValueError) as error:
        trace.refuse(
            f"the key {template!r} of {trace.workflow.name} cannot be made: {error}",
            f'name its parameters in it, as in "order-{{order.id}}"; they are {trace.workflow.parameter_list}',
        )
    return trace.encoder(f"the key of {trace.workflow.name}").encode(text)
