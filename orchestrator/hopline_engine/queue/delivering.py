"""One attempt of a task of the queue service: one request, and how it ended."""

from collections.abc import Awaitable, Callable
from typing import Final, assert_never

import httpx

from hopline_engine.clock import Clock
from hopline_engine.core.cloud.attempts import Ended
from hopline_engine.core.cloud.delivery import Delivery, Progress, app_engine_delivery, http_delivery
from hopline_engine.core.cloud.errors import Code
from hopline_engine.core.cloud.model import AppEngineHttpRequest, AppEngineRouting, HttpRequest, PullMessage
from hopline_engine.core.cloud.names import TaskName, queue_of_key
from hopline_engine.core.cloud.retrying import parse_retry_after
from hopline_engine.errors import UnavailableError
from hopline_engine.queue.target import Answer, Endpoint, ExchangeFailed, Target
from hopline_engine.store.cloud_pushes import Sending
from hopline_engine.store.errors import StoreError

APP_ENGINE_DEADLINE: Final = 600.0
"""Of tasks that say none: that of services that scale by themselves."""
KEPT_HEAD: Final = 2000
"""Characters of an answer that are kept with its attempt."""

Headers = list[tuple[bytes, bytes]]
Authorize = Callable[[Delivery, float], Awaitable[Headers]]
"""Returns the headers with the token that a delivery asks for; given the time."""


class Courier:
    """Sends attempts over HTTP."""

    def __init__(
        self, *, target: Target, clock: Clock, app_engine: Callable[[AppEngineRouting], str], authorize: Authorize
    ) -> None:
        """Make a courier.

        Args:
            target: how requests reach the world, behind the egress guard.
            clock: the time.
            app_engine: returns the base URL of a service of an App Engine app.
            authorize: makes tokens.
        """
        self._target = target
        self._clock = clock
        self._app_engine = app_engine
        self._authorize = authorize

    async def deliver(self, sending: Sending) -> Ended:
        """Send an attempt and return how it ended; raises neither for what targets do nor for a token it cannot get."""
        task = sending.stored.task
        is_app_engine = isinstance(task.payload, AppEngineHttpRequest)
        status: int | None = None
        silence, reason, head, retry_after = Code.UNKNOWN, "", "", None
        try:
            delivery = self._delivery(sending)
            now = self._clock.now()
            endpoint = Endpoint.of(delivery.method, httpx.URL(delivery.url))
            headers = _authorized(_encoded(delivery.headers), await self._authorize(delivery, now))
            seconds = task.dispatch_deadline or APP_ENGINE_DEADLINE
            answer = await self._target.exchange_head(endpoint, headers, delivery.body, seconds)
            status, head = answer.status, _head(answer)
            retry_after = parse_retry_after(answer.headers.get("retry-after"), self._clock.now())
        except ExchangeFailed as error:
            silence = Code.DEADLINE_EXCEEDED if error.kind == "timeout" else Code.UNKNOWN
            reason = error.message
        except (httpx.InvalidURL, httpx.HTTPError, ValueError, OSError, StoreError, UnavailableError) as error:
            reason = f"the request cannot be made: {error}"
        return Ended(
            dispatch_time=sending.dispatch_time,
            end_time=self._clock.now(),
            status=status,
            silence=silence,
            reason=reason,
            retry_after=retry_after,
            is_app_engine=is_app_engine,
            is_forced=sending.is_forced,
            response_head=head,
        )

    def _delivery(self, sending: Sending) -> Delivery:
        stored = sending.stored
        task = stored.task
        name = TaskName(queue_of_key(stored.key), task.name.rpartition("/")[2])
        attempt = task.last_attempt
        progress = Progress(
            attempt=sending.number,
            executed=stored.execution_count,
            previous_response=stored.previous_response,
            retry_reason=stored.retry_reason,
            schedule_time=(attempt.schedule_time if attempt else None) or task.schedule_time,
        )
        match task.payload:
            case HttpRequest() as request:
                return http_delivery(name, request, sending.queue.config.http_target, progress)
            case AppEngineHttpRequest() as request:
                routing = sending.queue.config.app_engine_routing_override or request.app_engine_routing
                return app_engine_delivery(name, request, self._app_engine(routing or AppEngineRouting()), progress)
            case PullMessage():
                raise ValueError("a pull task is not sent")
            case _:
                assert_never(task.payload)


def _encoded(headers: list[tuple[str, str]]) -> Headers:
    return [(name.encode("ascii"), value.encode()) for name, value in headers]


def _authorized(headers: Headers, tokens: Headers) -> Headers:
    """Return *headers* with *tokens* in place of those of the same name."""
    replaced = {name.lower() for name, _ in tokens}
    return [*(header for header in headers if header[0].lower() not in replaced), *tokens] if tokens else headers


def _head(answer: Answer) -> str:
    lines = [f"{name}: {value}" for name, value in answer.headers.items()]
    text = "\n".join([*lines, "", answer.body[:KEPT_HEAD].decode("utf-8", "replace")])
    return text[:KEPT_HEAD].replace("\0", "\N{REPLACEMENT CHARACTER}")
