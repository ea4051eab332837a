"""Cancel, retry, fork, orders to many runs, and changes of a file under running work: by command, against ``dev``."""

import json
from pathlib import Path
from typing import Any

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli, Running, Start, developing, save
from tests.cli.test_end_to_end import FILE
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)  # each of tests is a dozen commands, each a process

AT_ONCE = """
import time
from pathlib import Path

from hopline import Event, Queue, Retry, approval, context, sleep, step, workflow

arrived = Event("arrived", str)
narrow = Queue("narrow", max_concurrent=1)


def linger(name: str) -> str:
    "Goes on until nobody waits for it."
    with Path(name + ".begun").open("a") as begun:
        begun.write("x")
    while not context().cancelled:
        time.sleep(0.02)
    Path(name + ".told").touch()
    return name


@step
def running(name: str) -> str:
    return linger(name)


@step(queue=narrow)
def in_line(name: str) -> str:
    return linger(name)


@step(retry=Retry(9, first="1h", jitter="none"))
def retrying(name: str) -> str:
    raise OSError(name)


@step
def last(name: str) -> str:
    return name


@workflow
def below(name: str) -> str:
    return running(name)


@workflow
def everything() -> list[str]:
    slept = last.after(sleep("1h"))("slept")
    event = last.after(arrived.wait(key="k"))("event")
    decided = last.after(approval("Go?"))("decided")
    lined_up = last.after(in_line.map(["a", "b"]))("lined up")
    return [slept, event, decided, lined_up, running("alone"), retrying("r"), below("below")]
"""

SALES = """
from pathlib import Path

from hopline import step, workflow


def note(name: str) -> None:
    with Path(name).open("a") as calls:
        calls.write("x")


@step
def total(shop: int) -> int:
    note(f"total-{shop}")
    return 10 * shop


@step
def charge(parts: list[int], card: str) -> str:
    note("charge")
    if card == "expired" and not Path("renewed").exists():
        raise PermissionError("declined")
    return f"{sum(parts)} by {card}"


@workflow
def sell(card: str = "valid") -> str:
    return charge(total.map([1, 2, 3]), card)
"""


def dev(start: Start, folder: Path, text: str) -> Running:
    (folder / "wf.py").write_text(text)
    return developing(start, "wf.py")


def shown(hopline: Cli, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hopline("runs", "show", run, "--json").out)
    return found


def states(hopline: Cli, run: str) -> dict[str, str]:
    return {step["id"]: step["state"] for step in shown(hopline, run)["steps"]}


def calls(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in folder.iterdir() if path.name.startswith(("total-", "charge"))}


def test_cancel_reaches_all_that_a_run_does_and_nothing_of_it_starts_afterwards(
    folder: Path, start: Start, hopline: Cli
) -> None:
    dev(start, folder, AT_ONCE)
    run = hopline("run", "everything", "--detach").out.strip()
    at_work = [folder / f"{name}.begun" for name in ("alone", "below")]
    eventually(lambda: all(path.exists() for path in at_work), "they run")
    eventually(lambda: sum(1 for _ in folder.glob("[ab].begun")) == 1, "one of two runs")
    eventually(lambda: states(hopline, run)["retrying"] == "scheduled", "it waits for its retry")
    assert states(hopline, run) | {"last": "", "last_2": "", "last_3": "", "last_4": ""} == {
        "sleep": "waiting",
        "arrived": "waiting",
        "approval": "waiting",
        "running": "running",
        "retrying": "scheduled",
        "below": "running",
        "in_line": "running",
        "last": "",
        "last_2": "",
        "last_3": "",
        "last_4": "",
    }
    assert hopline("runs", "cancel", run).out == f"{run}\n"
    eventually(lambda: sum(1 for _ in folder.glob("*.told")) == 3, "who works on it is told")
    after = shown(hopline, run)
    assert (after["state"], {step["state"] for step in after["steps"]}) == ("cancelled", {"cancelled"})
    (sub_run,) = hopline("runs", "list", "--children-of", run, "-q").out.split()
    assert shown(hopline, sub_run)["state"] == "cancelled"
    hopline("events", "emit", "arrived", "--key", "k", '"x"')
    assert shown(hopline, run) == after, "what comes later changes nothing"
    assert sum(1 for _ in folder.glob("*.begun")) == 3, "what waited in the queue has not begun"


