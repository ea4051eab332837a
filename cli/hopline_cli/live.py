"""The picture of a run on a terminal: a header, then one line per step on a common time axis.

Pure: the same run, time and size give the same picture; who draws it, and when, is not decided here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from hopline_cli.answers import Bar, Run, RunDetail, Step
from hopline_cli.text import count, listing, one_line
from hopline_cli.when import duration, unix

GLYPHS: Mapping[str, tuple[str, str]] = {
    "pending": ("○", "bright_black"),
    "queued": ("◌", "yellow"),
    "scheduled": ("↻", "yellow"),
    "running": ("●", "blue"),
    "waiting": ("◔", "cyan"),
    "succeeded": ("✔", "green"),
    "failed": ("✖", "red"),
    "skipped": ("↷", "magenta"),
    "upstream_failed": ("⊘", "bright_black"),
    "cancelled": ("⊘", "magenta"),
    "paused": ("‖", "yellow"),
    "undoing": ("↶", "yellow"),
    "cancelling": ("↶", "magenta"),
}
"""Sign and colour of each state; the sign alone says it where there is no colour."""

INTERESTING = ("failed", "running", "scheduled", "waiting", "queued", "cancelled")
"""States whose steps are shown first when the screen is too short for all."""

_STALE_TIME = re.compile(r"(?:at [\d:]+ UTC )?\(?in \d[\d.]* (?:ms|s|min|h|d)\b\)?")
_SAID_BY_THE_STATE = re.compile(r"^(?:is retrying, |is running for [^,]*(?:, |$)|\d+ of \d+ items(?:; |$)|waits: )")
_BLANK: tuple[str, str] = (" ", "")
_WIDEST_NAME = 40
_SECONDS_WIDTH = 12
_BAR_WIDTHS = (8, 40)
_PROGRESS_WIDTH = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where the columns are, and which time the axis spans."""

    name: int
    axis: int
    note: int
    begin: float
    end: float


def picture(run: RunDetail, now: float, width: int, height: int | None = None) -> Group:
    """Return the picture of *run* at the Unix time *now*, in *width* columns and at most *height* lines."""
    return Group(*lines(run, now, width, height))


def lines(run: RunDetail, now: float, width: int, height: int | None = None) -> list[Text]:
    """Return the lines of the picture; none is wider than *width*."""
    ended = run["ended_at"]
    end = unix(ended) if ended else now
    layout = _layout(run["steps"], width, unix(run["created_at"]), end)
    room = len(run["steps"]) if height is None else max(height - 1, 1)
    shown, hidden = _chosen(run["steps"], room)
    states = {step["id"]: step["state"] for step in run["steps"]}
    picture = [_header(run, end, width), *(_line(step, states, layout, now) for step in shown)]
    if hidden:
        picture.append(Text(f"   … {_tally(hidden)}", style="bright_black"))
    for line in picture:
        line.no_wrap = True
        line.truncate(max(width, 20), overflow="ellipsis")
    return picture


def state_sign(state: str) -> Text:
    """Return a state with its sign, coloured."""
    sign, colour = GLYPHS.get(state, ("?", ""))
    return Text.assemble((f"{sign} {state}", colour))


def _header(run: Run, end: float, width: int) -> Text:
    elapsed = duration(end - unix(run["created_at"]))
    header = Text.assemble(
        " ", (one_line(run["workflow"], 60), "bold"), "  ", (run["id"], "cyan"), "  ", state_sign(run["state"]),
        f"  {elapsed}  ", (f"{run['steps_done']}/{run['steps_total']}", "bold"), " ",
    )  # fmt: skip
    size = min(_PROGRESS_WIDTH, width - header.cell_len - 1)
    if size >= _BAR_WIDTHS[0]:
        done = size * run["steps_done"] // max(run["steps_total"], 1)
        header.append("━" * done, "red" if run["state"] == "failed" else "green")
        header.append("─" * (size - done), "bright_black")
    return header


