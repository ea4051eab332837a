"""What is asked for while something is being done is done together, in order, and each asker gets its own result."""

import asyncio
from collections.abc import Sequence

import pytest

from hopline_engine.queue.gathering import Gathering

pytestmark = pytest.mark.anyio


class Doing:
    """Doubles numbers when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = asyncio.Event()

    async def __call__(self, numbers: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(numbers))
        await self.may.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


async def test_what_comes_meanwhile_is_done_together() -> None:
    doing = Doing()
    gathering = Gathering(doing, lambda number: number, 3)
    asking = [asyncio.ensure_future(gathering.done(number)) for number in range(6)]
    await asyncio.sleep(0)
    later = asyncio.ensure_future(gathering.done(7))
    doing.may.set()

    assert await asyncio.gather(*asking, later) == [0, 2, 4, 6, 8, 10, 14]
    assert doing.batches == [[0, 1, 2], [3, 4, 5], [7]]


async def test_those_with_the_same_key_are_done_one_after_the_other() -> None:
    doing = Doing()
    doing.may.set()
    gathering = Gathering(doing, lambda number: number % 2, 10)

    assert await asyncio.gather(*(gathering.done(number) for number in range(4))) == [0, 2, 4, 6]
    assert doing.batches == [[0, 1], [2, 3]]


async def test_who_asked_is_told_what_went_wrong_and_the_next_ones_are_done() -> None:
    doing = Doing()
    doing.may.set()
    gathering = Gathering(doing, lambda number: number, 10)

    with pytest.raises(ValueError, match="thirteen"):
        await gathering.done(13)
    assert await gathering.done(1) == 2


async def test_what_was_given_is_done_also_when_nobody_waits_for_it_any_more() -> None:
    doing = Doing()
    gathering = Gathering(doing, lambda number: number, 1)
    asking = [asyncio.ensure_future(gathering.done(number)) for number in range(2)]
    await asyncio.sleep(0)
    for each in asking:
        each.cancel()
    doing.may.set()

    await gathering.settled()

    assert doing.batches == [[0], [1]]
