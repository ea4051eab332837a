"""What is left of a queue of the service that is deleted while others use it: nothing."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hopline_engine.bootstrap import open_engine
from hopline_engine.core.cloud.errors import CloudTasksError
from hopline_engine.core.cloud.model import QueueState
from hopline_engine.core.cloud.names import QueueName
from hopline_engine.queue.service import QueueService
from hopline_engine.settings import Settings
from hopline_engine.store import cloud_tasks

pytestmark = pytest.mark.anyio

MAIL = QueueName("p", "l", "mail")
TASK = {"http_request": {"url": "http://127.0.0.1:9/"}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[QueueService]:
    """Return a service that sends nothing."""
    async with open_engine(Settings(state_dir=tmp_path), dispatch=False) as installation:
        assert installation.queue_front is not None
        yield installation.queue_front.service


def meanwhile(service: QueueService, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> list[Any]:
    """Have something done once, just before the tasks of a queue are deleted; return what came of it."""
    store, came = service.store, list[Any]()

    async def execute(function: Any) -> Any:
        if getattr(function, "func", None) is cloud_tasks.clear_some and not came:
            came.append(None)
            try:
                came[0] = await act()
            except CloudTasksError as error:
                came[0] = error
        return await store.execute(function)

    monkeypatch.setattr(service, "store", SimpleNamespace(read=store.read, execute=execute, owner=store.owner))
    return came


def is_known(service: QueueService) -> bool:
    return MAIL.key in service._pusher.queues or MAIL.key in service._admission.queues


async def test_task_that_is_made_while_its_queue_is_deleted_goes_with_it(
    service: QueueService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.create_queue(MAIL, {})
    came = meanwhile(service, monkeypatch, lambda: service.create_task(MAIL, TASK))
    await service.delete_queue(MAIL)
    assert came[0].name.startswith(f"{MAIL}/tasks/")
    assert not is_known(service)
    assert not await service.exists(MAIL)


async def test_queue_that_is_paused_while_it_is_deleted_is_not_there(
    service: QueueService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.create_queue(MAIL, {})
    came = meanwhile(service, monkeypatch, lambda: service.set_state(MAIL, QueueState.PAUSED))
    await service.delete_queue(MAIL)
    assert isinstance(came[0], CloudTasksError)
    assert not is_known(service)


async def test_queue_that_was_deleted_can_be_made_again_at_once(service: QueueService) -> None:
    await service.create_queue(MAIL, {})
    await service.delete_queue(MAIL)
    await service.create_queue(MAIL, {})
    assert is_known(service)
    assert (await service.create_task(MAIL, TASK)).name.startswith(f"{MAIL}/tasks/")
