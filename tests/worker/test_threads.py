"""The threads that run sync steps."""

import asyncio
import threading
from collections import Counter
from functools import partial

from hopline_engine.worker.threads import Threads
from tests.support.waiting import WITHIN


def test_every_call_gives_its_own_result() -> None:
    async def main() -> list[int]:
        threads: Threads[int] = Threads(asyncio.get_running_loop(), 4)
        return await asyncio.gather(*(threads.submit(partial(int, text)) for text in map(str, range(2000))))

    assert asyncio.run(main()) == list(range(2000))


def test_as_many_calls_as_the_limit_run_at_the_same_time() -> None:
    barrier = threading.Barrier(5)

    async def main() -> None:
        threads: Threads[int] = Threads(asyncio.get_running_loop(), 5)
        await asyncio.gather(*(threads.submit(partial(barrier.wait, WITHIN)) for _ in range(15)))

    asyncio.run(main())


def test_no_more_threads_than_the_limit_are_used() -> None:
    used: Counter[int] = Counter()
    started = threading.Event()

    def note() -> None:
        used[threading.get_ident()] += 1
        started.wait(WITHIN)

    async def main() -> None:
        threads: Threads[None] = Threads(asyncio.get_running_loop(), 3)
        calls = [threads.submit(note) for _ in range(50)]
        started.set()
        await asyncio.gather(*calls)

    asyncio.run(main())
    assert len(used) <= 3
    assert used.total() == 50


def test_call_that_nobody_waits_for_keeps_its_thread_and_harms_nobody() -> None:
    release = threading.Event()

    async def main() -> bool:
        threads: Threads[bool] = Threads(asyncio.get_running_loop(), 1)
        abandoned = threads.submit(partial(release.wait, WITHIN))
        following = threads.submit(release.is_set)
        abandoned.cancel()
        release.set()
        return await following

    assert asyncio.run(main()) is True


def test_thread_ends_quietly_when_its_loop_is_gone() -> None:
    started, release = threading.Event(), threading.Event()
    running: list[threading.Thread] = []

    def block() -> None:
        running.append(threading.current_thread())
        started.set()
        release.wait(WITHIN)

    async def main() -> None:
        threads: Threads[None] = Threads(asyncio.get_running_loop(), 1)
        threads.submit(block)
        started.wait(WITHIN)

    asyncio.run(main())
    release.set()
    running[0].join(WITHIN)
    assert not running[0].is_alive()
