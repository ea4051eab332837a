"""Events: waited for, and starting runs, as workflow files write them."""

from typing import Any

import pytest
from pydantic import BaseModel

from hopline import DefinitionError, Event, step, workflow
from hopline.errors import NotStubbedError
from hopline.testing import deliver


class Scan(BaseModel):
    tracking: str
    place: str


class Order(BaseModel):
    id: str
    total: float


scanned = Event("parcel.scanned", Scan)
placed = Event("order.placed", Order)


@step
def label(order: str) -> str:
    return f"t{order}"


@workflow
def ship(order: str) -> str:
    return scanned.wait(key=label(order), timeout="14d").place


@workflow(on=placed, key="order-{order.id}")
def fulfil(order: Order, note: str = "") -> str:
    return ship(order.id)


def test_wait_is_a_node_with_the_schema_of_the_event() -> None:
    node = ship.compile().nodes["parcel.scanned"]
    assert (node.kind, node.step, node.inputs) == ("event", "parcel.scanned", {"key": {"$ref": "label", "path": []}})
    assert node.policy["deadline"] == 1_209_600
    assert sorted(node.result["properties"]) == ["place", "tracking"]
    assert ship.compile().result == {"$ref": "parcel.scanned", "path": ["place"]}


def test_workflow_says_by_which_event_it_is_started() -> None:
    key = {"$text": ["order-", {"$ref": "$input", "path": ["order", "id"], "format": ""}]}
    on = {"event": "order.placed", "parameter": "order", "key": key}
    assert fulfil.compile().to_json()["on"] == on
    assert fulfil.using(timeout="1m").compile().on == on
    assert "on" not in ship.compile().to_json()


def test_field_that_an_event_does_not_have_is_refused() -> None:
    @workflow
    def one() -> str:
        return scanned.wait(key="t1").plac  # type: ignore[attr-defined,no-any-return]

    with pytest.raises(DefinitionError, match="has no 'plac'") as refused:
        one.compile()
    assert refused.value.hint == "did you mean 'place'?"


def test_key_that_is_no_text_is_refused() -> None:
    @workflow
    def one(number: int) -> str:
        key: Any = number
        return scanned.wait(key=key).place

    with pytest.raises(DefinitionError, match="key does not fit: it is a number, not text"):
        one.compile()


@pytest.mark.parametrize("name", ["", "a b", "-x", "ä", 5])
def test_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match="is not a name of an event"):
        Event(name, Scan)


def test_event_of_a_type_without_a_schema_is_refused() -> None:
    class Raw:
        pass

    @workflow
    def one() -> None:
        Event("raw", Raw).wait(key="k")

    with pytest.raises(DefinitionError, match="Event\\('raw'\\)"):
        one.compile()


def test_workflow_that_an_event_cannot_start_is_refused() -> None:
    def made(**options: Any) -> Any:
        @workflow(on=placed, **options)
        def wrong(order: Scan) -> str:
            return order.place

        return wrong

    with pytest.raises(DefinitionError, match="'order' does not fit: it has no field"):
        made().compile()

    @workflow(on=placed)
    def needs_more(order: Order, note: str) -> str:
        return note

    with pytest.raises(DefinitionError, match="nothing gives 'note'"):
        needs_more.compile()

    @workflow(on=placed, key="order-{number}")
    def keyed(order: Order) -> str:
        return order.id

    with pytest.raises(DefinitionError, match=r"the key 'order-\{number\}' of keyed cannot be made"):
        keyed.compile()

    @workflow(on=placed)
    def without() -> str:
        return "x"

    with pytest.raises(DefinitionError, match="has no parameter"):
        without.compile()

    with pytest.raises(DefinitionError, match="without on="):
        workflow(key="x")


def test_plain_call_gets_what_is_delivered() -> None:
    with deliver(scanned, Scan(tracking="t7", place="Bonn")):
        assert fulfil(Order(id="7", total=1.0)) == "Bonn"
    with (
        deliver(scanned, Scan(tracking="t7", place="Kiel"), key="t7"),
        deliver(scanned, Scan(tracking="t8", place="Bonn"), key="t8"),
    ):
        assert ship("7") == "Kiel"


def test_plain_call_does_not_wait() -> None:
    with pytest.raises(NotStubbedError, match="nothing emits"):
        ship("7")
