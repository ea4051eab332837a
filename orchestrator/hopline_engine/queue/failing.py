"""What answers that are no success, and exchanges without an answer, mean as failures of an attempt."""

from http import HTTPStatus

from hopline_engine.core.cloud.retrying import parse_retry_after
from hopline_engine.core.retry import NETWORK_ERRORS, Failure
from hopline_engine.queue.target import Answer, ExchangeFailed


def exchange_type(error: ExchangeFailed) -> str:
    """Return what the failure of an exchange is called."""
    return {"timeout": "TimeoutError", "blocked": "TargetBlocked", "too_large": "AnswerTooLarge"}.get(
        error.kind, error.types[0] if error.types else "ConnectionError"
    )


def exchange_types(error: ExchangeFailed) -> tuple[str, ...]:
    """Return what a policy may call it: no such host and no route to one are connection errors too, unlike bad TLS."""
    is_named = not NETWORK_ERRORS.isdisjoint(error.types) or error.types[0].startswith("ssl.")
    if is_named or error.kind not in {"refused", "network"}:
        return error.types
    return (*error.types, "ConnectionError")


def status_failure(answer: Answer, now: float) -> Failure:
    """Return the failure that an answer is whose status is no success."""
    excerpt = answer.body[:500].decode("utf-8", "replace").strip()
    try:
        phrase = f" {HTTPStatus(answer.status).phrase}"
    except ValueError:
        phrase = ""
    retry_after = None
    if answer.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        retry_after = parse_retry_after(answer.headers.get("retry-after"), now)
    message = f"HTTP {answer.status}{phrase}" + (f": {excerpt}" if excerpt else "")
    return Failure(f"HTTP{answer.status}", message, ("HTTPError",), status=answer.status, retry_after=retry_after)
