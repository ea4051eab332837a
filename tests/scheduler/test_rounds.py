"""What goes round for ever: when it rests, what wakes it, when it tries again, and when it ends."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store.errors import OwnershipLostError, StoreClosedError
from hopline_engine.testing.virtual_loop import VirtualLoop

AGAIN_SECONDS = 7.0


class Rounds:
    """Rounds in virtual time, and when each was made."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.wake = asyncio.Event()
        self.made: list[float] = []
        self.does: Callable[[], None] = lambda: None
        """What a round does."""

    def begin(self, rest_seconds: float | None) -> "asyncio.Task[None]":
        return self.loop.create_task(
            go_round(
                self._make_one,
                wake=self.wake,
                rest_seconds=lambda: rest_seconds,
                again_seconds=AGAIN_SECONDS,
                trouble="a round failed",
            )
        )

    async def _make_one(self) -> None:
        self.made.append(self.loop.time())
        self.does()

    def pass_time(self, to: float) -> None:
        self.loop.run_to(to)


@pytest.fixture
def rounds() -> Iterator[Rounds]:
    made = Rounds()
    yield made
    made.loop.dismantle()


def test_a_round_follows_each_rest(rounds: Rounds) -> None:
    rounds.begin(10.0)
    rounds.pass_time(35.0)
    assert rounds.made == [10.0, 20.0, 30.0]


def test_who_rests_for_ever_is_woken_and_rests_again(rounds: Rounds) -> None:
    rounds.begin(None)
    rounds.pass_time(1000.0)
    assert rounds.made == []
    rounds.wake.set()
    rounds.pass_time(2000.0)
    assert rounds.made == [1000.0]


def test_what_is_there_to_do_by_the_end_of_a_round_is_done_at_once(rounds: Rounds) -> None:
    def find_more() -> None:
        if len(rounds.made) < 3:
            rounds.wake.set()

    rounds.does = find_more
    rounds.begin(10.0)
    rounds.pass_time(15.0)
    assert rounds.made == [10.0, 10.0, 10.0]


def test_a_round_that_failed_is_made_again_soon_though_nothing_wakes_it(
    rounds: Rounds, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once() -> None:
        if len(rounds.made) == 1:
            raise RuntimeError

    rounds.does = fail_once
    rounds.begin(100.0)
    rounds.pass_time(150.0)
    assert rounds.made == [100.0, 100.0 + AGAIN_SECONDS]
    assert "a round failed; it is tried again" in caplog.text


@pytest.mark.parametrize("error", [OwnershipLostError(node="n_1", epoch=1), StoreClosedError()])
def test_it_ends_when_the_store_takes_nothing_of_this_node_any_more(rounds: Rounds, error: Exception) -> None:
    def be_refused() -> None:
        raise error

    rounds.does = be_refused
    going = rounds.begin(1.0)
    rounds.pass_time(10.0)
    assert rounds.made == [1.0]
    assert going.done()
    assert going.exception() is None
