"""Wrong workflows: each marked line must be refused by the named type checkers, and no other line.

Never run and never collected; ``test_checkers.py`` compares the lines.
"""

# ruff: noqa: B018, F841 - what is wrong here is the point

from datetime import date

from pydantic import BaseModel

from hopline import Queue, Request, Retry, branch, first, http, loop, recover, step, switch, workflow
from hopline.testing import stub


class Shop(BaseModel):
    id: str


class Totals(BaseModel):
    eur: float


@http
def list_shops(day: date) -> Request[list[Shop]]:
    return http.get(f"https://erp.example.com/{day}")


@step(timeout="1m")
def totals(shop: Shop, day: date) -> Totals:
    return Totals(eur=1.0)


@step
async def slow_totals(shop: Shop, *, scale: float = 1.0) -> Totals:
    return Totals(eur=scale)


@step
def join(parts: list[Totals]) -> float:
    return 0.0


@workflow
def one_shop(shop: Shop) -> float:
    return join([totals(shop, date(2026, 1, 1))])


@workflow
def calls(day: date) -> None:
    shops = list_shops(day)
    join(shops)  # E: mypy,pyright
    join(totals(shops[0], day))  # E: mypy,pyright
    totals(shops, day)  # E: mypy,pyright
    totals(shops[0])  # E: mypy,pyright
    totals(shops[0], day, 5)  # E: mypy,pyright
    totals(shops[0], days=day)  # E: mypy,pyright
    slow_totals(shops[0], scale="2")  # E: mypy,pyright
    list_shops("2026-01-01")  # E: mypy,pyright
    list_shops(day).id  # E: mypy,pyright
    shops[0].name  # E: mypy,pyright
    totals(shops[0], day).eur.upper()  # E: mypy,pyright


@workflow
def maps(day: date) -> None:
    shops = list_shops(day)
    totals.map(["a", "b"], day)  # E: mypy,pyright
    totals.map(shops, "monday")  # E: mypy,pyright
    totals.map(shops)  # E: mypy,pyright
    totals.map(shops, day, 5)  # E: mypy,pyright
    totals.map(shops[0], day)  # E: mypy,pyright
    totals.using(max_parallel=3).map([1], day)  # E: mypy,pyright
    totals.after(shops).map([1], day)  # E: mypy,pyright
    slow_totals.map(shops, scale="2")  # E: mypy,pyright
    slow_totals.map([day])  # E: mypy,pyright
    one_shop.map([day])  # E: mypy,pyright
    join(totals.map(shops, day)[0])  # E: mypy,pyright
    wrong: list[Shop] = totals.map(shops, day)  # E: mypy,pyright
    totals.map(totals.map(shops, day), day)  # E: mypy,pyright


@workflow
def settled(day: date) -> None:
    shops = list_shops(day)
    totals.map_settled(["a", "b"], day)  # E: mypy,pyright
    totals.map_settled(shops, "monday")  # E: mypy,pyright
    totals.map_settled(shops)  # E: mypy,pyright
    join(totals.map_settled(shops, day))  # E: mypy,pyright
    totals.map_settled(shops, day)[0].value  # E: mypy,pyright


@step
def grow(total: Totals) -> Totals:
    return total


@workflow
def looped(day: date) -> None:
    loop(join, [], until=lambda total: total > 5, limit=3)  # E: mypy,pyright
    loop(grow, Totals(eur=1.0), until=lambda one: one.shop == "a", limit=3)  # E: mypy,pyright
    loop(grow, Totals(eur=1.0), until=lambda one: one.eur, limit=3)  # E: mypy,pyright
    loop(grow, Totals(eur=1.0), limit=3)  # E: mypy,pyright
    loop(grow, Totals(eur=1.0), until=lambda one: one.eur > 5, limit="3")  # E: mypy,pyright
    loop(grow, Totals(eur=1.0), until=lambda one: one.eur > 5, every=5, limit=3)  # E: mypy,pyright


@workflow
def policies(day: date) -> None:
    join.using(timeout=5)([])  # E: mypy,pyright
    join.using(retry=3)([])  # E: mypy,pyright
    join.using(tries=3)([])  # E: mypy,pyright
    join.using(queue=5)([])  # E: mypy,pyright
    Retry(3, first=2)  # E: mypy,pyright
    Retry(3, jitter="some")  # E: mypy,pyright
    Retry(3, on=("TimeoutError",))  # E: mypy,pyright
    Queue("erp", rate=10)  # E: mypy,pyright


@workflow
def choices(day: date) -> None:
    shops = list_shops(day)
    branch(shops[0].id, then=lambda: 1)  # E: mypy,pyright
    branch(shops[0].id == "a", then=shops)  # E: mypy,pyright
    branch(shops[0].id == "a", otherwise=lambda: 1)  # E: mypy,pyright
    totals(branch(shops[0].id == "a", then=lambda: shops[0]), day)  # E: mypy,pyright
    join(branch(shops[0].id == "a", then=lambda: [totals(shops[0], day)], otherwise=lambda: 5))  # E: mypy,pyright
    switch(shops[0].id, {1: lambda: 1})  # E: mypy,pyright
    recover(lambda: 1, lambda a, b: 2)  # E: mypy,pyright
    recover(lambda: 1, lambda why: why.step + 1)  # E: mypy,pyright
    recover(lambda: 1, lambda: 2, on=("402",))  # E: mypy,pyright
    first(1, lambda: 2)  # E: mypy,pyright
    join(first(lambda: 1, lambda: [totals(shops[0], day)]))  # E: mypy,pyright


@workflow(on_failure=5)  # E: mypy,pyright
def bad_closing(day: date) -> None: ...


@workflow
def returns_wrong(day: date) -> list[Totals]:
    return list_shops(day)  # E: mypy,pyright


@step(timeout=5)  # E: mypy,pyright
def bad_timeout() -> None: ...


@step(priority="high")  # E: mypy,pyright
def bad_priority() -> None: ...


@workflow
def key_is_a_list(day: date) -> None:
    totals.using(key=[day])  # E: mypy,pyright
    totals.using(key="a", key_limit="many")  # E: mypy,pyright


@http  # E: mypy,pyright
def no_request(day: date) -> int:
    return 1


@http(timeout="1s")  # E: mypy,pyright
def no_request_with_policy(day: date) -> int:
    return 1


@http
def wrong_request(day: date) -> Request[int]:
    return "https://erp.example.com"  # E: mypy,pyright


result: str = one_shop(Shop(id="a"))  # E: mypy,pyright
one_shop("a")  # E: mypy,pyright
one_shop.compile("a")  # E: mypy,pyright
totals.compile()  # E: mypy,pyright


def stubs() -> None:
    stub(totals, 5)  # E: mypy,pyright
    stub(totals, calls=lambda: Totals(eur=1.0))  # E: mypy,pyright
    with stub(join, 1.0) as given:
        given.called  # E: mypy,pyright
