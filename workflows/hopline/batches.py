"""``batch=``: how many elements of a map one call of a worker takes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hopline.steps import Step
    from hopline.wiring import BodyTrace


def check_batch(trace: "BodyTrace", step: "Step[..., Any]", over: str | None) -> None:
    """Refuse a batch of a step that is not mapped *over* a parameter, or of which no call takes several elements."""
    if step.policy.batch is None:
        return
    if over is None:
        trace.refuse(
            f"{step.name} with batch={step.policy.batch} is called for one value",
            f"batch is for the elements of a map: {step.name}.using(batch=...).map(items)",
        )
    if step.kind != "python":
        reason = {
            "http": "an HTTP step sends one request for each element",
            "workflow": "each element of a mapped workflow is a run of its own",
        }.get(step.kind, "each element is called by itself")
        trace.refuse(
            f"{step.name} cannot take batch={step.policy.batch}: {reason}",
            "leave it out; max_parallel= and queue= say how many are under way",
        )
