"""``hopline schedules``: when workflows run by themselves; made, changed, paused, triggered, back-filled."""

import asyncio
from typing import Annotated, Literal

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("List, show, create, update, pause, resume, trigger, back-fill and delete schedules.")

Name = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="Name of the schedule.", callback=options.named("schedule"))
]
Cron = Annotated[str | None, typer.Option("--cron", help="When: a cron expression of five or six fields.")]
Every = Annotated[str | None, typer.Option("--every", metavar="DURATION", help="When: at equal distances, as 15m.")]
At = Annotated[
    list[str] | None, typer.Option("--at", metavar="TIME", help="When: once, as 2026-12-24T18:00; may be repeated.")
]
Zone = Annotated[str | None, typer.Option("--tz", metavar="ZONE", help="Zone of --cron and --at [UTC].")]
Aligned = Annotated[
    bool | None, typer.Option("--aligned/--from-start", help="Whether --every counts from 1970 or from now [aligned].")
]
Overlap = Annotated[
    Literal["skip", "queue_one", "queue_all", "cancel_running", "allow"] | None,
    typer.Option("--overlap", help="What becomes of a tick while a run is going on [skip]."),
]
Catchup = Annotated[
    Literal["none", "latest", "all"] | None,
    typer.Option("--catchup", help="Which missed ticks are made up for [latest]."),
]
Jitter = Annotated[str | None, typer.Option("--jitter", metavar="DURATION", help="Spread runs over this time [0s].")]
Gap = Annotated[
    Literal["shift", "skip"] | None,
    typer.Option("--gap", help="What becomes of times that do not exist [by the expression]."),
]
Fold = Annotated[
    Literal["once", "twice"] | None,
    typer.Option("--fold", help="How often times fire that come twice [by the expression]."),
]
Inputs = Annotated[
    list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Values of parameters, as for hopline run.")
]


@app.command("list")
def list_schedules(
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List schedules, by name."""
    from hopline_cli.lists import Form
    from hopline_cli.scheduling import list_of_schedules

    asyncio.run(list_of_schedules(Form(as_json=as_json, json_lines=json_lines, quiet=quiet), server))


@app.command("show")
def show(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Show a schedule, and what became of its last ticks."""
    from hopline_cli.scheduling import show_schedule

    asyncio.run(show_schedule(name, as_json=as_json, server=server))


@app.command("next")
def next_ticks(
    name: Name,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many.")] = 10,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Show the ticks that come next, by the clock of the schedule's zone."""
    from hopline_cli.scheduling import show_next

    asyncio.run(show_next(name, count, as_json=as_json, server=server))


@app.command("create")
def create(
    name: Name,
    workflow: Annotated[str, typer.Option("--workflow", help="Name of the workflow to run.")],
    inputs: Inputs = None,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    tz: Zone = None,
    aligned: Aligned = None,
    overlap: Overlap = None,
    catchup: Catchup = None,
    jitter: Jitter = None,
    gap: Gap = None,
    fold: Fold = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Make a schedule for a registered workflow."""
    from hopline_cli.scheduling import Flags, create_schedule

    flags = Flags(cron, every, tuple(at or ()), tz, aligned, overlap, catchup, jitter, gap, fold)
    asyncio.run(create_schedule(name, workflow, flags, inputs or [], as_json=as_json, server=server))


@app.command("update")
def update(
    name: Name,
    inputs: Inputs = None,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    tz: Zone = None,
    aligned: Aligned = None,
    overlap: Overlap = None,
    catchup: Catchup = None,
    jitter: Jitter = None,
    gap: Gap = None,
    fold: Fold = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Change a schedule; what is not named stays. It stays so when the workflow's file is served again."""
    from hopline_cli.scheduling import Flags, update_schedule

    flags = Flags(cron, every, tuple(at or ()), tz, aligned, overlap, catchup, jitter, gap, fold)
    asyncio.run(update_schedule(name, flags, inputs or [], as_json=as_json, server=server))


@app.command("reset")
def reset(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Go by what the workflow's file says again."""
    from hopline_cli.scheduling import order_schedule

    asyncio.run(order_schedule(name, "reset", as_json=as_json, server=server))


@app.command("pause")
def pause(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Let a schedule fire no more; runs that were started go on."""
    from hopline_cli.scheduling import order_schedule

    asyncio.run(order_schedule(name, "pause", as_json=as_json, server=server))


@app.command("resume")
def resume(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Let a schedule fire again, from now on; ticks of the pause are not made up for."""
    from hopline_cli.scheduling import order_schedule

    asyncio.run(order_schedule(name, "resume", as_json=as_json, server=server))


@app.command("trigger")
def trigger(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Start a run now, beside the ticks."""
    from hopline_cli.scheduling import trigger_schedule

    asyncio.run(trigger_schedule(name, as_json=as_json, server=server))


@app.command("delete")
def delete(name: Name, yes: options.Yes = False, as_json: options.Json = False, server: options.Server = None) -> None:
    """Delete a schedule that was made by hand; its runs stay."""
    from hopline_cli.scheduling import delete_schedule

    if not yes:
        typer.confirm(f"Schedule {name} will be deleted. Continue?", abort=True, err=True)
    asyncio.run(delete_schedule(name, as_json=as_json, server=server))


@app.command("backfill")
def backfill(
    name: Name,
    begin: Annotated[str | None, typer.Option("--from", metavar="TIME", help="First time, in the zone.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Last time, in the zone.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the ticks.")] = False,
    max_parallel: Annotated[int, typer.Option("--max-parallel", min=1, help="Runs that go on at a time.")] = 1,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="RATE", help="Runs to start at most, as 10/m [no limit].")
    ] = None,
    order: Annotated[
        Literal["pause", "resume", "cancel"] | None,
        typer.Option("--order", help="What to do with the back-fill that is going on."),
    ] = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Run a workflow for past ticks that have no run; shows them first."""
    from hopline_cli import backfilling

    if order is not None:
        asyncio.run(backfilling.order_backfill(name, order, as_json=as_json, server=server))
        return
    wish = backfilling.wish(begin, end, max_parallel, rate)
    asyncio.run(backfilling.backfill(name, wish, dry_run=dry_run, yes=yes, as_json=as_json, server=server))
