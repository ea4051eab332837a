"""``hopline runs``: runs as they were and as they are, and the orders one can give them."""

import asyncio
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("List, show, watch, explain, pause, cancel, retry and fork runs.")

File = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help="Serve the steps from this file too; without a server, go on here."),
]
SomeRun = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Id of a run or its beginning, @last or @failed.",
        show_default=False,
        callback=options.named("run"),
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="NAME=VALUE,...",
        help="All runs of which this is true: state=failed, workflow=X, step=charge_card, since=2h.",
        show_default=False,
    ),
]
Rate = Annotated[
    str | None, typer.Option("--rate", metavar="N/s", help="At most so many a second, as in 50/s.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list the runs that it would be.")]
StepFilter = Annotated[str | None, typer.Option("--step", help="Only this step.", show_default=False)]


@app.command("list")
def list_runs(
    state: Annotated[
        str | None,
        typer.Option("--state", help="running, paused, undoing, cancelling, succeeded, failed or cancelled."),
    ] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only runs of this workflow.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only runs begun since: 24h, 30m or a time.")] = None,
    children_of: Annotated[
        str | None, typer.Option("--children-of", metavar="RUN", help="Only runs that steps of this run started.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")] = 50,
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List runs, newest first."""
    from hopline_cli.lists import Form
    from hopline_cli.looking import Filter, list_of_runs

    form = Form(as_json=as_json, json_lines=json_lines, quiet=quiet)
    wanted = Filter(state=state, workflow=workflow, since=since, parent=children_of, limit=limit)
    asyncio.run(list_of_runs(wanted, form, server))


@app.command("show")
def show(ref: options.RunRef, as_json: options.Json = False, server: options.Server = None) -> None:
    """Show a run and its steps."""
    from hopline_cli.looking import show_run

    asyncio.run(show_run(ref, as_json=as_json, server=server))


@app.command("watch")
def watch(
    ref: options.RunRef,
    file: File = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole run, not only its result.")] = False,
    no_live: options.NoLive = False,
    server: options.Server = None,
) -> None:
    """Watch a run to its end, then print its result.

    The exit code is that of hopline run. Without a server, a FILE is needed: this process then goes on with the run.
    """
    from hopline_cli.running import Order
    from hopline_cli.steering import watch_run

    order = Order(file=file, server=server, live=not no_live, as_json=as_json)
    raise typer.Exit(asyncio.run(watch_run(ref, order)))


@app.command("retry")
def retry(
    ref: SomeRun = None,
    file: File = None,
    items: Annotated[
        list[str] | None,
        typer.Option("--items", metavar="STEP[3,5-7]", help="Run these elements again too, though they succeeded."),
    ] = None,
    where: Where = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    no_live: options.NoLive = False,
    server: options.Server = None,
) -> None:
    """Run what is left of a failed or cancelled run.

    That is a new run, which keeps what has succeeded. With FILE, it is also served from that, watched to its end, and
    its result printed. With --where it is many runs: all that failed, but for those that were retried already.
    """
    from hopline_cli import bulk
    from hopline_cli.running import Order
    from hopline_cli.steering import retry_run

    if ref is None or where:
        bulk.check_alone(ref, where, file=file, items=items)
        raise typer.Exit(asyncio.run(bulk.carry_out("retry", where, rate, dry_run=dry_run, yes=yes, server=server)))
    order = Order(file=file, server=server, live=not no_live, as_json=as_json, wait=file is not None)
    raise typer.Exit(asyncio.run(retry_run(ref, items or [], order)))


@app.command("fork")
def fork(
    ref: options.RunRef,
    step: Annotated[str, typer.Option("--from", metavar="STEP", help="Run this step and all after it again.")],
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Arguments that are other than before.")
    ] = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Run a part of a run again, perhaps with other arguments.

    That is a new run, which keeps the results of all steps that neither are STEP nor depend on it.
    """
    from hopline_cli.steering import fork_run

    asyncio.run(fork_run(ref, step, given or [], as_json=as_json, server=server))


@app.command("pause")
def pause(ref: options.RunRef, as_json: options.Json = False, server: options.Server = None) -> None:
    """Let nothing more of a run start; what runs may finish."""
    from hopline_cli.steering import order_run

    asyncio.run(order_run(ref, "pause", as_json=as_json, server=server))


@app.command("resume")
def resume(ref: options.RunRef, as_json: options.Json = False, server: options.Server = None) -> None:
    """Let a paused run go on."""
    from hopline_cli.steering import order_run

    asyncio.run(order_run(ref, "resume", as_json=as_json, server=server))


@app.command("cancel")
def cancel(
    ref: SomeRun = None,
    where: Where = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Cancel a run, or with --where many.

    No further attempt starts, and results that come later change nothing. Who works on it is told.
    """
    from hopline_cli import bulk
    from hopline_cli.steering import order_run

    if ref is None or where:
        bulk.check_alone(ref, where)
        raise typer.Exit(asyncio.run(bulk.carry_out("cancel", where, rate, dry_run=dry_run, yes=yes, server=server)))
    asyncio.run(order_run(ref, "cancel", as_json=as_json, server=server))


@app.command("approve")
def approve(
    ref: options.RunRef,
    form: options.Filled = None,
    by: options.By = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Approve what a run asks; see also ``hopline approvals``."""
    from hopline_cli.deciding import Answer, decide

    asyncio.run(decide(ref, None, Answer(approved=True, form=form, by=by), as_json=as_json, server=server))


@app.command("logs")
def logs(
    ref: options.RunRef,
    step: StepFilter = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Only this attempt.")] = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Show what the attempts of a run printed, and how they failed."""
    from hopline_cli.looking import show_logs

    asyncio.run(show_logs(ref, step, attempt, as_json=as_json, server=server))


@app.command("output")
def output(
    ref: options.RunRef,
    as_json: Annotated[bool, typer.Option("--json", help="The output is JSON anyway.", hidden=True)] = False,  # noqa: ARG001
    server: options.Server = None,
) -> None:
    """Print the result of a run as JSON."""
    from hopline_cli.looking import show_output

    asyncio.run(show_output(ref, server))


@app.command("why")
def why(
    ref: options.RunRef,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="Only this step.")] = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Say, of each step that is not done, the one reason why."""
    from hopline_cli.looking import explain

    asyncio.run(explain(ref, step, as_json=as_json, server=server))