def _layout(steps: Sequence[Step], width: int, begin: float, end: float) -> _Layout:
    longest = max((cell_len(one_line(step["id"])) for step in steps), default=0)
    widest = min(longest, max(width // 2, 16), _WIDEST_NAME)
    rest = width - widest - _SECONDS_WIDTH - 6
    narrowest, widest_axis = _BAR_WIDTHS
    axis = min(widest_axis, rest * 45 // 100) if rest * 45 // 100 >= narrowest else 0
    return _Layout(name=widest, axis=axis, note=max(rest - axis, 0), begin=begin, end=max(end, begin + 0.001))


def _line(step: Step, states: Mapping[str, str], layout: _Layout, now: float) -> Text:
    sign, colour = GLYPHS.get(step["state"], ("?", ""))
    name = set_cell_size(one_line(step["id"], layout.name), layout.name)
    line = Text.assemble(" ", (sign, colour), f" {name}  ")
    if layout.axis:
        line.append_text(_axis(step, layout, now)).append("  ")
    worked = seconds_worked(step, now)
    line.append(("" if worked is None else duration(worked)).rjust(_SECONDS_WIDTH - 2) + "  ")
    line.append(one_line(note(step, states, now)), "red" if step["state"] == "failed" else "bright_black")
    line.rstrip()
    return line


def _axis(step: Step, layout: _Layout, now: float) -> Text:
    """Return the attempts as marks; two attempts have a blank between them as long as there is room."""
    cells = [_BLANK] * layout.axis
    marks = [(bar, _mark(bar)) for bar in step["bars"]]
    if not marks and step["started_at"] is not None:  # a map, or a run of another workflow: its span, not attempts
        span = Bar(attempt=0, state=step["state"], started_at=step["started_at"], ended_at=step["ended_at"])
        marks = [(span, ("━", GLYPHS.get(step["state"], _BLANK)[1]))]
    for (_, mark), (first, last) in zip(marks, _places([bar for bar, _ in marks], layout, now), strict=True):
        cells[first:last] = [mark] * (last - first)
    return Text.assemble(*((sign * len(list(same)), style) for (sign, style), same in groupby(cells)))


def _mark(bar: Bar) -> tuple[str, str]:
    if bar["state"] in {"failed", "timed_out"}:
        return "▒", "red"
    if bar["state"] == "lost":
        return "░", "yellow"
    return "▇", "green" if bar["state"] == "succeeded" else "blue" if bar["ended_at"] is None else "magenta"


def _places(bars: Sequence[Bar], layout: _Layout, now: float) -> list[tuple[int, int]]:
    """Return the cells of each attempt, half open: true to time first, then pushed apart, then pushed back in."""
    scale = layout.axis / (layout.end - layout.begin)
    places: list[tuple[int, int]] = []
    for bar in bars:
        first = int((unix(bar["started_at"]) - layout.begin) * scale)
        last = int(((unix(bar["ended_at"]) if bar["ended_at"] else now) - layout.begin) * scale)
        first = max(first, places[-1][1] + 1 if places else 0)
        places.append((first, max(last, first + 1)))
    limit = layout.axis
    for at in range(len(places) - 1, -1, -1):
        first, last = places[at]
        last = max(min(last, limit), 0)
        places[at] = (max(min(first, last - 1), 0), last)
        limit = places[at][0] - 1
    return places


def seconds_worked(step: Step, now: float) -> float | None:
    """Return how long attempts of *step* ran in all; for a map, from its first to its last."""
    if step["started_at"] is None:
        return None
    if step["items"] is None and len(step["bars"]) == step["attempts"] and step["bars"]:
        return sum(
            (unix(bar["ended_at"]) if bar["ended_at"] else now) - unix(bar["started_at"]) for bar in step["bars"]
        )
    return (unix(step["ended_at"]) if step["ended_at"] else now) - unix(step["started_at"])


def note(step: Step, states: Mapping[str, str], now: float) -> str:
    """Return what there is to say about a step: progress, attempts, why it waits or failed."""
    parts = [_progress(step)] if step["items"] is not None else []
    if step["state"] == "pending":
        parts.append(_waits_for(step, states))
    elif step["note"]:
        parts.append(_shortened(step["note"], step["next_at"], now))
    elif step["state"] == "failed" and step["error"]:
        parts.append(step["error"].get("message", ""))
    elif step["state"] == "upstream_failed":
        failed = [name for name in step["upstream"] if states.get(name) in {"failed", "upstream_failed"}]
        parts.append(f"{listing(failed)} failed" if failed else "")
    elif step["state"] == "waiting":
        parts.append("waits for its callback")
    if step["items"] is None and step["attempts"] > 1 and "attempt" not in " ".join(parts):
        lost = sum(bar["state"] == "lost" for bar in step["bars"])
        parts.append(count(step["attempts"], "attempt") + (f", {lost} lost" if lost else ""))
    return " · ".join(part for part in parts if part)


def _progress(step: Step) -> str:
    items = step["items"]
    if items is None:
        return ""
    if items["total"] is None:
        return f"{items['succeeded']:,} items so far"
    failed = f", {items['failed']:,} failed" if items["failed"] else ""
    return f"{items['succeeded']:,} of {count(items['total'], 'item')}{failed}"


def _waits_for(step: Step, states: Mapping[str, str]) -> str:
    open_ones = [name for name in step["upstream"] if states.get(name) not in {"succeeded", "skipped"}]
    return f"waits for {listing(open_ones)}" if open_ones else ""


def _shortened(text: str, next_at: str | None, now: float) -> str:
    """Return the server's note without what the line says already, its countdown as of now.

    >>> _shortened("is retrying, attempt 3 of 5 at 02:00:46 UTC (in 4.0 s); HTTP 503", "2026-11-20T02:00:46Z",
    ...            1795140044.5)
    'attempt 3 of 5 in 1.5 s; HTTP 503'
    >>> _shortened("has found nothing for 3 h and looks every 30 s, next at 02:00:46 UTC (in 4.0 s), until noon",
    ...            "2026-11-20T02:00:46Z", 1795140044.5)
    'has found nothing for 3 h and looks every 30 s, next in 1.5 s, until noon'
    """
    text = _SAID_BY_THE_STATE.sub("", text)
    if next_at is None:
        return text
    return _STALE_TIME.sub(f"in {duration(unix(next_at) - now)}", text, count=1)


def _chosen(steps: Sequence[Step], room: int) -> tuple[Sequence[Step], Sequence[Step]]:
    """Return the steps there is room for, in order, and the others."""
    if len(steps) <= room:
        return steps, []
    room = max(room - 1, 1)
    wanted = [at for at, step in enumerate(steps) if step["state"] in INTERESTING]
    after = [at for at, step in enumerate(steps) if step["state"] == "pending"]
    before = [at for at, step in enumerate(steps) if step["state"] not in {*INTERESTING, "pending"}]
    # What is going on, then in turns what comes next and what was done last.
    turns = [at for pair in zip(after, reversed(before), strict=False) for at in pair]
    taken = set(list(dict.fromkeys([*wanted, *turns, *after, *reversed(before)]))[:room])
    shown = [step for at, step in enumerate(steps) if at in taken]
    return shown, [step for at, step in enumerate(steps) if at not in taken]


def _tally(steps: Iterable[Step]) -> str:
    counts: dict[str, int] = {}
    for step in steps:
        counts[step["state"]] = counts.get(step["state"], 0) + 1
    parts = ", ".join(f"{number:,} {state}" for state, number in counts.items())
    return f"{count(sum(counts.values()), 'more step')}: {parts}"
