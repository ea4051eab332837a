"""Daily sales: steps, wiring, and a real run against the stand-in for the ERP."""

import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
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
    notify,
    publish,
    totals,
)
from hopline import Fail
from hopline.testing import Engine, answer, stub
from hopline_engine.testing import Run, Server
from tests.examples.conftest import EXAMPLES, Hopline, served, service, until_there

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
    with stub(list_shops, shops), stub(publish, Published(url="u")) as sent, answer():
        assert daily_sales(DAY, API) == Published(url="u")
    assert sent.calls[0]["report"] == Report(day=DAY, total=192.5, shops=2)


def test_no_shops_make_a_report_of_nothing() -> None:
    assert join([], DAY) == Report(day=DAY, total=0.0, shops=0)


def test_report_that_is_turned_down_is_not_published() -> None:
    with stub(list_shops, []), stub(publish, Published(url="u")) as sent, answer(approved=False):
        assert daily_sales(DAY, API) is None
    assert sent.calls == []


def test_failure_is_told_to_the_chat() -> None:
    def down(day: date, api: str) -> list[Shop]:
        raise ConnectionError("the ERP is down")

    with stub(list_shops, calls=down), stub(notify, None) as told, pytest.raises(ConnectionError):
        daily_sales(DAY, API)
    assert told.calls[0]["failure"].step == "list_shops"


def test_compiles_to_a_graph_with_the_totals_mapped() -> None:
    definition = daily_sales.compile()
    assert list(definition.graph.edges) == [
        *(("list_shops", "totals"), ("totals", "join"), ("join", "approval"), ("join", "publish")),
        *(("approval", "publish"), ("approval", "branch"), ("publish", "branch")),
    ]
    assert definition.nodes["totals"].over == "shop"
    assert daily_sales.compile().digest == definition.digest


@pytest.fixture
def erp(engine: Engine) -> Server:
    """A double of the ERP and the chat."""
    erp = engine.server(API)
    erp.get("/v1/shops").reply(200, [{"id": "a", "currency": "EUR", "sales": [100.0]}])
    erp.post("/v1/reports/2026-11-20").reply(503).then(201, {"url": "u"})
    erp.post("/chat").reply(200)
    return erp


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """The engine in virtual time, with the token of the ERP."""
    opened = Engine(tmp_path, secrets={"ERP_TOKEN": TOKEN})
    yield opened
    opened.close()


def test_engine_publishes_what_a_person_approves(engine: Engine, erp: Server) -> None:
    run = engine.start(daily_sales, DAY, API)
    assert run.step("approval").state == "waiting"
    engine.approve(run.step("approval"), by="Ada")
    engine.advance("5s")
    assert run.result() == Published(url="u")
    assert {sent.headers["Authorization"] for sent in erp.requests} == {TOKEN}


def test_engine_publishes_nothing_that_is_turned_down(engine: Engine, erp: Server) -> None:
    run = engine.start(daily_sales, DAY, API)
    engine.approve(run.step("approval"), approved=False)
    assert run.result() is None
    assert [sent.path for sent in erp.requests] == ["/v1/shops"]


def test_engine_tells_the_chat_when_nobody_decides(engine: Engine, erp: Server) -> None:
    run = engine.start(daily_sales, DAY, API)
    engine.advance("2h1s")
    assert run.state == "failed"
    assert (
        erp.requests[-1]
        .json["text"]
        .startswith("approval: nobody decided within 2h http://hopline.test/api/v1/runs/r_")
    )


def test_outcome_is_the_same_wherever_the_engine_dies(tmp_path: Path) -> None:
    def prepare(engine: Engine) -> None:
        erp = engine.server(API)
        erp.get("/v1/shops").reply(200, [{"id": "a", "currency": "EUR", "sales": [100.0]}])
        erp.post("/v1/reports/2026-11-20").reply(201, {"url": "u"})

    def drive(engine: Engine, run: Run[Published | None]) -> None:
        if run.step("approval").state == "waiting":
            engine.approve(run.step("approval"))
        engine.advance("5s")

    engine = Engine(tmp_path, secrets={"ERP_TOKEN": TOKEN})
    for point in engine.crash_points(daily_sales, DAY, API, prepare=prepare, drive=drive):
        assert point.outcome == point.outcome_without_crash
        assert point.duplicate_effects == []
    engine.close()


def test_token_is_not_in_the_definition() -> None:
    assert TOKEN not in daily_sales.compile().canonical().decode()


def test_report_is_approved_and_published_under_hopline_dev(tmp_path: Path) -> None:
    secret = {"HOPLINE_SECRET_ERP_TOKEN": TOKEN}
    with (
        service(sys.executable, str(EXAMPLES / "daily_sales" / "erp.py"), "0") as erp,
        served(tmp_path, WORKFLOW, environment=secret) as hopline,
    ):
        hopline.call("run", "daily_sales", "day=2026-11-20", f"api={erp}", "--detach")
        (asked,) = until_there(lambda: json.loads(hopline.call("approvals", "list", "--json").stdout))
        assert (asked["prompt"], asked["to"]) == ("Publish 485.0 EUR?", ["finance@example.com"])
        hopline.call("runs", "approve", "@last", "--by", "Ada")
        hopline.call("runs", "watch", "@last")
        published = json.loads(hopline.call("runs", "output", "@last").stdout)["url"]
        assert published == f"{erp}/v1/reports/2026-11-20"
        with urlopen(Request(published, headers={"Authorization": TOKEN})) as answer:
            assert json.load(answer) == {"day": "2026-11-20", "total": 485.0, "shops": 3}
        assert [attempt["status"] for attempt in hopline.attempts("publish")] == [503, 201]
        assert len(hopline.attempts("totals")) == 3


def test_wrong_token_fails_at_once_and_the_chat_is_told(hopline: Hopline) -> None:
    with service(sys.executable, str(EXAMPLES / "daily_sales" / "erp.py"), "0") as erp:
        arguments = ("run", str(WORKFLOW), "day=2026-11-20", f"api={erp}")
        hopline.call(*arguments, code=3, environment={"HOPLINE_SECRET_ERP_TOKEN": "wrong"})
        with urlopen(f"{erp}/chat") as answer:
            (told,) = json.load(answer)
    assert told["text"].startswith("list_shops: HTTP 401 Unauthorized")
    assert [attempt["status"] for attempt in hopline.attempts("list_shops")] == [401]
