"""``hopline workflows``: what there is to run, whether it is sound, and what it looks like."""

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

if TYPE_CHECKING:
    from hopline_cli.lists import Form

app = noun_app("List, check and draw workflows.")


class Format(StrEnum):
    """Ways to write a graph down."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@app.command("list")
def list_workflows(
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List the workflows that were registered, by name."""
    from hopline_cli.lists import Form

    asyncio.run(_list(Form(as_json=as_json, json_lines=json_lines, quiet=quiet), server))


async def _list(form: "Form", server: str | None) -> None:
    from rich.text import Text

    from hopline_cli.answers import ServedWorkflow
    from hopline_cli.inputs import parameter_list
    from hopline_cli.lists import put_list
    from hopline_cli.server import reached
    from hopline_cli.table import Column
    from hopline_cli.text import one_line

    async with reached(server) as api:
        workflows: list[ServedWorkflow] = (await api.get("/workflows"))["workflows"]
    columns = [
        Column(title="WORKFLOW"),
        Column(title="STEPS", right=True, importance=3),
        Column(title="SERVED", importance=4),
        Column(title="INPUT", importance=2, flowing=True),
    ]
    rows = [
        (
            one_line(workflow["name"]),
            str(workflow["steps"]),
            Text("yes", "green") if workflow["served"] else Text("no", "yellow"),
            one_line(parameter_list(workflow["parameters"]).removeprefix("parameters: ")),
        )
        for workflow in workflows
    ]
    put_list(form, workflows, "name", columns, rows, "no workflow is registered yet; begin with: hopline dev PATH")


@app.command("versions")
def list_versions(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered workflow.")],
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List the versions of a workflow that are kept, newest first."""
    from hopline_cli import versions
    from hopline_cli.lists import Form

    asyncio.run(versions.list_versions(name, Form(as_json=as_json, json_lines=json_lines, quiet=quiet), server))


_Version = Annotated[str, typer.Argument(metavar="NAME|NAME@VERSION|FILE[:WORKFLOW]")]


@app.command("diff")
def diff(
    before: _Version,
    after: _Version,
    as_json: options.Json = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when something differs.")] = False,
    server: options.Server = None,
) -> None:
    """Show what differs between two versions of a workflow, or between two workflows."""
    from hopline_cli.versions import show_differences

    differs = asyncio.run(show_differences(before, after, as_json=as_json, server=server))
    raise typer.Exit(1 if differs and exit_code else 0)


class Against(StrEnum):
    """What files can be checked against."""

    LIVE = "live"


@app.command("check")
def check(
    paths: options.Paths,
    against: Annotated[
        Against | None,
        typer.Option("--against", help="Also ask the server which runs that are open now need what changed."),
    ] = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Load files and compile their workflows; nothing is registered. Exit code 1 when something is wrong."""
    from hopline_cli import screen, versions
    from hopline_cli.checking import checked, told
    from hopline_cli.confiding import unset

    found = checked(paths)
    found["warnings"] += asyncio.run(unset(found, server))
    lost = asyncio.run(versions.stranded(found, server)) if against is not None and not found["errors"] else []
    if as_json:
        screen.put_json(found if against is None else {**found, "stranded": lost})
    else:
        screen.put(*told(found), *versions.told(lost, {step["name"] for step in found["steps"]}))
        if not found["workflows"] and not found["errors"]:
            screen.say("no workflow; what steps there are can be served")
    raise typer.Exit(1 if found["errors"] or lost else 0)


@app.command("graph")
def graph(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE[:WORKFLOW]", help="A registered workflow, or a file.")],
    form: Annotated[Format, typer.Option("--format", help="How to write it down.")] = Format.TEXT,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Draw the steps of a workflow and what follows what."""
    from hopline_cli import screen, shape
    from hopline_cli.checking import definition_of

    definition = asyncio.run(definition_of(target, server))
    match Format.JSON if as_json else form:
        case Format.TEXT:
            screen.put_plain(shape.as_text(definition))
        case Format.MERMAID:
            screen.put_plain(shape.as_mermaid(definition))
        case Format.DOT:
            screen.put_plain(shape.as_dot(definition))
        case Format.JSON:
            screen.put_json(shape.as_json(definition))
