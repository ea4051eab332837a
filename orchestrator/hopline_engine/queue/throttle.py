"""Slows a queue down whose target asks for less, and lets it come back to its own rate."""

from typing import Final

from hopline_engine.core.cloud.attempts import Ended
from hopline_engine.core.rate import Bucket, default_burst
from hopline_engine.queue.admission import Admission

SLOWEST: Final = 1.0
"""Dispatches a second below which no queue is slowed down, unless it is slower by itself."""
HALVED_EVERY: Final = 1.0
"""Seconds: answers to what was sent before a queue was slowed down say nothing about its new rate."""


class Throttle:
    """Puts brakes on queues; what people set stays as it is, and so do limits that other nodes share."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._halved_at: dict[str, float] = {}

    def hear(self, key: str, ended: Ended, now: float) -> None:
        """Halve the rate of a queue whose target asked for less; add one a second for each success."""
        queue = self._admission.queues.get(key)
        if queue is None or queue.max_dispatches_per_second is None:
            return
        own = queue.max_dispatches_per_second
        rate = own if queue.brake is None else queue.brake.rate
        if ended.asks_for_less:
            if now - self._halved_at.get(key, float("-inf")) < HALVED_EVERY:
                return
            self._halved_at[key] = now
            rate = max(min(SLOWEST, own), rate / 2)
        elif ended.succeeded and queue.brake is not None:
            rate += 1.0
        else:
            return
        if rate >= own:
            queue.brake = None
            self._halved_at.pop(key, None)
        elif queue.brake is None:
            queue.brake = Bucket(rate, default_burst(rate), 0.0, now)
        else:
            queue.brake.refill(now)
            queue.brake.rate, queue.brake.burst = rate, default_burst(rate)
