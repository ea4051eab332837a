"""The token bucket that limits how fast a queue dispatches, as Cloud Tasks describes it.

Pure: the time is an argument.
"""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """Tokens of one queue: refilled continuously, one taken by each dispatch, first attempt or retry."""

    rate: float
    """Tokens a second: ``max_dispatches_per_second``."""
    burst: float
    """Most tokens at a time: ``max_burst_size``."""
    tokens: float
    at: float
    """When ``tokens`` was right, in Unix seconds."""

    def refill(self, now: float) -> None:
        """Add what has flowed in since; a clock that went back adds nothing."""
        if now > self.at:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        self.refill(now)
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def next_at(self) -> float:
        """Return when the next token will be there, in Unix seconds."""
        return self.at + max(0.0, 1.0 - self.tokens) / self.rate


@dataclass(slots=True)
class Ration(Bucket):
    """Tokens that were granted out of a bucket that several nodes share; nothing flows in by itself."""

    def refill(self, now: float) -> None:
        """Add nothing."""
        self.at = now

    def next_at(self) -> float:
        """Return that no token comes by itself."""
        return math.inf


def default_burst(rate: float) -> float:
    """Return the burst of a queue that names only its rate: a fifth of a second's worth, at least one, at most 100.

    Cloud Tasks derives 10 to 100 by a formula it does not publish; a smaller least burst keeps slow queues even.
    """
    return float(min(100, max(1, round(rate / 5))))
