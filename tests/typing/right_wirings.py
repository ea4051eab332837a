"""Correct workflows: type checkers have nothing to say about this file. ``wrong_wirings.py`` is its opposite."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import assert_type

from pydantic import BaseModel

from hopline import (
    Cron,
    Definition,
    Err,
    Every,
    Failure,
    Ok,
    Queue,
    Request,
    Retry,
    Workflow,
    all_of,
    any_of,
    branch,
    context,
    dynamic,
    first,
    http,
    loop,
    not_,
    recover,
    scheduled,
    secret,
    step,
    switch,
    workflow,
)
from hopline.testing import stub

gentle = Retry(5, first="2s", factor=2, max="5m", on=(429, range(500, 600), TimeoutError))
erp = Queue("erp", rate="10/s", max_concurrent=20)


class Shop(BaseModel):
    id: str
    tags: list[str]


@dataclass
class Totals:
    shop: str
    eur: float


@http(retry=gentle, timeout="30s", queue=erp)
def list_shops(day: date, limit: int = 100) -> Request[list[Shop]]:
    return http.get(
        "https://erp.example.com/shops",
        params={"day": f"{day}", "limit": limit},
        headers={"Authorization": f"Bearer {secret('ERP')}"},
    )


@http
def publish(report: float) -> Request[None]:
    return http.post("https://erp.example.com/report", json={"total": report})


@step
def totals(shop: Shop, day: date) -> Totals:
    return Totals(shop.id, float(context().attempt))


@step(retry=Retry(3, on=(ConnectionError,)), timeout="2m", deadline="1h", max_parallel=4)
async def slow_totals(shop: Shop, day: date, *, scale: float = 1.0) -> Totals:
    await asyncio.sleep(0)
    return Totals(shop.id, scale)


@step(queue="bulk")
def join(parts: Sequence[Totals]) -> float:
    return sum(part.eur for part in parts)


@step
def length(text: str) -> int:
    return len(text)


@step
async def log(text: str) -> None: ...


@workflow
def one_shop(shop: Shop, day: date) -> float:
    return join([totals(shop, day), slow_totals(shop, day, scale=2.0)])


@workflow
def daily(day: date = date(2026, 1, 1)) -> dict[str, float]:
    shops = list_shops(day)
    parts = totals.using(max_parallel=50).map(shops, day)
    slow = slow_totals.map(shops, day, scale=1.5)
    sums = one_shop.map(shops, day=day)
    lengths = length.map(shops[0].tags)
    chained = log.map(log_lines(parts))
    noted = log.after(chained, slow)(f"{shops[0].id}: {lengths[0]:>5}")
    total = join.after(noted)(parts)
    publish(total)
    return {"total": total, "first": sums[0]}


@step
def log_lines(parts: list[Totals]) -> list[str]:
    return [part.shop for part in parts]


assert_type(totals(Shop(id="a", tags=[]), date(2026, 1, 1)), Totals)
assert_type(slow_totals(Shop(id="a", tags=[]), date(2026, 1, 1)), Totals)
assert_type(totals.map([Shop(id="a", tags=[])], date(2026, 1, 1)), list[Totals])
assert_type(slow_totals.map([Shop(id="a", tags=[])], date(2026, 1, 1), scale=1.0), list[Totals])
assert_type(one_shop.map([Shop(id="a", tags=[])], date(2026, 1, 1)), list[float])
assert_type(totals.map_settled([Shop(id="a", tags=[])], date(2026, 1, 1)), list[Ok[Totals] | Err])
assert_type(one_shop.map_settled([Shop(id="a", tags=[])], date(2026, 1, 1)), list[Ok[float] | Err])
assert_type(daily.compile(), Definition)


@step
def succeeded(results: list[Ok[Totals] | Err]) -> list[Totals]:
    return [result.value for result in results if isinstance(result, Ok)]


@step
def first_problem(results: list[Ok[float] | Err]) -> str:
    return next((result.message for result in results if isinstance(result, Err)), "")


@workflow
def settled(shops: list[Shop], day: date) -> str:
    join.after(first_problem(one_shop.map_settled(shops, day)))(succeeded(slow_totals.map_settled(shops, day)))
    return first_problem(one_shop.using(max_parallel=2).map_settled(shops, day=day))


@step
def grow(total: Totals) -> Totals:
    return total


@workflow
def looped(total: Totals) -> Totals:
    grown = loop(grow, total, until=lambda one: one.eur > 5, every="1m", limit=10)
    assert_type(grown, Totals)
    return loop(lambda one: grow(grow(one)), grown, until=lambda one: one.shop == "a", limit=3)


@dynamic
def unfolded(shops: list[Shop], day: date) -> float:
    return join([totals(shop, day) for shop in shops if shop.tags])


assert_type(unfolded([], date(2026, 1, 1)), float)
assert_type(unfolded.map([[Shop(id="a", tags=[])]], date(2026, 1, 1)), list[float])
assert_type(unfolded.map_settled([[Shop(id="a", tags=[])]], date(2026, 1, 1)), list[Ok[float] | Err])
assert_type(totals.using(key="{shop.id}", key_limit=2, priority=1).map([], date(2026, 1, 1)), list[Totals])
assert_type(totals.using(batch=10).map([Shop(id="a", tags=[])], date(2026, 1, 1)), list[Totals])


@step
def hours_of(day: date, at: datetime) -> float:
    return at.hour - day.day


@workflow(schedule=Cron("0 6 * * *", tz="Europe/Berlin", overlap="queue_one", catchup="all", jitter="5m"))
def every_day(day: date = scheduled.date, at: datetime = scheduled.time) -> float:
    return hours_of(day, at)


@workflow(schedule=Every("15m"))
def often() -> float:
    return every_day(date(2026, 1, 1), datetime.fromisoformat("2026-01-01T06:00+01:00"))


assert_type(every_day(date(2026, 1, 1)), float)
assert_type(often(), float)


def uses_the_same_type_after_using(given: Workflow[[int], str]) -> str:
    assert_type(given.using(deadline="1h"), Workflow[[int], str])
    assert_type(given.after(1), Workflow[[int], str])
    return given.after(1).using(timeout="1s")(5)


def test_with_stubs() -> None:
    shops = [Shop(id="a", tags=["x"])]
    with stub(list_shops, shops), stub(publish, None) as sent, stub(join, calls=lambda parts: 1.5):
        assert_type(daily(date(2026, 1, 2)), dict[str, float])
    assert sent.calls == [{"report": 1.5}]


# --- choices ----------------------------------------------------------------------------------------------------------


@step
def tell_of(why: Failure, shop: Shop) -> None: ...


@step
def instead(shop: Shop, why: Failure) -> str:
    return why.error


@workflow(on_failure=tell_of, finally_=log)
def chosen(shop: Shop, text: str) -> float | str | None:
    one = totals(shop, date(2026, 1, 1))
    is_big = all_of(one.eur > 5, any_of(shop.id == "a", not_(one.shop == "b")))
    assert_type(is_big, bool)
    assert_type(branch(is_big, then=lambda: one.eur, otherwise=lambda: shop.id), float | str)
    assert_type(branch(one.eur > 5, then=lambda: one), Totals | None)
    assert_type(switch(shop.id, {"a": lambda: one.eur, "b": lambda: one.eur}), float | None)
    assert_type(switch(shop.id, {"a": lambda: one}, default=lambda: shop.id), Totals | str)
    assert_type(recover(lambda: one, lambda why: instead(shop, why), on=(402, range(500, 600), OSError)), Totals | str)
    assert_type(recover(lambda: one, lambda: None), Totals | None)
    assert_type(first(lambda: one, lambda: shop.id), Totals | str)
    assert_type(first(lambda: one, lambda: shop.id, lambda: None), Totals | str | None)
    return branch(is_big, then=lambda: one.eur)


assert_type(chosen(Shop(id="a", tags=[]), "x"), float | str | None)
