"""Which orders of two transactions are carried out: one of those that are alike, and none is forgotten."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.interleavings.effects import Effect
from tests.interleavings.explore import Explored, explorer
from tests.interleavings.orders import Extent, Order, Side, Statement, Tally, all_orders
from tests.interleavings.pairs import all_pairs, planted_pairs

LONGEST = 4
EVERY = Extent(switches=float("inf"))
PAIRS = {str(pair): pair for pair in (*all_pairs(), *planted_pairs())}
dependences = st.sets(st.tuples(st.integers(0, LONGEST - 1), st.integers(0, LONGEST - 1)))
"""Which statement of side 0 may not change places with which one of side 1."""
lengths = st.tuples(st.integers(0, LONGEST), st.integers(0, LONGEST))


def _explore(lengths: tuple[int, int], dependent: set[tuple[int, int]], extent: Extent) -> tuple[Tally, list[str]]:
    """Explore two sides of so many statements that wait for nothing."""
    sides = [[_statement(side, number, dependent) for number in range(lengths[side])] for side in (0, 1)]
    found: list[str] = []

    async def carry_out(beginning: Sequence[Side]) -> Order:
        order = Order(goes_on=extent.switches is not None)
        left = [list(statements) for statements in sides]
        while could := tuple(side for side in (0, 1) if left[side]):
            pending = [statements[0] if statements else Statement("", Effect()) for statements in left]
            left[order.choose(could, pending, beginning)].pop(0)
        found.append(order.sides)
        return order

    return asyncio.run(all_orders(carry_out, extent)), found


def _statement(side: Side, number: int, dependent: set[tuple[int, int]]) -> Statement:
    rows = frozenset((str(pair), None) for pair in dependent if pair[side] == number)
    return Statement(f"{side} {number}", Effect(locks=rows))


def _ends(order: str, dependent: set[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Return in which of the dependent pairs side 0 came first: orders are alike if this is the same."""
    gone, before = [0, 0], set()
    for side in map(int, order):
        if side == 0:
            before |= {pair for pair in dependent if pair[0] == gone[0] and pair[1] >= gone[1]}
        gone[side] += 1
    return frozenset(before)


@given(lengths, dependences)
def test_of_orders_that_are_alike_exactly_one_is_carried_out(
    lengths: tuple[int, int], dependent: set[tuple[int, int]]
) -> None:
    _, every = _explore(lengths, dependent, EVERY)
    tally, chosen = _explore(lengths, dependent, Extent())
    assert len(every) == len(set(every))
    assert {_ends(order, dependent) for order in chosen} == {_ends(order, dependent) for order in every}
    assert tally.orders == len({_ends(order, dependent) for order in every})
    assert tally.orders + tally.idle == len(chosen) == len(set(chosen))


async def _explore_twice(name: str) -> tuple[Explored, Explored]:
    async with explorer() as exploring:
        return await exploring.explore(PAIRS[name], Extent()), await exploring.explore(PAIRS[name], EVERY)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pair",
    [
        "a starts by a stale look | b starts by a stale look",
        "a edits by a stale look | b edits by a stale look",
        "a edits a schedule | b edits a schedule",
        "a needs the key | b needs the key",
        "a leaves | b gives up shards",
        "a deletes a cloud task | b begins an attempt",
    ],
)
def test_orders_that_are_not_carried_out_end_as_others_that_are(pair: str) -> None:
    chosen, every = asyncio.run(_explore_twice(pair))
    assert chosen.tally.orders < every.tally.orders / 2
    assert all(end in chosen.ends for end in every.ends)
    assert bool(chosen.anomalies) == bool(every.anomalies)
