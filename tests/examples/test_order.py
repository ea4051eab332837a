"""One order: plainly, on the engine in virtual time, and for real against the stand-in for the shop."""

import json
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from examples.order.workflow import (
    SHOP,
    Label,
    Order,
    Payment,
    Reservation,
    Scan,
    ask_for_rating,
    charge_card,
    fulfil,
    order_placed,
    parcel_scanned,
    print_label,
    release,
    reserve,
    send_invoice,
)
from hopline.testing import Engine, answer, deliver, stub
from hopline_engine.testing import Run, Server
from tests.examples.conftest import EXAMPLES, served, service, until_there

ORDER = Order(id="7", sku="lamp", quantity=2, total=80.0)
SCAN = Scan(tracking="t", place="Bonn")


# --- plainly ----------------------------------------------------------------------------------------------------------


def test_small_order_needs_no_human() -> None:
    with (
        stub(reserve, Reservation(id="r")),
        stub(charge_card, Payment(id="p", method="card")),
        stub(print_label, Label(tracking="t")),
        stub(ask_for_rating, None) as asked,
        deliver(parcel_scanned, SCAN),
    ):
        assert fulfil(ORDER) == SCAN
    assert len(asked.calls) == 1


def test_declined_card_becomes_an_invoice() -> None:
    def declined(order: Order) -> Payment:
        raise PermissionError("402")

    with (
        stub(reserve, Reservation(id="r")),
        stub(charge_card, calls=declined),
        stub(send_invoice, Payment(id="i", method="invoice")) as sent,
        stub(print_label, Label(tracking="t")),
        stub(ask_for_rating, None),
        deliver(parcel_scanned, SCAN),
    ):
        fulfil(ORDER)
    assert sent.calls[0]["order"] == ORDER


def test_big_order_that_is_turned_down_stops() -> None:
    with stub(reserve, Reservation(id="r")), answer(approved=False):
        assert fulfil(ORDER.model_copy(update={"total": 9000.0})) is None


def test_graph() -> None:
    definition = fulfil.compile()
    assert set(definition.graph.nodes) >= {
        *("reserve", "review_note", "approval", "charge_card", "send_invoice", "ship", "ask_for_rating"),
    }
    large = {"$op": ">", "args": [{"$ref": "$input", "path": ["order", "total"]}, 5000]}
    assert list(definition.nodes["approval"].guards) == [{"if": large, "is": True}]
    assert release.fn(Reservation(id="9")).url.endswith("/reservations/9")


# --- on the engine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(engine: Engine) -> Server:
    """A double of the shop that says yes to everything."""
    shop = engine.server(SHOP)
    shop.post("/reservations").reply(201, {"id": "r1"})
    shop.delete("/reservations/*").reply(200, None)
    shop.post("/labels").reply(201, {"tracking": "t"})
    shop.post("/invoices").reply(201, {"id": "i", "method": "invoice"})
    shop.post("/ratings").reply(200, None)
    return shop


def placed(engine: Engine, order: Order) -> "Run[Scan | None]":
    """Return the run that an order starts."""
    engine.register(fulfil)
    (run,) = engine.emit(order_placed, order, key=order.id)
    return run


def test_event_starts_it_the_gateway_calls_back_and_the_parcel_takes_a_week(engine: Engine, shop: Server) -> None:
    shop.post("/card").reply(503).then(202)
    run = placed(engine, ORDER)
    engine.advance("5s")
    engine.callback(run.step("charge_card"), Payment(id="p", method="card"))
    engine.advance("7d")
    engine.emit(parcel_scanned, SCAN, key="t")
    engine.advance("2d")
    assert run.state == "running"
    engine.advance("1d")
    assert run.result() == SCAN
    assert [sent.path for sent in shop.requests] == ["/reservations", "/card", "/card", "/labels", "/ratings"]


def test_big_order_waits_for_a_person(engine: Engine, shop: Server) -> None:
    shop.post("/card").reply(402)
    run = placed(engine, ORDER.model_copy(update={"total": 9000.0}))
    assert "2 x lamp for 9000.00 EUR" in str(run.step("approval").detail.note)
    engine.approve(run.step("approval"), by="Ada")
    assert run.step("send_invoice").state == "succeeded"


def test_declined_card_is_paid_by_invoice(engine: Engine, shop: Server) -> None:
    shop.post("/card").reply(402, {"error": "declined"})
    run = placed(engine, ORDER)
    assert run.step("send_invoice").state == "succeeded"
    assert "402" in next(sent.json["because"] for sent in shop.requests if sent.path == "/invoices")


def test_parcel_that_never_arrives_gives_the_goods_back(engine: Engine, shop: Server) -> None:
    shop.post("/card").reply(202)
    run = placed(engine, ORDER)
    engine.callback(run.step("charge_card"), Payment(id="p", method="card"))
    engine.advance("15d")
    assert run.state == "failed"
    assert [sent.method for sent in shop.requests if sent.path == "/reservations/r1"] == ["DELETE"]


# --- for real ---------------------------------------------------------------------------------------------------------


def test_order_is_fulfilled_by_hopline_dev(tmp_path: Path) -> None:
    with (
        service(sys.executable, str(EXAMPLES / "order" / "shop.py"), "0") as shop,
        served(tmp_path, EXAMPLES / "order" / "workflow.py", environment={"SHOP_URL": shop}) as hopline,
    ):
        scan = Scan(tracking="t-7", place="Bonn").model_dump_json()
        hopline.call("events", "emit", "order.placed", "--key", "7", ORDER.model_dump_json())
        hopline.call("events", "emit", "parcel.scanned", "--key", "t-7", scan)
        runs = json.loads(hopline.call("runs", "list", "--json").stdout)
        (run,) = [one["id"] for one in runs if one["workflow"] == "fulfil"]

        def has_arrived() -> bool:
            steps = json.loads(hopline.call("runs", "show", run, "--json").stdout)["steps"]
            return bool({step["id"]: step["state"] for step in steps}["ship"] == "succeeded")

        until_there(has_arrived)
        with urlopen(f"{shop}/calls") as told:
            assert json.load(told) == {"POST /reservations": 1, "POST /card": 1, "POST /labels": 1}
