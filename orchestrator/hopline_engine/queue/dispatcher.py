"""One leased task, one HTTP exchange, one outcome.

Builds the request of a task (to a worker for Python steps, to the step's own target for HTTP steps), sends it, and
reads the answer. Decides nothing about the run: what an outcome means is ``core.advance``'s.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from hopline_engine.blobs.blobs import Blobs
from hopline_engine.clock import Clock
from hopline_engine.core.binding import BindingError
from hopline_engine.core.failures import unbound
from hopline_engine.core.live import LiveTask, RunScope, item_of
from hopline_engine.core.model import WHOLE, TaskId
from hopline_engine.core.names import idempotency_key
from hopline_engine.core.plan import Node, Plan
from hopline_engine.core.requests import BoundRequest, RequestTemplate
from hopline_engine.core.retry import SECRET_MISSING, Failure
from hopline_engine.queue.failing import exchange_type, exchange_types, status_failure
from hopline_engine.queue.outcomes import Accepted, Failed, Lost, Outcome, Succeeded, Unsendable, Unserved
from hopline_engine.queue.patience import Patience
from hopline_engine.queue.redacting import Redactor
from hopline_engine.queue.results import InvalidResultError, ResultType
from hopline_engine.queue.secrets import SecretMissingError, Secrets
from hopline_engine.queue.signing import Signer
from hopline_engine.queue.target import Answer, Endpoint, ExchangeFailed, Target
from hopline_engine.queue.worker_answers import outcome_of, outcome_of_silence, outcomes_of_batch
from hopline_engine.queue.workers import Worker

log = logging.getLogger(__name__)

USER_AGENT: Final = b"Hopline"
_OURS: Final = frozenset({"idempotency-key", "traceparent"})
"""Headers that a step cannot set, with all that begin with ``hopline-``; the transport refuses those of its own."""

MOST_RESULT_TYPES: Final = 10_000
"""Of steps, that are kept ready to check."""

LONGEST_KEPT_URL: Final = 1000
"""A longer URL carries data: it hardly comes again, and thousands of them would weigh."""

WORKER_GRACE_SECONDS: Final = 1.0
"""How much longer than an attempt may take its worker is waited for: at the deadline it says where the step is."""

BATCH_BYTES: Final = 8 * 2**20
"""Of arguments in one call; elements of a batch that do not fit go with the next one."""

CALL_OFF_SECONDS: Final = 10.0
"""How long a target may take to hear of a cancellation."""

Headers = list[tuple[bytes, bytes]]

_NO_ROOM: Final = Unserved("it did not fit into the call", may_be_asked=True)


class Dispatcher:
    """Executes leased tasks over HTTP."""

    def __init__(
        self,
        *,
        target: Target,
        workers: Target,
        signer: Signer,
        secrets: Secrets,
        blobs: Blobs,
        clock: Clock,
        attempt_timeout: float,
        result_max_bytes: int,
    ) -> None:
        """Make a dispatcher.

        Args:
            target: how HTTP steps reach the world, behind the egress guard.
            workers: how workers are reached.
            signer: makes callback tokens and trace ids.
            secrets: where the values of secrets are.
            blobs: where results are that are too large for rows.
            clock: the time that deadlines are told in.
            attempt_timeout: seconds of an attempt of a step that names none.
            result_max_bytes: the largest result that is stored.
        """
        self._target = target
        self._workers = workers
        self._signer = signer
        self.secrets = secrets
        self.blobs = blobs
        self._clock = clock
        self._attempt_timeout = attempt_timeout
        self._result_max_bytes = result_max_bytes
        self._result_types: dict[tuple[str, int], ResultType] = {}
        self._patience = Patience()
        self.callback_base = ""
        """Base URL of the API for callbacks, known once the server listens."""
        self.runs_url = ""
        """Where people look at runs: before the id of one."""

    async def execute(self, task: LiveTask, worker: Worker | None) -> Outcome:
        """Send one attempt and return its outcome; never raises for what targets and workers do."""
        now = self._clock.now()
        timeout = self._seconds_of(task, now)
        headers = self._headers(task, now + timeout)
        try:
            outcome = await self._ask(task, worker, headers, timeout)
        except BindingError as error:
            outcome = Unsendable(unbound(error))
        finally:
            self._patience.end(task.id)
        if isinstance(outcome, Succeeded) and len(outcome.result) > self.blobs.inline_bytes:
            return await self._spilled(task, outcome)
        return outcome

    async def _ask(self, task: LiveTask, worker: Worker | None, headers: Headers, seconds: float) -> Outcome:
        if worker is not None:
            return await self._ask_worker(task, worker, headers, seconds)
        request = task.node.request
        assert request is not None
        if request.secrets:
            return await self._ask_with_secrets(task, request, headers, seconds)
        return await self._ask_target(task, request, headers, seconds)

    async def _spilled(self, task: LiveTask, outcome: Succeeded) -> Outcome:
        """Keep a large result before anything refers to it."""
        if task.node.kind == "dynamic":  # it is a graph, which is stored as one
            return outcome
        try:
            return replace(outcome, result=await self.blobs.kept(outcome.result))
        except Exception as error:
            log.exception("a result of %d bytes could not be kept", len(outcome.result))
            return Lost(f"its result of {len(outcome.result):,} bytes could not be kept: {error}")

    async def execute_batch(self, tasks: list[LiveTask], worker: Worker) -> list[Outcome]:
        """Send one attempt of each of these elements of a map in one call of a worker; return what became of each."""
        now = self._clock.now()
        sent: list[LiveTask] = []
        parts: list[bytes] = []
        room, seconds = BATCH_BYTES, 0.0
        outcomes: dict[TaskId, Outcome] = {}
        for task in tasks:
            try:
                arguments = await self.blobs.whole(task.node.inputs.render(self._scope(task)))
            except BindingError as error:
                outcomes[task.id] = Unsendable(unbound(error))
                continue
            if parts and len(arguments) > room:
                break
            room -= len(arguments)
            limit = self._seconds_of(task, now)
            seconds += limit
            sent.append(task)
            parts.append(self._part(task, arguments, limit))
        if sent:
            answers = await self._ask_for_batch(sent, worker, parts, seconds)
            for index, answer in enumerate(answers):
                if isinstance(answer, Succeeded) and len(answer.result) > self.blobs.inline_bytes:
                    answers[index] = await self._spilled(sent[index], answer)
            outcomes |= zip((task.id for task in sent), answers, strict=False)
        return [outcomes.get(task.id, _NO_ROOM) for task in tasks]

    def _seconds_of(self, task: LiveTask, now: float) -> float:
        """Return how long the next attempt may take."""
        timeout = task.node.timeout or self._attempt_timeout
        return timeout if task.deadline_time is None else min(timeout, max(0.001, task.deadline_time - now))

    def _part(self, task: LiveTask, arguments: bytes, seconds: float) -> bytes:
        """Return one element of a batch: what its own request would have been, with the time it has once it begins."""
        end = task.deadline_time if task.deadline_time is not None else math.inf
        named = {name.decode().lower(): value.decode() for name, value in self._headers(task, end)}
        return b'{"headers":%b,"seconds":%.3f,"arguments":%b}' % (msgspec.json.encode(named), seconds, arguments)

    def extend(self, task: LiveTask, seconds: float) -> float:
        """Let the attempt of *task* that is under way last so many seconds from now, at least; return its end.

        The deadline of its step stays what it is.
        """
        now = self._clock.now()
        if task.deadline_time is not None:
            seconds = min(seconds, max(0.001, task.deadline_time - now))
        self._patience.extend(task.id, seconds + WORKER_GRACE_SECONDS)
        return now + seconds

    async def _ask_for_batch(
        self, tasks: list[LiveTask], worker: Worker, parts: list[bytes], seconds: float
    ) -> list[Outcome]:
        body = b"[" + b",".join(parts) + b"]"
        headers = [(b"Hopline-Batch", b"%d" % len(parts))]
        try:
            endpoint = worker.endpoint_of(tasks[0].node.route)
            limit = self._patience.begin_shared([task.id for task in tasks], seconds + WORKER_GRACE_SECONDS)
            answer = await self._workers.exchange_raw(endpoint, headers, body, seconds, limit)
        except ExchangeFailed as error:
            return [outcome_of_silence(error, seconds)] * len(parts)
        except (httpx.InvalidURL, httpx.HTTPError, ValueError) as error:
            return [Unserved(f"the worker cannot be called: {error}")] * len(parts)
        finally:
            for task in tasks:
                self._patience.end(task.id)
        return outcomes_of_batch(answer, len(parts), seconds, self._result_max_bytes)

    async def call_off(self, task: LiveTask) -> str | None:
        """Tell the target of a cancelled attempt at the URL that its request names; return what went wrong, if it did.

        The same headers as those of the attempt say which one it is, so that telling twice does no harm.
        """
        request = task.node.request
        assert request is not None
        assert request.cancel is not None
        values = await self.secrets.known(request.secrets)
        try:
            url = request.cancel.url(self._scope(task, values))
            headers = self._headers(task, self._clock.now() + CALL_OFF_SECONDS)
            answer = await self._target.exchange_raw(_endpoint("POST", url), headers, b"", CALL_OFF_SECONDS)
        except ExchangeFailed as error:
            return Redactor(values).text(error.message)
        except (BindingError, httpx.InvalidURL, httpx.HTTPError, ValueError) as error:
            return Redactor(values).text(f"the request cannot be made: {error}")
        return f"HTTP {answer.status}" if answer.status == 429 or answer.status >= 500 else None

    def result_type(self, plan: Plan, node: Node) -> ResultType:
        """Return the declared type of a step's result."""
        key = (plan.digest, node.index)
        found = self._result_types.get(key)
        if found is None:
            if len(self._result_types) >= MOST_RESULT_TYPES:  # graphs of dynamic workflows may never come again
                self._result_types.clear()
            found = self._result_types[key] = ResultType(node.result, self._result_max_bytes)
        return found

    def _headers(self, task: LiveTask, attempt_end: float) -> Headers:
        run, step, attempt = task.run.public_id, task.name, task.attempt
        return [
            (b"Hopline-Run", run.encode()),
            (b"Hopline-Step", step.encode()),
            (b"Hopline-Attempt", b"%d" % attempt),
            (b"Hopline-Deadline", b"%.3f" % attempt_end),
            (b"Idempotency-Key", idempotency_key(run, task.node.id, task.item).encode()),
            (b"traceparent", self._signer.traceparent(run, task.id, attempt).encode()),
            (b"Hopline-Callback-Url", f"{self.callback_base}/callbacks/{run}/{attempt}/{_in_path(task)}".encode()),
            (b"Hopline-Callback-Token", self._signer.sign(run, step, attempt).encode()),
        ]

    async def redactor(self, node: Node) -> Redactor | None:
        """Return what takes out of reports about a step the secrets that its request told the target, if it did."""
        if node.request is None or not node.request.secrets:
            return None
        return Redactor(await self.secrets.known(node.request.secrets))

    def _scope(self, task: LiveTask, secrets: Mapping[str, str] | None = None) -> RunScope:
        return RunScope(task.run, item_of(task.run, task.node, task.item), secrets, self.runs_url)

    async def _ask_worker(self, task: LiveTask, worker: Worker, headers: Headers, seconds: float) -> Outcome:
        arguments = await self.blobs.whole(task.node.inputs.render(self._scope(task)))
        try:
            endpoint = worker.endpoint_of(task.node.route)
            limit = self._patience.begin(task.id, seconds + WORKER_GRACE_SECONDS)
            answer = await self._workers.exchange_raw(endpoint, headers, arguments, seconds, limit)
        except ExchangeFailed as error:
            return outcome_of_silence(error, seconds)
        except (httpx.InvalidURL, httpx.HTTPError, ValueError) as error:
            return Unserved(f"the worker cannot be called: {error}")
        return outcome_of(answer, seconds, self._result_max_bytes, is_heard=task.last_heard is not None)

    async def _ask_with_secrets(
        self, task: LiveTask, request: RequestTemplate, headers: Headers, seconds: float
    ) -> Outcome:
        """Ask a target that is told secrets; nothing that it says is used before they are taken out of it."""
        try:
            values = await self.secrets.values(request.secrets)
        except SecretMissingError as error:
            return Failed(Failure(SECRET_MISSING, str(error), (SECRET_MISSING,)))
        redactor = Redactor(values)
        try:
            outcome = await self._ask_target(task, request, headers, seconds, values, redactor)
        except BindingError as error:
            outcome = Unsendable(unbound(error))
        if isinstance(outcome, Failed | Unsendable):
            return replace(outcome, failure=redactor.failure(outcome.failure))
        return outcome

    async def _ask_target(
        self,
        task: LiveTask,
        request: RequestTemplate,
        headers: Headers,
        seconds: float,
        secrets: Mapping[str, str] | None = None,
        redactor: Redactor | None = None,
    ) -> Outcome:
        bound = request.bind(self._scope(task, secrets))
        body = await self.blobs.whole(bound.body) if bound.body else b""
        endpoint_of = _endpoint if redactor is None else _endpoint_of
        try:
            headers = _with_own_headers(headers, bound)
            endpoint = endpoint_of(bound.method, bound.url)
            limit = self._patience.begin(task.id, seconds)
            answer = await self._target.exchange_raw(endpoint, headers, body, seconds, limit)
        except ExchangeFailed as error:
            final = error.kind in {"blocked", "too_large"}
            failure = Failure(exchange_type(error), error.message, exchange_types(error), final=final)
            return Failed(failure, timed_out=error.kind == "timeout")
        except (httpx.InvalidURL, httpx.HTTPError, ValueError) as error:
            message = f"the request cannot be made: {error}"
            return Unsendable(Failure("InvalidRequest", message, ("InvalidRequest",), final=True))
        if redactor is not None:
            answer = answer._replace(body=redactor.body(answer.body))
        if 200 <= answer.status < 300:
            if answer.status == HTTPStatus.ACCEPTED or task.node.callback:
                return Accepted()
            return self._read_result(answer, task)
        return Failed(status_failure(answer, self._clock.now()))

    def _read_result(self, answer: Answer, task: LiveTask) -> Outcome:
        is_text = answer.headers.get("content-type", "").startswith("text/")
        try:
            result = self.result_type(task.run.plan, task.node).read(answer.body, is_text=is_text)
        except InvalidResultError as error:
            message = f"HTTP {answer.status}, but {error}"
            return Failed(Failure("InvalidResult", message, ("InvalidResult",), status=answer.status, final=True))
        return Succeeded(result, answer.status)


