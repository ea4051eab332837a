"""When the server cannot write, or cannot be reached: everything is kept, written once, and it goes on by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text

from hopline_engine.core.changes import Changes
from hopline_engine.core.model import RunState
from hopline_engine.database_url import parse
from hopline_engine.errors import StoreUnavailableError
from hopline_engine.store import nodes
from hopline_engine.store.errors import OwnershipLostError, ReadTimeoutError, RowsMissingError
from hopline_engine.store.postgres.connecting import Connector
from hopline_engine.store.postgres.reading import READERS, PostgresReaders
from hopline_engine.store.postgres.store import PostgresStore, open_store
from hopline_engine.store.tables import meta, node, run
from tests.store.opened import Told, commit, count, note, outcomes, with_definition
from tests.store.rows import run_ended, started
from tests.support.postgres import database, postgres, run_sql
from tests.support.proxy import Proxy, proxy_to, through
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

IMPATIENT = partial(Connector, connect_seconds=3.0, command_seconds=3.0)


class Watched:
    """A store, and what it told of trouble."""

    def __init__(self) -> None:
        self.told: list[Exception | None] = []
        self.store: PostgresStore

    async def troubles(self, times: int = 1) -> None:
        """Return once the store has told so often that it cannot write."""
        await until(lambda: len([told for told in self.told if told]) >= times, f"trouble {times} is told")


@asynccontextmanager
async def watched(url: str, connector: Callable[..., Connector] = Connector) -> AsyncIterator[Watched]:
    """Open a store that has run 1."""
    watch = Watched()
    watch.store = await open_store(
        url, node="n_test", random=lambda: 0.0, alone=True, on_trouble=watch.told.append, connector=connector
    )
    try:
        await with_definition(watch.store)
        await commit(watch.store, started(1))
        yield watch
    finally:
        await watch.store.close()


async def stored(store: PostgresStore) -> list[int]:
    """Return the numbers of all runs."""
    return await store.read(lambda connection: list(connection.execute(select(run.c.id).order_by(run.c.id)).scalars()))


@pytest.fixture
async def way(postgres_url: str) -> AsyncIterator[Proxy]:
    """Return the way to the server."""
    async with proxy_to(postgres_url) as made:
        yield made


@pytest.fixture
async def far(postgres_url: str, way: Proxy) -> AsyncIterator[Watched]:
    """Return a store that is reached by *way*."""
    async with watched(through(way, postgres_url)) as watch:
        yield watch


# --- a commit of which nobody knows whether it was written ------------------------------------------------------------


async def test_a_commit_that_went_through_and_was_not_answered_is_written_once(far: Watched, way: Proxy) -> None:
    cutting = asyncio.ensure_future(way.cut_after(b"WITH guard"))
    await asyncio.sleep(0)

    told = await outcomes(far.store, started(2), Changes(runs_ended=[run_ended(1)]))
    await cutting

    assert told == [None, None]
    assert await stored(far.store) == [1, 2]
    assert [bool(error) for error in far.told] == [True, False]


async def test_outcomes_of_a_group_with_refusals_are_kept_when_its_commit_was_not_answered(
    far: Watched, way: Proxy
) -> None:
    cutting = asyncio.ensure_future(way.cut_after(b"COMMIT"))
    await asyncio.sleep(0)

    told = await outcomes(far.store, started(2), Changes(runs_ended=[run_ended(77)]), started(3))
    await cutting

    assert [type(error) for error in told] == [type(None), RowsMissingError, type(None)]
    assert await stored(far.store) == [1, 2, 3]


async def test_a_call_whose_commit_was_not_answered_is_run_once_and_keeps_its_value(far: Watched, way: Proxy) -> None:
    calls: list[int] = []

    def write(connection: Connection) -> int:
        calls.append(1)
        connection.execute(insert(meta).values(key=f"key {len(calls)}", value="x"))
        return len(calls)

    cutting = asyncio.ensure_future(way.cut_after(b"COMMIT"))
    await asyncio.sleep(0)

    assert await far.store.execute(write) == 1
    await cutting

    assert calls == [1]
    assert await count(far.store, meta) == 3


async def test_a_commit_that_is_still_running_when_it_is_sent_again_is_written_once(
    postgres_url: str, way: Proxy
) -> None:
    async with watched(through(way, postgres_url), IMPATIENT) as watch:
        way.hold_answers()
        submitted = asyncio.ensure_future(outcomes(watch.store, started(2)))
        await watch.troubles()  # given up after three seconds, and by then written
        way.cut()

        assert await submitted == [None]
        assert await stored(watch.store) == [1, 2]


async def test_a_node_that_was_fenced_while_it_was_cut_off_is_told_so(
    far: Watched, way: Proxy, postgres_url: str
) -> None:
    await way.refuse()
    submitted = asyncio.ensure_future(outcomes(far.store, started(2)))
    await far.troubles()
    await run_sql(postgres_url, "DELETE FROM node")
    await way.listen()

    assert [type(error) for error in await submitted] == [OwnershipLostError]
    with pytest.raises(OwnershipLostError):
        await far.store.execute(lambda connection: nodes.all_nodes(connection))
    assert await stored(far.store) == [1]


async def test_what_a_fenced_node_sent_before_changes_nothing(postgres_url: str) -> None:
    async with watched(postgres_url) as watch:
        await run_sql(postgres_url, "DELETE FROM node")

        told = await outcomes(watch.store, started(2), Changes(runs_ended=[run_ended(1, RunState.FAILED)]))

        assert [type(error) for error in told] == [OwnershipLostError] * 2
        assert await stored(watch.store) == [1]
        assert watch.told == []


# --- a server that is away --------------------------------------------------------------------------------------------


async def test_while_the_server_is_away_nothing_is_acknowledged_and_afterwards_all_is_written_in_order(
    far: Watched, way: Proxy
) -> None:
    told: Told = []
    await way.refuse()

    for number in (2, 3):
        far.store.submit(started(number), note(told, number))
    await far.troubles(2)
    called = asyncio.ensure_future(far.store.execute(lambda one: one.execute(select(func.count(run.c.id))).scalar()))
    await asyncio.sleep(0)
    far.store.submit(started(4), note(told, 4))
    await far.troubles(3)
    assert told == []
    assert all(isinstance(error, StoreUnavailableError) for error in far.told)

    await way.listen()

    assert await called == 3
    await until(lambda: len(told) == 3, "all are told")
    assert told == [(2, None), (3, None), (4, None)]
    assert far.told[-1] is None
    assert far.told.count(None) == 1


async def test_who_reads_while_the_server_is_away_is_told_at_once_and_served_afterwards(
    far: Watched, way: Proxy
) -> None:
    assert await stored(far.store) == [1]
    await way.refuse()

    with pytest.raises(StoreUnavailableError):
        await stored(far.store)

    await way.listen()
    assert await stored(far.store) == [1]


async def test_connections_that_broke_meanwhile_are_made_again_without_anybody_noticing(
    far: Watched, way: Proxy
) -> None:
    await asyncio.gather(*[stored(far.store) for _ in range(READERS * 2)])
    way.cut()

    assert await stored(far.store) == [1]


async def test_a_server_that_accepts_and_never_answers_is_noticed(postgres_url: str, way: Proxy) -> None:
    async with watched(through(way, postgres_url), IMPATIENT) as watch:
        way.hold_answers()
        submitted = asyncio.ensure_future(outcomes(watch.store, started(2)))
        await watch.troubles(2)  # of the command, and of connecting again
        assert "does not answer" in str(watch.told[0])
        with pytest.raises(ReadTimeoutError):
            await stored(watch.store)
        way.pass_answers()
        assert await submitted == [None]
        assert await stored(watch.store) == [1, 2]


async def test_a_restart_of_the_server_loses_and_doubles_nothing() -> None:
    with postgres() as server:
        async with database(server=server.url) as url, watched(url) as watch:
            told: Told = []
            for number in range(2, 40):
                watch.store.submit(started(number), note(told, number))
                if number % 10 == 0:
                    await until(lambda: bool(told), "some are told")
                    server.stop()
                    watch.store.submit(Changes(runs_ended=[run_ended(number - 1)]), note(told, -number))
                    await watch.troubles()
                    server.start()
                    watch.told.clear()
            await until(lambda: len(told) == 41, "all are told")
            assert [error for _, error in told] == [None] * 41
            assert await stored(watch.store) == list(range(1, 40))


# --- trouble that the server tells of ---------------------------------------------------------------------------------

STATES = {
    "disk full": "53100",
    "too many connections": "53300",
    "deadlock": "40P01",
    "serialization": "40001",
    "shutdown": "57P01",
    "lock timeout": "55P03",
    "read-only": "25006",
}


def failing(state: str) -> tuple[str, str]:
    """Return statements that have the server refuse to write runs."""
    body = f"BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{state}'; END"
    return (
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
        "CREATE TRIGGER failing BEFORE INSERT ON run FOR EACH ROW EXECUTE FUNCTION fail()",
    )


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
async def test_trouble_of_the_server_is_nobody_s_fault_and_a_refusal_still_is(postgres_url: str, state: str) -> None:
    async with watched(postgres_url) as watch:
        await run_sql(postgres_url, *failing(state))
        submitted = asyncio.ensure_future(
            outcomes(
                watch.store,
                started(2),
                Changes(runs_ended=[run_ended(77)]),
                Changes(runs_ended=[run_ended(1, RunState.CANCELLED)]),
            )
        )
        await watch.troubles(2)
        assert not submitted.done()
        await run_sql(postgres_url, "DROP TRIGGER failing ON run")

        assert [type(error) for error in await submitted] == [type(None), RowsMissingError, type(None)]


async def test_sessions_that_an_operator_ends_are_made_again(postgres_url: str) -> None:
    async with watched(postgres_url) as watch:
        await stored(watch.store)
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        await run_sql(postgres_url, f"SELECT pg_terminate_backend(pid) {others}")

        await commit(watch.store, started(2))

        assert await stored(watch.store) == [1, 2]


async def test_closing_while_the_server_is_away_tries_once_more_and_gives_up(far: Watched, way: Proxy) -> None:
    await way.refuse()
    submitted = asyncio.ensure_future(outcomes(far.store, started(2)))
    await far.troubles()
    later = asyncio.ensure_future(outcomes(far.store, Changes(runs_ended=[run_ended(1)])))
    await asyncio.sleep(0)

    await far.store.close()

    assert [type(error) for error in (await submitted) + (await later)] == [StoreUnavailableError] * 2


async def test_a_failed_statement_that_a_call_passed_over_is_not_taken_for_written(postgres_url: str) -> None:
    def careless(connection: Connection) -> None:
        try:
            connection.execute(insert(meta).values(key="epoch", value="x"))
        except Exception:  # noqa: BLE001 - what a careless caller does
            return

    async with watched(postgres_url) as watch:
        with pytest.raises(RuntimeError, match="rolled back"):
            await watch.store.execute(careless)

        await commit(watch.store, started(2))


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_query_that_takes_too_long_is_stopped_and_the_next_one_is_served(postgres_url: str) -> None:
    readers = PostgresReaders(Connector(parse(postgres_url)), seconds=2.0)
    try:
        sleeping = [readers.run(lambda one: one.execute(text("SELECT pg_sleep(600)")).scalar()) for _ in range(READERS)]
        told = await asyncio.gather(*sleeping, return_exceptions=True)
        assert [str(error) for error in told] == ["a query of the store took more than 2 s"] * READERS

        assert await readers.run(lambda connection: connection.execute(select(func.count(run.c.id))).scalar()) == 0
    finally:
        await readers.close()


async def test_who_waits_for_a_connection_for_too_long_is_told_so(postgres_url: str) -> None:
    readers = PostgresReaders(Connector(parse(postgres_url)), seconds=0.3)
    try:
        answers = await asyncio.gather(
            *[readers.run(lambda one: one.execute(text("SELECT pg_sleep(600)")).scalar()) for _ in range(READERS * 3)],
            return_exceptions=True,
        )
    finally:
        await readers.close()

    assert {type(answer) for answer in answers} == {ReadTimeoutError}


async def test_connections_that_read_cannot_write(postgres_store: PostgresStore) -> None:
    with pytest.raises(Exception, match="read-only"):
        await postgres_store.read(lambda connection: connection.execute(insert(meta).values(key="x", value="y")))


async def test_however_many_ask_there_are_few_connections(postgres_store: PostgresStore) -> None:
    def connections(connection: Connection) -> Any:
        mine = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return connection.execute(mine).scalar()

    seen = await asyncio.gather(*[postgres_store.read(connections) for _ in range(100)])

    assert max(seen) <= READERS + 1


async def test_a_transaction_whose_client_is_gone_does_not_keep_the_node_locked(postgres_store: PostgresStore) -> None:
    def bound(connection: Connection) -> Any:
        return connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar()

    assert await postgres_store.execute(bound) == "5s"
    assert await postgres_store.read(bound) == "0"


async def test_without_cached_statements_none_stays_prepared(postgres_url: str) -> None:
    def prepared(connection: Connection) -> Any:
        return connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar()

    async with watched(f"{postgres_url}?statement_cache_size=0") as watch:
        await commit(watch.store, started(2), Changes(runs_ended=[run_ended(1)]))
        told = await outcomes(watch.store, started(2), started(3))

        assert [error is None for error in told] == [False, True]
        assert await stored(watch.store) == [1, 2, 3]
        assert await watch.store.execute(prepared) == 0
        assert await watch.store.read(prepared) == 0


def planner(connection: Connection) -> Any:
    """Return whether the planner may read whole tables."""
    return connection.execute(text("SHOW enable_seqscan")).scalar()


async def test_whoever_writes_finds_rows_by_key_whatever_the_tables_were_when_it_was_planned(
    postgres_store: PostgresStore,
) -> None:
    assert await postgres_store.execute(planner) == "off"
    assert await postgres_store.read(planner) == "on"


async def test_a_pooler_that_lets_no_settings_through_is_connected_to_without_them(
    postgres_url: str, way: Proxy
) -> None:
    told = b"SFATAL\0C08P01\0Munsupported startup parameter: enable_seqscan\0\0"
    way.refusals[b"enable_seqscan\0off"] = b"E" + (len(told) + 4).to_bytes(4, "big") + told

    async with watched(through(way, postgres_url)) as watch:
        await commit(watch.store, started(2))

        assert await watch.store.execute(planner) == "on"
        assert await stored(watch.store) == [1, 2]
        assert watch.told == []


async def test_the_number_of_the_last_group_is_that_of_the_node(postgres_store: PostgresStore) -> None:
    def committed(connection: Connection) -> Any:
        return connection.execute(select(node.c.committed)).scalar()

    before = await postgres_store.read(committed)
    await commit(postgres_store, started(1), started(2))
    await commit(postgres_store, started(3))

    assert await postgres_store.read(committed) == before + 2
