"""``@workflow(max_runs=)``: so many runs at a time and no more, in the order in which they were started, everywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hopline import Request, http, step, workflow
from hopline_engine.store.interface import Transaction
from hopline_engine.store.tables import key_claim
from hopline_engine.testing import Engine, Run
from tests.core.worlds import definition, http_step
from tests.core.worlds import step as plain_step
from tests.scheduler.several_nodes import Nodes, in_flight

PAY = "https://pay.example.com"
delivered: list[int] = []


@http(callback=True, deadline="2d")
def charge(order: int) -> Request[int]:
    return http.post(f"{PAY}/card", json={"order": order})


@step
def book(order: int, paid: int) -> int:
    return order + paid


@workflow(max_runs=2)
def sell(order: int) -> int:
    return book(order, charge(order))


@step
def deliver(order: int) -> int:
    delivered.append(order)
    if order == 2 and delivered.count(2) == 1:
        raise OSError("the van broke down")
    return order


@workflow(max_runs=1)
def tour(orders: list[int]) -> list[int]:
    return deliver.map(orders)


@workflow
def sell_all(orders: list[int]) -> list[int]:
    return sell.map(orders)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path)
    opened.server(PAY).post("/card").reply(202)
    yield opened
    opened.close()


def charged(engine: Engine) -> list[int]:
    return [sent.json["order"] for sent in engine.server(PAY).requests]


def why(engine: Engine, run: Run[Any]) -> str:
    return engine.ask(lambda service: service.why(run.id, "turn")).reasons[0].text


def test_runs_wait_for_their_turns_and_begin_in_the_order_in_which_they_were_started(engine: Engine) -> None:
    runs = [engine.start(sell, number) for number in range(4)]
    assert charged(engine) == [0, 1]
    assert [run.step("turn").state for run in runs] == ["succeeded", "succeeded", "waiting", "waiting"]
    assert why(engine, runs[2]) == "turn waits until fewer than 2 runs of sell that came first are under way"
    engine.callback(runs[1].step("charge"), 5)
    assert runs[1].result() == 6
    assert charged(engine) == [0, 1, 2]
    engine.callback(runs[0].step("charge"), 5)
    engine.callback(runs[2].step("charge"), 5)
    engine.callback(runs[3].step("charge"), 5)
    assert [run.result() for run in runs] == [5, 6, 7, 8]


@pytest.mark.parametrize("dies", [False, True])
def test_retry_that_waits_for_its_turn_keeps_the_elements_that_its_run_had(engine: Engine, *, dies: bool) -> None:
    delivered.clear()
    failed = engine.start(tour, [1, 2, 3])
    assert failed.state == "failed"
    engine.ask(lambda service: service.pause_queue("default"))
    other = engine.start(tour, [4])
    retried = engine.ask(lambda service: service.retry_run(failed.id, [])).id
    if dies:
        engine.crash()
    assert engine.ask(lambda service: service.run_detail(retried)).steps[0].state.value == "waiting"
    engine.ask(lambda service: service.resume_queue("default"))
    assert other.result() == [4]
    assert engine.ask(lambda service: service.run_output(retried)) == b"[1,2,3]"
    assert delivered == [1, 2, 3, 4, 2]


def test_turns_outlast_a_crash(engine: Engine) -> None:
    runs = [engine.start(sell, number) for number in range(4)]
    engine.crash()
    assert charged(engine) == [0, 1]
    engine.callback(runs[0].step("charge"), 1)
    engine.crash()
    assert charged(engine) == [0, 1, 2]
    assert runs[3].step("turn").state == "waiting"


def test_run_that_is_cancelled_or_fails_lets_the_next_begin(engine: Engine) -> None:
    runs = [engine.start(sell, number) for number in range(5)]
    engine.cancel(runs[2])
    engine.cancel(runs[0])
    assert charged(engine) == [0, 1, 3]
    engine.callback(runs[1].step("charge"), error=ValueError("no money"))
    engine.advance("1h")
    assert runs[1].state == "failed"
    assert charged(engine)[-1] == 4


def test_runs_of_a_mapped_sub_workflow_take_turns_with_all_others(engine: Engine) -> None:
    first = engine.start(sell, 9)
    every = engine.start(sell_all, [1, 2, 3])
    assert charged(engine) == [9, 1]
    engine.callback(first.step("charge"), 0)
    assert charged(engine) == [9, 1, 2]
    assert every.state == "running"


@pytest.mark.anyio
async def test_no_more_runs_than_the_limit_are_under_way_at_all_nodes_together(nodes: Nodes) -> None:
    first, second = await nodes.joined(2)
    turn = plain_step("turn", {"limit": 2}) | {"kind": "turn", "signature": ""}
    held = {**http_step("held", "http://x"), "after": ["turn"]}
    await first.engine.controls.register([{**definition("held", [turn, held]), "queues": []}], ["held"])
    await second.beat()
    started = [run for node in (first, second) for run in await node.start("held", 8)]
    await in_flight(nodes.targets, 2)
    nodes.targets.open.set()
    assert set(await first.ended(started)) == {"succeeded"}
    assert nodes.targets.most == 2
    assert {sent.node for sent in nodes.targets.sent} == {first.id, second.id}

    def claims(connection: Transaction) -> list[int]:
        return list(connection.execute(select(key_claim.c.task_id)).scalars())

    assert await first.store.read(claims) == []
