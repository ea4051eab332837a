"""Points at which a process of the engine may kill itself: before and after what must not be torn apart.

The product knows nothing of them: ``watch`` wraps some of its functions inside the process that is to die. A point is
called after what is done there, with ``before`` or ``after`` it; ``request: sent`` and ``after an answer`` are when the
bytes have been handed to the system.
"""

import asyncio
import functools
import inspect
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple


class Point(NamedTuple):
    """A moment in the life of a process."""

    name: str
    passing: int
    """Which time it is reached, from 1."""

    def __str__(self) -> str:
        return f"{self.name}#{self.passing}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Return the point that ``str`` made *text* of."""
        name, _, passing = text.rpartition("#")
        return cls(name, int(passing))


ENGINE: Final = "hopline_engine."

WORK: Final = (
    ("releasing", "scheduler.committing", "Committing._release"),
    ("sending", "scheduler.sending", "Sending._send"),
    ("request", "queue.connection", "Connection.exchange"),
    ("using an answer", "scheduler.coordinator", "Coordinator._on_answers"),
    ("registering", "scheduler.controls", "Controls.register"),
    ("starting a run", "scheduler.engine", "Engine.start_run"),
    ("cancelling", "scheduler.orders", "Orders.cancel"),
    ("calling back", "scheduler.callbacks", "Callbacks.call_back"),
)
"""What happens while runs move: the name of the point, the module, the function."""

STORES: Final = {
    "sqlite": (
        ("commit", "store.transaction", "Writer.commit"),
        ("settling", "store.commit", "GroupCommitter._settle"),
    ),
    "postgres": (
        ("commit", "store.postgres.writer", "PostgresWriter.run"),
        ("settling", "store.postgres.commit", "settle"),
    ),
}
"""What makes a group durable and tells of it, by store."""

OPENING: Final = {
    "sqlite": (
        ("opening the file", "store.sqlite", "_open_locked"),
        ("migrating", "store.sqlite", "upgrade_file"),
        ("joining", "store.sqlite", "_join"),
    ),
    "postgres": (
        ("opening the database", "store.postgres.store", "open_store"),
        ("migrating", "store.postgres.store", "_upgrade"),
        ("joining", "store.nodes", "join"),
    ),
}
"""How a store is opened."""

STARTING: Final = (
    ("needing the key", "bootstrap", "_key"),
    ("opening the engine", "scheduler.engine", "Engine.open"),
    ("reading runs", "store.recovery", "live_runs"),
    ("beating", "scheduler.membership", "Membership.beat"),
    ("taking up shards", "scheduler.membership", "Membership._take_up"),
    ("taking up runs", "scheduler.coordinator", "Coordinator.resume"),
    ("listening", "bootstrap", "Installation.serve"),
    ("telling where", "bootstrap", "_write_server_file"),
    ("letting runs move", "scheduler.engine", "Engine.dispatch"),
)
"""What happens before anything moves, recovery included."""

STOPPING: Final = (
    ("closing the door", "bootstrap", "Installation.stop_serving"),
    ("closing the engine", "scheduler.engine", "Engine.close"),
    ("draining", "scheduler.coordinator", "Coordinator.stop"),
    ("leaving", "scheduler.membership", "Membership.leave"),
)
"""What happens after SIGTERM."""

CLOSING: Final = {
    "sqlite": (
        ("closing the committer", "store.commit", "GroupCommitter.close"),
        ("closing the file", "store.sqlite", "_Opened.close"),
    ),
    "postgres": (
        ("closing the committer", "store.postgres.commit", "PostgresCommitter.close"),
        ("closing the store", "store.postgres.store", "PostgresStore.close"),
    ),
}
"""How a store is closed."""

SENT: Final = "request: sent"
STATEMENT: Final = "a statement of the migration"
_OF_A_MIGRATION: Final = ("CREATE", "ALTER", "DROP", "INSERT INTO alembic", "UPDATE alembic", "INSERT INTO shard")
BEFORE_ANSWER: Final = ("before an answer", "before the answer to a callback")
AFTER_ANSWER: Final = ("after an answer", "after the answer to a callback")


