"""What workers answer when they are sent steps, and what becomes of the attempts by that."""

from http import HTTPStatus
from typing import Final

import msgspec

from hopline_engine.core.retry import Failure
from hopline_engine.core.spans import span
from hopline_engine.queue.outcomes import Accepted, Failed, Lost, Outcome, Succeeded, Unserved
from hopline_engine.queue.target import Answer, ExchangeFailed

_ACCEPTED: Final = HTTPStatus.ACCEPTED.value
_NOT_TAKEN: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE})
"""Statuses with which a worker says that it did not take the step."""


class _WorkerError(msgspec.Struct):
    type: str
    message: str
    types: list[str] = []
    traceback: str | None = None
    retry_after: float | None = None
    final: bool = False


class _WorkerAnswer(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _WorkerError | None = None
    logs: str | None = None


class _ElementAnswer(msgspec.Struct):
    status: int
    answer: _WorkerAnswer


_decode_worker_answer: Final = msgspec.json.Decoder(_WorkerAnswer).decode
_decode_batch_answer: Final = msgspec.json.Decoder(list[_ElementAnswer]).decode


def outcome_of(answer: Answer, seconds: float, largest: int, *, is_heard: bool) -> Outcome:
    """Return what an answer says of an attempt that had so many *seconds*.

    Args:
        answer: that of the worker.
        seconds: that the attempt had.
        largest: how many bytes a result may have.
        is_heard: whether the attempt has sent heartbeats.
    """
    if answer.status in _NOT_TAKEN:
        return Unserved(f"the worker answered {answer.status}")
    if answer.status == _ACCEPTED:
        return Accepted()
    try:
        read = _decode_worker_answer(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Lost(f"the worker answered {answer.status} with something that is not its protocol: {error}")
    return _outcome_of(answer.status, read, seconds, largest, is_heard=is_heard)


def outcomes_of_batch(answer: Answer, count: int, seconds: float, largest: int) -> list[Outcome]:
    """Return what an answer says of a batch of *count* attempts, which had so many *seconds* together."""
    if answer.status in _NOT_TAKEN:
        return [Unserved(f"the worker answered {answer.status}")] * count
    try:
        read = _decode_batch_answer(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return [Lost(f"the worker answered {answer.status} with no list of answers: {error}")] * count
    return [_outcome_of(one.status, one.answer, seconds, largest) for one in read]


def outcome_of_silence(error: ExchangeFailed, seconds: float) -> Outcome:
    """Return what became of an attempt to which the worker gave no answer."""
    if error.kind == "refused":
        return Unserved(error.message)
    if error.kind == "timeout":
        message = f"no result within {span(seconds)}, and no word of the worker: it is stuck or cut off"
        return Failed(Failure("TimeoutError", message, error.types), timed_out=True)
    if error.kind == "too_large":
        return Failed(Failure("InvalidResult", error.message, ("InvalidResult",), final=True))
    return Lost(f"the worker was lost: {error.message}")


def _outcome_of(status: int, read: _WorkerAnswer, seconds: float, largest: int, *, is_heard: bool = False) -> Outcome:
    if status == _ACCEPTED:
        return Accepted()
    if read.error is not None:
        failure = _worker_failure(read.error)
        if status != HTTPStatus.GATEWAY_TIMEOUT:
            return Failed(failure, logs=read.logs)
        what = "no heartbeat and no result for" if is_heard else "no result within"
        failure = failure._replace(message=f"{what} {span(seconds)}; {failure.message}")
        return Failed(failure, timed_out=True, logs=read.logs)
    result = bytes(read.result)
    if len(result) > largest:
        message = f"the result has {len(result)} bytes, more than the {largest} of result_max_bytes"
        return Failed(Failure("InvalidResult", message, ("InvalidResult",), final=True), logs=read.logs)
    return Succeeded(result, status, read.logs)


def _worker_failure(error: _WorkerError) -> Failure:
    return Failure(
        error.type,
        error.message,
        tuple(error.types),
        traceback=error.traceback,
        retry_after=error.retry_after,
        final=error.final,
    )
