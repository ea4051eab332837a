"""A worker that is fed from pull queues: real leases of a real service, and the worker as a process of its own."""

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from hopline import step
from hopline.errors import ArgumentError
from hopline_engine import clock
from hopline_engine.worker.exchange import NoAnswerError
from hopline_engine.worker.leasing import PullQueue, QueueRefusedError
from hopline_engine.worker.pulling import Pull, fed
from tests.support.processes import WorkerProcess
from tests.support.queue_service import Client, RunningService, running_service
from tests.support.waiting import WITHIN, eventually
from tests.worker.users_files import write

PARENT = "projects/local/locations/local"

STEPS = """
    import asyncio
    import os
    import time
    from pathlib import Path

    from hopline import RetryAfter, context, step

    FOLDER = Path(os.environ["FOLDER"])

    def note(name: str, text: str) -> None:
        with (FOLDER / name).open("a") as file:
            file.write(text + "\\n")

    @step
    def keep(payload: bytes) -> None:
        note("kept", payload.decode())

    @step
    def add(first: int, second: int) -> int:
        note("added", str(first + second))
        return first + second

    @step
    async def wait_for(file: str) -> None:
        note("begun", f"{os.getpid()} {context().attempt}")
        while not (FOLDER / file).exists():
            await asyncio.sleep(0.01)
        note("done", file)

    @step
    def fail_twice(name: str) -> None:
        note("tried", f"{context().attempt}")
        print("printed by attempt", context().attempt)
        if context().attempt < 3:
            raise RetryAfter(0) if context().attempt == 1 else ValueError(name)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[Client]:
    made = service.client("rest", "v2beta2")
    yield made
    made.close()


@pytest.fixture
def queue(client: Client) -> str:
    """Return the short name of a new pull queue."""
    name = f"q-{clock.token(6)}"
    client.create_queue(parent=PARENT, queue={"name": f"{PARENT}/queues/{name}", "pull_target": {}})
    return name


Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(tmp_path: Path, service: RunningService) -> Iterator[Start]:
    """Return what starts a worker with flags."""
    file = write(tmp_path, "jobs.py", STEPS)
    started: list[WorkerProcess] = []

    def run(*flags: str) -> WorkerProcess:
        worker = WorkerProcess(tmp_path, service.url, [file], {"FOLDER": str(tmp_path)}, flags)
        worker.start()
        started.append(worker)
        return worker

    yield run
    for worker in started:
        worker.kill()


def put(client: Client, queue: str, payload: bytes, tag: str = "") -> str:
    message = {"payload": payload, "tag": tag}
    return str(client.create_task(parent=f"{PARENT}/queues/{queue}", task={"pull_message": message}).name)


def noted(folder: Path, name: str) -> list[str]:
    """Return what steps have noted."""
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def waiting(client: Client, queue: str) -> list[Any]:
    return list(client.list_tasks(parent=f"{PARENT}/queues/{queue}"))


def test_each_task_of_a_queue_is_run_by_its_step_and_then_gone(
    tmp_path: Path, client: Client, queue: str, start: Start
) -> None:
    for number in range(20):
        put(client, queue, b"%d" % number)

    start(f"--pull={queue}=keep")

    eventually(lambda: not waiting(client, queue), "all tasks are gone")
    assert sorted(map(int, noted(tmp_path, "kept"))) == list(range(20))


def test_without_a_step_the_tag_of_a_task_names_it(tmp_path: Path, client: Client, queue: str, start: Start) -> None:
    put(client, queue, json.dumps({"first": 1, "second": 2}).encode(), "add")
    put(client, queue, b"three", "keep")
    put(client, queue, b"", "nothing")

    worker = start("--pull", queue)

    eventually(lambda: len(waiting(client, queue)) == 1, "those that name a step are gone")
    assert (noted(tmp_path, "added"), noted(tmp_path, "kept")) == (["3"], ["three"])
    assert eventually(lambda: "its tag 'nothing' names no step of this worker" in worker.told(), "it says so")


def test_a_step_that_fails_is_run_again_and_what_it_says_is_shown(
    tmp_path: Path, client: Client, queue: str, start: Start
) -> None:
    put(client, queue, b"x")

    worker = start(f"--pull={PARENT}/queues/{queue}=fail_twice")

    eventually(lambda: noted(tmp_path, "tried") == ["1", "2", "3"], "it was run three times")
    eventually(lambda: not waiting(client, queue), "the task is gone")
    told = worker.told()
    assert "failed, attempt 1: hopline.errors.RetryAfter" in told
    assert "failed, attempt 2: ValueError: x; again in 2 s\nTraceback" in told
    assert "printed by attempt 3" in told


def test_a_lease_is_renewed_while_the_step_runs(tmp_path: Path, client: Client, queue: str, start: Start) -> None:
    put(client, queue, b"flag")
    start(f"--pull={queue}=wait_for", "--lease=9")  # not less: a busy machine has to renew it in time
    first = eventually(lambda: waiting(client, queue)[0].schedule_time if noted(tmp_path, "begun") else None, "it runs")

    eventually(lambda: waiting(client, queue)[0].schedule_time.timestamp() > first.timestamp(), "it is renewed")
    (tmp_path / "flag").touch()

    eventually(lambda: not waiting(client, queue), "the task is gone")
    assert [line.split()[1] for line in noted(tmp_path, "begun")] == ["1"]


def test_the_task_of_a_worker_that_is_killed_goes_to_another(
    tmp_path: Path, client: Client, queue: str, start: Start
) -> None:
    put(client, queue, b"flag")
    killed = start(f"--pull={queue}=wait_for", "--lease=4")
    eventually(lambda: noted(tmp_path, "begun"), "it runs")

    killed.kill()
    (tmp_path / "flag").touch()
    other = start(f"--pull={queue}=wait_for", "--lease=4")

    eventually(lambda: not waiting(client, queue), "the task is gone")
    assert noted(tmp_path, "begun") == [f"{killed.pid} 1", f"{other.pid} 2"]
    assert noted(tmp_path, "done") == ["flag"]


def test_a_worker_that_is_told_to_stop_ends_what_it_has_and_takes_nothing_more(
    tmp_path: Path, client: Client, queue: str, start: Start
) -> None:
    put(client, queue, b"flag")
    worker = start(f"--pull={queue}=wait_for")
    eventually(lambda: noted(tmp_path, "begun"), "it runs")

    worker.send(signal.SIGTERM)
    (tmp_path / "flag").touch()

    eventually(lambda: not worker.is_up, "it has ended")
    assert noted(tmp_path, "done") == ["flag"]
    assert waiting(client, queue) == [], "it was acknowledged"


def test_a_worker_waits_for_a_queue_that_is_not_there_yet(tmp_path: Path, client: Client, start: Start) -> None:
    name = f"q-{clock.token(6)}"
    worker = start(f"--pull={name}=keep")
    eventually(lambda: "Queue does not exist" in worker.told(), "it says so")

    client.create_queue(parent=PARENT, queue={"name": f"{PARENT}/queues/{name}", "pull_target": {}})
    put(client, name, b"one")

    eventually(lambda: noted(tmp_path, "kept") == ["one"], "it takes the task")
    assert worker.told().count("Queue does not exist") == 1


def test_a_worker_does_not_start_for_a_step_that_it_does_not_have(start: Start) -> None:
    worker = start("--pull=mail=send")

    eventually(lambda: not worker.is_up, "it has ended")
    assert "--pull mail=send: the files have no step 'send'" in worker.told()
    assert "they have add, fail_twice, keep, wait_for" in worker.told()


def test_the_program_of_the_documentation_does_what_it_says(
    tmp_path: Path, service: RunningService, client: Client, queue: str
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cloud-tasks.md").read_text()
    program = page.partition("## Workers for pull queues")[2].partition("```python")[2].partition("```")[0]
    worker = WorkerProcess(tmp_path, service.url, [write(tmp_path, "thumbnails.py", program)], {}, [f"--pull={queue}"])
    put(client, queue, b"/photos/1.jpg", "make_thumbnail")

    worker.start()

    try:
        eventually(lambda: not waiting(client, queue), "the task is gone")
        assert "thumbnail of /photos/1.jpg, attempt 1" in worker.told()
    finally:
        worker.kill()


@step
def of_bytes(payload: bytes) -> None: ...


@step
def of_text(text: str) -> None: ...


@step
def of_list(numbers: list[int]) -> None: ...


@step
def of_none() -> None: ...


def test_a_payload_is_what_the_only_parameter_says() -> None:
    assert fed(of_bytes).arguments(b"\xff") == {"payload": b"\xff"}
    assert fed(of_text).arguments("ä".encode()) == {"text": "ä"}
    assert fed(of_list).arguments(b"[1, 2]") == {"numbers": [1, 2]}
    assert fed(of_none).arguments(b"{}") == {}


@pytest.mark.parametrize(
    ("given", "payload"), [(of_text, b"\xff"), (of_list, b"{"), (of_list, b'[1], "more": 2'), (of_none, b'{"a": 1}')]
)
def test_a_payload_that_does_not_fit_is_refused(given: Any, payload: bytes) -> None:
    with pytest.raises(ArgumentError):
        fed(given).arguments(payload)


def test_a_queue_is_named_with_its_step_or_without() -> None:
    assert Pull.parse("mail=send") == Pull(queue="mail", step="send")
    assert Pull.parse("mail") == Pull(queue="mail", step=None)


def test_server_that_does_not_answer_costs_no_threads_for_each_question() -> None:
    before = set(threading.enumerate())

    async def ask(server: str) -> None:
        queue = PullQueue("mail", lambda: [server], None)
        for _ in range(20):
            with pytest.raises(NoAnswerError):
                await queue.lease(1, 30)

    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        asyncio.run(ask(f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert sum(thread.name.startswith("step-") for thread in set(threading.enumerate()) - before) <= 4


def test_another_server_is_asked_when_one_does_not_answer(service: RunningService) -> None:
    async def ask(silent: str) -> list[str]:
        queue = PullQueue("none", lambda: [silent, service.url], None)
        with pytest.raises(NoAnswerError):
            await queue.lease(1, 30)
        told = []
        for _ in range(2):
            with pytest.raises(QueueRefusedError) as refused:
                await queue.lease(1, 30)
            told.append(str(refused.value))
        return told

    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        told = asyncio.run(ask(f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert [text.partition(".")[0] for text in told] == ["Queue does not exist"] * 2


def test_the_service_is_asked_as_its_clients_ask_it(service: RunningService) -> None:
    """The wire that the worker speaks is that of the original: this is its answer to a queue that is not there."""
    answer = httpx.post(
        f"{service.url}/v2beta2/{PARENT}/queues/none/tasks:lease",
        json={"leaseDuration": "30s"},
        trust_env=False,
        timeout=WITHIN,
    )

    assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")
