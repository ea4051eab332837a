"""``approval``: a step in which a person decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, cast, overload

from hopline import plain, trace
from hopline.events import Event
from hopline.policy import Policy
from hopline.waiting import Wait, returning, schemas_of

F = TypeVar("F")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[F]):
    """What a person decided."""

    approved: bool
    form: F | None
    """What the person filled in; None where nothing was asked, and perhaps when it was rejected."""
    by: str
    """Who decided, as they said themselves."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """A person is asked to decide."""

    run: str
    workflow: str
    step: str
    prompt: str
    to: list[str]
    """Whom it is for, as ``approval(to=)`` says."""
    link: str
    """To the page on which it is decided: whoever has it decides."""
    expires_at: datetime
    """Until when the link is good."""


approval_requested = Event("hopline.approval_requested", ApprovalRequest)
"""The server emits it for each approval that opens, if it starts a workflow: one that sends the link."""


@overload
def approval(
    prompt: str, *, to: Sequence[str] = (), timeout: str | None = None, after: Sequence[object] = ()
) -> Decision[None]: ...
@overload
def approval(
    prompt: str, *, form: type[F], to: Sequence[str] = (), timeout: str | None = None, after: Sequence[object] = ()
) -> Decision[F]: ...
def approval(
    prompt: str,
    *,
    form: Any = None,
    to: Sequence[str] = (),
    timeout: str | None = None,
    after: Sequence[object] = (),
) -> Decision[Any]:
    """Return what a person decides; in a workflow body only.

    Whoever has the link of the step sees *prompt* and fills in *form*, a model; ``hopline approvals`` shows the link,
    and a workflow that is started by ``approval_requested`` is given it.
    *to* says whom it is for. The step fails with ``TimeoutError`` when nobody decides within *timeout*; without one it
    waits for ever. It begins when what is in *prompt* is there, and the steps that gave *after* have ended well.
    """
    wiring = trace.current.get()
    if wiring is None:
        return cast("Decision[Any]", plain.decided())
    decision: Any = Decision
    schema, shape = schemas_of("approval(form=)", returning("approval", decision[form]))
    wait = Wait(
        kind="approval",
        name="approval",
        inputs={"prompt": prompt, "to": list(to)},
        upstream=tuple(after),
        result=schema,
        shape=shape,
        policy=Policy(deadline=timeout),
    )
    return cast("Decision[Any]", wiring.wait(wait))
