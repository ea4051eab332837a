"""What statements do to the tables, as it is told from their text; and that the server locks nothing besides."""

import asyncio
from itertools import chain
from typing import Any

import asyncpg
import pytest

from hopline_engine.store.metadata import METADATA
from tests.interleavings import turns
from tests.interleavings.effects import Effect, are_independent, effect_of, table_of
from tests.interleavings.explore import explorer
from tests.interleavings.orders import Extent
from tests.interleavings.pairs import ALL_KINDS, Pair
from tests.interleavings.world import ALIVE

BEGUN = Effect()
GUARD = "UPDATE node SET committed=$1::BIGINT WHERE node.id = $2::VARCHAR AND node.epoch = $3::BIGINT RETURNING true"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT run.id FROM run", "UPDATE run SET state=$1 WHERE run.id = $2"),
        ("SELECT run.id FROM run", "SELECT run.id FROM run FOR UPDATE"),
        ("INSERT INTO task (id, node) VALUES ($1, $2)", "DELETE FROM node WHERE node.id = $1"),
        ("SELECT * FROM queue FOR SHARE", "SELECT * FROM queue FOR KEY SHARE"),
        ("SAVEPOINT alone", "DELETE FROM run"),
        ("SELECT count(*) FROM shard", "SELECT clock_timestamp() FROM node"),
        ("UPDATE run SET state=$1", "INSERT INTO workflow (name, digest) VALUES ($1, $2)"),
    ],
)
def test_statements_in_transactions_that_neither_sees_nor_hinders_the_other_may_change_places(
    one: str, other: str
) -> None:
    assert are_independent(effect_of(one, (), BEGUN), effect_of(other, (), BEGUN))
    assert are_independent(effect_of(other, (), BEGUN), effect_of(one, (), BEGUN))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("UPDATE run SET state=$1", "DELETE FROM run"),
        ("SELECT * FROM queue FOR SHARE", "UPDATE queue SET state=$1"),
        ("SELECT * FROM run JOIN task ON true FOR UPDATE OF run, task", "DELETE FROM task"),
        ("SELECT id FROM task FOR UPDATE SKIP LOCKED", "SELECT id FROM task FOR UPDATE SKIP LOCKED"),
        ("INSERT INTO queue_share (queue, node) VALUES ($1, $2)", "DELETE FROM node WHERE node.id = $1"),
        ("UPDATE shard SET node=$1", "INSERT INTO node (id) VALUES ($1)"),
        ("DELETE FROM queue", "SELECT * FROM queue_share FOR UPDATE"),
        ("WITH gone AS (DELETE FROM run RETURNING 1) SELECT count(*) FROM gone", "UPDATE run SET state=$1"),
        ("SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_xact_lock(1)"),
        ("LOCK TABLE run", "SELECT * FROM task"),
        ("CREATE TABLE t (i int)", "SELECT * FROM task"),
    ],
)
def test_statements_that_may_hinder_one_another_keep_their_places(one: str, other: str) -> None:
    assert not are_independent(effect_of(one, (), BEGUN), effect_of(other, (), BEGUN))
    assert not are_independent(effect_of(other, (), BEGUN), effect_of(one, (), BEGUN))


@pytest.mark.parametrize("end", ["COMMIT", "COMMIT;", "ROLLBACK", "ROLLBACK TO alone"])
def test_end_of_a_transaction_keeps_its_place_beside_what_touches_what_it_wrote(end: str) -> None:
    held = BEGUN.beside(effect_of("DELETE FROM task", (), BEGUN))
    ends = effect_of(end, (), held)
    for touching in ("SELECT id FROM task", "SELECT id FROM task FOR UPDATE", "INSERT INTO task (id) VALUES ($1)"):
        assert not are_independent(ends, effect_of(touching, (), BEGUN))
    assert are_independent(ends, effect_of("SELECT id FROM run", (), BEGUN))


def test_end_of_a_transaction_that_only_locked_is_nothing_to_who_only_reads() -> None:
    ends = effect_of("COMMIT", (), BEGUN.beside(effect_of("SELECT id FROM run FOR UPDATE", (), BEGUN)))
    assert are_independent(ends, effect_of("SELECT id FROM run", (), BEGUN))
    assert not are_independent(ends, effect_of("SELECT id FROM run FOR SHARE", (), BEGUN))


