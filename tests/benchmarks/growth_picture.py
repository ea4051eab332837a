"""The curves of ``growth.py`` as one picture of small multiples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

from tests.benchmarks.growth import Curve, Point

_ROWS: tuple[tuple[str, str, Callable[[Point], float]], ...] = (
    ("CPU of the engine\nfor a step, µs", "#1f5fa8", lambda point: point.engine_us),
    ("time for a step, µs", "#777777", lambda point: point.wall_us),
)


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Draw a column for each curve; a row has one scale for all of them."""
    figure = Figure(figsize=(2.9 * len(curves), 4.6), layout="constrained")
    rows = figure.subplots(len(_ROWS), len(curves), sharex="col", sharey="row", squeeze=False)
    for panels, (label, colour, value) in zip(rows, _ROWS, strict=True):
        for panel, curve in zip(panels, curves, strict=True):
            _panel(panel, [point.size for point in curve.points], list(map(value, curve.points)), colour)
        panels[0].set_ylabel(label)
        panels[0].set_ylim(0, 1.2 * max(value(point) for curve in curves for point in curve.points))
    for panel, curve in zip(rows[0], curves, strict=True):
        panel.set_title(curve.title, fontsize=10)
    figure.savefig(path, dpi=110)


def _panel(panel: Any, sizes: list[int], values: list[float], colour: str) -> None:
    panel.plot(sizes, values, marker="o", markersize=4, color=colour)
    # Nothing, where a curve begins with it, has a place of its own on a scale that is logarithmic otherwise.
    panel.set_xscale("symlog", linthresh=next(size for size in sizes if size))
    panel.set_xticks(sizes, [_short(size) for size in sizes])
    panel.minorticks_off()
    panel.grid(axis="y", color="#dddddd")
    panel.spines[["top", "right"]].set_visible(False)


def _short(size: int) -> str:
    return f"{size // 1_000_000}M" if size >= 1_000_000 else f"{size // 1000}k" if size >= 1000 else str(size)
