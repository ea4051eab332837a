"""``hopline approvals``: what people are asked, and their decisions."""

import asyncio
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("List what people are asked, and decide.")

StepName = Annotated[
    str | None, typer.Argument(metavar="[STEP]", help="Which one, when the run asks several.", show_default=False)
]


@app.command("list")
def list_approvals(
    all_of_them: Annotated[bool, typer.Option("--all", help="Also those that are decided or over.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")] = 50,
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List what people are asked, the newest first."""
    from hopline_cli.deciding import list_of_approvals
    from hopline_cli.lists import Form

    form = Form(as_json=as_json, json_lines=json_lines, quiet=quiet)
    asyncio.run(list_of_approvals("all" if all_of_them else "open", limit, form, server))


@app.command("show")
def show(
    run: options.RunRef, step: StepName = None, as_json: options.Json = False, server: options.Server = None
) -> None:
    """Show what a run asks, with the link to the page on which it is decided."""
    from hopline_cli.deciding import show_approval

    asyncio.run(show_approval(run, step, as_json=as_json, server=server))


@app.command("approve")
def approve(
    run: options.RunRef,
    step: StepName = None,
    form: options.Filled = None,
    by: options.By = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Approve what a run asks."""
    from hopline_cli.deciding import Answer, decide

    asyncio.run(decide(run, step, Answer(approved=True, form=form, by=by), as_json=as_json, server=server))


@app.command("reject")
def reject(
    run: options.RunRef,
    step: StepName = None,
    by: options.By = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Reject what a run asks."""
    from hopline_cli.deciding import Answer, decide

    asyncio.run(decide(run, step, Answer(approved=False, form=None, by=by), as_json=as_json, server=server))