def around(*table: tuple[str, str, str]) -> tuple[str, ...]:
    """Return the names of the points of a table."""
    return tuple(f"{when} {name}" for name, *_ in table for when in ("before", "after"))


class Passings:
    """How often each point was reached in this process; at one of them it ends."""

    def __init__(self, deadly: Point | None, told: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._deadly = deadly
        self._told = told
        """A file that gets the name of the point before the process dies."""

    def reach(self, name: str) -> None:
        """Pass a point, or die there."""
        self.counts[name] += 1
        if self._deadly == (name, self.counts[name]):
            self._told.write_text(str(self._deadly))
            os.kill(os.getpid(), signal.SIGKILL)

    def reach_soon(self, name: str) -> None:
        """Reach a point when what was written in this turn of the loop is with the system."""
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(self.reach, name)))


def watch(store: str, passings: Passings) -> None:
    """Let the functions of the engine in this process reach their points."""
    of_the_store = (*STORES[store], *OPENING[store], *CLOSING[store])
    for name, module, function in (*WORK, *STARTING, *STOPPING, *of_the_store):
        _wrap(module, function, functools.partial(_around, name=name, passings=passings))
    _wrap("queue.connection", "Connection.exchange", functools.partial(_when_sent, passings=passings))
    _wrap("bootstrap", "create_app", functools.partial(_answering, passings=passings))
    _wrap("store.schema", "upgrade", functools.partial(_by_statement, passings=passings))
    _wrap("store.sqlite", "_connect", functools.partial(_before_statements, passings=passings))


def _wrap(module: str, path: str, wrapper: Callable[[Any], Any]) -> None:
    owner: Any = import_module(ENGINE + module)
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    setattr(owner, name, wrapper(getattr(owner, name)))


def _around(function: Callable[..., Any], name: str, passings: Passings) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*given: Any, **named: Any) -> Any:
            passings.reach(f"before {name}")
            value = await function(*given, **named)
            passings.reach(f"after {name}")
            return value

        return awaited

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        passings.reach(f"before {name}")
        value = function(*given, **named)
        passings.reach(f"after {name}")
        return value

    return called


def _when_sent(exchange: Callable[..., Awaitable[Any]], passings: Passings) -> Callable[..., Awaitable[Any]]:
    async def exchanging(*given: Any, **named: Any) -> Any:
        passings.reach_soon(SENT)
        return await exchange(*given, **named)

    return exchanging


def _by_statement(upgrade: Callable[..., None], passings: Passings) -> Callable[..., None]:
    from sqlalchemy import event

    def upgrading(connection: Any) -> None:
        if connection.dialect.name == "postgresql":
            event.listen(connection, "after_cursor_execute", lambda *_: passings.reach(STATEMENT))
        upgrade(connection)

    return upgrading


def _before_statements(connect: Callable[..., Any], passings: Passings) -> Callable[..., Any]:
    """Let the statements that make a file reach a point; they need not go through SQLAlchemy."""

    def connecting(*given: Any) -> Any:
        raw = connect(*given)
        raw.set_trace_callback(lambda sql: passings.reach(STATEMENT) if sql.startswith(_OF_A_MIGRATION) else None)
        return raw

    return connecting


def _answering(create_app: Callable[..., Any], passings: Passings) -> Callable[..., Any]:
    """Wrap the API so that answers to requests that change something pass points."""

    def creating(*given: Any, **named: Any) -> Any:
        app = create_app(*given, **named)
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: _answers(build(), passings)
        return app

    return creating


def _answers(app: Any, passings: Passings) -> Any:
    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] == "GET" or scope["path"].endswith("/heartbeat"):
            await app(scope, receive, send)
            return
        is_callback = "/callbacks/" in scope["path"]

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                passings.reach(BEFORE_ANSWER[is_callback])
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                passings.reach_soon(AFTER_ANSWER[is_callback])

        await app(scope, receive, sending)

    return answering
