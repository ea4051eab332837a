"""``hopline.testing``: the real engine in virtual time, its fixture, and what it is good for."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from time import process_time

import pytest
from pydantic import BaseModel

from hopline import DefinitionError, Event, Request, Retry, context, dynamic, http, secret, sleep, step, workflow
from hopline_engine.testing import CallbackRefusedError, Engine, NoDoubleError, Run

PLUG_IN = "hopline_engine.pytest_plugin"
PAY = "https://pay.example.com"


class Payment(BaseModel):
    id: str


class Scan(BaseModel):
    place: str


scanned = Event("parcel.scanned", Scan)


@http(retry=Retry(5, first="2s", jitter="none"), callback=True, deadline="2h")
def charge(order: str) -> Request[Payment]:
    return http.post(f"{PAY}/card", json={"order": order}, headers={"Authorization": secret("PAY")})


@step
def label(payment: Payment) -> str:
    return f"label of {payment.id}"


@step
def remind(order: str, place: Scan) -> str:
    return f"{order} is in {place.place}"


@workflow
def ship(order: str) -> str:
    scan = scanned.after(label(charge(order))).wait(key=order, timeout="14d")
    return remind.after(sleep.after(scan)("30d"))(order, scan)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path, secrets={"PAY": "s3cret"})
    yield opened
    opened.close()


def test_month_of_calls_waits_and_sleeps_takes_under_a_second(engine: Engine) -> None:
    pay = engine.server(PAY)
    pay.post("/card").reply(503).then(202)
    before = process_time()
    run = engine.start(ship, "7", key="order-7")
    assert run.step("charge").state == "scheduled"
    engine.advance("5s")
    assert run.step("charge").state == "waiting"
    engine.callback(run.step("charge"), Payment(id="p"))
    engine.advance("2d")
    assert run.step("label").state == "succeeded"
    engine.emit(scanned, Scan(place="Bonn"), key="7")
    engine.advance("29d")
    assert run.state == "running"
    engine.advance("1d")
    assert run.result() == "7 is in Bonn"
    assert process_time() - before < 1
    assert {sent.headers["Idempotency-Key"] for sent in pay.requests} == {f"{run.id}/charge"}
    assert [sent.headers["Authorization"] for sent in pay.requests] == ["s3cret"] * 2
    assert [sent.json for sent in pay.requests] == [{"order": "7"}] * 2
    assert engine.start(ship, "7", key="order-7").id == run.id


def test_engine_that_is_killed_goes_on_where_it_was(engine: Engine) -> None:
    engine.server(PAY).post("/card").reply(202)
    run = engine.start(ship, "7")
    engine.crash()
    engine.callback(run.step("charge"), Payment(id="p"))
    engine.crash()
    engine.emit(scanned, Scan(place="Bonn"), key="7")
    engine.advance("10d")
    engine.crash()
    engine.advance("20d")
    assert run.result() == "7 is in Bonn"
    assert [sent.step for sent in engine.executions] == ["charge", "label", "remind"]


def test_request_that_the_test_says_nothing_about_fails_the_test_and_says_what_to_write(engine: Engine) -> None:
    with pytest.raises(NoDoubleError, match=r'engine.server\("https://pay.example.com"\)'):
        engine.start(ship, "7")
    engine.server(PAY).get("/card").reply(200)
    with pytest.raises(NoDoubleError, match=r'server.post\("/card"\).reply'):
        engine.start(ship, "8")


def test_callback_that_nobody_waits_for_fails_the_test(engine: Engine) -> None:
    engine.server(PAY).post("/card").reply(202)
    run = engine.start(ship, "7")
    with pytest.raises(CallbackRefusedError, match="id"):
        engine.callback(run.step("charge"), {"number": 1})


def test_what_is_no_workflow_is_refused_and_stands_in_the_way_of_no_other(engine: Engine) -> None:
    @workflow
    def wrong(order: str) -> str:
        return label(order)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="mark it with @workflow"):
        engine.start(label, "7")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError):
        engine.start(wrong, "7")
    engine.server(PAY).post("/card").reply(202)
    assert engine.start(ship, "7").step("charge").state == "waiting"


def test_result_of_a_run_that_goes_on_says_what_it_waits_for(engine: Engine) -> None:
    engine.server(PAY).post("/card").reply(202)
    run = engine.start(ship, "7")
    with pytest.raises(AssertionError, match=f"run {run.id} has not finished; charge was accepted by its target"):
        run.result()


def test_result_of_a_run_that_failed_says_why(engine: Engine) -> None:
    engine.server(PAY).post("/card").reply(402)
    run = engine.start(ship, "7")
    assert (run.state, run.step("charge").state, run.step("label").state) == ("failed", "failed", "upstream_failed")
    with pytest.raises(AssertionError, match="charge"):
        run.result()


@step(retry=Retry(3, first="1h", jitter="none"), timeout="10s")
async def slow(number: int) -> int:
    await asyncio.sleep(60 if context().attempt < 3 else 1)
    return number


@dynamic
def graph(numbers: list[int]) -> list[int]:
    return [slow(number) for number in numbers if number % 2]


@workflow
def odd(numbers: list[int]) -> list[int]:
    return graph(numbers)


def test_steps_and_graphs_made_at_run_time_run_in_the_test_with_its_time(engine: Engine) -> None:
    run = engine.start(odd, [1, 2, 3])
    engine.advance("2h")
    assert run.state == "running"
    engine.advance("1m")
    assert run.result() == [1, 3]


def drive(engine: Engine, run: Run[str]) -> None:
    engine.advance("5s")
    engine.callback(run.step("charge"), Payment(id="p"))
    engine.emit(scanned, Scan(place="Bonn"), key="7")
    engine.advance("31d")


def test_outcome_is_the_same_wherever_the_engine_dies(tmp_path: Path) -> None:
    def prepare(engine: Engine) -> None:
        engine.server(PAY).post("/card").reply(503).then(202)

    engine = Engine(tmp_path, secrets={"PAY": "s3cret"})
    points = list(engine.crash_points(ship, "7", prepare=prepare, drive=drive))
    engine.close()
    assert len(points) > 20
    assert {point.moment for point in points} == {
        *("before a commit", "after a commit"),
        *("before a request", "after a request"),
    }
    for point in points:
        assert point.outcome == point.outcome_without_crash == ("succeeded", "7 is in Bonn")
        assert point.duplicate_effects == []


def plug_in_arguments() -> list[str]:
    """Return what names the plug-in to pytest where Hopline is run from its sources and not installed."""
    is_installed = any(found.value == PLUG_IN for found in entry_points(group="pytest11"))
    return [] if is_installed else ["-p", PLUG_IN]


USERS_TEST = """
from hopline import step, workflow
from hopline.testing import Engine

@step
def double(number: int) -> int:
    return 2 * number

@workflow
def twice(number: int) -> int:
    return double(double(number))

def test_it(engine: Engine) -> None:
    assert engine.start(twice, 3).result() == 12
"""


def test_plug_in_gives_every_test_an_engine(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plug_in_arguments(), "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout


def test_plug_in_loads_nothing_before_it_is_used() -> None:
    heavy = "fastapi sqlalchemy pydantic hopline_engine.testing"
    code = f"import {PLUG_IN}, sys; print(*sys.modules.keys() & set({heavy!r}.split()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
