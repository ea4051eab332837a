"""The worker as a process of its own, against a fake engine."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import WITHIN
from tests.worker.fake_engine import FakeEngine
from tests.worker.users_files import GREETING, write

WORK = """
    import os
    import subprocess
    import sys
    import time
    import warnings
    from pathlib import Path

    from hopline import step, workflow

    print("imported")

    @step
    def noisy() -> str:
        print("printed")
        warnings.warn("warned")
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
        return sys.stdin.read()

    @step
    def wait_for(file: str) -> str:
        Path(file + ".started").touch()
        while not Path(file).exists():
            time.sleep(0.01)
        return "done"

    @step
    def die() -> None:
        os._exit(7)

    @workflow
    def work(file: str) -> str:
        return wait_for.after(noisy(), die())(file)
"""


class WorkerProcess:
    """A worker that was started, with its report and the engine's side of it."""

    def __init__(self, process: subprocess.Popen[str], report: dict[str, Any], engine: FakeEngine) -> None:
        self.process = process
        self.report = report
        self.engine = engine

    def registration(self) -> dict[str, Any]:
        worker: dict[str, Any] = self.engine.wait("PUT", "/workers/")[-1].body
        return worker

    def ask(self, step: str, arguments: dict[str, Any]) -> httpx.Response:
        worker = self.registration()
        signatures = {served["name"]: served["signature"] for served in worker["steps"]}
        headers = {
            "Authorization": f"Bearer {worker['token']}",
            "Hopline-Signature": signatures[step],
            "Hopline-Run": "r_1",
            "Hopline-Step": step,
            "Hopline-Attempt": "1",
            "Idempotency-Key": f"r_1/{step}",
        }
        return httpx.post(
            f"{worker['url']}/steps/{step}", json=arguments, headers=headers, timeout=WITHIN, trust_env=False
        )

    def end(self) -> tuple[int, str]:
        """Wait for the process to end; return its exit status and its stderr."""
        _, stderr = self.process.communicate(timeout=WITHIN)
        return self.process.returncode, stderr


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with FakeEngine().running() as running:
        yield running


@contextmanager
def worker(engine: FakeEngine, *arguments: str | Path, cwd: Path | None = None) -> Iterator[WorkerProcess]:
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "hopline_engine.worker", "--server", engine.url, "--report-fd", str(writing)]
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[writing],
        cwd=cwd,
        env={**os.environ, "HOPLINE_API_TOKEN": "api-token"},
    ) as process:
        os.close(writing)
        try:
            with os.fdopen(reading) as pipe:
                report = json.loads(pipe.readline())
            yield WorkerProcess(process, report, engine)
        finally:
            process.kill()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_worker_registers_reports_serves_and_leaves_on_sigterm(tmp_path: Path, engine: FakeEngine) -> None:
    file = write(tmp_path, "greetings.py", GREETING)
    with worker(engine, file) as running:
        (workflow,) = running.report["workflows"]
        assert running.report["ok"] is True
        assert (workflow["name"], workflow["file"], workflow["steps"]) == ("greeting", str(file), 1)
        asked = engine.wait("PUT", f"/workers/{running.report['worker']}")[0]
        assert asked.authorization == "Bearer api-token"
        assert asked.body["pid"] == running.process.pid
        assert asked.body["concurrency"] == 64
        assert [step["name"] for step in asked.body["steps"]] == ["greet"]
        assert running.ask("greet", {"name": "you"}).json() == {"result": "hello you", "logs": None}
        engine.wait("POST", "/heartbeat")
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == (0, "")
    engine.wait("DELETE", f"/workers/{running.report['worker']}")


def test_forgotten_worker_registers_again(tmp_path: Path, engine: FakeEngine) -> None:
    with worker(engine, write(tmp_path, "greetings.py", GREETING)):
        engine.forget()
        engine.wait("PUT", "/workers/", 2)
    assert len(engine.wait("POST", "/definitions")) == 2


def test_running_steps_end_before_the_worker_does(tmp_path: Path, engine: FakeEngine) -> None:
    file, flag = write(tmp_path, "working.py", WORK), tmp_path / "flag"
    with worker(engine, file) as running:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(running.ask("wait_for", {"file": str(flag)})))
        asking.start()
        wait_for_file(Path(f"{flag}.started"), running)
        running.process.send_signal(signal.SIGTERM)
        engine.wait("DELETE", "/workers/")
        assert running.ask("noisy", {}).status_code == 503
        flag.touch()
        asking.join(WITHIN)
        assert answers[0].json()["result"] == "done"
        assert running.end()[0] == 0


def wait_for_file(path: Path, running: WorkerProcess) -> None:
    """Wait until *path* exists; each look is a request to the worker."""
    url = running.registration()["url"]
    while not path.exists():
        assert httpx.get(f"{url}/healthz", timeout=WITHIN, trust_env=False).status_code == 200


@pytest.mark.parametrize("grace", ["0.05", "1000"])
def test_step_that_does_not_end_is_given_up_after_the_grace_or_the_second_signal(
    tmp_path: Path, engine: FakeEngine, grace: str
) -> None:
    file, flag = write(tmp_path, "working.py", WORK), tmp_path / "flag"
    with worker(engine, "--grace", grace, file) as running:
        asking = threading.Thread(target=ask_in_vain, args=(running, flag))
        asking.start()
        wait_for_file(Path(f"{flag}.started"), running)
        running.process.send_signal(signal.SIGINT)
        if grace == "1000":
            engine.wait("DELETE", "/workers/")
            running.process.send_signal(signal.SIGINT)
        status, stderr = running.end()
        asking.join(WITHIN)
    assert (status, stderr) == (0, "imported\nworker: stopped with steps still running; the server tries them again\n")