def test_elements_are_retried_and_a_part_is_forked_by_command(folder: Path, start: Start, hopline: Cli) -> None:
    dev(start, folder, SALES)
    first = json.loads(hopline("run", "sell", "--json").out)
    assert (first["result"], calls(folder)) == ("60 by valid", {"total-1": 1, "total-2": 1, "total-3": 1, "charge": 1})
    retried = hopline("runs", "retry", first["id"], "--items", "total[0,2]").out.strip()
    assert hopline("runs", "watch", retried).out == '"60 by valid"\n'
    assert calls(folder) == {"total-1": 2, "total-2": 1, "total-3": 2, "charge": 2}
    forked = hopline("runs", "fork", first["id"], "--from", "charge", "card=other").out.strip()
    assert hopline("runs", "watch", forked).out == '"60 by other"\n'
    assert calls(folder) == {"total-1": 2, "total-2": 1, "total-3": 2, "charge": 3}
    again = shown(hopline, forked)
    assert (again["fork_of"], again["input"]) == (first["id"], {"card": "other"})
    assert [step["id"] for step in again["steps"] if step["reused"]] == ["total"]


def test_many_runs_are_looked_at_retried_and_cancelled_by_command(folder: Path, start: Start, hopline: Cli) -> None:
    dev(start, folder, SALES)
    failed = [
        json.loads(hopline("run", "sell", "card=expired", "--json", code=ExitCode.RUN_FAILED).out)["id"]
        for _ in range(3)
    ]
    hopline("run", "sell")
    meant = ("--where", "state=failed,workflow=sell,step=charge,since=2h", "--rate", "50/s")
    looked = hopline("runs", "retry", *meant, "--dry-run")
    assert all(run in looked.out for run in failed)
    assert "3 runs (3 of sell) would be retried" in looked.err
    assert len(hopline("runs", "list", "-q").out.split()) == 4, "a dry run changes nothing"
    (folder / "renewed").touch()
    begun = hopline("runs", "retry", *meant, "--yes")
    assert "retried 3 of 3 runs" in begun.err
    for run in begun.out.split():
        assert hopline("runs", "watch", run).out == '"60 by expired"\n'
    assert {shown(hopline, run)["retry_of"] for run in begun.out.split()} == set(failed)
    assert "0 runs would be retried" in hopline("runs", "retry", *meant, "--yes").err, "each is retried once"
    hopline("queues", "pause", "default")
    held = {hopline("run", "sell", "--detach").out.strip() for _ in range(2)}
    cancelled = hopline("runs", "cancel", "--where", "workflow=sell,step=total", "--yes")
    assert set(cancelled.out.split()) == held
    assert {shown(hopline, run)["state"] for run in held} == {"cancelled"}


def test_step_whose_signature_nobody_serves_waits_visibly_and_goes_on_when_somebody_does(
    folder: Path, start: Start, hopline: Cli
) -> None:
    served = dev(start, folder, FILE)
    run = hopline("run", "squares", "wait=opened", "--detach").out.strip()
    eventually((folder / "opened.reached").exists, "the gate is reached")
    (folder / "kept").mkdir()
    (folder / "kept" / "as_it_was.py").write_text("# moved, and said in other words\n" + FILE)
    save(folder / "wf.py", FILE.replace("attempts: int) -> int", "attempts: int, extra: int = 0) -> int"))
    served.wait_for("loaded again (squares)")
    (folder / "opened").touch()
    needed = "total waits: workers serve only a newer version of total than this run began with"
    eventually(lambda: needed in hopline("runs", "why", run, "total").out, "it is said what is needed")
    assert shown(hopline, run)["state"] == "running"
    doctor = hopline("doctor", code=1)
    assert ("total" in doctor.out, run in doctor.out) == (True, True)
    start("worker", "kept/as_it_was.py")
    assert hopline("runs", "watch", run).out == "14\n"
    assert hopline("run", "squares").out == "14\n", "a new run has the new version"
