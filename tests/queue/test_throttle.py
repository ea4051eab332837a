"""A queue whose target asks for less is slowed down, at a node of its own as well as at one of several."""

import pytest

from hopline_engine.core.cloud.attempts import Ended
from hopline_engine.core.cloud.model import CloudTaskId
from hopline_engine.core.rate import Ration
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.throttle import Throttle
from hopline_engine.queue.windows import Place, PushTask
from hopline_engine.queue.workers import Workers

NAME = "q"


def ended(status: int, *, is_app_engine: bool = False) -> Ended:
    return Ended(dispatch_time=0.0, end_time=0.0, status=status, is_app_engine=is_app_engine)


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
def admission(request: pytest.FixtureRequest) -> Admission:
    """Return an admission with a queue of 100 a second, that has all the tokens it may have."""
    made = Admission(Workers(), Queue("default"))
    queue = made.queues[NAME] = Queue(NAME, is_shared=request.param)
    queue.limit(100.0, 100, None, 0.0)
    if isinstance(queue.bucket, Ration):
        queue.bucket.tokens = 1000.0
    for number in range(200):
        made.offer(PushTask(CloudTaskId(number), Place(NAME), 0.0))
    return made


def test_a_queue_that_was_asked_for_less_sends_half_as_much(admission: Admission) -> None:
    Throttle(admission).hear(NAME, ended(429), 0.0)

    assert len(admission.admit(0.0)) == 0, "not at once"
    assert sum(len(admission.admit(number / 100)) for number in range(1, 101)) == pytest.approx(50, abs=1)


def test_answers_to_what_was_sent_before_do_not_slow_it_down_again(admission: Admission) -> None:
    throttle = Throttle(admission)
    for at in (0.0, 0.5, 0.9):
        throttle.hear(NAME, ended(503), at)
    brake = admission.queues[NAME].brake
    assert brake is not None
    assert brake.rate == 50.0

    throttle.hear(NAME, ended(503), 1.0)

    assert brake.rate == 25.0


def test_it_is_never_slower_than_one_a_second_and_comes_back_with_each_success(admission: Admission) -> None:
    throttle = Throttle(admission)
    for at in range(20):
        throttle.hear(NAME, ended(429), float(at))
    brake = admission.queues[NAME].brake
    assert brake is not None
    assert brake.rate == 1.0

    for _ in range(98):
        throttle.hear(NAME, ended(200), 30.0)
    assert brake.rate == 99.0
    throttle.hear(NAME, ended(200), 30.0)

    assert admission.queues[NAME].brake is None


def test_an_app_engine_app_that_says_429_does_not_slow_its_queue_down(admission: Admission) -> None:
    throttle = Throttle(admission)
    throttle.hear(NAME, ended(429, is_app_engine=True), 0.0)
    throttle.hear(NAME, ended(500), 0.0)
    assert admission.queues[NAME].brake is None

    throttle.hear(NAME, ended(503, is_app_engine=True), 0.0)

    assert admission.queues[NAME].brake is not None


def test_it_is_known_when_the_brake_lets_the_next_task_go(admission: Admission) -> None:
    Throttle(admission).hear(NAME, ended(429), 0.0)
    admission.admit(0.0)

    assert admission.next_token_at() == pytest.approx(1 / 50)
    assert list(admission.shared_short()) == [], "more tokens would be of no use"


def test_a_shared_queue_without_slots_asks_for_some_while_the_brake_is_on() -> None:
    made = Admission(Workers(), Queue("default"))
    queue = made.queues[NAME] = Queue(NAME, is_shared=True)
    queue.limit(100.0, 100, 2, 0.0)
    made.offer(PushTask(CloudTaskId(1), Place(NAME), 0.0))

    Throttle(made).hear(NAME, ended(429), 0.0)

    assert queue.is_full
    assert list(made.shared_short()) == [queue]
