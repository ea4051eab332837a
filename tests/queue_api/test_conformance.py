"""Limits, delays and deliveries at the target, for a few seconds each; ``conformance`` says how to measure for longer.

What is never exceeded is asserted as it can be counted on any machine. How much is reached depends on the machine,
which tests other things at the same time, and is asserted loosely.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.queue_api import conformance
from tests.queue_api.conformance import Delivered, Service, Target

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def served(request: pytest.FixtureRequest) -> Iterator[Service]:
    with conformance.running(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def counting() -> Iterator[Target]:
    with conformance.serving() as made:
        yield made


@pytest.mark.parametrize("per_second", [10, 100])
def test_a_rate_and_its_burst_are_kept(served: Service, counting: Target, per_second: float) -> None:
    found = conformance.rate(served, counting, per_second=per_second, seconds=4)

    assert found.ahead <= 1
    assert found.sent > 0.2 * found.allowed


def test_as_many_requests_as_allowed_are_in_flight(served: Service, counting: Target) -> None:
    found = conformance.concurrency(served, counting, limit=20, seconds=4, each=2.0)

    assert found.most == 20
    assert found.mean > 0.4 * 20


def test_attempts_come_when_the_formula_says(served: Service, counting: Target) -> None:
    late = conformance.delays(served, counting, lo=0.1, hi=1.0, doublings=2, attempts=7)

    assert len(late) == 6
    assert min(late) >= 0.0
    assert max(late) < 60


def test_tasks_made_by_the_real_client_are_all_delivered_once(served: Service, counting: Target) -> None:
    found = conformance.delivery(served, counting, tasks=1000)

    assert found == Delivered(1000, 1000, 0, 0)


@pytest.mark.timeout(600)
def test_no_task_is_lost_when_the_server_is_killed_again_and_again(served: Service, counting: Target) -> None:
    found: Any = conformance.kills(served, counting, tasks=2000, every=1.0)

    assert found.kills > 0
    assert (found.created, found.delivered) == (2000, 2000)
    assert found.repeated <= found.kills * 1000, "only what was under way is sent again"
