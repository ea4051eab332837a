"""Orders about tasks that go to the queue service, in gcloud's words."""

import base64
import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from hopline_cli import screen
from hopline_cli.errors import UsageError
from hopline_cli.lists import Form, put_list
from hopline_cli.places import QueuePlace
from hopline_cli.server import reached
from hopline_cli.table import Column
from hopline_cli.text import one_line, printable

Json = dict[str, Any]

V2 = "/v2/"
PULL = "/v2beta2/"
"""The version of the API that knows pull queues; it can show all tasks."""

_KINDS = {"httpRequest": "http", "appEngineHttpRequest": "app-engine", "pullMessage": "pull"}
_COLUMNS = [
    Column(title="TASK_NAME"),
    Column(title="TYPE", importance=7),
    Column(title="CREATE_TIME", importance=3),
    Column(title="SCHEDULE_TIME", importance=6),
    Column(title="DISPATCH_ATTEMPTS", importance=5, right=True),
    Column(title="RESPONSE_ATTEMPTS", importance=4, right=True),
    Column(title="LAST_ATTEMPT_STATUS", importance=5),
]


def content(text: str | None, file: str | None) -> str | None:
    """Return a body in base64, given on the command line or in a file (``-`` for stdin).

    Raises:
        UsageError: it was given twice, or the file cannot be read.
    """
    if text is not None and file is not None:
        raise UsageError("the body is given twice: as text and as a file")
    if text is not None:
        return base64.b64encode(text.encode()).decode()
    if file is None:
        return None
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    return base64.b64encode(body).decode()


async def create_task(
    place: QueuePlace, task_id: str | None, task: dict[str, Any], *, as_json: bool, server: str | None
) -> None:
    """Add a task."""
    named = {"name": f"{place.name}/tasks/{task_id}"} if task_id else {}
    version = PULL if "pullMessage" in task else V2
    async with reached(server) as api:
        made = await api.cloud("POST", f"{version}{place.name}/tasks", {"task": {**named, **task}})
    _tell(made, f"Created task {_short(made, place)}.", as_json=as_json)


async def buffer_task(
    place: QueuePlace, task_id: str | None, body: str | None, *, as_json: bool, server: str | None
) -> None:
    """Add a task whose request is the queue's."""
    path = f"{V2}{place.name}/tasks/{task_id}:buffer" if task_id else f"{V2}{place.name}/tasks:buffer"
    async with reached(server) as api:
        made = (await api.cloud("POST", path, {"body": {"data": body or ""}}))["task"]
    _tell(made, f"Created task {_short(made, place)}.", as_json=as_json)


async def list_tasks(place: QueuePlace, form: Form, *, dead: bool, limit: int | None, server: str | None) -> None:
    """Print the tasks of a queue; those whose attempts are used up, if asked for."""
    found: list[Json] = []
    noun, field = ("deadTasks", "deadTasks") if dead else ("tasks", "tasks")
    async with reached(server) as api:
        token = None
        while limit is None or len(found) < limit:
            size = 1000 if limit is None else min(1000, limit - len(found))
            page = await api.cloud("GET", f"{PULL}{place.name}/{noun}", pageSize=size, pageToken=token)
            found += page.get(field, [])
            token = page.get("nextPageToken")
            if not token:
                break
    named = [{**task, "id": _id(task)} for task in found]
    put_list(form, named if form.quiet else found, "id", _COLUMNS, [_row(task) for task in found], "no tasks")


def _row(task: Json) -> tuple[str | Text, ...]:
    status = task.get("status", {})
    last = status.get("lastAttemptStatus", {}).get("responseStatus", {}).get("message")
    return (
        one_line(_id(task)),
        next((shown for field, shown in _KINDS.items() if field in task), "-"),
        task.get("createTime", "-"),
        task.get("scheduleTime", "-"),
        str(status.get("attemptDispatchCount", 0)),
        str(status.get("attemptResponseCount", 0)),
        one_line(last) if last else "Unknown",
    )


async def describe_task(place: QueuePlace, task: str, view: str, server: str | None) -> None:
    """Print a task as the API has it."""
    async with reached(server) as api:
        queue = await api.cloud("GET", f"{PULL}{place.name}")
        version = PULL if "pullTarget" in queue else V2
        path = f"{version}{place.name}/tasks/{task}"
        screen.put_json(await api.cloud("GET", path, responseView=view.upper()))


async def show_attempts(place: QueuePlace, task: str, server: str | None) -> None:
    """Print the attempts of a task that are kept, also when the task is gone."""
    async with reached(server) as api:
        answer = await api.cloud("GET", f"{V2}{place.name}/tasks/{task}/attempts")
    screen.put_json(answer.get("attempts", []))


async def delete_task(place: QueuePlace, task: str, *, dead: bool, as_json: bool, server: str | None) -> None:
    """Delete a task."""
    async with reached(server) as api:
        answer = await api.cloud("DELETE", f"{V2}{place.name}/{'deadTasks' if dead else 'tasks'}/{task}")
    _tell(answer, f"Deleted task [{task}].", as_json=as_json)


async def run_task(place: QueuePlace, task: str, *, dead: bool, as_json: bool, server: str | None) -> None:
    """Send a task now; or let a dead one be attempted again."""
    async with reached(server) as api:
        answer = await api.cloud("POST", f"{V2}{place.name}/{'deadTasks' if dead else 'tasks'}/{task}:run")
    _tell(answer, f"Running task [{task}].", as_json=as_json)


async def lease_tasks(
    place: QueuePlace, duration: str, filter_text: str | None, limit: int, *, server: str | None
) -> None:
    """Lease tasks, and print them with their payloads."""
    body = {"leaseDuration": duration, "maxTasks": limit, "responseView": "FULL"}
    if filter_text:
        body["filter"] = filter_text
    async with reached(server) as api:
        answer = await api.cloud("POST", f"{PULL}{place.name}/tasks:lease", body)
    screen.put_json(answer.get("tasks", []))


async def order_lease(
    place: QueuePlace, task: str, verb: str, body: dict[str, str], done: str, *, as_json: bool, server: str | None
) -> None:
    """Acknowledge, renew or cancel a lease."""
    async with reached(server) as api:
        answer = await api.cloud("POST", f"{PULL}{place.name}/tasks/{task}:{verb}", body)
    _tell(answer, f"{done} [{task}].", as_json=as_json)


def _id(task: Json) -> str:
    return str(task["name"]).rpartition("/")[2]


def _short(task: Json, place: QueuePlace) -> str:
    return f"[{place.location}/{place.queue}/{_id(task)}]"


def _tell(answer: Json, done: str, *, as_json: bool) -> None:
    if as_json:
        screen.put_json(answer)
    else:
        screen.say(printable(done))