def test_statement_outside_a_transaction_keeps_its_place_beside_who_reads_what_it_writes() -> None:
    writes, reads = "UPDATE run SET state=$1", effect_of("SELECT run.id FROM run", (), BEGUN)
    assert not are_independent(effect_of(writes, (), None), reads)
    assert are_independent(effect_of(writes, (), BEGUN), reads)


def test_statement_that_may_fail_may_free_what_its_transaction_has_locked() -> None:
    held = BEGUN.beside(effect_of("SELECT id FROM queue FOR UPDATE", (), BEGUN))
    locks = effect_of("UPDATE queue SET state=$1", (), BEGUN)
    assert not are_independent(effect_of("INSERT INTO run (id) VALUES ($1)", (), held), locks)
    assert are_independent(effect_of("SELECT id FROM run", (), held), locks)


def test_rows_of_two_nodes_are_nothing_to_one_another_unless_others_are_looked_for() -> None:
    mine, its = (effect_of(GUARD, (1, name, 1), BEGUN) for name in ALIVE)
    assert are_independent(mine, its)
    assert not are_independent(mine, mine)
    for every in (
        "DELETE FROM node",
        GUARD.replace(" RETURNING true", " OR node.id > $4"),
        GUARD.replace("SET ", "SET id=$4, "),
    ):
        assert not are_independent(mine, effect_of(every, (1, ALIVE[1], 1, "x"), BEGUN))


def test_only_the_node_that_gets_a_shard_is_touched_besides() -> None:
    gives = "UPDATE shard SET node=$1::VARCHAR WHERE shard.id IN ($2::INTEGER)"
    mine, its = (effect_of(GUARD, (1, name, 1), BEGUN) for name in ALIVE)
    assert are_independent(effect_of(gives, (ALIVE[0], 1), BEGUN), its)
    assert not are_independent(effect_of(gives, (ALIVE[0], 1), BEGUN), mine)
    assert not are_independent(effect_of(gives, (None, 1), BEGUN), its)


def test_counting_by_a_node_is_not_seen_by_who_reads_anything_else_of_it() -> None:
    commits = effect_of("COMMIT", (), BEGUN.beside(effect_of(GUARD, (1, ALIVE[0], 1), BEGUN)))
    assert are_independent(commits, effect_of("SELECT node.id FROM node ORDER BY node.id", (), BEGUN))
    for seeing in ("SELECT node.committed FROM node", "SELECT * FROM node", "SELECT node.id FROM node FOR SHARE"):
        assert not are_independent(commits, effect_of(seeing, (), BEGUN))


class _Watched(turns._Gated):
    """Looks after each statement what the server has locked for its transaction."""

    observer: asyncpg.Connection
    looks = 0

    async def bind_execute(self, state: Any, args: Any, *given: Any, **named: Any) -> Any:
        is_alone = not self._protocol.is_in_transaction()
        if is_alone:
            await self.query("BEGIN", None)
        try:
            result = await super().bind_execute(state, args, *given, **named)
            await self._look(state.query)
        except BaseException:
            if is_alone:
                await self._protocol.query("ROLLBACK", None)
            raise
        if is_alone:
            await self._protocol.query("COMMIT", None)
        return result

    async def _look(self, statement: str) -> None:
        rows = await self.observer.fetch(
            "SELECT relation::regclass::text AS name, mode FROM pg_locks WHERE locktype = 'relation' AND pid = $1",
            self._protocol.get_server_pid(),
        )
        said = {
            "AccessShareLock": set(map(table_of, chain(*self._held[:4]))),
            "RowShareLock": set(map(table_of, self._held.shares | self._held.locks)),
            "RowExclusiveLock": set(map(table_of, self._held.writes)),
        }
        for row in rows:
            if row["name"] in METADATA.tables:
                assert row["name"] in said[row["mode"]], (row, statement)
                type(self).looks += 1


async def _watch(monkeypatch: pytest.MonkeyPatch) -> None:
    async with explorer() as exploring:
        _Watched.observer = await asyncpg.connect(exploring.world.url)
        monkeypatch.setattr(turns, "_Gated", _Watched)
        try:
            for kind in ALL_KINDS:
                await exploring.explore(Pair((kind, kind), ALIVE), Extent(most=1))
        finally:
            await _Watched.observer.close()


@pytest.mark.slow
def test_server_locks_no_table_for_a_statement_that_it_is_not_said_to_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_watch(monkeypatch))
    assert _Watched.looks > 500
