"""Killing the engine at every moment at which it matters, and what comes of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hopline import Workflow
from hopline_engine.core.model import AttemptState
from hopline_engine.testing.engine import Engine, Run

Drive = Callable[[Engine, Run[Any]], object]
"""Lets time pass and things happen until a run has ended."""


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


def crash_points(
    folder: Path,
    workflow: Workflow[..., Any],
    *args: Any,
    prepare: Callable[[Engine], object],
    drive: Drive,
    secrets: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Iterator[CrashPoint]:
    """Run a workflow again and again, killing the engine at one moment further each time, until none is left.

    Args:
        folder: for the stores.
        workflow: to be run.
        args: of the workflow.
        prepare: says what servers answer, for each run anew.
        drive: lets time pass until the run has ended.
        secrets: of each engine.
        kwargs: of the workflow.
    """

    def carry_out(engine: Engine) -> Run[Any]:
        prepare(engine)
        run = engine.start(workflow, *args, key="crash point", **kwargs)
        drive(engine, run)
        return run

    whole = _Trial(None)
    expected, _ = whole.run(folder, secrets, carry_out)
    for number in range(1, whole.seen + 1):
        trial = _Trial(number)
        outcome, repeated = trial.run(folder, secrets, carry_out)
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
        self, folder: Path, secrets: Mapping[str, str] | None, carry_out: Callable[[Engine], Run[Any]]
    ) -> tuple[tuple[str, Any], list[str]]:
        with TemporaryDirectory(dir=folder) as place:
            engine = Engine(Path(place), secrets=secrets)
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


def _repeated(engine: Engine, run: Run[Any]) -> list[str]:
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
