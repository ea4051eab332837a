"""Steps of a workflow in which the engine waits and nothing runs, and ``sleep``, the one for a time.

In a workflow body that is compiled, a call adds a node. Everywhere else a sleep is over at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Self

from hopline import durations, trace
from hopline.definition import Kind
from hopline.errors import DefinitionError, definition_error
from hopline.markers import may_hold_marks
from hopline.policy import Policy

_UNTIL_HINT = 'give a duration such as "3d", a date, or a time with its zone: sleep(date(2027, 1, 31))'


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A step that waits, as it is to be added to a workflow."""

    kind: Kind
    name: str
    inputs: Mapping[str, Any]
    upstream: tuple[object, ...] = ()
    result: Mapping[str, Any] = field(default_factory=lambda: {"type": "null"})
    """JSON schema of what it waits for."""
    shape: Mapping[str, Any] = field(default_factory=lambda: {"type": "null"})
    """The same, with the Python names of fields that have aliases."""
    policy: Policy = field(default_factory=Policy)


def returning(name: str, kind: Any) -> Callable[[], Any]:
    """Return a function that is annotated to return *kind*, of which there are schemas."""

    def payload() -> Any: ...

    payload.__name__ = name
    payload.__annotations__ = {"return": kind}
    return payload


def schemas_of(what: str, fn: Callable[[], Any]) -> tuple[Any, Any]:
    """Return the JSON schema of what *fn* returns, and the same with the Python names of fields that have aliases.

    Raises DefinitionError, which begins with *what*, for a type that has none.
    """
    from hopline import schema  # imports pydantic, which authoring alone does not need

    try:
        codec = schema.codec(fn)
        found = codec.passed_result_schema, codec.passed_result_shape
    except DefinitionError as error:
        raise definition_error(f"{what}: {error.message}", error.hint) from None
    return found


class Sleep:
    """``sleep``: wait for a time."""

    def __init__(self, upstream: tuple[object, ...] = ()) -> None:
        self._upstream = upstream

    def after(self, *results: object) -> Self:
        """Return a sleep that begins when the steps that gave *results* have ended well, and not with the run."""
        return type(self)((*self._upstream, *results))

    def __call__(self, until: str | date) -> object:
        """Wait for a duration (``"3d"``) or until a date or time, which may be the result of a step.

        Steps that are to come later are put ``.after(sleep("3d"))``. A date begins at midnight in UTC, and a time needs
        its zone. Nothing is held meanwhile, however long it takes, and what has passed is not waited for. The result is
        only there to be waited for; it is None.
        """
        inputs = _inputs(until)
        wiring = trace.current.get()
        if wiring is None:
            return None
        return wiring.wait(Wait(kind="sleep", name="sleep", inputs=inputs, upstream=self._upstream))


sleep = Sleep()


def _inputs(until: object) -> dict[str, object]:
    if trace.is_symbol(until):
        return {"until": until}
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise definition_error(f"sleep() is given {until.isoformat()}, a time without its zone", _UNTIL_HINT)
        return {"until": until.isoformat()}
    if isinstance(until, date):
        return {"until": until.isoformat()}
    if not isinstance(until, str):
        raise definition_error(f"sleep() is given {until!r}", _UNTIL_HINT)
    if may_hold_marks(until):
        return {"until": until}
    try:
        return {"seconds": durations.parse(until)}
    except ValueError:
        return _inputs(_time_in(until))


def _time_in(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise definition_error(
            f"sleep() is given {text!r}, no duration of at most ten years and no date", _UNTIL_HINT
        ) from None
