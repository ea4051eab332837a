"""The command line with the real engine and the real worker, as processes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli, Running, Start, developing, save
from tests.support.waiting import WITHIN, eventually

pytestmark = pytest.mark.timeout(600)  # tests of up to twenty commands, each a process

FILE = """
import os
import time
from pathlib import Path

from hopline import Retry, context, step, workflow

@step
def numbers(count: int) -> list[int]:
    return list(range(count))

@step
def square(number: int) -> int:
    return number * number

@step
def gate(name: str) -> str:
    "Waits until the file *name* is there."
    Path(name + ".reached").touch()
    while name and not Path(name).exists():
        time.sleep(0.02)
    return "open"

@step(retry=Retry(attempts=3, first="50ms", jitter="none"))
def total(squares: list[int], gate: str, attempts: int) -> int:
    print("adding up", len(squares), "\\x1b[31mred")
    if context().attempt < attempts:
        raise ValueError("not yet")
    return sum(squares)

@workflow
def squares(count: int = 4, wait: str = "", attempts: int = 1) -> int:
    return total(square.map(numbers(count)), gate(wait), attempts)
"""


@pytest.fixture
def wf(folder: Path) -> Path:
    path = folder / "wf.py"
    path.write_text(FILE)
    return path


def test_run_needs_nothing_but_the_file_and_leaves_a_store_to_look_at(wf: Path, folder: Path, hopline: Cli) -> None:
    done = hopline("run", "wf.py", "attempts=2")
    assert done.out == "14\n"
    assert re.search(r"Z  total  succeeded  .*2 attempts", done.err)
    assert not (folder / ".hopline" / "server.json").exists()

    run = json.loads(hopline("runs", "show", "@last", "--json").out)
    assert (run["state"], run["result"], run["steps_done"]) == ("succeeded", 14, 4)
    assert hopline("runs", "output", run["id"][:6]).out == "14\n"
    assert "adding up 4 \\x1b[31mred" in hopline("runs", "logs", run["id"], "--step", "total").out
    assert hopline("runs", "list", "-q").out == run["id"] + "\n"
    assert hopline("workflows", "list", "-q").out == "squares\n"
    assert hopline("queues", "list", "-q").out == "default\n"
    hopline("runs", "cancel", run["id"], code=ExitCode.FAILED)
    assert hopline("runs", "watch", "@last").out == "14\n"


def test_failed_run_is_retried_from_where_it_failed_once_the_file_is_right(wf: Path, hopline: Cli) -> None:
    failed = hopline("run", "wf.py", "attempts=9", code=ExitCode.RUN_FAILED)
    assert failed.out == ""
    assert "error[run-failed]: step total failed: ValueError: not yet" in failed.err
    assert 'raise ValueError("not yet")' in failed.err
    assert "adding up 4" in failed.err
    retry = re.search(r"hopline (runs retry r_\w+ wf.py)", failed.err)
    assert retry is not None

    wf.write_text(FILE.replace("< attempts", "< 0"))
    assert hopline(*retry[1].split()).out == "14\n"
    kept = json.loads(hopline("runs", "show", "@last", "--json").out)
    assert kept["retry_of"] is not None
    assert [step["attempts"] for step in kept["steps"] if step["id"] == "numbers"] != [2]


def test_same_key_runs_once(wf: Path, hopline: Cli) -> None:
    first = json.loads(hopline("run", "wf.py", "--key", "k", "--json").out)
    second = json.loads(hopline("run", "wf.py", "--key", "k", "--json").out)
    assert first["id"] == second["id"]


def test_wrong_type_is_told_and_starts_no_run(wf: Path, hopline: Cli) -> None:
    done = hopline("run", "wf.py", "count=many", code=ExitCode.USAGE)
    assert "count" in done.err and "integer" in done.err
    assert hopline("runs", "list", "-q").out == ""


def test_ctrl_c_keeps_the_run_and_watching_it_with_the_file_goes_on(
    wf: Path, folder: Path, start: Start, hopline: Cli
) -> None:
    command = start("run", "wf.py", "wait=opened")
    eventually((folder / "opened.reached").exists, "the gate is reached")
    command.process.send_signal(signal.SIGINT)
    command.wait_for("stopping")
    (folder / "opened").touch()
    done = command.end()
    assert (done.code, done.out) == (ExitCode.INTERRUPTED, "")
    back = re.search(r"detached; (r_\w+) is kept .* hopline (runs watch r_\w+ wf.py)", done.err)
    assert back is not None

    assert start("runs", "watch", back[1]).end().code in {0, ExitCode.NO_SERVER}
    assert hopline(*back[2].split()).out == "14\n"


def test_second_ctrl_c_quits_at_once_and_leaves_nothing_running(
    wf: Path, folder: Path, start: Start, hopline: Cli
) -> None:
    wf.write_text(FILE.replace(".touch()", ".write_text(str(os.getpid()))"))
    command = start("run", "wf.py", "wait=never")
    reached = folder / "never.reached"
    eventually(lambda: reached.exists() and reached.read_text(), "the gate is reached")
    command.process.send_signal(signal.SIGINT)
    command.wait_for("Ctrl-C again quits at once")
    command.process.send_signal(signal.SIGINT)
    assert command.end().code == ExitCode.INTERRUPTED
    worker = int(reached.read_text())
    eventually(lambda: not is_alive(worker), "the worker is gone")

    (folder / "never").touch()
    assert hopline("runs", "watch", "@last", "wf.py").out == "14\n"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return not Path("/proc").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


FALLING = """

def fell() -> bool:
    "Whether it has fallen before."
    try:
        Path("fallen").touch(exist_ok=False)
    except FileExistsError:
        return True
    return False
