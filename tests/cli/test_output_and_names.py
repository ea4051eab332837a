"""Output that cannot be written, names that are empty, and the server that a worker joins."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli, Start
from tests.cli.fake_api import FakeApi, a_run, serving
from tests.support.waiting import WITHIN
from tests.worker.users_files import GREETING, write


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_told_as_such(api: FakeApi) -> None:
    api.answer("GET", "/runs/r_1", a_run("r_1"))
    for form in ([], ["--json"]):
        with Path("/dev/full").open("w") as full:
            done = run_with_output(full, "runs", "show", "r_1", *form)
        assert (done.returncode, done.stderr) == (
            ExitCode.FAILED,
            "error[cannot-write]: the output cannot be written: No space left on device\n",
        )


def test_reader_that_goes_away_ends_the_command_without_a_word(api: FakeApi) -> None:
    api.answer("GET", "/runs/r_1", a_run("r_1"))
    for form in ([], ["--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = run_with_output(writing, "runs", "show", "r_1", *form)
        os.close(writing)
        assert (done.returncode, done.stderr) == (ExitCode.FAILED, "")


def run_with_output(output: Any, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hopline_cli", *arguments],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=WITHIN,
        check=False,
    )


@pytest.mark.parametrize(
    "words, noun",
    [
        (("runs", "show", ""), "run"),
        (("runs", "cancel", " "), "run"),
        (("queues", "pause", ""), "queue"),
        (("run", ""), "workflow"),
    ],
)
def test_empty_name_is_a_mistake_of_usage_and_asks_nothing(
    api: FakeApi, cli: Cli, words: tuple[str, ...], noun: str
) -> None:
    done = cli(*words)
    assert done.code == ExitCode.USAGE
    assert done.err == f"error[usage]: the {noun} has no name: it was given as an empty text\n"
    assert api.asked == []


# --- the server that a worker joins -----------------------------------------------------------------------------------


@contextmanager
def stranger() -> Iterator[int]:
    """Serve something that is not Hopline, and yield its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_worker_refuses_to_join_what_is_not_hopline(folder: Path, hopline: Cli) -> None:
    write(folder, "wf.py", GREETING)
    with stranger() as port:
        done = hopline("worker", "wf.py", code=ExitCode.FAILED, HOPLINE_PORT=str(port))
    assert done.err.startswith("error[not-hopline]: no server runs on .hopline/hopline.db, and what listens at http://")


def test_worker_says_that_it_joins_the_server_of_another_store(folder: Path, start: Start) -> None:
    write(folder, "wf.py", GREETING)
    with serving(FakeApi()) as fake:
        worker = start("worker", "wf.py", HOPLINE_PORT=fake.url.rpartition(":")[2])
        worker.wait_for(f"no server runs on .hopline/hopline.db; joining the one at {fake.url}\n")
        worker.wait_for("serves greeting")
        worker.process.terminate()
        assert worker.end().code == 0


def test_worker_says_where_it_waits_when_nobody_is_there_yet(folder: Path, start: Start) -> None:
    write(folder, "wf.py", GREETING)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    worker = start("worker", "wf.py", HOPLINE_PORT=str(port))
    worker.wait_for(f"no server runs on .hopline/hopline.db; waiting for one at http://127.0.0.1:{port}\n")
    worker.process.terminate()
    worker.end()
