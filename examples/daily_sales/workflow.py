"""Daily sales: fetch the shops from the ERP, add up each one in parallel, join, publish the report.

    export HOPLINE_SECRET_ERP_TOKEN=token-of-the-example
    hopline run examples/daily_sales/workflow.py day=2026-11-20

Served with `hopline dev`, it runs every morning at six, for the day it is then. erp.py in this folder stands in for
the ERP.
"""

from datetime import date

from pydantic import BaseModel

from hopline import Cron, Fail, Queue, Request, Retry, http, scheduled, secret, step, workflow

EUR_PER_UNIT = {"EUR": 1.0, "USD": 0.925, "CHF": 1.04}

gentle = Retry(5, first="1s", factor=2, max="5m", on=(429, range(500, 600), ConnectionError, TimeoutError))
erp = Queue("erp", rate="10/s", max_concurrent=20)


class Shop(BaseModel):
    id: str
    currency: str
    sales: list[float]


class Totals(BaseModel):
    shop: str
    eur: float


class Report(BaseModel):
    day: date
    total: float
    shops: int


class Published(BaseModel):
    url: str


@http(retry=gentle, timeout="30s", queue=erp)
def list_shops(day: date, api: str) -> Request[list[Shop]]:
    return http.get(f"{api}/v1/shops", params={"day": f"{day}"}, headers={"Authorization": secret("ERP_TOKEN")})


@step(retry=gentle, timeout="2m")
def totals(shop: Shop) -> Totals:
    if shop.currency not in EUR_PER_UNIT:
        raise Fail(f"no exchange rate for {shop.currency}, the currency of shop {shop.id}")
    return Totals(shop=shop.id, eur=round(sum(shop.sales) * EUR_PER_UNIT[shop.currency], 2))


@step
def join(parts: list[Totals], day: date) -> Report:
    return Report(day=day, total=round(sum(part.eur for part in parts), 2), shops=len(parts))


@http(retry=gentle, timeout="30s", deadline="1h", queue=erp)
def publish(report: Report, api: str) -> Request[Published]:
    return http.post(f"{api}/v1/reports/{report.day}", json=report, headers={"Authorization": secret("ERP_TOKEN")})


@workflow(schedule=Cron("0 6 * * *", tz="Europe/Berlin"))
def daily_sales(day: date = scheduled.date, api: str = "http://127.0.0.1:8099") -> Published:
    shops = list_shops(day, api)
    parts = totals.using(max_parallel=50).map(shops)
    report = join(parts, day)
    return publish(report, api)
