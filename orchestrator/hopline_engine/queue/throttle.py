"""Slows a queue down whose target asks for less, and lets it come back to its own rate."""

from typing import Final

from hopline_engine.core.cloud.attempts import Ended
from hopline_engine.core.rate import Bucket
from hopline_engine.queue.admission import Admission

SLOWEST: Final = 1.0
"""Dispatches a second below which no queue is slowed down, unless it is slower by itself."""
HALVED_EVERY: Final = 1.0
"""Seconds: answers to what was sent before a queue was slowed down say nothing about its new rate."""


class Throttle:
    """Changes the rates of token buckets; what people set stays as it is."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._halved_at: dict[str, float] = {}

    def hear(self, key: str, ended: Ended, now: float) -> None:
        """Halve the rate of a queue whose target asked for less; add one a second for each success."""
        queue = self._admission.queues.get(key)
        if queue is None or queue.bucket is None or queue.max_dispatches_per_second is None:
            return
        if ended.asks_for_less:
            if now - self._halved_at.get(key, float("-inf")) >= HALVED_EVERY:
                self._halved_at[key] = now
                _set_rate(queue.bucket, max(min(SLOWEST, queue.max_dispatches_per_second), queue.bucket.rate / 2), now)
        elif ended.succeeded and key in self._halved_at:
            rate = min(queue.max_dispatches_per_second, queue.bucket.rate + 1.0)
            _set_rate(queue.bucket, rate, now)
            if rate == queue.max_dispatches_per_second:
                del self._halved_at[key]


def _set_rate(bucket: Bucket, rate: float, now: float) -> None:
    bucket.refill(now)
    bucket.rate = rate
