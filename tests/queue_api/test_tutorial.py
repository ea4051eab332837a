"""The first example of every Cloud Tasks tutorial, unchanged but for the endpoint, against the emulator."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import grpc
import pytest
from google.api_core.exceptions import NotFound
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport
from werkzeug.serving import make_server

from hopline.testing import CloudTasks, cloud_tasks
from tests.queue_api.conftest import PushTarget
from tests.support import node

Eventually = Callable[[Callable[[], Any], str], Any]


@pytest.fixture(scope="module")
def emulator() -> Iterator[CloudTasks]:
    with cloud_tasks() as running:
        yield running


@pytest.fixture
def client(emulator: CloudTasks) -> Iterator[tasks_v2.CloudTasksClient]:
    with grpc.insecure_channel(emulator.grpc) as channel:
        yield tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))


@pytest.fixture
def handled() -> list[str]:
    return []


@pytest.fixture
def url(handled: list[str]) -> Iterator[str]:
    """Serve a Flask handler that is too busy at first."""
    app = flask.Flask("handler")

    @app.post("/example_task_handler")
    def example_task_handler() -> Any:
        handled.append(flask.request.get_data(as_text=True))
        return ("busy", 503) if len(handled) == 1 else f"Printed task payload: {handled[-1]}"

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/example_task_handler"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_task_is_created_handled_retried_on_failure_and_gone_after_success(
    client: tasks_v2.CloudTasksClient, url: str, handled: list[str], eventually: Eventually
) -> None:
    project, location, queue = "my-project-id", "us-central1", "my-queue"
    client.create_queue(
        parent=f"projects/{project}/locations/{location}",
        queue=tasks_v2.Queue(name=client.queue_path(project, location, queue)),
    )
    task = tasks_v2.Task(
        http_request=tasks_v2.HttpRequest(
            http_method=tasks_v2.HttpMethod.POST,
            url=url,
            headers={"Content-type": "application/json"},
            body=json.dumps({"param": "value"}).encode(),
        ),
    )

    response = client.create_task(
        tasks_v2.CreateTaskRequest(parent=client.queue_path(project, location, queue), task=task)
    )

    eventually(lambda: len(handled) == 2, "it is handled, and tried again after the failure")
    assert handled == ['{"param": "value"}'] * 2

    def is_gone() -> bool:
        try:
            client.get_task(name=response.name)
        except NotFound:
            return True
        return False

    eventually(is_gone, "it is gone after success")


PAGE = Path(__file__).parents[2] / "docs" / "cloud-tasks.md"


def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_of_the_documentation_creates_a_task(client: tasks_v2.CloudTasksClient) -> None:
    (program,) = (each for each in programs() if "client.create_task" in each)
    queue = "projects/p/locations/l/queues/mail"

    exec(program, {"client": client, "tasks_v2": tasks_v2})

    (task,) = client.list_tasks(parent=queue)
    assert task.http_request.url == "http://127.0.0.1:5000/handler"


USE = """

def test_it(tasks):
    import socket
    for address in (tasks.grpc, tasks.emulator_host):
        host, _, port = address.partition(":")
        socket.create_connection((host, int(port))).close()
"""


def test_the_fixture_of_the_documentation_gives_a_running_service(tmp_path: Path) -> None:
    (program,) = (each for each in programs() if "@pytest.fixture" in each)
    file = tmp_path / "test_it.py"
    file.write_text(program + USE)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_same_in_node(
    client: tasks_v2.CloudTasksClient, emulator: CloudTasks, url: str, handled: list[str], eventually: Eventually
) -> None:
    done = subprocess.run(
        node.command("tutorial.js"),
        env=node.environment(CLOUD_TASKS_GRPC=emulator.grpc, HANDLER_URL=url),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    queue = "projects/my-project-id/locations/us-central1/queues/in-node"
    assert done.stdout.startswith(f"Created task {queue}/tasks/")
    eventually(lambda: len(handled) == 2, "it is handled, and tried again after the failure")
    assert handled == ["Hello, World!"] * 2
    eventually(lambda: not list(client.list_tasks(parent=queue)), "it is gone after success")


def start(folder: Path) -> tuple["subprocess.Popen[str]", dict[str, str]]:
    """Start an emulator in *folder* and return it with where it listens."""
    command = [
        sys.executable,
        "-m",
        "hopline_cli",
        "emulator",
        "start",
        "--json",
        "--grpc",
        "0",
        "--rest",
        "0",
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    told = "".join(process.stdout.readline() for _ in range(4))
    return process, json.loads(told)


def test_no_task_is_lost_when_the_service_is_killed_in_between(
    tmp_path: Path, target: PushTarget, eventually: Eventually
) -> None:
    process, addresses = start(tmp_path)
    names: set[str] = set()
    try:
        with grpc.insecure_channel(addresses["grpc"]) as channel:
            client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
            parent = client.queue_path("p", "l", "q")
            client.create_queue(parent="projects/p/locations/l", queue=tasks_v2.Queue(name=parent))
            for number in range(300):
                task = tasks_v2.Task(http_request=tasks_v2.HttpRequest(url=f"{target.url}/{number}"))
                names.add(client.create_task(parent=parent, task=task).name.rpartition("/")[2])
        target.wait_for(1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    process, _ = start(tmp_path)
    try:

        def seen() -> set[str]:
            return {str(one["X-CloudTasks-TaskName"]) for one in list(target.received)}

        eventually(lambda: seen() == names, "every task was sent")
    finally:
        process.terminate()
        process.communicate()
