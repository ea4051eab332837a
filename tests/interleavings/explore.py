"""Carries out every two of the engine's transactions on Postgres, statement by statement, in all orders.

    python tests/interleavings/explore.py --part 1/20

An order is right if the store and both sides end as they would one after the other, in one of the two ways; a heartbeat
may leave to the next one what another transaction held at that moment. Of shards it must be true that nobody works on
one that the store gives to somebody else, and that nobody took more than its part.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the root of the repository, wherever this is called from

from hopline_engine.core.shards import fair_share
from hopline_engine.store.entries import Decided, Outcome
from hopline_engine.store.postgres.writer import Unit
from tests.interleavings.cloud_kinds import fill
from tests.interleavings.kinds import GROUPS, Kind
from tests.interleavings.orders import ElsewhereError, Extent, Order, Side, Tally, all_orders
from tests.interleavings.pairs import Pair, all_pairs, planted_pairs, sample
from tests.interleavings.turns import Referee
from tests.interleavings.world import ALIVE, SHARDS_OF, SLOTS, TOKENS, TRIES, Member, World, said
from tests.support.postgres import database

Act = Callable[[Member], Awaitable[Any]]


@dataclass(slots=True)
class Explored:
    """What came of a pair."""

    pair: Pair
    tally: Tally = field(default_factory=Tally)
    waits: int = 0
    anomalies: list[str] = field(default_factory=list)
    ends: list[Any] = field(default_factory=list)
    """What both learned and what was stored at the end, each once."""

    def __str__(self) -> str:
        orders, idle, left = self.tally.orders, self.tally.idle, self.tally.left
        return f"{orders:6} orders {idle:6} like others {left:6} left {self.waits:6} waits"


class Explorer:
    """Carries out pairs in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._referee = Referee(world.raw)
        self._members: dict[tuple[Side, str], Member] = {}

    async def explore(self, pair: Pair, extent: Extent) -> Explored:
        """Carry out a pair in all orders of an extent."""
        for _ in range(TRIES):
            try:
                return await self._explore(pair, extent)
            except ElsewhereError:
                continue  # from the start, with connections that know more
        raise AssertionError(f"{pair} is never carried out in the same way")

    async def _explore(self, pair: Pair, extent: Extent) -> Explored:
        explored = Explored(pair)
        allowed: list[Any] = []
        others = self._one_after_the_other(pair)

        async def carry_out(beginning: Sequence[Side]) -> Order:
            try:
                order, result = await self._carry_out(
                    pair, [kind.act for kind in pair.kinds], beginning, goes_on=extent.switches is not None
                )
            except TimeoutError:
                raise AssertionError(f"{pair}, beginning with {beginning}: neither went on") from None
            explored.waits += order.waits
            wrong = [*await self._wrong_shards(pair), *await self._exceeded_limits(pair), *self._several_keys(pair)]
            if order.is_serial:
                allowed.append(result)
            while result not in allowed and (other := await anext(others, None)) is not None:
                allowed.append(other)
            if result not in allowed:
                wrong.append(f"{result} is none of what could be: {allowed}")
            if result not in explored.ends:
                explored.ends.append(result)
            explored.anomalies += [f"{pair}, in the order {order.sides}: {each}" for each in wrong]
            return order

        explored.tally = await all_orders(carry_out, extent)
        return explored

    async def send_twice(self, group: str) -> Explored:
        """Send a group of a node again while the server may still be at work on the first try, in all orders."""
        member, again = (self._member(side, ALIVE[0]) for side in (0, 1))
        decided = GROUPS[group](member)
        kind = Kind(group, lambda sender: sender.commit(*decided))
        explored = Explored(Pair((kind, kind), (ALIVE[0], ALIVE[0])))
        states: list[Any] = []

        async def carry_out(beginning: Sequence[Side]) -> Order:
            await self.world.restore(self._referee.written())
            unit = Unit([Decided(changes, lambda _: None) for changes in decided])
            unit.number = 1
            learned: dict[Side, Sequence[Outcome]] = {}

            async def send(side: Side, sender: Member) -> None:
                learned[side] = await sender.send(unit)

            order = await self._referee.carry_out(
                [partial(send, 0, member), partial(send, 1, again)], beginning, goes_on=False
            )
            states.append((list(map(said, learned[1])), await self.world.state()))
            if states[-1] != states[0]:
                explored.anomalies.append(f"in the order {order.sides}: {states[-1]} and not {states[0]}")
            return order

        for first in (0, 1):  # the first statements of a connection come with others that ask for types
            await carry_out([first])
        explored.tally = await all_orders(carry_out, Extent())
        return explored

    async def _one_after_the_other(self, pair: Pair) -> AsyncIterator[Any]:
        variants = [[kind.act, *kind.lazy] for kind in pair.kinds]
        for acts in product(*variants):
            for beginning in ([0], [1]):
                _, result = await self._carry_out(pair, acts, beginning)
                yield result

    async def _carry_out(
        self, pair: Pair, acts: Sequence[Act], beginning: Sequence[Side], *, goes_on: bool = True
    ) -> tuple[Order, Any]:
        await self.world.restore(self._referee.written())
        learned: list[Any] = [None, None]

        async def side(number: Side) -> None:
            member = self._member(number, pair.members[number])
            member.claimed, member.tokens, member.key = [], 0, None
            learned[number] = await acts[number](member)

        order = await self._referee.carry_out([partial(side, 0), partial(side, 1)], beginning, goes_on=goes_on)
        return order, (learned, await self.world.state())

    def _member(self, side: Side, name: str) -> Member:
        key = (side, name)
        if key not in self._members:
            self._members[key] = Member(self.world.url, self._referee.gates[side], self.world.owners[name])
        return self._members[key]

    async def _wrong_shards(self, pair: Pair) -> list[str]:
        if not any(self._member(side, name).claimed for side, name in enumerate(pair.members)):
            return []
        holders = await self.world.holders()
        wrong: list[str] = []
        for side, name in enumerate(pair.members):
            claimed = self._member(side, name).claimed
            others = {holders[shard] for shard in claimed} - {name, None}
            if others:
                wrong.append(f"{name} believes that it holds what {others} hold")
            if claimed and len(claimed) + len(SHARDS_OF[name]) > fair_share(min(len(ALIVE), await self.world.nodes())):
                wrong.append(f"{name} took {len(claimed)} shards besides the {len(SHARDS_OF[name])} that it has")
        first, second = (set(self._member(side, name).claimed) for side, name in enumerate(pair.members))
        if first & second:
            wrong.append(f"both took {first & second}")
        return wrong

    async def _exceeded_limits(self, pair: Pair) -> list[str]:
        slots = await self.world.slots()
        tokens = sum(self._member(side, name).tokens for side, name in enumerate(pair.members))
        return [f"{slots} slots were granted"] * (slots > SLOTS) + [f"{tokens} tokens were granted"] * (tokens > TOKENS)

    def _several_keys(self, pair: Pair) -> list[str]:
        made = {self._member(side, name).key for side, name in enumerate(pair.members)} - {None}
        return ["the nodes sign with different keys"] * (len(made) > 1)

    async def close(self) -> None:
        """Close the connections."""
        for member in self._members.values():
            await member.close()


