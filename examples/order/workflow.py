"""One order, from the moment it is placed to the question how it was.

An event starts it. Stock is reserved, and given back when something fails later. A large order waits for a person. The
card is charged by a gateway that calls back; when it declines, an invoice is sent instead. The parcel may take weeks.

    python examples/order/shop.py 8097
    SHOP_URL=http://127.0.0.1:8097 hopline dev examples/order/workflow.py
    hopline events emit order.placed --key 7 '{"id": "7", "sku": "lamp", "quantity": 2, "total": 80}'
"""

import os

from pydantic import BaseModel

from hopline import Event, Failure, Request, Retry, approval, branch, http, recover, sleep, step, workflow

SHOP = os.environ.get("SHOP_URL", "http://127.0.0.1:8097")
polite = Retry(6, first="1s", max="2m", on=(408, 429, range(500, 600), ConnectionError))


class Order(BaseModel):
    id: str
    sku: str
    quantity: int
    total: float


class Reservation(BaseModel):
    id: str


class Payment(BaseModel):
    id: str
    method: str


class Label(BaseModel):
    tracking: str


class Scan(BaseModel):
    tracking: str
    place: str


order_placed = Event("order.placed", Order)
parcel_scanned = Event("parcel.scanned", Scan)


@http(retry=polite, timeout="10s")
def reserve(order: Order) -> Request[Reservation]:
    """Put goods aside."""
    return http.post(f"{SHOP}/reservations", json={"sku": order.sku, "quantity": order.quantity})


@reserve.undo
@http(retry=polite, timeout="10s")
def release(reservation: Reservation) -> Request[None]:
    """Put them back."""
    return http.delete(f"{SHOP}/reservations/{reservation.id}")


@http(retry=polite, callback=True, timeout="10s", deadline="2h")
def charge_card(order: Order) -> Request[Payment]:
    """Ask the gateway for the money; it answers 202 now and calls back when it has it."""
    return http.post(f"{SHOP}/card", json={"order": order.id, "amount": order.total})


@http(retry=polite, timeout="10s")
def send_invoice(order: Order, why: Failure) -> Request[Payment]:
    """Ask the customer for the money."""
    return http.post(f"{SHOP}/invoices", json={"order": order.id, "because": why.error})


@http(retry=polite, timeout="10s")
def print_label(order: Order) -> Request[Label]:
    """Order a label of the post."""
    return http.post(f"{SHOP}/labels", json={"order": order.id})


@http(retry=polite, timeout="10s")
def ask_for_rating(order: Order) -> Request[None]:
    """Ask how it was."""
    return http.post(f"{SHOP}/ratings", json={"order": order.id})


@step
def review_note(order: Order) -> str:
    """Return what the person who decides is shown."""
    return f"{order.quantity} x {order.sku} for {order.total:.2f} EUR"


@workflow
def ship(order: Order) -> Scan:
    """Send the parcel, and wait until it has arrived."""
    label = print_label(order)
    return parcel_scanned.wait(key=label.tracking, timeout="14d")


@workflow(on=order_placed, key="order-{order.id}", compensate=True, deadline="30d")
def fulfil(order: Order) -> Scan | None:
    """Do all that an order needs; None when it was turned down."""
    held = reserve(order)
    gate = branch(
        order.total > 5000,
        then=lambda: approval(review_note(order), to=["risk@example.com"], timeout="1d").approved,
        otherwise=lambda: True,
    )

    def go() -> Scan:
        paid = recover(lambda: charge_card.after(held)(order), lambda why: send_invoice(order, why), on=(402,))
        scan = ship.after(paid)(order)
        ask_for_rating.after(scan, sleep.after(scan)("3d"))(order)
        return scan

    return branch(gate, then=go)
