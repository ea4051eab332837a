"""Listings of the queue service, page by page."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from hopline_engine.core.cloud.filters import parse_filter
from hopline_engine.core.cloud.model import Queue, Task
from hopline_engine.core.cloud.names import LocationName, QueueName
from hopline_engine.core.cloud.paging import last_of, page_size, page_token
from hopline_engine.store import cloud_queues, cloud_tasks
from hopline_engine.store.interface import Store

MOST_QUEUES: Final = 9800
MOST_TASKS: Final = 1000
_READ_AT_ONCE: Final = 1000


class QueuePage(NamedTuple):
    """A part of a listing of queues."""

    queues: list[Queue]
    next_page_token: str


class TaskPage(NamedTuple):
    """A part of a listing of tasks."""

    tasks: list[Task]
    next_page_token: str


class Page(NamedTuple):
    """Which part of a listing is wanted."""

    size: int
    """0 for as many as may be."""
    token: str


async def list_queues(
    store: Store,
    parent: LocationName,
    filter_text: str,
    show: Callable[[Queue], Mapping[str, Any]],
    page: Page,
    now: float,
) -> QueuePage:
    """Return queues of a location by name; *show* returns the fields that the filter speaks of.

    Raises:
        CloudTasksError: the filter or the page cannot be read.
    """
    listing = f"queues\n{parent}\n{filter_text}"
    is_wanted = parse_filter(filter_text)
    size = page_size(page.size, MOST_QUEUES)
    after = last_of(page.token, listing, now)
    found: list[Queue] = []
    while True:
        rows = await store.read(partial(cloud_queues.page, parent=parent, after=after, limit=_READ_AT_ONCE))
        for row in rows:
            if not is_wanted(show(row.queue)):
                continue
            if len(found) == size:
                assert after is not None
                return QueuePage(found, page_token(after, listing, now))
            found.append(row.queue)
            after = row.key
        if len(rows) < _READ_AT_ONCE:
            return QueuePage(found, "")
        after = rows[-1].key


async def list_tasks(store: Store, queue: QueueName, page: Page, now: float, *, full: bool) -> TaskPage:
    """Return tasks of a queue that are not over.

    Raises:
        CloudTasksError: the queue is not there, or the page cannot be read.
    """
    listing = f"tasks\n{queue}"
    size = page_size(page.size, MOST_TASKS)
    after = last_of(page.token, listing, now)
    await store.read(partial(cloud_queues.get, name=queue))
    found = await store.read(partial(cloud_tasks.page, queue=queue, after=after, limit=size, full=full))
    last = None if found.is_last else found.tasks[-1].task.name.rpartition("/")[2]
    return TaskPage([row.task for row in found.tasks], "" if last is None else page_token(last, listing, now))


async def list_dead(store: Store, queue: QueueName, page: Page, now: float, *, full: bool) -> TaskPage:
    """Return tasks of a queue whose attempts are used up, oldest first.

    Raises:
        CloudTasksError: the queue is not there, or the page cannot be read.
    """
    listing = f"dead\n{queue}"
    size = page_size(page.size, MOST_TASKS)
    last = last_of(page.token, listing, now)
    after = int(last) if last is not None else None
    await store.read(partial(cloud_queues.get, name=queue))
    found = await store.read(partial(cloud_tasks.dead_page, queue=queue, after=after, limit=size, full=full))
    more = None if found.is_last else str(found.tasks[-1].id)
    return TaskPage([row.task for row in found.tasks], "" if more is None else page_token(more, listing, now))
