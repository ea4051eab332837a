"""The worker's HTTP side: ``POST /steps/{name}`` runs a step, ``GET /healthz`` says how the worker is.

Plain ASGI: at thousands of steps a second a framework would cost more than the steps.
"""

import asyncio
import hmac
import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from hopline import Context
from hopline_engine.worker.batch import elements_in, run_batch
from hopline_engine.worker.execute import RESULT_MAX_BYTES, Answer, Attempt, Runtime, Served, encode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_MAX_BYTES = 67_108_864
"""Of a step's arguments: a join receives the results of all its items at once."""

_STEPS = "/steps/"


class WorkerApp:
    """ASGI application that serves *steps* to whoever knows *token*."""

    def __init__(
        self,
        steps: Iterable[Served],
        *,
        token: str,
        concurrency: int,
        runtime: Callable[[asyncio.AbstractEventLoop, int, int], Runtime] = Runtime,
    ) -> None:
        self._steps = {step.name: step for step in steps}
        self._authorization = f"Bearer {token}".encode()
        self._concurrency = concurrency
        self._result_max_bytes = RESULT_MAX_BYTES
        self._new_runtime = runtime
        self._runtime: Runtime | None = None
        self._running = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path.startswith(_STEPS):
            self.began()
            try:
                await _send(await self._serve(path[len(_STEPS) :], scope, receive), send)
            finally:
                self.ended()
        elif path == "/healthz":
            await _send(self._health(), send)
        else:
            await _send(_refusal(404, "NotFound", f"there is nothing at {path}"), send)

    def limit_results(self, max_bytes: int) -> None:
        """Refuse results that the engine would not keep."""
        self._result_max_bytes = max_bytes
        if self._runtime is not None:
            self._runtime.result_max_bytes = max_bytes

    async def drain(self, grace_seconds: float) -> bool:
        """Take no more work and wait for what runs; return whether all of it was answered within the grace."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _serve(self, name: str, scope: Scope, receive: Receive) -> Answer | None:
        headers = dict(scope["headers"])
        step = self._steps.get(name)
        if (refusal := self._refused(scope["method"], headers, name, step)) is not None or step is None:
            return refusal
        if b"hopline-batch" in headers:
            return await self._serve_batch(step, receive)
        try:
            context, deadline = _context(headers)
        except (KeyError, ValueError, OverflowError) as error:
            return _refusal(400, "BadRequest", f"headers of the attempt: {error!r}")
        body = await _body(receive)
        if not isinstance(body, bytes):
            return body
        return await Attempt(step, body, context, deadline, self._runtime_of_loop()).run(gone=receive)

    async def _serve_batch(self, step: Served, receive: Receive) -> Answer | None:
        body = await _body(receive)
        if not isinstance(body, bytes):
            return body
        try:
            elements = [(_context(element.encoded_headers()), element) for element in elements_in(body)]
        except (msgspec.MsgspecError, KeyError, ValueError, OverflowError, RecursionError) as error:
            return _refusal(400, "BadRequest", f"elements of the batch: {error!r}")
        return await run_batch(step, elements, self._runtime_of_loop(), gone=receive)

    async def attempt(self, step: Served, body: bytes, context: Context, deadline: float) -> Answer:
        """Run a step for somebody who waits for its answer however long that takes."""
        never = asyncio.get_running_loop().create_future()
        answer = await Attempt(step, body, context, deadline, self._runtime_of_loop()).run(gone=lambda: never)
        assert answer is not None
        return answer

    @property
    def free_slots(self) -> int:
        """How many more steps it could run now."""
        return max(0, self._concurrency - self._running)

    @property
    def is_draining(self) -> bool:
        """Whether it takes no more work."""
        return self._draining

    def _refused(self, method: str, headers: dict[bytes, bytes], name: str, step: Served | None) -> Answer | None:
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._authorization):
            return _refusal(401, "Unauthorized", "this worker takes requests from its engine only")
        if self._draining:
            return _refusal(503, "WorkerDraining", "this worker is stopping")
        if step is None or headers.get(b"hopline-signature") != step.signature:
            return _refusal(404, "StepNotServed", f"this worker does not serve {name!r} with the signature asked for")
        if method != "POST":
            return _refusal(405, "MethodNotAllowed", "steps are run with POST")
        return None

    def _health(self) -> Answer:
        status = "draining" if self._draining else "ok"
        return Answer(200, encode({"status": status, "running": self._running}))

    def _runtime_of_loop(self) -> Runtime:
        if self._runtime is None:
            self._runtime = self._new_runtime(asyncio.get_running_loop(), self._concurrency, self._result_max_bytes)
        return self._runtime

    def began(self) -> None:
        """Count work that a worker waits for before it stops, and that takes one of its slots."""
        self._running += 1
        self._idle.clear()

    def ended(self) -> None:
        """Count the end of such work."""
        self._running -= 1
        if not self._running:
            self._idle.set()


def _context(headers: dict[bytes, bytes]) -> tuple[Context, float]:
    step, item = _step_and_item(headers[b"hopline-step"].decode())
    deadline = float(headers[b"hopline-deadline"]) if b"hopline-deadline" in headers else math.inf
    context = Context(
        run_id=headers[b"hopline-run"].decode(),
        step=step,
        item=item,
        attempt=int(headers[b"hopline-attempt"]),
        deadline=None if deadline == math.inf else datetime.fromtimestamp(deadline, UTC),
        idempotency_key=headers[b"idempotency-key"].decode(),
        callback_url=_optional(headers, b"hopline-callback-url"),
        callback_token=_optional(headers, b"hopline-callback-token"),
        traceparent=_optional(headers, b"traceparent"),
    )
    return context, deadline


def _optional(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode()


def _step_and_item(text: str) -> tuple[str, int | None]:
    if not text.endswith("]"):
        return text, None
    step, _, item = text[:-1].rpartition("[")
    return step, int(item)


async def _body(receive: Receive) -> bytes | Answer | None:
    """Return the whole body, or the refusal of one too large; ``None`` when the client went away."""
    parts: list[bytes] = []
    size = 0
    while (message := await receive())["type"] == "http.request":
        body = message["body"]
        size += len(body)
        if size > BODY_MAX_BYTES:
            return _refusal(413, "ArgumentsTooLarge", f"the arguments are over {BODY_MAX_BYTES} bytes of JSON")
        parts.append(body)
        if not message.get("more_body"):
            return body if len(parts) == 1 else b"".join(parts)
    return None


async def _send(answer: Answer | None, send: Send) -> None:
    if answer is None:
        return
    length = str(len(answer.body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _refusal(status: int, kind: str, message: str) -> Answer:
    error = {
        "type": kind, "types": [kind], "message": message, "traceback": "", "retry_after": None, "final": status == 413,
    }  # fmt: skip
    return Answer(status, encode({"error": error, "logs": None}))
