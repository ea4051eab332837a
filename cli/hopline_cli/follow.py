"""Following a run to its end: events in, a live picture or plain lines out.

The picture is drawn on stderr at a steady beat, so that a thousand changes a second cost no more than ten; in a pipe
there is one line per change of state instead.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, cast

from rich.live import Live
from rich.text import Text

from hopline_cli import screen
from hopline_cli.answers import FINAL_RUN_STATES, FINAL_STEP_STATES, RunDetail, Step
from hopline_cli.client import Api
from hopline_cli.errors import ServerGone
from hopline_cli.live import note, picture
from hopline_cli.text import one_line
from hopline_cli.when import duration, iso, unix
from hopline_engine import clock

BEAT_SECONDS = 0.125
RECONNECT_SECONDS = 0.3


class View(Protocol):
    """Something that shows a run while it changes."""

    def show(self, run: RunDetail) -> None:
        """Take the run as it is now."""
        ...


class LinesView:
    """A line on stderr for each change of state, for pipes and logs."""

    def __init__(self) -> None:
        self._last: RunDetail | None = None

    def show(self, run: RunDetail) -> None:
        """Print what changed since the last time."""
        for line in changes(self._last, run, clock.now()):
            screen.say(line)
        self._last = run


class LiveView:
    """The picture, drawn again and again in place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._run: RunDetail | None = None

    def show(self, run: RunDetail) -> None:
        """Take the run for the next beat."""
        self._run = run

    def draw(self) -> None:
        """Draw the run as it is now."""
        if self._run is not None:
            size = self._live.console.size
            self._live.update(picture(self._run, clock.now(), size.width, size.height - 1), refresh=True)

    async def beat(self) -> None:
        """Draw for ever; a run that waits still gets older."""
        while True:
            self.draw()
            await asyncio.sleep(BEAT_SECONDS)


@asynccontextmanager
async def view(otherwise: LinesView, *, live: bool) -> AsyncIterator[View]:
    """Yield the picture, which stays on the screen in its last form, or *otherwise* where stderr cannot show one."""
    console = screen.talk()
    if not live or not console.is_terminal or console.is_dumb_terminal:
        yield otherwise
        return
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as drawn:
        view = LiveView(drawn)
        beating = asyncio.ensure_future(view.beat())
        try:
            yield view
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            view.draw()


async def follow(api: Api, ref: str, shown: View, patience_seconds: float = 0.0) -> RunDetail:
    """Show a run until it has ended and return it.

    Raises:
        ServerGone: the server went away and was not back within *patience_seconds*.
    """
    heard_at = clock.monotonic()
    while True:
        try:
            async for run in _one_stream(api, ref):
                heard_at = clock.monotonic()
                shown.show(run)
                if run["state"] in FINAL_RUN_STATES:
                    return run
        except ServerGone:
            if clock.monotonic() - heard_at > patience_seconds:
                raise
        # The stream ended and the run has not: the server is stopping, or it restarts.
        await asyncio.sleep(RECONNECT_SECONDS)


async def _one_stream(api: Api, ref: str) -> AsyncIterator[RunDetail]:
    run: RunDetail | None = None
    async with aclosing(api.events(ref)) as events:
        async for name, data in events:
            run = data if name == "snapshot" else None if run is None else merged(run, name, data)
            if run is not None:
                yield run


def merged(run: RunDetail, name: str, data: Any) -> RunDetail:
    """Return the run after one event; events of kinds that this version does not know change nothing."""
    if name == "run":
        return cast("RunDetail", {**run, **data, "steps": run["steps"]})
    if name == "step":
        return {**run, "steps": [data if step["id"] == data["id"] else step for step in run["steps"]]}
    return run


def changes(old: RunDetail | None, new: RunDetail, now: float) -> list[Text]:
    """Return a line for everything that reached another state, or another attempt, between *old* and *new*."""
    before = {step["id"]: _stage(step) for step in old["steps"]} if old else {}
    states = {step["id"]: step["state"] for step in new["steps"]}
    told = [] if old else [_told(new["created_at"], new["id"], new["workflow"], "begins")]
    moved = [step for step in new["steps"] if before.get(step["id"], _UNTOUCHED) != _stage(step)]
    told += sorted(_step_change(step, states, now) for step in moved if new["ended_at"] or not _is_ending(step))
    if new["ended_at"] and (old is None or old["state"] != new["state"]):
        took = duration(unix(new["ended_at"]) - unix(new["created_at"]))
        told.append(_told(new["ended_at"], new["id"], new["workflow"], new["state"], took))
    return [Text(line) for line in told]


def _stage(step: Step) -> tuple[str, int, bool]:
    # Attempts of a map's items are too many to tell one by one; an ended step makes no more of them.
    is_counted = step["items"] is None and step["state"] not in FINAL_STEP_STATES
    return step["state"], step["attempts"] if is_counted else 0, _is_ending(step)


def _is_ending(step: Step) -> bool:
    """Return whether a step has ended and its record, with attempts and times, is still to come."""
    return step["state"] in FINAL_STEP_STATES and step["ended_at"] is None


_UNTOUCHED = ("pending", 0, False)


def _step_change(step: Step, states: Mapping[str, str], now: float) -> str:
    begin, end = step["started_at"], step["ended_at"]
    took = duration(unix(end) - unix(begin)) if begin and end else ""
    time = end or (begin if step["state"] == "running" and step["attempts"] < 2 else None) or iso(now)
    return _told(time, step["id"], step["state"], took, note(step, states, now))


def _told(time: str, *parts: str) -> str:
    return "  ".join([time, *(one_line(part) for part in parts if part)])
