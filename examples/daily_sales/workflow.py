"""Daily sales: fetch the shops from the ERP, add up each one in parallel, join, have a person look, publish the report.

    python examples/daily_sales/erp.py 8099
    HOPLINE_SECRET_ERP_TOKEN=token-of-the-example hopline dev examples/daily_sales/workflow.py
    hopline run daily_sales day=2026-11-20 --detach
    hopline runs approve @last --by Ada

Served with `hopline dev`, it runs every morning at six, for the day it is then. When it fails, or nobody has decided
after two hours, the chat is told. erp.py in this folder stands in for the ERP and the chat.
"""

from datetime import date

from pydantic import BaseModel

from hopline import (
    Cron,
    Fail,
    Failure,
    Queue,
    Request,
    Retry,
    approval,
    branch,
    http,
    scheduled,
    secret,
    step,
    workflow,
)

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


@http(retry=Retry(3))
def notify(failure: Failure, api: str) -> Request[None]:
    return http.post(f"{api}/chat", json={"text": f"{failure.step}: {failure.error} {failure.run_url}"})


@workflow(schedule=Cron("0 6 * * *", tz="Europe/Berlin"), on_failure=notify, deadline="4h")
def daily_sales(day: date = scheduled.date, api: str = "http://127.0.0.1:8099") -> Published | None:
    shops = list_shops(day, api)
    parts = totals.using(max_parallel=50).map(shops)
    report = join(parts, day)
    gate = approval(f"Publish {report.total} EUR?", to=["finance@example.com"], timeout="2h")
    return branch(gate.approved, then=lambda: publish(report, api))
