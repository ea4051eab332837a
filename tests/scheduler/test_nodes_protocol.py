"""The protocol of shards under any order of joins, beats, pauses, lost answers and leaves: one owner, and soon one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy import Connection, StaticPool, create_engine, event, select

from hopline_engine.core.shards import SHARDS, fair_share
from hopline_engine.store import nodes
from hopline_engine.store.dialect import SQLITE_NOW
from hopline_engine.store.errors import OwnershipLostError
from hopline_engine.store.interface import Owner
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.tables import node, shard

T = TypeVar("T")
SILENCE = 10.0


class Believing:
    """A node, and what it believes to hold."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.held: set[int] = set()

    def hear(self, heard: nodes.Heard) -> None:
        """Take up what the store says is its own, as the membership does."""
        self.held |= {number for each in heard.nodes if each.id == self.owner.node for number in each.shards}


class Protocol(RuleBasedStateMachine):
    """Any number of nodes on one store."""

    members = Bundle("members")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(self.engine, "connect", self._prepare)
        METADATA.create_all(self.engine)
        with self.engine.begin() as connection:
            connection.execute(shard.insert(), [{"id": number, "node": None} for number in range(SHARDS)])
        self.all: list[Believing] = []

    def teardown(self) -> None:
        self.engine.dispose()

    def _prepare(self, raw: Any, _: Any) -> None:
        raw.create_function(SQLITE_NOW, 0, lambda: self.now)
        raw.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def guarded(self, owner: Owner) -> Iterator[Connection]:
        """Begin as the committer does: nothing is written for a node whose row is gone."""
        with self.engine.begin() as connection:
            mine = select(node.c.id).where(node.c.id == owner.node, node.c.epoch == owner.epoch)
            if connection.execute(mine).one_or_none() is None:
                raise OwnershipLostError(owner.node, owner.epoch)
            yield connection

    def as_node(self, member: Believing, act: Callable[[Connection], T]) -> T | None:
        try:
            with self.guarded(member.owner) as connection:
                return act(connection)
        except OwnershipLostError:
            member.held.clear()
            return None

    @rule(target=members)
    def join(self) -> Believing:
        with self.engine.begin() as connection:
            owner = nodes.join(connection, node_id=f"n_{len(self.all)}", url=f"http://n_{len(self.all)}", alone=False)
        self.all.append(Believing(owner))
        return self.all[-1]

    @rule(member=members, is_heard=st.booleans())
    def beat(self, member: Believing, is_heard: bool) -> None:
        heard = self.as_node(member, partial(nodes.beat, owner=member.owner, silence=SILENCE))
        if heard is not None and is_heard:
            member.hear(heard)

    @rule(member=members, data=st.data())
    def give_up(self, member: Believing, data: st.DataObject) -> None:
        if not member.held:
            return
        given = data.draw(st.sets(st.sampled_from(sorted(member.held)), min_size=1))
        member.held -= given  # from memory first
        self.as_node(member, partial(nodes.give_up, owner=member.owner, shards=sorted(given)))

    @rule(member=consumes(members))
    def leave(self, member: Believing) -> None:
        member.held.clear()
        self.as_node(member, partial(nodes.leave, owner=member.owner))

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(members_left=st.lists(members, max_size=5))
    def settle(self, members_left: list[Believing]) -> None:
        """Whoever goes on beating holds all shards, evenly, when the others have been silent for long enough."""
        alive = {member.owner.node: member for member in members_left if self.is_node(member)}
        for _ in range(12):
            self.now += SILENCE / 5
            for member in alive.values():
                heard = self.as_node(member, partial(nodes.beat, owner=member.owner, silence=SILENCE))
                assert heard is not None, "it beats in time"
                member.hear(heard)
                surplus = len(member.held) - fair_share(len(heard.nodes))
                given = sorted(member.held)[: max(0, surplus)]
                member.held -= set(given)
                self.as_node(member, partial(nodes.give_up, owner=member.owner, shards=given))
        if alive:
            assert sorted(number for member in alive.values() for number in member.held) == list(range(SHARDS))
            assert all(len(member.held) <= fair_share(len(alive)) for member in alive.values())

    def is_node(self, member: Believing) -> bool:
        """Return whether it still is one, by the clock too."""
        with self.engine.begin() as connection:
            seen = connection.execute(select(node.c.heartbeat_at).where(node.c.id == member.owner.node)).scalar()
        return seen is not None and self.now - seen < SILENCE / 2

    @invariant()
    def no_shard_has_two_nodes_that_can_commit(self) -> None:
        with self.engine.begin() as connection:
            stored = {row.id: row.node for row in connection.execute(select(shard.c.id, shard.c.node))}
            there = set(connection.execute(select(node.c.id)).scalars())
        assert len(stored) == SHARDS
        assert {holder for holder in stored.values() if holder is not None} <= there
        for member in self.all:
            if member.owner.node in there:
                assert {stored[number] for number in member.held} <= {member.owner.node}


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 65])
def test_fair_shares_hold_all_shards(count: int) -> None:
    assert fair_share(count) * count >= SHARDS
    assert (fair_share(count) - 1) * count < SHARDS