"""


def test_worker_that_dies_is_started_again_and_the_run_ends(wf: Path, hopline: Cli) -> None:
    falling = "return number * number if fell() else os.kill(os.getpid(), 9)"
    wf.write_text(FILE.replace("return number * number", falling) + FALLING)
    done = hopline("run", "wf.py")
    assert done.out == "14\n"
    assert "worker: ended with SIGKILL; starting again in 0.2 s" in done.err


def test_run_uses_the_server_of_another_and_takes_over_when_that_ends(wf: Path, folder: Path, start: Start) -> None:
    first = start("run", "wf.py", "wait=one")
    eventually((folder / "one.reached").exists, "the first gate is reached")
    second = start("run", "wf.py", "wait=two")
    eventually((folder / "two.reached").exists, "the second gate is reached")
    (folder / "one").touch()
    assert first.end().out == "14\n"
    (folder / "two").touch()
    done = second.end()
    assert (done.code, done.out) == (0, "14\n")


def test_two_runs_begun_at_once_both_end(wf: Path, start: Start) -> None:
    commands = [start("run", "wf.py", f"count={count}") for count in (3, 4)]
    assert [command.end().out for command in commands] == ["5\n", "14\n"]


@pytest.fixture
def dev(wf: Path, start: Start) -> Running:
    return developing(start, "wf.py")


def test_dev_serves_the_file_until_ctrl_c_and_leaves_no_half_state(dev: Running, folder: Path, hopline: Cli) -> None:
    assert re.search(r"api    http://127.0.0.1:\d+/api/v1\n  store  .hopline/hopline.db", dev.err)
    assert hopline("run", "squares", "count=3").out == "5\n"
    assert "already-running" in hopline("dev", "wf.py", code=ExitCode.FAILED).err
    dev.process.send_signal(signal.SIGINT)
    assert dev.end().code == 0
    assert not (folder / ".hopline" / "server.json").exists()
    hopline("runs", "list", "-q")


def test_dev_loads_a_changed_file_again_and_keeps_the_old_one_when_it_is_broken(
    dev: Running, wf: Path, hopline: Cli
) -> None:
    save(wf, FILE.replace("number * number", "number + 1"))
    dev.wait_for("✔ 1 workflow loaded again")
    assert hopline("run", "squares", "count=3").out == "6\n"
    save(wf, "def (\n")
    dev.wait_for("error[syntax-error]")
    dev.wait_for("what was loaded before stays")
    assert hopline("run", "squares", "count=3").out == "6\n"
    save(wf, FILE)
    dev.wait_for("loaded again", count=2)
    assert hopline("run", "squares", "count=3").out == "5\n"


def test_dev_begins_with_a_broken_file_and_waits_for_it(wf: Path, start: Start, hopline: Cli) -> None:
    wf.write_text("import surely_not_installed\n")
    command = start("dev", "wf.py", "--port", "0")
    command.wait_for("error[import-error]")
    save(wf, FILE)
    command.wait_for("loaded again (squares)")
    assert hopline("run", "squares", "count=3").out == "5\n"


def test_serve_and_worker_are_two_processes_that_find_each_other(wf: Path, start: Start, hopline: Cli) -> None:
    server = start("serve", "--port", "0")
    server.wait_for("serving .hopline/hopline.db at http://127.0.0.1:")
    worker = start("worker", "wf.py", "--concurrency", "2")
    eventually(lambda: "yes" in hopline("workflows", "list").out, "the workflow is served")
    assert hopline("run", "squares", "count=3").out == "5\n"
    for command in (worker, server):
        command.process.send_signal(signal.SIGTERM)
        assert command.end().code == 0


def test_why_names_the_reason_that_a_step_waits(wf: Path, start: Start, hopline: Cli) -> None:
    server = start("serve", "--port", "0")
    server.wait_for("serving")
    hopline("queues", "pause", "default")
    hopline("run", "wf.py", "--detach")
    assert hopline("runs", "why", "@last", "total").out.startswith("total waits for ")
    assert json.loads(hopline("queues", "show", "default", "--json").out)["state"] == "paused"


def on_a_terminal(*arguments: str, columns: int = 100) -> tuple[str, int]:
    """Run a command on a pseudo terminal; return all it wrote there and its exit code."""
    main, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "hopline_cli", *arguments],
        stdin=secondary, stdout=secondary, stderr=secondary, close_fds=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30"},
    )  # fmt: skip
    os.close(secondary)
    written = bytearray()
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    os.close(main)
    return written.decode(), process.wait(WITHIN)


def test_terminal_shows_the_picture_and_keeps_its_last_form(wf: Path) -> None:
    written, code = on_a_terminal("run", "wf.py", "attempts=2")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n")
    last = [line for line in plain.splitlines() if line.strip()][-6:]
    assert re.match(r" squares  r_\w+  ✔ succeeded  \S+ m?s  4/4 ━+$", last[0])
    assert [line.split()[:2] for line in last[1:5]] == [["✔", name] for name in ("gate", "numbers", "square", "total")]
    assert "▒" in last[4] and "▇" in last[4] and last[4].endswith("2 attempts")
    assert "4 of 4 items" in last[3]
    assert last[5] == "14"
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")


def test_terminal_gets_relative_times_and_whole_ids(wf: Path, hopline: Cli) -> None:
    hopline("run", "wf.py")
    run_id = hopline("runs", "list", "-q").out.strip()
    written, _ = on_a_terminal("runs", "list", columns=40)
    assert run_id in written
    assert "ago" in written or "now" in written
    assert "Z" not in written
