"""``key=`` on the real engine in virtual time: few of one key at a time, whatever happens in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import Queue, Request, Retry, http, sleep, step, workflow
from hopline_engine.testing import Engine, Run

PAY = "https://pay.example.com"
slow = Queue("slow", max_concurrent=1)


class Order(BaseModel):
    id: int
    customer: str


@http(key="customer-{order.customer}", retry=Retry(2, first="1h", jitter="none"), callback=True, deadline="2d")
def charge(order: Order) -> Request[int]:
    return http.post(f"{PAY}/card", json=order)


@workflow
def sell(order: Order) -> int:
    return charge(order)


@workflow
def sell_later(order: Order) -> int:
    return charge.after(sleep("1h"))(order)


@step
def customer_of(number: int) -> int | None:
    return number or None


@step
def work(number: int) -> int:
    return number


@workflow
def at_work(number: int) -> int:
    return work.using(key=customer_of(number))(number)


@step
def story_of(number: int) -> str:
    return "once upon a time " * number


@workflow
def at_length(number: int) -> int:
    return work.using(key=story_of(number))(number)


@workflow
def each(numbers: list[int]) -> list[int]:
    return work.using(key="{number}").map(numbers)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path)
    yield opened
    opened.close()


def why(engine: Engine, run: Run[Any]) -> str:
    return engine.ask(lambda service: service.why(run.id, None)).reasons[0].text


def begun(engine: Engine, customer: str = "ada", count: int = 3) -> list[Run[int]]:
    return [engine.start(sell, Order(id=number, customer=customer)) for number in range(count)]


def test_runs_wait_for_the_key_that_another_holds_until_its_callback_has_come(engine: Engine) -> None:
    pay = engine.server(PAY)
    pay.post("/card").reply(202)
    first, second, third = begun(engine)
    other = engine.start(sell, Order(id=9, customer="bob"))
    assert [sent.json["id"] for sent in pay.requests] == [0, 9]
    assert why(engine, second) == f"charge waits for key customer-ada, held by run {first.id} step charge"
    assert engine.ask(lambda service: service.queue("default")).waiting_for_key == 2
    engine.callback(other.step("charge"), 1)
    assert len(pay.requests) == 2
    engine.callback(first.step("charge"), 1)
    assert pay.requests[-1].json["id"] == 1
    engine.callback(second.step("charge"), 2)
    engine.callback(third.step("charge"), 3)
    assert [run.result() for run in (first, second, third)] == [1, 2, 3]


def test_key_is_held_over_a_crash_by_what_waits_for_its_callback(engine: Engine) -> None:
    pay = engine.server(PAY)
    pay.post("/card").reply(202)
    first, second, _ = begun(engine)
    engine.crash()
    assert [sent.json["id"] for sent in pay.requests] == [0]
    assert "held by run " + first.id in why(engine, second)
    engine.callback(first.step("charge"), 1)
    assert [sent.json["id"] for sent in pay.requests] == [0, 1]


def test_who_was_due_first_has_the_key_first_also_after_a_crash(engine: Engine) -> None:
    pay = engine.server(PAY)
    pay.post("/card").reply(202)
    engine.start(sell_later, Order(id=8, customer="ada"))
    first, _ = begun(engine, count=2)
    engine.advance("1h")
    engine.crash()
    engine.callback(first.step("charge"), 1)
    assert [sent.json["id"] for sent in pay.requests] == [0, 1]


def test_task_that_is_to_be_tried_again_later_lets_the_others_go_first(engine: Engine) -> None:
    pay = engine.server(PAY)
    pay.post("/card").reply(503).then(202)
    first, second, _ = begun(engine)
    assert first.step("charge").state == "scheduled"
    assert [sent.json["id"] for sent in pay.requests] == [0, 1]
    engine.advance("2h")
    assert [sent.json["id"] for sent in pay.requests] == [0, 1]
    assert second.step("charge").state == "waiting"


def test_cancelled_run_lets_go_of_its_key_and_a_waiting_one_of_its_place(engine: Engine) -> None:
    pay = engine.server(PAY)
    pay.post("/card").reply(202)
    first, second, third = begun(engine)
    engine.cancel(second)
    engine.cancel(first)
    assert [sent.json["id"] for sent in pay.requests] == [0, 2]
    assert third.step("charge").state == "waiting"


def test_paused_run_that_waits_for_a_key_is_passed_over(engine: Engine) -> None:
    pay = engine.server(PAY)
    pay.post("/card").reply(202)
    first, second, third = begun(engine)
    engine.ask(lambda service: service.pause_run(second.id))
    engine.callback(first.step("charge"), 1)
    assert pay.requests[-1].json["id"] == 2
    engine.ask(lambda service: service.resume_run(second.id))
    assert "customer-ada, held by run " + third.id in why(engine, second)
    engine.callback(third.step("charge"), 1)
    assert pay.requests[-1].json["id"] == 1


def test_key_that_turns_out_to_be_none_fails_the_step_and_says_so(engine: Engine) -> None:
    assert engine.start(at_work, 7).result() == 7
    run = engine.start(at_work, 0)
    assert run.state == "failed"
    assert run.error is not None
    assert "its key is None; a key is a text" in run.error.message


def test_key_that_is_too_large_for_rows_fails_the_step_like_one_that_is_too_long(engine: Engine) -> None:
    for number in (100, 20_000):
        run = engine.start(at_length, number)
        assert run.state == "failed"
        assert run.error is not None
        assert "a key is a text of 1 to 500 characters" in run.error.message


def test_elements_of_a_map_have_keys_of_their_own(engine: Engine) -> None:
    assert engine.start(each, [1, 2, 1, 3]).result() == [1, 2, 1, 3]
