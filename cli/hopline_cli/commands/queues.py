"""``hopline queues``: how full they are, how fast they may go; made and changed with gcloud's commands and flags."""

import asyncio
from typing import Annotated, Any, Literal

import typer

from hopline_cli import options, places
from hopline_cli.lazy import noun_app
from hopline_cli.queue_settings import with_settings

app = noun_app("List, show, create, update, pause, purge and delete queues.")

Member = Annotated[str, typer.Option("--member", help="Whose, as user:NAME@EXAMPLE.COM.")]
Role = Annotated[str, typer.Option("--role", help="As roles/cloudtasks.enqueuer.")]
Name = Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the queue.", callback=options.named("queue"))]


@app.command("list")
def list_queues(
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List queues, by name."""
    from hopline_cli.lists import Form
    from hopline_cli.queueing import list_of_queues

    asyncio.run(list_of_queues(Form(as_json=as_json, json_lines=json_lines, quiet=quiet), server))


@app.command("show")
def show(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Show one queue."""
    from hopline_cli.queueing import show_queue

    asyncio.run(show_queue(name, as_json=as_json, server=server))


@app.command("pause")
def pause(
    name: Name,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Send nothing more from a queue; what was sent goes on."""
    _order(name, "pause", project, location, as_json, server)


@app.command("resume")
def resume(
    name: Name,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Send from a paused queue again."""
    _order(name, "resume", project, location, as_json, server)


def _order(
    name: str,
    verb: Literal["pause", "resume"],
    project: str | None,
    location: str | None,
    as_json: bool,
    server: str | None,
) -> None:
    """Order something of a queue: of a step's, or elsewhere than in ``local`` of the queue service's."""
    from hopline_cli import cloud_queueing, queueing

    if project or location or "/" in name:
        place = places.queue_place(name, project, location)
        asyncio.run(cloud_queueing.order_queue(place, verb, as_json=as_json, server=server))
    else:
        asyncio.run(queueing.order_queue(name, verb, as_json=as_json, server=server))


@app.command("create")
@with_settings(clearing=False)
def create(
    name: Name,
    kind: Annotated[
        Literal["push", "pull"], typer.Option("--type", help="Whether its tasks are sent, or leased by workers.")
    ] = "push",
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
    **settings: Any,
) -> None:
    """Make a queue."""
    from hopline_cli.cloud_queueing import create_queue

    place = places.queue_place(name, project, location)
    asyncio.run(create_queue(place, settings, kind, as_json=as_json, server=server))


@app.command("update")
@with_settings(clearing=True)
def update(
    name: Name,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
    **settings: Any,
) -> None:
    """Change settings of a queue; what is not named stays."""
    from hopline_cli.cloud_queueing import update_queue

    place = places.queue_place(name, project, location)
    asyncio.run(update_queue(place, settings, as_json=as_json, server=server))


@app.command("describe")
def describe(
    name: Name, project: places.Project = None, location: places.Location = None, server: options.Server = None
) -> None:
    """Show a queue as the Cloud Tasks API has it."""
    from hopline_cli.cloud_queueing import describe_queue

    asyncio.run(describe_queue(places.queue_place(name, project, location), server))


@app.command("stats")
def stats(
    name: Name, project: places.Project = None, location: places.Location = None, server: options.Server = None
) -> None:
    """Show how many tasks a queue has, and how fast they go."""
    from hopline_cli.cloud_queueing import show_stats

    asyncio.run(show_stats(places.queue_place(name, project, location), server))


@app.command("purge")
def purge(
    name: Name,
    project: places.Project = None,
    location: places.Location = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Delete all tasks that a queue has now."""
    from hopline_cli.cloud_queueing import order_queue

    place = places.queue_place(name, project, location)
    if not yes:
        typer.confirm(f"All tasks of queue {place.shown} will be deleted. Continue?", abort=True, err=True)
    asyncio.run(order_queue(place, "purge", as_json=as_json, server=server))


@app.command("delete")
def delete(
    name: Name,
    project: places.Project = None,
    location: places.Location = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Delete a queue with its tasks."""
    from hopline_cli.cloud_queueing import delete_queue

    place = places.queue_place(name, project, location)
    if not yes:
        typer.confirm(f"Queue {place.shown} will be deleted with its tasks. Continue?", abort=True, err=True)
    asyncio.run(delete_queue(place, as_json=as_json, server=server))


@app.command("get-iam-policy")
def get_iam_policy(
    name: Name, project: places.Project = None, location: places.Location = None, server: options.Server = None
) -> None:
    """Show the IAM policy of a queue."""
    from hopline_cli.policies import show_policy

    asyncio.run(show_policy(places.queue_place(name, project, location), server))


@app.command("set-iam-policy")
def set_iam_policy(
    name: Name,
    policy_file: Annotated[str, typer.Argument(metavar="POLICY_FILE", help="File with the policy; - for stdin.")],
    project: places.Project = None,
    location: places.Location = None,
    server: options.Server = None,
) -> None:
    """Replace the IAM policy of a queue; it is kept and not enforced."""
    from hopline_cli.policies import set_policy

    asyncio.run(set_policy(places.queue_place(name, project, location), policy_file, server))


@app.command("add-iam-policy-binding")
def add_iam_policy_binding(
    name: Name,
    member: Member,
    role: Role,
    project: places.Project = None,
    location: places.Location = None,
    server: options.Server = None,
) -> None:
    """Give a role to a member in the IAM policy of a queue."""
    from hopline_cli.policies import add_binding

    asyncio.run(add_binding(places.queue_place(name, project, location), member, role, server))


@app.command("remove-iam-policy-binding")
def remove_iam_policy_binding(
    name: Name,
    member: Member,
    role: Role,
    project: places.Project = None,
    location: places.Location = None,
    server: options.Server = None,
) -> None:
    """Take a role from a member in the IAM policy of a queue."""
    from hopline_cli.policies import remove_binding

    asyncio.run(remove_binding(places.queue_place(name, project, location), member, role, server))
