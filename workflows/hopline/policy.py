"""How a step is attempted: Retry, Queue and the two clocks (timeout of one attempt, deadline of all), as values."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from hopline import durations
from hopline.errors import Fail, RetryAfter, definition_error

Jitter = Literal["none", "full", "equal"]
Retryable = type[Exception] | int | range

DEFAULT_QUEUE = "default"
_QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MOST = 1_000_000_000
"""Of anything that is counted; beyond it lie slips of the keyboard and what 32 bits cannot hold."""
_LOWEST_STATUS, _HIGHEST_STATUS = 100, 599
LOWEST_PRIORITY, HIGHEST_PRIORITY = -5, 5


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how far apart, a step is attempted.

    ``attempts`` counts the first one too. The n-th wait is ``first * factor ** (n - 1)``, at most ``max``, spread by
    ``jitter``: "full" over all of it from zero, "equal" over its upper half.

    ``on`` says what is retried: exception types, HTTP statuses, ranges of statuses. Without it that is every exception
    but ``Fail``; of an HTTP step, what may pass by itself: 408, 429, 5xx, no connection, no answer in time.

    Retry(5)
    Retry(5, first="2s", factor=2, max="5m", on=(429, range(500, 600), TimeoutError))
    """

    attempts: int
    first: str = "1s"
    factor: float = 2.0
    max: str = "1h"
    jitter: Jitter = "full"
    on: Sequence[Retryable] = ()

    def __post_init__(self) -> None:
        whole_number("Retry(attempts=)", self.attempts)
        first, longest = _seconds("Retry(first=)", self.first), _seconds("Retry(max=)", self.max)
        if longest < first:
            raise definition_error(f"Retry: max={self.max!r} is shorter than first={self.first!r}", "raise max")
        if not _is_number(self.factor) or not 1 <= self.factor <= _MOST:
            raise definition_error(
                f"Retry: factor is {self.factor!r}", "give a number of at least 1; 1 keeps waits equal"
            )
        if self.jitter not in get_args(Jitter):
            raise definition_error(f"Retry: jitter is {self.jitter!r}", 'give "none", "full" or "equal"')
        named_failures("Retry", self.on)
        object.__setattr__(self, "on", tuple(self.on))

    def to_json(self) -> dict[str, Any]:
        """Return the policy as it stands in a definition; waits are seconds."""
        return {
            "attempts": self.attempts,
            "first": durations.parse(self.first),
            "factor": float(self.factor),
            "max": durations.parse(self.max),
            "jitter": self.jitter,
            "on": named_failures("Retry", self.on),
        }


@dataclass(frozen=True, slots=True)
class Queue:
    """Where the tasks of steps wait, and how fast they leave: ``Queue("erp", rate="10/s", max_concurrent=20)``.

    ``rate`` is per ``s``, ``m`` or ``h``; ``burst`` is how many may leave at once after a pause. What is not given is
    not limited.
    """

    name: str
    rate: str | None = None
    burst: int | None = None
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        queue_name(self.name)
        if self.name == DEFAULT_QUEUE:
            raise definition_error(
                f"the queue {DEFAULT_QUEUE!r} is the one of steps that name none; it cannot be defined",
                "choose another name",
            )
        if self.rate is not None:
            _per_second(self.rate)
        for name in ("burst", "max_concurrent"):
            if getattr(self, name) is not None:
                whole_number(f"Queue({name}=)", getattr(self, name))

    def to_json(self) -> dict[str, Any]:
        """Return the queue as it stands in a definition, in the words of Cloud Tasks."""
        return {
            "name": self.name,
            "max_dispatches_per_second": None if self.rate is None else _per_second(self.rate),
            "max_burst_size": self.burst,
            "max_concurrent_dispatches": self.max_concurrent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that says how one step is attempted; None is the engine's default."""

    retry: Retry | None = None
    timeout: str | None = None
    deadline: str | None = None
    queue: Queue | str | None = None
    max_parallel: int | None = None
    callback: bool | None = None
    """Whether the answer of an HTTP step is not its result, which is reported later."""
    every: str | None = None
    """How long a sensor rests before it looks again."""
    batch: int | None = None
    """How many elements of a map one call of a worker takes."""
    key: str | int | None = None
    """What a step is about, of which few are worked on at a time: a template of its parameters, or a result."""
    key_limit: int | None = None
    """How many of one key are worked on at a time."""
    priority: int | None = None

    def __post_init__(self) -> None:
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise definition_error(f"retry is {self.retry!r}", "give retry=Retry(3)")
        for name in ("timeout", "deadline", "every"):
            if getattr(self, name) is not None and _seconds(name, getattr(self, name)) == 0:
                raise definition_error(f"{name} is zero", f"give a duration such as {durations.EXAMPLES}")
        if self.queue is not None and not isinstance(self.queue, Queue):
            queue_name(self.queue)
        for name in ("max_parallel", "batch", "key_limit"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name))
        if self.priority is not None:
            check_priority("priority", self.priority)

    def overridden_by(self, other: "Policy") -> "Policy":
        """Return this policy with everything that *other* says."""
        chosen = {f.name: getattr(other, f.name) for f in fields(Policy) if getattr(other, f.name) is not None}
        return Policy(**{f.name: chosen.get(f.name, getattr(self, f.name)) for f in fields(Policy)})

    def to_json(self) -> dict[str, Any]:
        """Return the policy as it stands in a definition; durations are seconds. What few have is left out."""
        own: dict[str, Any] = {"callback": True} if self.callback else {}
        if self.every is not None:
            own["every"] = durations.parse(self.every)
        return own | {
            "retry": None if self.retry is None else self.retry.to_json(),
            "timeout": None if self.timeout is None else durations.parse(self.timeout),
            "deadline": None if self.deadline is None else durations.parse(self.deadline),
            "queue": self.queue.name if isinstance(self.queue, Queue) else self.queue or DEFAULT_QUEUE,
            "max_parallel": self.max_parallel,
            **({} if self.batch is None else {"batch": self.batch}),
            **({} if self.key_limit in {None, 1} else {"key_limit": self.key_limit}),
            **({} if self.priority in {None, 0} else {"priority": self.priority}),
        }


