"""A store on Postgres in which two transactions meet: what is in it, how it is made so again, and what became of it."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import asyncpg
from sqlalchemy import AsyncAdaptedQueuePool, Connection
from sqlalchemy.exc import DBAPIError

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import TaskState
from hopline_engine.core.shards import SHARDS
from hopline_engine.database_url import parse
from hopline_engine.store import definitions, queues
from hopline_engine.store.entries import Call, Decided, Outcome
from hopline_engine.store.errors import OwnershipLostError, StoreError
from hopline_engine.store.interface import Owner
from hopline_engine.store.metadata import METADATA
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.postgres.store import open_store
from hopline_engine.store.postgres.trouble import cause_of, is_trouble
from hopline_engine.store.postgres.writer import PostgresWriter, Unit
from hopline_engine.store.queues import QueueLimits
from tests.interleavings.turns import Gate
from tests.store import rows

SILENCE: Final = 10.0
ALIVE: Final = ("a", "b")
SILENT: Final = "s"
SHARDS_OF: Final = {"a": range(20), "b": range(20, 40), "s": range(40, 50)}
"""The other shards are nobody's."""
RUN: Final = SHARDS + 1
"""A run of node a, whose only task is leased."""
RUN_OF_SILENT: Final = SHARDS + 41
"""As ``RUN``, of the silent node."""
QUEUE: Final = "narrow"
SCHEDULE: Final = "hourly"
TICK: Final = 3600.0
"""Its next tick."""
SLOTS: Final = 3
TOKENS: Final = 2
"""What the queue allows, of which each node wants two."""
TABLES: Final = tuple(METADATA.tables)
TRIES: Final = 5


class GatedConnector(Connector):
    """Makes connections whose statements wait at a gate."""

    def __init__(self, url: str, gate: Gate) -> None:
        super().__init__(parse(url))
        self._gate = gate

    async def connect(self, **given: Any) -> asyncpg.Connection:
        return await self._gate.guard(await super().connect(**given))


class Member:
    """One side as a node: it commits as the engine does, and tries again when the server is in trouble."""

    def __init__(self, url: str, gate: Gate, owner: Owner) -> None:
        self.owner = owner
        self.claimed: list[int] = []
        """Shards that it took last, as it believes."""
        self.tokens = 0
        """That it was granted last."""
        self.key: bytes | None = None
        """With which it signs."""
        connector = GatedConnector(url, gate)
        self._writer = PostgresWriter(connector, owner)
        self._engine = connector.engine(AsyncAdaptedQueuePool, pool_size=1)

    async def commit(self, *changes: Changes) -> tuple[str, ...]:
        """Commit decisions as one group and return what became of each."""
        return tuple(map(said, await self.send(Unit([Decided(each, lambda _: None) for each in changes]))))

    async def call(self, function: Callable[[Any], Any]) -> Any:
        """Run a function in a transaction and return its result; what it raises is returned as its name."""
        future: Any = None
        (outcome,) = await self.send(Unit([Call(function, future)]))
        if outcome.error is not None and not isinstance(outcome.error, StoreError | DBAPIError):
            raise outcome.error
        return outcome.value if outcome.error is None else said(outcome)

    async def unguarded(self, function: Callable[[Connection], Any]) -> Any:
        """Do as ``call`` without being a node."""
        for _ in range(TRIES):
            try:
                async with self._engine.begin() as connection:
                    return await connection.run_sync(function)
            except DBAPIError as error:
                if not is_trouble(error):
                    return type(cause_of(error)).__name__
        raise AssertionError("trouble, again and again")

    async def send(self, unit: Unit) -> Sequence[Outcome]:
        """Commit a unit and return what became of its entries."""
        for number in range(TRIES):
            try:
                return await self._writer.run(unit)
            except OwnershipLostError as error:
                return [Outcome(error=error)] * len(unit.entries)
            except Exception as error:
                if number == TRIES - 1 or not is_trouble(error):
                    raise
        raise AssertionError("trouble, again and again")

    async def close(self) -> None:
        await self._writer.close()
        await self._engine.dispose()


def said(outcome: Outcome) -> str:
    """Return what became of an entry."""
    return "written" if outcome.error is None else type(outcome.error).__name__


