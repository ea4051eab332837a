"""One order: plainly, on the engine in virtual time, and for real against the stand-in for the shop."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
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
from tests.examples.conftest import COMMAND, EXAMPLES, service

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


@pytest.fixture
def running(tmp_path: Path) -> Iterator[str]:
    """Return the address of a shop whose orders ``hopline dev`` serves in *tmp_path*."""
    with service(sys.executable, str(EXAMPLES / "order" / "shop.py"), "0") as shop:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOPLINE_")}
        command = [*COMMAND, "dev", str(EXAMPLES / "order" / "workflow.py"), "--port", "0"]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**clean, "SHOP_URL": shop}, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            next(line for line in process.stderr if "loaded" in line)
            yield shop
        finally:
            process.terminate()
            process.communicate()


def test_order_is_fulfilled_by_hopline_dev(running: str, tmp_path: Path) -> None:
    def hopline(*arguments: str) -> str:
        done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    hopline("events", "emit", "order.placed", "--key", "7", ORDER.model_dump_json())
    hopline("events", "emit", "parcel.scanned", "--key", "t-7", Scan(tracking="t-7", place="Bonn").model_dump_json())
    (run,) = [one for one in json.loads(hopline("runs", "list", "--json")) if one["workflow"] == "fulfil"]

    def ended() -> bool:
        steps = json.loads(hopline("runs", "show", run["id"], "--json"))["steps"]
        return bool({step["id"]: step["state"] for step in steps}["ship"] == "succeeded")

    for _ in range(60):
        if ended():
            break
    else:
        pytest.fail("the parcel did not arrive")
    with urlopen(f"{running}/calls") as told:
        assert json.load(told) == {"POST /reservations": 1, "POST /card": 1, "POST /labels": 1}
