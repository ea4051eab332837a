"""A pull queue as a worker talks to it: leases of tasks, over the REST API of Cloud Tasks (v2beta2)."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec

from hopline_engine.worker.exchange import Exchange, NoAnswerError

DEFAULT_PARENT: Final = "projects/local/locations/local/queues"
_AT_A_TIME: Final = 4
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A task that is this worker's until its lease ends."""

    name: str
    payload: bytes
    tag: str
    attempt: int
    """How often it was leased, this time included."""
    lease: str
    """What is shown to renew, end or acknowledge the lease."""


class LeaseLostError(Exception):
    """The lease ended, and the task is another's, or nobody's; or the task is gone."""


class QueueRefusedError(Exception):
    """The server leases nothing of this queue now: it is not there, is paused, or is no pull queue."""


class _Pull(msgspec.Struct):
    payload: str = ""
    tag: str = ""


class _Status(msgspec.Struct, rename="camel"):
    attempt_dispatch_count: int = 1


class _Task(msgspec.Struct, rename="camel"):
    name: str
    schedule_time: str
    pull_message: _Pull = msgspec.field(default_factory=_Pull)
    status: _Status = msgspec.field(default_factory=_Status)

    def leased(self) -> Leased:
        return Leased(
            name=self.name,
            payload=base64.b64decode(self.pull_message.payload),
            tag=self.pull_message.tag,
            attempt=self.status.attempt_dispatch_count,
            lease=self.schedule_time,
        )


class _Tasks(msgspec.Struct):
    tasks: list[_Task] = []


class PullQueue:
    """One pull queue at whichever of the engine's nodes answers; to be made and used on one running loop."""

    def __init__(self, name: str, servers: Callable[[], Sequence[str]], api_token: str | None) -> None:
        """Make it; *name* may be the last part of the queue's name only, *servers* returns the addresses of nodes."""
        self.name = name if "/" in name else f"{DEFAULT_PARENT}/{name}"
        self._servers = servers
        self._headers = {"Content-Type": "application/json"}
        if api_token:
            self._headers["Authorization"] = f"Bearer {api_token}"
        self._server = ""
        """The one that is asked, as long as it answers; none before the first question."""
        self._exchanges: dict[str, Exchange] = {}
        """By server, and kept also of those that do not answer: each has threads, which last as long as the process."""

    async def lease(self, most: int, seconds: int) -> list[Leased]:
        """Lease up to *most* tasks that wait, for *seconds*.

        Raises:
            NoAnswerError: no node answers.
            QueueRefusedError: it is refused.
        """
        body = {"maxTasks": most, "leaseDuration": f"{seconds}s", "responseView": "FULL"}
        status, answer = await self._ask(f"{self.name}/tasks:lease", body)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return []
        if status != HTTPStatus.OK:
            raise QueueRefusedError(_message(answer))
        return [task.leased() for task in _read(answer, _Tasks).tasks]

    async def renew(self, task: Leased, seconds: int) -> Leased:
        """Let a lease end *seconds* from now; return the task with the new one.

        Raises:
            NoAnswerError: no node answers.
            LeaseLostError: the lease is over.
        """
        verb, body = ("renewLease", {"leaseDuration": f"{seconds}s"}) if seconds else ("cancelLease", {})
        answer = await self._under_lease(task, verb, body)
        return replace(task, lease=_read(answer, _Task).schedule_time)

    async def acknowledge(self, task: Leased) -> None:
        """Delete a task: its work is done.

        Raises:
            NoAnswerError: no node answers.
            LeaseLostError: the lease is over.
        """
        await self._under_lease(task, "acknowledge", {})

    async def _under_lease(self, task: Leased, verb: str, body: dict[str, Any]) -> bytes:
        status, answer = await self._ask(f"{task.name}:{verb}", {"scheduleTime": task.lease, **body})
        if status != HTTPStatus.OK:
            raise LeaseLostError(_message(answer))
        return answer

    async def _ask(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        server = self._server = self._server or next(iter(self._servers()))
        try:
            reply = await self._to(server).ask("POST", f"/v2beta2/{path}", msgspec.json.encode(body))
            if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise NoAnswerError(f"it answered {reply.status}")
        except NoAnswerError:
            if self._server == server:  # otherwise another question has moved on already
                self._server = self._after(server)
            raise
        return reply.status, reply.body

    def _after(self, server: str) -> str:
        """Return the server that is asked when one does not answer."""
        servers = list(self._servers())
        after = servers.index(server) + 1 if server in servers else 0
        return servers[after % len(servers)]

    def _to(self, server: str) -> Exchange:
        exchange = self._exchanges.get(server)
        if exchange is None:
            exchange = self._exchanges[server] = Exchange(server, self._headers, at_a_time=_AT_A_TIME)
        return exchange


def _read(answer: bytes, kind: type[_Read]) -> _Read:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NoAnswerError(f"what answers there is no queue service: {error}") from None


def _message(answer: bytes) -> str:
    try:
        return str(msgspec.json.decode(answer)["error"]["message"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return "the answer is not that of a queue service"