class World:
    """The database; everybody in it joined at its beginning."""

    def __init__(self, url: str, raw: asyncpg.Connection, owners: dict[str, Owner]) -> None:
        self.url = url
        self.raw = raw
        """Sees everything and waits for nobody."""
        self.owners = owners

    @classmethod
    async def make(cls, url: str, fill: Callable[[Connection], None]) -> "World":
        """Fill an empty store at *url*; *fill* puts the queue service's part in."""
        owners: dict[str, Owner] = {}
        for name in (*ALIVE, SILENT):
            store = await open_store(url, node=name, random=lambda: 0.5)
            owners[name] = store.owner
            if name == ALIVE[0]:
                limits = QueueLimits(
                    name=QUEUE,
                    max_concurrent_dispatches=SLOTS,
                    max_dispatches_per_second=0.001,
                    max_burst_size=TOKENS,
                )
                await store.execute(partial(queues.set_limits, limits=[limits]))
                await store.execute(fill)
                await store.execute(
                    partial(
                        definitions.register,
                        definitions=[rows.DEFINITION],
                        current=[rows.DEFINITION.name],
                        now=rows.NOW,
                    )
                )
            await store.close()
        raw = await asyncpg.connect(url)
        world = cls(url, raw, owners)
        name = await raw.fetchval("SELECT current_database()")
        await raw.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
        await world._fill()
        return world

    async def _fill(self) -> None:
        for name, shards in SHARDS_OF.items():
            await self.raw.execute("UPDATE shard SET node = $1 WHERE id = ANY($2::int[])", name, list(shards))
        leased: dict[str, Any] = {"state": int(TaskState.LEASED), "attempt": 1, "queue": QUEUE}
        for run in (RUN, RUN_OF_SILENT):
            for table, row in (("run", rows.run_added(run)), ("task", rows.task_added(run, **leased))):
                values = row._asdict()
                columns = ", ".join(values)
                places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
                await self.raw.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", *values.values())
        await self.raw.execute(
            "INSERT INTO schedule (name, shard, workflow, is_edited, is_paused, revision, created_at, anchor_at,"
            " next_tick, due_at, spec, input)"
            f" VALUES ('{SCHEDULE}', 1, 'w', false, false, 1, 0, 0, {TICK}, {TICK}, '{{}}', '{{}}')"
        )
        await self.raw.execute("UPDATE node SET committed = 0; CREATE SCHEMA saved")
        for table in TABLES:
            await self.raw.execute(f"CREATE TABLE saved.{table} AS SELECT * FROM public.{table}")

    async def restore(self, written: Iterable[str]) -> None:
        """Make the tables that were *written* as they were.

        The silent node fell silent long ago, the others have just shown themselves.
        """
        copies = (f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved.{table};" for table in written)
        now = "extract(epoch FROM clock_timestamp())"
        await self.raw.execute(
            f"BEGIN; SET LOCAL session_replication_role = replica; {''.join(copies)}"
            f"UPDATE node SET heartbeat_at = {now} - CASE id WHEN '{SILENT}' THEN 1000 ELSE 0 END; COMMIT"
        )

    async def state(self) -> dict[str, list[str]]:
        """Return what is stored, without what differs each time: times, and the numbers of groups."""
        (row,) = await self.raw.fetch(_STATE)
        return dict(row.items())

    async def nodes(self) -> int:
        """Return how many nodes there are."""
        return await self._number("SELECT count(*) FROM node")

    async def holders(self) -> dict[int, str | None]:
        """Return which node holds each shard."""
        return dict(map(tuple, await self.raw.fetch("SELECT id, node FROM shard ORDER BY id")))

    async def slots(self) -> int:
        """Return how many slots of the queue are granted."""
        return await self._number(f"SELECT coalesce(sum(slots), 0) FROM queue_share WHERE queue = '{QUEUE}'")

    async def _number(self, query: str) -> int:
        ((number,),) = await self.raw.fetch(query)
        return int(number)

    async def close(self) -> None:
        await self.raw.close()


_LOOKS: Final = {
    "nodes": "SELECT (id, epoch, url)::text FROM node ORDER BY id",
    "epoch": "SELECT value FROM meta WHERE key = 'epoch'",
    "runs": "SELECT (id, state, idempotency_key, convert_from(result, 'UTF8'), paused_at, ending)::text FROM run"
    " ORDER BY id",
    "parked": "SELECT (run_id, wake_at)::text FROM parked_run ORDER BY run_id",
    "waits": "SELECT (task_id, run_id, name, key)::text FROM wait ORDER BY task_id",
    "events": "SELECT (name, key, convert_from(payload, 'UTF8'))::text FROM event ORDER BY name, key",
    "steps": "SELECT (run_id, node, item, state, attempts)::text FROM step_run ORDER BY run_id, node, item",
    "attempts": "SELECT (run_id, node, item, attempt, state)::text FROM attempt ORDER BY run_id, node, item, attempt",
    "tasks": "SELECT (id, state, attempt, lost, epoch)::text FROM task ORDER BY id",
    "queues": "SELECT (name, state, max_concurrent_dispatches, round(tokens))::text FROM queue ORDER BY name",
    "definitions": "SELECT digest FROM definition ORDER BY digest",
    "schedules": "SELECT (name, revision, is_paused, next_tick, due_at)::text FROM schedule ORDER BY name",
    "ticks": "SELECT (schedule, at, state)::text FROM tick ORDER BY schedule, at",
    "workflows": "SELECT (name, digest)::text FROM workflow ORDER BY name",
    "cloud_queues": "SELECT (key, is_pull, is_shared, convert_from(config, 'UTF8'))::text FROM cloud_queue"
    " ORDER BY key",
    "cloud_tasks": "SELECT (id, queue, name, stage, node, schedule_time, dispatch_count, response_count,"
    " lost_count)::text FROM cloud_task ORDER BY id",
    "cloud_attempts": "SELECT (task_id, number, status)::text FROM cloud_attempt ORDER BY task_id, number",
    "names_held": "SELECT (queue, name, until)::text FROM cloud_tombstone ORDER BY queue, name",
    "operations": "SELECT (name, convert_from(body, 'UTF8'))::text FROM cloud_operation ORDER BY name",
}
_STATE: Final = "SELECT " + ", ".join(f"ARRAY({look}) AS {name}" for name, look in _LOOKS.items())