def check_priority(what: str, value: object) -> None:
    """Refuse what is no priority; *what* has it, for messages."""
    if not isinstance(value, int) or isinstance(value, bool) or not LOWEST_PRIORITY <= value <= HIGHEST_PRIORITY:
        raise definition_error(
            f"{what} is {value!r}",
            f"give a whole number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}; 0 is what steps have that name none",
        )


def queue_name(name: object) -> str:
    """Return *name* if a queue may be called that."""
    if isinstance(name, str) and _QUEUE_NAME.fullmatch(name):
        return name
    raise definition_error(
        f"{name!r} is not a queue name", "use 1 to 100 letters, digits, '-' and '_', the first a letter or digit"
    )


def exception_name(kind: type[BaseException]) -> str:
    """Return the name by which the engine knows an exception type: builtins bare, others with their module.

    >>> exception_name(TimeoutError)
    'TimeoutError'
    """
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def named_failures(what: str, on: object) -> list[dict[str, Any]]:
    """Return the failures that *on* names, as they stand in a definition; *what* has it, for messages."""
    if not isinstance(on, list | tuple):
        raise definition_error(f"{what}: on is {on!r}", "give a tuple: on=(429, range(500, 600), TimeoutError)")
    return [_named_failure(what, item) for item in on]


def _named_failure(what: str, item: object) -> dict[str, Any]:
    if isinstance(item, type) and issubclass(item, Exception) and not issubclass(item, Fail | RetryAfter):
        return {"error": exception_name(item)}
    if isinstance(item, int) and not isinstance(item, bool) and _LOWEST_STATUS <= item <= _HIGHEST_STATUS:
        return {"status": item}
    if isinstance(item, range) and _LOWEST_STATUS <= item.start < item.stop <= _HIGHEST_STATUS + 1 and item.step == 1:
        return {"range": [item.start, item.stop]}
    raise definition_error(
        f"{what}: on holds {item!r}",
        "give exception types, HTTP statuses from 100 to 599, or ranges of them such as range(500, 600)",
    )


def _seconds(what: str, text: object) -> float:
    if not isinstance(text, str):
        raise definition_error(f"{what} is {text!r}, not a duration", f"write {durations.EXAMPLES}")
    try:
        return durations.parse(text)
    except ValueError as error:
        problem = str(error).partition(";")[0]  # what follows is the hint
        raise definition_error(f"{what}: {problem}", f"write {durations.EXAMPLES}") from None


def _per_second(rate: object) -> float:
    match = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    value = float(match[1]) / _SECONDS[match[2]] if match else 0.0
    if not 0 < value <= _MOST:
        raise definition_error(
            f"Queue: rate is {rate!r}", 'write a number above 0 per s, m or h: "10/s", "90/m", "0.5/h"'
        )
    return value


def whole_number(what: str, value: object) -> None:
    """Refuse what does not count anything; *what* has it, for messages."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise definition_error(f"{what} is {value!r}", "give a whole number of at least 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
