"""Which store the settings name, and opening it: a Postgres database for several nodes, or a SQLite file for one."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from hopline_engine.clock import Clock
from hopline_engine.settings import Settings
from hopline_engine.store import sqlite
from hopline_engine.store.errors import MissingDriverError
from hopline_engine.store.interface import Store

_DRIVERS: Final = ("asyncpg", "greenlet")


async def open_store(
    settings: Settings,
    *,
    node: str,
    clock: Clock,
    url: str | None = None,
    on_trouble: Callable[[Exception | None], None] = lambda _: None,
) -> Store:
    """Open the store that the settings name; see ``open_store`` of ``sqlite`` and ``postgres.store``.

    Raises:
        StoreError: it cannot be opened.
    """
    if not settings.is_on_postgres:
        path = settings.store_path
        return await sqlite.open_store(path, node=node, clock=clock.now, url=url, on_trouble=on_trouble)
    need_drivers()
    from hopline_engine.store.postgres import store as postgres

    return await postgres.open_store(settings.store, node=node, random=clock.random, url=url, on_trouble=on_trouble)


def need_drivers() -> None:
    """Check that what talks to Postgres is installed.

    Raises:
        MissingDriverError: it is not.
    """
    for module in _DRIVERS:
        if find_spec(module) is None:
            raise MissingDriverError(module)