def ask_in_vain(running: WorkerProcess, flag: Path) -> None:
    with pytest.raises(httpx.TransportError):
        running.ask("wait_for", {"file": str(flag)})


def test_worker_ends_when_the_parents_pipe_closes(tmp_path: Path, engine: FakeEngine) -> None:
    with worker(engine, "--exit-with-parent", write(tmp_path, "greetings.py", GREETING)) as running:
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.process.wait(WITHIN) == 0
    engine.wait("DELETE", "/workers/")


def test_worker_writes_nothing_to_stdout_and_steps_read_no_stdin(tmp_path: Path, engine: FakeEngine) -> None:
    file = write(tmp_path, "working.py", WORK)
    with worker(engine, "--exit-with-parent", file) as running:
        answer = running.ask("noisy", {}).json()
        assert answer["result"] == ""
        assert answer["logs"].startswith("printed\n")
        assert "UserWarning: warned" in answer["logs"]
        running.process.send_signal(signal.SIGTERM)
        stdout, stderr = running.process.communicate(timeout=WITHIN)
    assert stdout == ""
    assert stderr == "imported\nchild\n"


def test_bad_file_is_reported_and_ends_the_worker(tmp_path: Path, engine: FakeEngine) -> None:
    file = write(tmp_path, "broken.py", "def f(:\n")
    with worker(engine, file) as running:
        (error,) = running.report["errors"]
        assert running.report["ok"] is False
        assert (error["code"], error["file"], error["line"]) == ("syntax-error", str(file), 1)
        assert running.end() == (1, "")
    assert engine.asked == []


def test_refused_registration_is_reported_and_ends_the_worker(tmp_path: Path, engine: FakeEngine) -> None:
    engine.refusal = (401, {"error": {"code": "unauthorized", "message": "a token is needed", "hint": "set it"}})
    with worker(engine, write(tmp_path, "greetings.py", GREETING)) as running:
        assert running.report == {
            "ok": False,
            "errors": [
                {"code": "unauthorized", "message": "a token is needed", "file": None, "line": None, "hint": "set it"}
            ],
        }
        assert running.end() == (1, "")


def test_port_in_use_is_reported(tmp_path: Path, engine: FakeEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with worker(engine, "--port", port, write(tmp_path, "greetings.py", GREETING)) as running:
            assert running.report["errors"][0]["code"] == "cannot-listen"


def test_errors_are_told_on_stderr_when_nobody_waits_for_a_report(tmp_path: Path) -> None:
    file = write(tmp_path, "broken.py", "import surely_not_installed\n")
    command = [sys.executable, "-P", "-m", "hopline_engine.worker", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == (
        f"worker: {file}:1: ModuleNotFoundError while importing the file: No module named 'surely_not_installed'\n"
        "  hint: install 'surely_not_installed' in the environment of the worker\n"
    )


def test_files_named_like_modules_of_the_worker_do_not_disturb_it(tmp_path: Path, engine: FakeEngine) -> None:
    for name in ("asyncio.py", "logging.py", "signal.py", "argparse.py"):
        write(tmp_path, name, "raise RuntimeError('the wrong file was imported')\n")
    file = write(tmp_path, "socket.py", GREETING)
    command = [sys.executable, "-m", "hopline_engine.worker.check", "socket.py"]
    checked = subprocess.run(
        [*command[:1], "-P", *command[1:]],
        cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert json.loads(checked.stdout)["errors"] == []
    with worker(engine, file, cwd=tmp_path) as running:
        assert running.ask("greet", {"name": "you"}).json()["result"] == "hello you"


def test_several_processes_register_each_and_dead_ones_are_replaced(tmp_path: Path, engine: FakeEngine) -> None:
    file = write(tmp_path, "working.py", WORK)
    with worker(engine, "--processes", "2", "--exit-with-parent", file) as running:
        assert running.report["ok"] is True
        first, second = [asked.body["pid"] for asked in engine.wait("PUT", "/workers/", 2)]
        assert len({first, second, running.process.pid}) == 3
        with pytest.raises(httpx.TransportError):
            running.ask("die", {})
        third = engine.wait("PUT", "/workers/", 3)[-1].body["pid"]
        running.process.send_signal(signal.SIGTERM)
        status, stderr = running.end()
    assert status == 0
    assert f"worker: process {second} ended with status 7; starting another" in stderr
    assert all(is_gone(pid) for pid in (first, second, third))


def test_several_processes_end_with_their_parent_even_when_it_is_killed(tmp_path: Path, engine: FakeEngine) -> None:
    with worker(engine, "--processes", "2", write(tmp_path, "greetings.py", GREETING)) as running:
        engine.wait("PUT", "/workers/", 2)
        running.process.kill()
        engine.wait("DELETE", "/workers/", 2)


def test_bad_file_with_several_processes_is_reported_once(tmp_path: Path, engine: FakeEngine) -> None:
    with worker(engine, "--processes", "3", write(tmp_path, "broken.py", "1 / 0\n")) as running:
        assert [error["code"] for error in running.report["errors"]] == ["import-error"]
        assert running.end() == (1, "")


def check(*paths: Path) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-P", "-m", "hopline_engine.worker.check", *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    return ended.returncode, json.loads(ended.stdout)


def test_check_prints_definitions_whatever_files_print(tmp_path: Path) -> None:
    status, content = check(write(tmp_path, "working.py", WORK))
    assert status == 0
    assert [definition["name"] for definition in content["definitions"]] == ["work"]
    assert content["workflows"][0]["line"] == 31
    assert content["errors"] == []


def test_check_prints_errors(tmp_path: Path) -> None:
    status, content = check(tmp_path / "nowhere.py")
    assert status == 1
    assert [error["code"] for error in content["errors"]] == ["file-not-found"]