def _with_own_headers(headers: Headers, bound: BoundRequest) -> Headers:
    """Return the engine's headers with those of the step, which cannot replace ours but for the user agent."""
    names = {name.lower() for name, _ in bound.headers}
    own = [
        (name.encode("ascii"), value.encode())
        for name, value in bound.headers
        if name.lower() not in _OURS and not name.lower().startswith("hopline-")
    ]
    if bound.body is not None and "content-type" not in names:
        own.append((b"Content-Type", b"application/json"))
    if "user-agent" not in names:
        own.append((b"User-Agent", USER_AGENT))
    return [*headers, *own]


def _in_path(task: LiveTask) -> str:
    """Return the name of a step run as a URL has it."""
    node = task.node.id
    name = node if node.isascii() and node.isidentifier() else quote(node, safe="")
    return name if task.item == WHOLE else f"{name}%5B{task.item}%5D"


def _endpoint(method: str, url: str) -> Endpoint:
    return _kept_endpoint(method, url) if len(url) <= LONGEST_KEPT_URL else _endpoint_of(method, url)


def _endpoint_of(method: str, url: str) -> Endpoint:
    return Endpoint.of(method, httpx.URL(url))


@lru_cache(maxsize=4096)
def _kept_endpoint(method: str, url: str) -> Endpoint:
    return _endpoint_of(method, url)
