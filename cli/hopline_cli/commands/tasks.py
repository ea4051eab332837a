"""``hopline tasks``: tasks of the queue service, with gcloud's commands and flags."""

import asyncio
from typing import Annotated, Any

import typer

from hopline_cli import options, places
from hopline_cli.lazy import noun_app

app = noun_app("Create, list, run, lease and delete tasks of queues.")

Queue = Annotated[str, typer.Option("--queue", help="Name of the queue.", callback=options.named("queue"))]
MaybeQueue = Annotated[
    str | None, typer.Option("--queue", help="Name of the queue, unless the task's name is in full.")
]
TaskId = Annotated[str | None, typer.Argument(metavar="TASK_ID", help="Name of the new task; made up without one.")]
Task = Annotated[str, typer.Argument(metavar="TASK", help="Name of the task, short or in full.")]
Method = Annotated[str | None, typer.Option("--method", help="HTTP method [POST].", show_default=False)]
Headers = Annotated[list[str] | None, typer.Option("--header", help='"NAME: VALUE"; may be repeated.')]
At = Annotated[str | None, typer.Option("--schedule-time", help="When, as 2026-11-20T08:00:00Z [now].")]
Content = Annotated[str | None, typer.Option("--body-content", help="Body of the request.")]
File = Annotated[str | None, typer.Option("--body-file", help="File with the body; - for stdin.")]
Dead = Annotated[bool, typer.Option("--dead", help="Tasks whose attempts are used up.")]
Lease = Annotated[
    str, typer.Option("--schedule-time", help="The lease: the schedule time that the task was leased with.")
]
Seconds = Annotated[str, typer.Option("--lease-duration", help="How long, in seconds.")]


