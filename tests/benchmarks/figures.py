"""What a benchmark finds: figures, with what they cost, as a table and as JSON."""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field

from tests.benchmarks.floor import Floor, Gauge
from tests.benchmarks.ledger import commits_between
from tests.benchmarks.plant import Plant
from tests.benchmarks.usage import Usage, forget_peak

_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of one workload."""

    name: str
    value: float
    """The median of ``rounds``."""
    unit: str
    rounds: list[float] = field(default_factory=list)
    to_floor: float | None = None
    """Times the floor of a duration, or the part of the floor's rate, as that was right before; the median."""
    engine_us: float | None = None
    """CPU of the engine in microseconds for each step."""
    worker_us: float | None = None
    engine_peak_mb: float | None = None
    """Most memory that the engine had while it was measured."""
    worker_peak_mb: float | None = None
    engine_growth_mb: float | None = None
    """How much more memory it took than it had before, in the round in which that was most."""
    steps_per_commit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round found."""

    value: float
    to_floor: float
    engine_us: float
    worker_us: float
    engine_peak_mb: float
    worker_peak_mb: float
    engine_growth_mb: float
    steps_per_commit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """With what figures are found."""

    plant: Plant
    gauge: Gauge
    rounds: int


async def figure(
    name: str,
    unit: str,
    measuring: Measuring,
    work: Callable[[], Awaitable[float]],
    *,
    steps: int,
    least: Callable[[Floor], float],
) -> Figure:
    """Have *work*, which executes *steps* steps and returns a figure, done once a round.

    *least* names what of the floor it is compared with.
    """
    found = [await _round(measuring, work, steps, least) for _ in range(measuring.rounds)]
    return Figure(
        name=name,
        value=statistics.median(each.value for each in found),
        unit=unit,
        rounds=[each.value for each in found],
        to_floor=statistics.median(each.to_floor for each in found),
        engine_us=statistics.median(each.engine_us for each in found),
        worker_us=statistics.median(each.worker_us for each in found),
        engine_peak_mb=max(each.engine_peak_mb for each in found),
        worker_peak_mb=max(each.worker_peak_mb for each in found),
        engine_growth_mb=max(each.engine_growth_mb for each in found),
        steps_per_commit=_median([each.steps_per_commit for each in found if each.steps_per_commit is not None]),
    )


async def _round(
    measuring: Measuring, work: Callable[[], Awaitable[float]], steps: int, least: Callable[[Floor], float]
) -> Round:
    plant, floor = measuring.plant, await measuring.gauge.measure()
    for pid in (plant.engine, plant.worker):
        forget_peak(pid)
    mark = plant.ledger.mark()
    engine_before, worker_before = Usage.of(plant.engine), Usage.of(plant.worker)
    value = await work()
    engine, worker = Usage.of(plant.engine), Usage.of(plant.worker)
    commits = commits_between(mark, plant.ledger.mark())
    return Round(
        value=value,
        to_floor=value / least(floor),
        engine_us=(engine.cpu_seconds - engine_before.cpu_seconds) * 1e6 / steps,
        worker_us=(worker.cpu_seconds - worker_before.cpu_seconds) * 1e6 / steps,
        engine_peak_mb=engine.peak_bytes / _MEGABYTE,
        worker_peak_mb=worker.peak_bytes / _MEGABYTE,
        engine_growth_mb=(engine.peak_bytes - engine_before.resident_bytes) / _MEGABYTE,
        steps_per_commit=steps / commits if commits else None,
    )


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def as_json(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """Return the figures as JSON values."""
    return [asdict(each) for each in figures]


_COLUMNS: tuple[tuple[str, Callable[[Figure], str]], ...] = (
    ("workload", lambda each: each.name),
    ("figure", lambda each: f"{_rounded(each.value)} {each.unit}"),
    ("to the floor", lambda each: _or_blank(each.to_floor, "x" if each.unit == "ms" else "")),
    ("engine us/step", lambda each: _or_blank(each.engine_us)),
    ("worker us/step", lambda each: _or_blank(each.worker_us)),
    ("engine peak MB", lambda each: _or_blank(each.engine_peak_mb)),
    ("worker peak MB", lambda each: _or_blank(each.worker_peak_mb)),
    ("steps/commit", lambda each: _or_blank(each.steps_per_commit)),
)


def as_table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table of Markdown."""
    rows = [[title for title, _ in _COLUMNS], *[[show(each) for _, show in _COLUMNS] for each in figures]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _or_blank(value: float | None, unit: str = "") -> str:
    return "" if value is None else _rounded(value) + unit
