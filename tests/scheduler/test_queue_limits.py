"""How many tasks of one queue are in flight: as many as its limit says, on each kind of store, also beside keys."""

import asyncio
from collections import Counter
from urllib.parse import urlsplit

import pytest
from starlette.responses import Response

from hopline import Queue, Request, http, workflow
from tests.support.running_engine import RunningEngine
from tests.support.targets import Asked, json, target
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

LIMIT = 4
shop = Queue("shop", max_concurrent=LIMIT)


@http(queue=shop)
def ask(number: int, url: str) -> Request[int]:
    return http.post(f"{url}/free/{number}")


@http(queue=shop, key="customer-{customer}", key_limit=2)
def charge(customer: int, url: str) -> Request[int]:
    return http.post(f"{url}/customer-{customer}/charge")


@workflow
def sell(url: str, numbers: list[int], customers: list[int]) -> list[list[int]]:
    return [ask.map(numbers, url), charge.map(customers, url)]


class Counting:
    """A target that holds each request for a while, and counts how many there are at a time."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.gate = asyncio.Event()

    async def __call__(self, asked: Asked) -> Response:
        for what in ("all", urlsplit(asked.url).path.split("/")[1]):
            self.now[what] += 1
            self.most[what] = max(self.most[what], self.now[what])
        await self.gate.wait()
        await asyncio.sleep(0.005)
        for what in ("all", urlsplit(asked.url).path.split("/")[1]):
            self.now[what] -= 1
        return json(1)


async def test_as_many_are_in_flight_as_the_limits_of_queue_and_keys_say_and_no_more(engine: RunningEngine) -> None:
    await engine.register(sell)
    counting = Counting()
    async with target(counting) as service:
        given = {"url": service.url, "numbers": list(range(30)), "customers": [number % 3 for number in range(30)]}
        run = await engine.client.start("sell", given)
        await until(lambda: counting.now["all"] == LIMIT, "all places are taken")
        counting.gate.set()
        assert (await engine.client.ended(run))["state"] == "succeeded"
    assert len(service.asked) == 60
    assert counting.most["all"] == LIMIT
    assert all(counting.most[f"customer-{number}"] <= 2 for number in range(3))
    assert {asked.attempt for asked in service.asked} == {1}


async def test_limit_that_is_changed_counts_from_then_on_and_cuts_nothing_off(engine: RunningEngine) -> None:
    await engine.register(sell)
    counting = Counting()
    async with target(counting) as service:
        run = await engine.client.start("sell", {"url": service.url, "numbers": list(range(40)), "customers": []})
        await until(lambda: counting.now["all"] == LIMIT, "all places are taken")
        await engine.client.ask("PATCH", "/queues/shop", json={"max_concurrent_dispatches": LIMIT + 3})
        await until(lambda: counting.now["all"] == LIMIT + 3, "the new places are taken")
        await engine.client.ask("PATCH", "/queues/shop", json={"max_concurrent_dispatches": 1})
        assert counting.now["all"] == LIMIT + 3
        counting.most.clear()
        counting.gate.set()
        ended = await engine.client.ended(run)
    assert ended["state"] == "succeeded"
    assert counting.most["all"] == 1, "places that became free were not taken again"
