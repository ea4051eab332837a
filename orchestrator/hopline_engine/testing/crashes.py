"""Killing the engine at every moment at which it matters, and what comes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hopline_engine.core.model import AttemptState

if TYPE_CHECKING:
    from hopline_engine.testing.engine import Engine, Run

Drive = Callable[["Engine", "Run[Any]"], object]
"""Lets time pass and things happen until a run has ended."""

CarryOut = Callable[["Engine"], "Run[Any]"]
"""Starts a run, and drives it to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """One moment at which the engine was killed and started again."""

    number: int
    """Counted from 1, in the order in which they come."""
    moment: str
    """``before a commit``, ``after a commit``, ``before a request`` or ``after a request``."""
    outcome: tuple[str, Any]
    """State and result of the run."""
    outcome_without_crash: tuple[str, Any]
    duplicate_effects: list[str]
    """Steps that were executed again although their success was durable; requests that repeat one whose answer was
    lost have the same ``Idempotency-Key`` and do not count."""


def crash_points(folder: Path, opened: Callable[[Path], "Engine"], carry_out: CarryOut) -> Iterator[CrashPoint]:
    """Carry something out again and again, killing the engine at one moment further each time, until none is left.

    Args:
        folder: for the stores.
        opened: opens an engine in a folder of its own.
        carry_out: starts a run and lets time pass until it has ended.
    """
    whole = _Trial(None)
    expected, _ = whole.run(folder, opened, carry_out)
    for number in range(1, whole.seen + 1):
        trial = _Trial(number)
        outcome, repeated = trial.run(folder, opened, carry_out)
        yield CrashPoint(
            number=number,
            moment=trial.moment,
            outcome=outcome,
            outcome_without_crash=expected,
            duplicate_effects=repeated,
        )


class _Trial:
    def __init__(self, dies_at: int | None) -> None:
        self._dies_at = dies_at
        self.seen = 0
        self.moment = ""

    def run(
        self, folder: Path, opened: Callable[[Path], "Engine"], carry_out: CarryOut
    ) -> tuple[tuple[str, Any], list[str]]:
        with TemporaryDirectory(dir=folder) as place:
            engine = opened(Path(place))
            try:
                engine.die_when(self._happened)
                run = carry_out(engine)
                outcome = run.state, run.result() if run.state == "succeeded" else run.error
                return outcome, _repeated(engine, run)
            finally:
                engine.close()

    def _happened(self, moment: str) -> bool:
        self.seen += 1
        if self.seen != self._dies_at:
            return False
        self.moment = moment
        return True


def _repeated(engine: "Engine", run: "Run[Any]") -> list[str]:
    """Return the steps that were sent once more after an attempt that succeeded."""
    succeeded = {
        attempt.step if attempt.item is None else f"{attempt.step}[{attempt.item}]": attempt.attempt
        for attempt in run.attempts()
        if attempt.state is AttemptState.SUCCEEDED
    }
    later = {
        sent.step
        for sent in engine.executions
        if sent.run == run.id and sent.attempt > succeeded.get(sent.step, sent.attempt)
    }
    return sorted(later)
