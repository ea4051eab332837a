"""Failures as they are stored and shown, and those that the engine itself finds in what a run was given."""

import msgspec

from hopline_engine.core.binding import BindingError
from hopline_engine.core.doubts import MisfitError
from hopline_engine.core.retry import Failure


def failure_json(failure: Failure, step: str | None = None, *, is_final: bool = False) -> bytes:
    """Return a failure as it is stored and shown; with all that is matched later where it is that of a step."""
    shown: dict[str, object] = {"type": failure.type, "message": failure.message, "status": failure.status}
    if is_final:
        shown |= {"types": failure.types, "attempts": failure.attempts}
    if failure.traceback:
        shown["traceback"] = failure.traceback
    if step:
        shown["step"] = step
    return msgspec.json.encode(shown)


def failure_from_json(error: bytes | None) -> Failure:
    """Return a failure as it was stored."""
    stored = msgspec.json.decode(error) if error else {}
    return Failure(
        stored.get("type", "Failed"),
        stored.get("message", "see the step"),
        tuple(stored.get("types", ())),
        status=stored.get("status"),
        traceback=stored.get("traceback"),
        attempts=stored.get("attempts", 0),
    )


def failed_step(error: bytes | None) -> str | None:
    """Return the step that a stored failure names: another one than that it is stored of."""
    return msgspec.json.decode(error).get("step") if error else None


def unbound(error: BindingError) -> Failure:
    """Return the failure of a step whose values cannot be put together; to try again would not help."""
    kind = "InvalidValue" if isinstance(error, MisfitError) else "BindingError"
    return Failure(kind, str(error), (kind,), final=True)
