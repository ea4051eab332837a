"""Daily sales: steps, wiring, and a real run against the stand-in for the ERP."""

import json
import sys
from datetime import date
from urllib.request import Request, urlopen

import pytest

from examples.daily_sales.erp import TOKEN
from examples.daily_sales.workflow import (
    Published,
    Report,
    Shop,
    Totals,
    daily_sales,
    join,
    list_shops,
    publish,
    totals,
)
from hopline import Fail
from hopline.testing import stub
from tests.examples.conftest import EXAMPLES, Hopline, service

DAY = date(2026, 11, 20)
API = "https://erp.example.com"
WORKFLOW = EXAMPLES / "daily_sales" / "workflow.py"


def test_step_is_a_plain_function() -> None:
    assert totals(Shop(id="b", currency="USD", sales=[100.0])) == Totals(shop="b", eur=92.5)


def test_currency_without_a_rate_fails_without_retry() -> None:
    with pytest.raises(Fail, match="no exchange rate for XAU"):
        totals(Shop(id="mine", currency="XAU", sales=[1.0]))


def test_http_step_is_a_pure_request_builder() -> None:
    request = list_shops.fn(DAY, API)
    assert (request.method, request.url) == ("GET", "https://erp.example.com/v1/shops")
    assert request.params == {"day": "2026-11-20"}


def test_whole_workflow_without_engine() -> None:
    shops = [Shop(id="a", currency="EUR", sales=[100.0]), Shop(id="b", currency="USD", sales=[100.0])]
    with stub(list_shops, shops), stub(publish, Published(url="u")) as sent:
        assert daily_sales(DAY, API) == Published(url="u")
    assert sent.calls[0]["report"] == Report(day=DAY, total=192.5, shops=2)


def test_no_shops_make_a_report_of_nothing() -> None:
    assert join([], DAY) == Report(day=DAY, total=0.0, shops=0)


def test_compiles_to_a_chain_with_the_totals_mapped() -> None:
    definition = daily_sales.compile()
    assert set(definition.graph.edges) == {("list_shops", "totals"), ("totals", "join"), ("join", "publish")}
    assert definition.nodes["totals"].over == "shop"
    assert daily_sales.compile().digest == definition.digest


def test_token_is_not_in_the_definition() -> None:
    assert TOKEN not in daily_sales.compile().canonical().decode()


def test_runs_against_the_erp(hopline: Hopline) -> None:
    with service(sys.executable, str(EXAMPLES / "daily_sales" / "erp.py"), "0") as erp:
        run = hopline.run(WORKFLOW, "day=2026-11-20", f"api={erp}", environment={"HOPLINE_SECRET_ERP_TOKEN": TOKEN})
        published = run["result"]["url"]
        assert published == f"{erp}/v1/reports/2026-11-20"
        with urlopen(Request(published, headers={"Authorization": TOKEN})) as answer:
            assert json.load(answer) == {"day": "2026-11-20", "total": 485.0, "shops": 3}
    assert [attempt["status"] for attempt in hopline.attempts("publish")] == [503, 201]
    assert len(hopline.attempts("totals")) == 3


def test_wrong_token_fails_at_once(hopline: Hopline) -> None:
    with service(sys.executable, str(EXAMPLES / "daily_sales" / "erp.py"), "0") as erp:
        hopline.call(
            "run",
            str(WORKFLOW),
            "day=2026-11-20",
            f"api={erp}",
            code=3,
            environment={"HOPLINE_SECRET_ERP_TOKEN": "wrong"},
        )
    assert [attempt["status"] for attempt in hopline.attempts("list_shops")] == [401]