@asynccontextmanager
async def explorer() -> AsyncIterator[Explorer]:
    """Make a world in a database of its own and yield who explores it."""
    async with database() as url:
        world = await World.make(url, fill)
        made = Explorer(world)
        try:
            yield made
        finally:
            await made.close()
            await world.close()


async def explore(pairs: Sequence[Pair], extent: Extent, *, verbose: bool = False) -> list[Explored]:
    """Explore pairs one after the other."""
    found: list[Explored] = []
    async with explorer() as exploring:
        for pair in pairs:
            explored = await exploring.explore(pair, extent)
            found.append(explored)
            if verbose:
                print(f"{explored}  {pair}", flush=True)
            print(*explored.anomalies[:2], sep="\n", end="")
    return found


def main() -> int:
    """Explore what the command line asks for; return 1 when there was an anomaly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--switches", type=float, help="every order of so many at most, or inf, like others or not")
    parser.add_argument("--most", type=int, help="orders of a pair")
    parser.add_argument("--only", default="", help="pairs whose names have this in them")
    parser.add_argument("--planted", action="store_true", help="what is not guarded, to see that it is found")
    parser.add_argument("--sample", action="store_true", help="pairs that have tables in common, as CI takes them")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="only each Nth pair, from the Kth")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    made = planted_pairs() if given.planted else sample() if given.sample else all_pairs()
    part, parts = (int(number) for number in given.part.split("/"))
    pairs = [pair for pair in made if given.only in str(pair)][part - 1 :: parts]
    extent = Extent(given.switches, given.most)
    began = time.monotonic()
    found = asyncio.run(explore(pairs, extent, verbose=given.verbose))
    print(report(found), f"{time.monotonic() - began:.0f} s")
    return 1 if any(explored.anomalies for explored in found) else 0


def report(found: Sequence[Explored]) -> str:
    """Return what came of all pairs, in a line."""
    orders, idle = sum(each.tally.orders for each in found), sum(each.tally.idle for each in found)
    waits, cut = sum(each.waits for each in found), sum(bool(each.tally.left) for each in found)
    anomalies, wrong = sum(len(each.anomalies) for each in found), sum(bool(each.anomalies) for each in found)
    return (
        f"{len(found)} pairs, {orders} orders and {idle} that are like others, {waits} waits for locks,"
        f" {cut} pairs not to the end: {anomalies} anomalies in {wrong} pairs;"
    )


if __name__ == "__main__":
    sys.exit(main())
