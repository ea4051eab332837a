"""Shares of a queue under any order of questions, ends and deaths: limits hold in the database's time, to the token."""

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import StaticPool, create_engine, event, func, select

from hopline_engine.core.fairness import fair_part
from hopline_engine.store import nodes, queues, shares
from hopline_engine.store.dialect import SQLITE_NOW
from hopline_engine.store.interface import Owner
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.queues import QueueLimits
from hopline_engine.store.shares import Ask, Grant
from hopline_engine.store.tables import queue_share

NAME = "q"


@dataclass
class Using:
    """A node that uses a queue as its engine would."""

    owner: Owner
    in_flight: int = 0
    due: int = 0
    slots: int = 0
    part: int = 0
    unused: float = 0.0


class Sharing(RuleBasedStateMachine):
    """Three nodes that send from one queue."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(self.engine, "connect", self._prepare)
        METADATA.create_all(self.engine)
        self.count = 0
        self.used: list[Using] = []
        self.latest = self.now
        """The highest time at which a node has asked: until then tokens flow in, also where the clock is set back."""
        self.tokens: list[tuple[float, float]] = []
        """Until when tokens had flowed in when how many were granted; those that came back are negative."""

    def _prepare(self, raw: Any, _: Any) -> None:
        raw.create_function(SQLITE_NOW, 0, lambda: self.now)
        raw.execute("PRAGMA foreign_keys = ON")

    def teardown(self) -> None:
        self.engine.dispose()

    @initialize(limit=st.integers(1, 8), rate=st.sampled_from([1.0, 7.0, 1000.0]), burst=st.integers(1, 12))
    def make(self, limit: int, rate: float, burst: int) -> None:
        self.limits = QueueLimits(
            name=NAME, max_concurrent_dispatches=limit, max_dispatches_per_second=rate, max_burst_size=burst
        )
        with self.engine.begin() as connection:
            queues.set_limits(connection, [self.limits])
        for _ in range(3):
            self._join()

    def _join(self) -> None:
        with self.engine.begin() as connection:
            owner = nodes.join(connection, node_id=f"n_{self.count}", url=f"http://n_{self.count}", alone=False)
        self.count += 1
        self.used.append(Using(owner))

    def _ask(self, node: Using, tokens: int) -> Grant:
        keep = max(node.in_flight, min(node.slots, node.part))
        node.slots = min(node.slots, keep)  # before it asks
        ask = Ask(NAME, keep, node.in_flight + node.due, tokens, node.unused)
        self.latest = max(self.latest, self.now)
        if node.unused:
            self.tokens.append((self.latest, -node.unused))
        node.unused = 0.0
        with self.engine.begin() as connection:
            (grant,) = shares.settle(connection, owner=node.owner, asks=[ask])
        node.slots, node.part = min(grant.slots, grant.part), grant.part
        if grant.tokens:
            self.tokens.append((self.latest, grant.tokens))
        assert 0 <= grant.tokens <= tokens
        assert grant.tokens_at >= self.now or math.isclose(grant.tokens_at, self.now)
        return grant

    @rule(number=st.integers(0, 2), due=st.integers(0, 20))
    def more_is_due(self, number: int, due: int) -> None:
        self.used[number].due += due

    @rule(number=st.integers(0, 2), sends=st.booleans())
    def ask(self, number: int, sends: bool) -> None:
        node = self.used[number]
        grant = self._ask(node, min(node.due, max(0, node.slots - node.in_flight)))
        sent = min(grant.tokens, node.due, max(0, node.slots - node.in_flight)) if sends else 0
        node.in_flight += sent
        node.due -= sent
        node.unused = grant.tokens - sent

    @rule(number=st.integers(0, 2), ended=st.integers(1, 8))
    def end(self, number: int, ended: int) -> None:
        node = self.used[number]
        node.in_flight -= min(ended, node.in_flight)

    @rule(number=st.integers(0, 2))
    def die(self, number: int) -> None:
        dead = self.used.pop(number)
        with self.engine.begin() as connection:
            nodes.leave(connection, owner=dead.owner)
        self._join()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 20.0, -0.5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(due=st.integers(1, 20))
    def everybody_gets_its_part(self, due: int) -> None:
        """What is in flight ends, all ask a few times, and have what is fair."""
        for node in self.used:
            node.in_flight, node.due = 0, due
        limit = self.limits.max_concurrent_dispatches or 0
        for _ in range(4):
            for node in self.used:
                self._ask(node, 0)
        assert sum(node.slots for node in self.used) == min(limit, 3 * due)
        assert max(node.slots for node in self.used) - min(node.slots for node in self.used) <= 1

    @invariant()
    def no_more_is_in_flight_than_the_limit(self) -> None:
        assert sum(node.in_flight for node in self.used) <= (self.limits.max_concurrent_dispatches or 0)
        with self.engine.begin() as connection:
            granted = connection.execute(select(func.sum(queue_share.c.slots))).scalar() or 0
        assert granted <= (self.limits.max_concurrent_dispatches or 0)

    @invariant()
    def no_more_tokens_were_used_than_flowed_in(self) -> None:
        rate, burst = self.limits.max_dispatches_per_second or 0.0, self.limits.max_burst_size or 0
        for start, (began, _) in enumerate(self.tokens):
            used = 0.0
            for at, taken in self.tokens[start:]:
                used += taken
                assert used <= burst + rate * (at - began) + 1e-6


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@given(
    limit=st.integers(1, 50),
    wants=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 60), min_size=1),
    turn=st.integers(0, 10_000),
)
def test_parts_are_fair(limit: int, wants: dict[str, int], turn: int) -> None:
    parts = {node: fair_part(limit, wants, node, turn) for node in wants}
    assert sum(parts.values()) == min(limit, sum(wants.values())) or len(wants) > limit
    assert all(parts[node] <= wants[node] for node in wants)
    short = [parts[node] for node in wants if parts[node] < wants[node]]
    if short and len([node for node in wants if wants[node]]) <= limit:
        assert max(parts.values()) - min(short) <= 1, "who gets less than it wants gets as much as any other"


@given(limit=st.integers(1, 5), count=st.integers(1, 12), turn=st.integers(0, 100))
def test_where_there_are_more_nodes_than_slots_each_has_its_turn(limit: int, count: int, turn: int) -> None:
    wants = {f"n_{number:02}": 100 for number in range(count)}
    if count <= limit:
        return
    turns = [[fair_part(limit, wants, node, turn + later) for node in wants] for later in range(count)]
    assert all(sum(parts) == limit for parts in turns)
    assert all(any(parts[place] for parts in turns) for place in range(count))
