"""Settled maps, batches, loops and dynamic workflows in virtual time, and with a crash at every moment."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hopline import Err, Ok, Retry, Workflow, dynamic, loop, step, workflow
from hopline.testing import Engine

traced: list[int] = []


@step(retry=Retry(2, first="0s"))
def picky(number: int) -> int:
    if number == 1:
        raise ValueError(f"not {number}")
    return number


@step
def increase(number: int) -> int:
    return number + 1


@dynamic
def grown(number: int) -> int:
    traced.append(number)
    for _ in range(number):
        number = increase(number)
    return number


@workflow
def settled() -> list[Ok[int] | Err]:
    return picky.map_settled([0, 1, 2])


@workflow
def in_batches() -> list[Ok[int] | Err]:
    return picky.using(batch=2).map_settled([0, 1, 2])


@workflow
def looped() -> int:
    first = loop(increase, 0, until=lambda number: number >= 2, every="1h", limit=5)
    return loop(lambda number: increase(number), first, until=lambda number: number >= 4, every="1h", limit=5)


@workflow
def unfolded() -> list[int]:
    return grown.map([0, 1, 2])


OUTCOMES: list[tuple[Workflow[[], Any], Any]] = [
    (settled, [Ok(0), Err("ValueError", "not 1"), Ok(2)]),
    (in_batches, [Ok(0), Err("ValueError", "not 1"), Ok(2)]),
    (looped, 4),
    (unfolded, [0, 2, 4]),
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize(("called", "result"), OUTCOMES, ids=lambda value: getattr(value, "name", ""))
def test_outcome_is_the_same_wherever_the_engine_dies(engine: Engine, called: Workflow[[], Any], result: Any) -> None:
    points = list(engine.crash_points(called))
    assert len(points) > 4
    for point in points:
        assert point.outcome == ("succeeded", result), point
        assert point.outcome_without_crash == point.outcome
        assert point.duplicate_effects == [], point


def test_graph_that_is_durable_is_never_traced_again(engine: Engine) -> None:
    @workflow
    def once() -> int:
        return grown(1)

    for point in engine.crash_points(once, prepare=lambda _: traced.clear()):
        # The body runs again only where its answer was lost: when the engine died before the commit that pins it.
        assert len(traced) <= 2, point
        assert "grown" not in point.duplicate_effects


def test_loop_rests_in_virtual_time(engine: Engine) -> None:
    run = engine.start(looped)
    engine.advance("30m")
    assert run.state == "running"
    engine.advance("2h")
    assert run.result() == 4
