"""Back-fills: ticks of the past are shown, and then made up for."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import typer

from hopline_cli import screen
from hopline_cli.answers import PlannedBackfill, PlannedTick, ScheduleDetail
from hopline_cli.client import Api, quoted
from hopline_cli.errors import UsageError
from hopline_cli.scheduling import backfill_told
from hopline_cli.server import reached
from hopline_cli.spans import per_second
from hopline_cli.text import count
from hopline_cli.when import iso

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be made up for, and how fast."""

    begin: str
    end: str
    max_parallel: int
    rate: float | None
    """Starts in a second."""


def wish(begin: str | None, end: str | None, max_parallel: int, rate: str | None) -> Wish:
    """Return what the command line says.

    Raises:
        UsageError: something is missing or is not what it must be.
    """
    if begin is None or end is None:
        raise UsageError("it is not said for which time", hint="give --from 2026-11-01 --to 2026-11-07")
    return Wish(begin, end, max_parallel, None if rate is None else per_second(rate))


async def backfill(name: str, wanted: Wish, *, dry_run: bool, yes: bool, as_json: bool, server: str | None) -> None:
    """Show the ticks of a time, and start runs for those that have none."""
    async with reached(server) as api:
        body = await _body(api, name, wanted)
        path = f"/schedules/{quoted(name)}/backfill"
        planned: PlannedBackfill = await api.post(path, {**body, "dry_run": True})
        ticks = [tick for tick in planned["ticks"] if tick["wanted"]]
        if not as_json:
            _show(planned["ticks"])
        if not (dry_run or yes or not ticks):
            typer.confirm(f"Start {count(len(ticks), 'run')}?", abort=True, err=True)
        if ticks and not dry_run:
            planned = await api.post(path, body)
    if as_json:
        screen.put_json(planned)
    elif planned["begun"]:
        screen.say(f"begun; see: hopline schedules show {name}")


async def _body(api: Api, name: str, wanted: Wish) -> dict[str, Any]:
    schedule: ScheduleDetail = await api.get(f"/schedules/{quoted(name)}")
    zone = ZoneInfo(schedule["schedule"].get("tz", "UTC"))
    body = {
        "first": _moment(wanted.begin, zone),
        "last": _moment(_with_all_of_its_day(wanted.end), zone),
        "max_parallel": wanted.max_parallel,
    }
    return body if wanted.rate is None else {**body, "rate": wanted.rate}


def _with_all_of_its_day(end: str) -> str:
    """Return the end of a time, which a day alone is part of to its last second.

    >>> _with_all_of_its_day("20261107"), _with_all_of_its_day("2026-11-07T06:00")
    ('20261107T23:59:59', '2026-11-07T06:00')
    """
    try:
        date.fromisoformat(end)
    except ValueError:
        return end
    return f"{end}T23:59:59"


def _moment(text: str, zone: ZoneInfo) -> str:
    try:
        moment = datetime.fromisoformat(text)
        return iso((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError):  # the second is of the first and the last day that there are
        raise UsageError(f"{text!r} is not a time", hint="write 2026-11-01 or 2026-11-01T06:00") from None


def _show(ticks: list[PlannedTick]) -> None:
    wanted = [tick for tick in ticks if tick["wanted"]]
    for tick in wanted[:_SHOWN]:
        screen.put(tick["local"])
    if len(wanted) > _SHOWN:
        screen.put(f"... and {len(wanted) - _SHOWN:,} more, up to {wanted[-1]['local']}")
    had = len(ticks) - len(wanted)
    screen.say(f"{count(len(wanted), 'tick')} without a run" + (f"; {had:,} have one already" if had else ""))


async def order_backfill(
    name: str, order: Literal["pause", "resume", "cancel"], *, as_json: bool, server: str | None
) -> None:
    """Pause, resume or give up the back-fill of a schedule."""
    async with reached(server) as api:
        schedule: ScheduleDetail = await api.post(f"/schedules/{quoted(name)}/backfill/{order}")
    if as_json:
        screen.put_json(schedule)
    elif schedule["backfill"] is not None:
        screen.put(backfill_told(schedule["backfill"]))