@app.command("create-http-task")
def create_http_task(
    task_id: TaskId = None,
    *,
    queue: Queue,
    url: Annotated[str, typer.Option("--url", help="Where the request goes.")],
    method: Method = None,
    header: Headers = None,
    schedule_time: At = None,
    body_content: Content = None,
    body_file: File = None,
    oidc_email: Annotated[
        str | None, typer.Option("--oidc-service-account-email", help="Whose identity token.")
    ] = None,
    oidc_audience: Annotated[str | None, typer.Option("--oidc-token-audience", help="For whom it is.")] = None,
    oauth_email: Annotated[
        str | None, typer.Option("--oauth-service-account-email", help="Whose access token.")
    ] = None,
    oauth_scope: Annotated[str | None, typer.Option("--oauth-token-scope", help="What it is for.")] = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Add a task that sends an HTTP request."""
    from hopline_cli.tasking import create_task

    request = _request({"url": url}, method, header, body_content, body_file)
    if oidc_email:
        request["oidcToken"] = _without_none(serviceAccountEmail=oidc_email, audience=oidc_audience)
    if oauth_email:
        request["oauthToken"] = _without_none(serviceAccountEmail=oauth_email, scope=oauth_scope)
    place = places.queue_place(queue, project, location)
    task = {"httpRequest": request, **_time(schedule_time)}
    asyncio.run(create_task(place, task_id, task, as_json=as_json, server=server))


@app.command("create-app-engine-task")
def create_app_engine_task(
    task_id: TaskId = None,
    *,
    queue: Queue,
    relative_uri: Annotated[str | None, typer.Option("--relative-uri", help="Path and query [/].")] = None,
    routing: Annotated[str | None, typer.Option("--routing", help="service:S,version:V,instance:I")] = None,
    method: Method = None,
    header: Headers = None,
    schedule_time: At = None,
    body_content: Content = None,
    body_file: File = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Add a task that sends a request to an App Engine app."""
    from hopline_cli import queue_settings
    from hopline_cli.tasking import create_task

    request = _request(_without_none(relativeUri=relative_uri), method, header, body_content, body_file)
    if routing:
        request["appEngineRouting"] = queue_settings.routing(routing)
    place = places.queue_place(queue, project, location)
    task = {"appEngineHttpRequest": request, **_time(schedule_time)}
    asyncio.run(create_task(place, task_id, task, as_json=as_json, server=server))


@app.command("create-pull-task")
def create_pull_task(
    task_id: TaskId = None,
    *,
    queue: Queue,
    tag: Annotated[str | None, typer.Option("--tag", help="By which it may be leased.")] = None,
    payload_content: Annotated[str | None, typer.Option("--payload-content", help="The payload.")] = None,
    payload_file: Annotated[str | None, typer.Option("--payload-file", help="File with it; - for stdin.")] = None,
    schedule_time: At = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Add a task that workers lease."""
    from hopline_cli.tasking import content, create_task

    message = _without_none(tag=tag, payload=content(payload_content, payload_file))
    place = places.queue_place(queue, project, location)
    task = {"pullMessage": message, **_time(schedule_time)}
    asyncio.run(create_task(place, task_id, task, as_json=as_json, server=server))


@app.command("buffer")
def buffer(
    queue: Queue,
    task_id: Annotated[str | None, typer.Option("--task-id", help="Name of the new task.")] = None,
    body_content: Content = None,
    body_file: File = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Add a task whose request is that of the queue's own target."""
    from hopline_cli.tasking import buffer_task, content

    place = places.queue_place(queue, project, location)
    body = content(body_content, body_file)
    asyncio.run(buffer_task(place, task_id, body, as_json=as_json, server=server))


@app.command("batch-create")
def batch_create(
    queue: Queue,
    tasks_from_file: Annotated[
        str, typer.Option("--tasks-from-file", help="File with a JSON list of tasks; - for stdin.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read the file, and print the tasks.")] = False,
    failed_tasks_file: Annotated[
        typer.FileTextWrite | None,
        typer.Option("--failed-tasks-file", help="Where to write the tasks that were not created."),
    ] = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Add the tasks of a file; exit code 2 if only some could be added."""
    from hopline_cli import batching, screen

    place = places.queue_place(queue, project, location)
    tasks = batching.tasks_in(tasks_from_file, place)
    if dry_run:
        screen.put_json(tasks)
    else:
        asyncio.run(batching.create_tasks(place, tasks, failed_tasks_file, as_json=as_json, server=server))


@app.command("batch-delete")
def batch_delete(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Names of tasks, short or in full.")],
    queue: Queue,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Delete tasks of a queue, each by itself; exit code 2 if only some could be deleted."""
    from hopline_cli import batching

    place = places.queue_place(queue, project, location)
    asyncio.run(batching.delete_tasks(place, tasks, as_json=as_json, server=server))


@app.command("list")
def list_tasks(
    queue: Queue,
    dead: Dead = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="How many at most.")] = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List the tasks of a queue; with --dead those whose attempts are used up."""
    from hopline_cli.lists import Form
    from hopline_cli.tasking import list_tasks

    form = Form(as_json=as_json, json_lines=json_lines, quiet=quiet)
    place = places.queue_place(queue, project, location)
    asyncio.run(list_tasks(place, form, dead=dead, limit=limit, server=server))


@app.command("describe")
def describe(
    task: Task,
    queue: MaybeQueue = None,
    response_view: Annotated[str, typer.Option("--response-view", help="basic, or full with the body.")] = "basic",
    project: places.Project = None,
    location: places.Location = None,
    server: options.Server = None,
) -> None:
    """Show a task."""
    from hopline_cli.tasking import describe_task

    asyncio.run(describe_task(*places.task_place(task, queue, project, location), response_view, server))


@app.command("attempts")
def attempts(
    task: Task,
    queue: MaybeQueue = None,
    project: places.Project = None,
    location: places.Location = None,
    server: options.Server = None,
) -> None:
    """Show the attempts of a task that are kept, also when the task is gone."""
    from hopline_cli.tasking import show_attempts

    asyncio.run(show_attempts(*places.task_place(task, queue, project, location), server))


@app.command("delete")
def delete(
    task: Task,
    queue: MaybeQueue = None,
    dead: Dead = False,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Delete a task."""
    from hopline_cli.tasking import delete_task

    place = places.task_place(task, queue, project, location)
    asyncio.run(delete_task(*place, dead=dead, as_json=as_json, server=server))


@app.command("run")
def run(
    task: Task,
    queue: MaybeQueue = None,
    dead: Dead = False,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Send a task now, whatever its time and its queue say; with --dead let it be attempted again."""
    from hopline_cli.tasking import run_task

    place = places.task_place(task, queue, project, location)
    asyncio.run(run_task(*place, dead=dead, as_json=as_json, server=server))


@app.command("lease")
def lease(
    queue: Queue,
    lease_duration: Seconds,
    tag: Annotated[str | None, typer.Option("--tag", help="Only tasks with this tag.")] = None,
    oldest_tag: Annotated[bool, typer.Option("--oldest-tag", help="Only tasks with the tag of the oldest.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 1000,
    project: places.Project = None,
    location: places.Location = None,
    server: options.Server = None,
) -> None:
    """Lease tasks of a pull queue, and print them."""
    from hopline_cli.errors import UsageError
    from hopline_cli.spans import span
    from hopline_cli.tasking import lease_tasks

    if tag is not None and oldest_tag:
        raise UsageError("--tag and --oldest-tag cannot be given together")
    wanted = "tag_function=oldest_tag()" if oldest_tag else f'tag="{tag}"' if tag is not None else None
    place = places.queue_place(queue, project, location)
    asyncio.run(lease_tasks(place, span(lease_duration), wanted, limit, server=server))


@app.command("acknowledge")
def acknowledge(
    task: Task,
    schedule_time: Lease,
    queue: MaybeQueue = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Delete a leased task: its work is done."""
    _lease_order(
        task, queue, project, location, "acknowledge", "Acknowledged task", schedule_time, None, as_json, server
    )


@app.command("renew-lease")
def renew_lease(
    task: Task,
    schedule_time: Lease,
    lease_duration: Seconds,
    queue: MaybeQueue = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Let a lease end later."""
    _lease_order(
        task, queue, project, location, "renewLease", "Renewed lease of", schedule_time, lease_duration, as_json, server
    )


@app.command("cancel-lease")
def cancel_lease(
    task: Task,
    schedule_time: Lease,
    queue: MaybeQueue = None,
    project: places.Project = None,
    location: places.Location = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Let a lease end now, so that others can lease the task."""
    _lease_order(
        task, queue, project, location, "cancelLease", "Cancelled lease of", schedule_time, None, as_json, server
    )


def _lease_order(
    task: str,
    queue: str | None,
    project: str | None,
    location: str | None,
    verb: str,
    done: str,
    schedule_time: str,
    lease_duration: str | None,
    as_json: bool,
    server: str | None,
) -> None:
    from hopline_cli.spans import moment, span
    from hopline_cli.tasking import order_lease

    body = {"scheduleTime": moment(schedule_time)}
    if lease_duration is not None:
        body["leaseDuration"] = span(lease_duration)
    place = places.task_place(task, queue, project, location)
    asyncio.run(order_lease(*place, verb, body, done, as_json=as_json, server=server))


def _request(
    request: dict[str, Any], method: str | None, headers: list[str] | None, content: str | None, file: str | None
) -> dict[str, Any]:
    from hopline_cli import queue_settings, tasking

    named = dict(map(queue_settings.header, headers or ())) or None
    body = tasking.content(content, file)
    return {**request, **_without_none(httpMethod=method.upper() if method else None, headers=named, body=body)}


def _time(text: str | None) -> dict[str, str]:
    from hopline_cli.spans import moment

    return {"scheduleTime": moment(text)} if text else {}


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
