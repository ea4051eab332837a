"""Looking at schedules, making and changing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.text import Text

from hopline.errors import DefinitionError
from hopline.schedules import At, Catchup, Cron, Every, Fold, Gap, Overlap
from hopline_cli import inputs, screen
from hopline_cli.answers import Backfill, NextTicks, Run, Schedule, ScheduleDetail, Tick
from hopline_cli.client import Api, quoted
from hopline_cli.errors import UsageError
from hopline_cli.lists import Form, put_list
from hopline_cli.server import reached
from hopline_cli.table import Column, table
from hopline_cli.text import json_text, one_line
from hopline_cli.when import duration

_PAGE = 500
_COLOURS = {"active": "green", "paused": "yellow", "ended": "dim"}


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line says of when a workflow runs; ``None`` is not said."""

    cron: str | None
    every: str | None
    at: tuple[str, ...]
    tz: str | None
    aligned: bool | None
    overlap: Overlap | None
    catchup: Catchup | None
    jitter: str | None
    gap: Gap | None
    fold: Fold | None

    def schedule(self, known: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the JSON of the schedule: what is *known* of it, changed by what is said; ``None`` for no change.

        Raises:
            UsageError: what is said makes no schedule.
        """
        kinds = [name for name in ("cron", "every", "at") if getattr(self, name)]
        if len(kinds) > 1:
            raise UsageError(f"--{kinds[0]} and --{kinds[1]} are given", hint="a schedule is one of the two")
        if not kinds and known is None:
            raise UsageError("it is not said when to run", hint='give --cron "0 6 * * *", --every 15m or --at TIME')
        try:
            return self._changed({} if known is None else known, kinds[0] if kinds else None)
        except DefinitionError as error:
            raise UsageError(error.message, hint=error.hint) from None

    def _changed(self, known: dict[str, Any], kind: str | None) -> dict[str, Any] | None:
        kept: dict[str, Any] = {name: known[name] for name in ("overlap", "catchup", "jitter") if name in known}
        base = known if kind is None else {**self._times(kind, known), **kept}
        policies: dict[str, Any] = {"overlap": self.overlap, "catchup": self.catchup}
        if self.jitter is not None:
            policies["jitter"] = Every("1s", jitter=self.jitter).to_json()["jitter"]
        times = {"tz": self.tz, "aligned": self.aligned, "gap": self.gap, "fold": self.fold}
        changed = {name: value for name, value in {**policies, **times}.items() if value is not None}
        if strange := next((name for name in times if name in changed and name not in base), None):
            flag = "--from-start" if changed[strange] is False else f"--{strange}"
            what = f"--{kind}" if kind is not None else "a schedule of this kind"
            raise UsageError(f"{flag} means nothing for {what}", hint="leave it out")
        return None if kind is None and not changed else {**base, **changed}

    def _times(self, kind: str, known: dict[str, Any]) -> dict[str, Any]:
        """Return when it is that is said; the rest as it is *known*."""
        tz = known.get("tz", "UTC")
        match kind:
            case "cron":
                return Cron(self.cron or "", tz, gap=known.get("gap"), fold=known.get("fold")).to_json()
            case "every":
                return Every(self.every or "", aligned=known.get("aligned", True)).to_json()
            case _:
                return At(*self.at, tz=tz).to_json()


async def list_of_schedules(form: Form, server: str | None) -> None:
    """Print a list of schedules."""
    schedules: list[Schedule] = []
    async with reached(server) as api:
        after: str | None = None
        while True:
            page = await api.get("/schedules", limit=_PAGE, after=after)
            schedules += page["schedules"]
            after = page["next"]
            if after is None:
                break
    columns = [
        Column(title="SCHEDULE"),
        Column(title="WORKFLOW", importance=4),
        Column(title="STATE", importance=8),
        Column(title="WHEN", importance=6),
        Column(title="NEXT", importance=7),
        Column(title="SET BY", importance=2),
    ]
    put_list(form, schedules, "name", columns, [_row(each) for each in schedules], "no schedules")


def _row(schedule: Schedule) -> tuple[str | Text, ...]:
    return (
        one_line(schedule["name"]),
        one_line(schedule["workflow"]),
        Text(schedule["state"], _COLOURS[schedule["state"]]),
        one_line(schedule["text"]),
        schedule["next"]["local"] if schedule["next"] else "-",
        "file" if schedule["declared"] is not None and not schedule["edited"] else "hand",
    )


async def show_schedule(name: str, *, as_json: bool, server: str | None) -> None:
    """Print one schedule with its last ticks."""
    async with reached(server) as api:
        schedule: ScheduleDetail = await api.get(f"/schedules/{quoted(name)}")
    if as_json:
        screen.put_json(schedule)
        return
    _put(schedule)
    if schedule["backfill"] is not None:
        screen.put(f"{'back-fill':<11}{backfill_told(schedule['backfill'])}")
    if schedule["ticks"]:
        columns = [Column(title=title) for title in ("TICK", "STATE", "RUN", "LATE")]
        rows = [_tick_row(tick) for tick in schedule["ticks"]]
        wide = screen.data().width if screen.is_terminal() else None
        screen.put("", *table([*columns, Column(title="WHY", flowing=True)], rows, wide))


def _tick_row(tick: Tick) -> tuple[str, ...]:
    late = "-" if tick["late_seconds"] is None else duration(tick["late_seconds"])
    return tick["local"], tick["state"], tick["run"] or "-", late, one_line(tick["reason"] or "")


def backfill_told(backfill: Backfill) -> str:
    """Return how far a back-fill is, in a line."""
    pace = f"{backfill['max_parallel']} at a time" + (f", {backfill['rate']:g}/s" if backfill["rate"] else "")
    paused = ", paused" if backfill["paused"] else ""
    return f"{backfill['started']:,} started, {backfill['waiting']:,} wait ({pace}{paused})"


def _put(schedule: Schedule) -> None:
    said = schedule["schedule"]
    lines = [
        ("schedule", one_line(schedule["name"])),
        ("workflow", one_line(schedule["workflow"])),
        ("state", schedule["state"]),
        ("when", one_line(schedule["text"])),
        ("next", schedule["next"]["local"] if schedule["next"] else "-"),
        ("overlap", said["overlap"]),
        ("catchup", said["catchup"]),
    ]
    lines += [(name, said[name]) for name in ("gap", "fold") if said.get(name)]
    if said["jitter"]:
        lines.append(("jitter", duration(said["jitter"])))
    if schedule["input"]:
        lines.append(("input", json_text(schedule["input"], indent=None)))
    if schedule["edited"]:
        lines.append(("set by", "hand; the workflow's file says otherwise (schedules reset goes by it again)"))
    for title, value in lines:
        screen.put(f"{title:<11}{value}")


async def show_next(name: str, count: int, *, as_json: bool, server: str | None) -> None:
    """Print the ticks that come next."""
    async with reached(server) as api:
        found: NextTicks = await api.get(f"/schedules/{quoted(name)}/next", count=count)
        known: ScheduleDetail = await api.get(f"/schedules/{quoted(name)}")
    if as_json:
        screen.put_json(found)
        return
    if known["state"] == "paused":
        screen.say(f"it is paused, and these would not fire; hopline schedules resume {name}")
    for tick in found["ticks"]:
        screen.put(tick["local"] + (f"  {one_line(tick['note'])}" if tick["note"] else ""))
    for skipped in found["skipped"]:
        screen.put(one_line(skipped))
    if not found["ticks"]:
        screen.say("no further tick")


async def create_schedule(
    name: str, workflow: str, flags: Flags, words: Sequence[str], *, as_json: bool, server: str | None
) -> None:
    """Make a schedule."""
    schedule = flags.schedule(None)
    given = inputs.parse(words)
    async with reached(server) as api:
        body = {"name": name, "workflow": workflow, "schedule": schedule, "input": await _input(api, workflow, given)}
        made: Schedule = await api.post("/schedules", body)
    _tell(made, as_json=as_json)


async def update_schedule(name: str, flags: Flags, words: Sequence[str], *, as_json: bool, server: str | None) -> None:
    """Change a schedule."""
    given = inputs.parse(words)
    async with reached(server) as api:
        known: ScheduleDetail = await api.get(f"/schedules/{quoted(name)}")
        schedule = flags.schedule(known["schedule"])
        body: dict[str, Any] = {} if schedule is None else {"schedule": schedule}
        if given:
            body["input"] = {**known["input"], **await _input(api, known["workflow"], given)}
        if not body:
            raise UsageError("nothing is to be changed", hint=f"see: hopline schedules update {name} --help")
        changed: Schedule = await api.patch(f"/schedules/{quoted(name)}", body)
    _tell(changed, as_json=as_json)


async def _input(api: Api, workflow: str, given: Sequence[inputs.Assignment]) -> dict[str, Any]:
    """Return values of parameters; those that are not given may stand for the time, which the server knows."""
    parameters = (await api.get(f"/workflows/{quoted(workflow)}"))["parameters"]
    return inputs.bind_some(given, parameters)


async def order_schedule(
    name: str, order: Literal["pause", "resume", "reset"], *, as_json: bool, server: str | None
) -> None:
    """Order something of a schedule, and print it as it is then."""
    async with reached(server) as api:
        schedule: Schedule = await api.post(f"/schedules/{quoted(name)}/{order}")
    _tell(schedule, as_json=as_json)


async def trigger_schedule(name: str, *, as_json: bool, server: str | None) -> None:
    """Start a run now."""
    async with reached(server) as api:
        run: Run = await api.post(f"/schedules/{quoted(name)}/trigger")
    if as_json:
        screen.put_json(run)
    else:
        screen.put(run["id"])


async def delete_schedule(name: str, *, as_json: bool, server: str | None) -> None:
    """Delete a schedule."""
    async with reached(server) as api:
        deleted: Schedule = await api.delete(f"/schedules/{quoted(name)}")
    if as_json:
        screen.put_json(deleted)
    else:
        screen.say(f"deleted {one_line(name)}")


def _tell(schedule: Schedule, *, as_json: bool) -> None:
    if as_json:
        screen.put_json(schedule)
    else:
        _put(schedule)
