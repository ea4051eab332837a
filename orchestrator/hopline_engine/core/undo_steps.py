"""What an undo step has of its own, besides what it takes over from the step that it undoes.

It is given the result of that step, or of one element of it, as its item.
"""

from typing import Any

from hopline_engine.core.binding import INPUT, ITEM, compile_object
from hopline_engine.core.definition import UndoSpec
from hopline_engine.core.order import Order
from hopline_engine.core.requests import compile_request
from hopline_engine.core.retry import NamedFailures, RetryPolicy


def parts_of(spec: UndoSpec, undone: int) -> dict[str, Any]:
    """Return the fields of an undo step in which it differs from the step at position *undone*.

    Raises:
        ValueError: it has not the parts that its kind needs, or refers to what it is not given.
    """
    if (spec.request is not None) != (spec.kind == "http"):
        raise ValueError(f"undo step {spec.id!r} is of kind {spec.kind!r}: exactly HTTP steps have a request")
    inputs = compile_object(spec.inputs)
    request = compile_request(spec.request) if spec.request is not None else None
    order = Order.of(spec.policy)
    given = {*inputs.sources(), *(request.sources() if request else ())}
    given.update(order.key.sources() if order is not None and order.key is not None else ())
    if given - {INPUT, ITEM}:
        raise ValueError(f"undo step {spec.id!r} refers to more than the result that it undoes: {sorted(given)}")
    policy = spec.policy
    return {
        "index": ~undone,
        "undoes": undone,
        "id": spec.id,
        "kind": spec.kind,
        "step": spec.step,
        "inputs": inputs,
        "items": None,
        "settled": True,
        "request": request,
        "child": None,
        "loop": None,
        "retry": RetryPolicy.from_spec(policy.retry),
        "timeout": policy.timeout,
        "deadline": policy.deadline,
        "queue": policy.queue,
        "max_parallel": policy.max_parallel,
        "callback": policy.callback,
        "every": None,
        "batch": 1,
        "result": spec.result,
        "upstream": (undone,),
        "downstream": (),
        "stream_from": None,
        "streams": (),
        "waits": 1,
        "guards": (),
        "may_be_skipped": False,
        "arms": (),
        "on": NamedFailures(),
        "within": None,
        "order": order,
    }
