"""What a running step may ask about its run: ``context()``."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from hopline import trace


class Heart(Protocol):
    """What runs an attempt, as far as the step can reach it."""

    def beat(self, progress: str | None, /) -> None:
        """Pass on that the step goes on; called in any thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The attempt that is running. The defaults are what a step called as a plain function sees."""

    run_id: str = "local"
    """The id that people see, as ``r_92081g2180``."""
    step: str = "local"
    """The node id: the name of the step, or ``name_2`` for its second use in the workflow."""
    item: int | None = None
    """Which element this is, when the step is mapped."""
    attempt: int = 1
    """1 for the first."""
    deadline: datetime | None = None
    """When this attempt is given up, in UTC. Heartbeats move it."""
    idempotency_key: str = "local/local"
    """The same over all attempts: send it to services that can refuse to do a thing twice."""
    callback_url: str | None = None
    """Where the result is reported of a step that returns ``defer()``."""
    callback_token: str | None = None
    """What such a report proves with that it is of this attempt; good for no other."""
    traceparent: str | None = None
    """The span of this attempt, as in the header of W3C Trace Context."""
    cancelled: bool = False
    """Whether nobody waits for this attempt any more: its run was cancelled, or the engine is gone and will try the
    step again. It changes while the step runs: one that takes long looks at it from time to time and returns. Async
    steps need not look; they are cancelled."""
    _heart: Heart | None = field(default=None, init=False, repr=False, compare=False)

    def heartbeat(self, progress: str | None = None) -> None:
        """Say that the step goes on: its ``timeout`` counts anew from now, up to its ``deadline``.

        *progress* is shown by ``hopline runs show`` and ``runs why``. May be called in any thread, and as often as is
        convenient: about one a second is passed on. In a plain call it does nothing.

        Raises:
            TypeError: *progress* is no text.
            asyncio.CancelledError: nobody waits for this attempt any more, as ``cancelled`` says. It is no
                ``Exception``, so that a step which goes on after errors does not go on after this.
        """
        if progress is not None and not isinstance(progress, str):
            raise TypeError(f'heartbeat() is given {progress!r}; say how far it is as a text: heartbeat("3 of 7")')
        if self.cancelled:
            from asyncio import CancelledError  # whoever runs attempts has it; to author a file, it is not needed

            raise CancelledError(f"nobody waits for attempt {self.attempt} of {self.step} any more")
        if self._heart is not None:
            self._heart.beat(progress)


_entered: ContextVar[Context | None] = ContextVar("hopline_context", default=None)


def context() -> Context:
    """Return the context of the step that is running; outside the engine, one for local use."""
    wiring = trace.current.get()
    if wiring is not None:
        wiring.refuse("context() in a workflow body", "only a running step has a context; ask for it inside a step")
    return _entered.get() or Context()


def cancel(value: Context) -> None:
    """Let the step that runs in a context see that nobody waits for it any more."""
    object.__setattr__(value, "cancelled", True)


def connect(value: Context, heart: Heart | None) -> None:
    """Let heartbeats of the step that runs in a context reach *heart*; or nobody any more."""
    object.__setattr__(value, "_heart", heart)


def extend(value: Context, deadline: datetime) -> None:
    """Let the step that runs in a context see that its attempt is given up later."""
    object.__setattr__(value, "deadline", deadline)


@contextmanager
def entered(value: Context) -> Iterator[None]:
    """Make *value* what ``context()`` returns, in this thread or task, while the block runs."""
    token = _entered.set(value)
    try:
        yield
    finally:
        _entered.reset(token)
