"""A value that is not of the type that is declared for it is refused where it comes in, with step and field.

Of HTTP steps and callbacks to them see ``test_targets``, of events ``test_events``, of approvals ``test_approvals``.
"""

from pathlib import Path

import pytest

from tests.support.running_engine import RunningEngine, running_engine
from tests.worker.users_files import write

pytestmark = pytest.mark.anyio

FILE = """
    from typing import Any

    from pydantic import BaseModel

    from hopline import Err, Event, Ok, Pending, Request, defer, dynamic, http, loop, sensor, step, workflow

    class Shop(BaseModel):
        id: str
        currency: str

    BAD = {"id": "a", "currency": 5}

    @step
    def anything() -> Any:
        return BAD

    @step
    def many() -> list[Any]:
        return [{"id": "a", "currency": "EUR"}, BAD]

    @step
    def shop() -> Shop:
        return BAD

    @sensor(every="1s", timeout="1m")
    def found() -> Shop | None:
        return BAD

    @step
    def name(shop: Shop) -> str:
        return shop.id

    @step
    def move(shop: Shop) -> Shop:
        return BAD

    @step
    def wander(value: Any) -> Any:
        return BAD

    @step
    def good() -> Shop:
        return Shop(id="a", currency="EUR")

    @workflow
    def opened(shop: Shop) -> str:
        return name(shop)

    @workflow
    def closed(shop: Any) -> Shop:
        return wander(shop)

    @dynamic
    def traced(kind: str) -> Shop:
        return wander(kind)

    @workflow
    def of_a_step() -> Shop:
        return shop()

    @workflow
    def of_a_sensor() -> Shop:
        return found()

    @workflow
    def of_an_argument() -> str:
        return name(anything())

    @workflow
    def of_an_element() -> list[str]:
        return name.map(many())

    @workflow
    def of_a_settled_element() -> list[Ok[str] | Err]:
        return name.map_settled(many())

    @workflow
    def of_the_input_of_a_workflow() -> str:
        return opened(anything())

    @workflow
    def of_the_input_of_a_mapped_workflow() -> list[str]:
        return opened.map(many())

    @workflow
    def of_the_result_of_a_workflow() -> Shop:
        return closed(anything())

    @workflow
    def of_a_dynamic_workflow() -> Shop:
        return traced("x")

    @workflow
    def of_a_lap() -> Shop:
        return loop(move, good(), until=lambda shop: shop.id == "b", limit=3)
"""

TEXT = "5 is not of type 'string'"
EXPECTED = {
    "of_a_step": ("shop", "hopline.errors.ResultError", "shop() returned what it does not declare: currency: "),
    "of_a_sensor": ("found", "hopline.errors.ResultError", "found() returned what it does not declare: currency: "),
    "of_an_argument": ("name", "hopline.errors.ArgumentError", "name(): shop.currency: "),
    "of_an_element": ("name", "hopline.errors.ArgumentError", "name(): shop.currency: "),
    "of_the_input_of_a_workflow": (
        "opened",
        "InvalidValue",
        f"the input for workflow opened is not of the type that it declares: ['shop']['currency']: {TEXT}",
    ),
    "of_the_input_of_a_mapped_workflow": (
        "opened",
        "InvalidValue",
        f"the input for workflow opened is not of the type that it declares: ['shop']['currency']: {TEXT}",
    ),
    "of_the_result_of_a_workflow": (
        "closed",
        "InvalidValue",
        f"the result of workflow closed is not of the type that it declares: ['currency']: {TEXT}",
    ),
    "of_a_dynamic_workflow": (
        "traced",
        "InvalidValue",
        f"the result of workflow traced is not of the type that it declares: ['currency']: {TEXT}",
    ),
    "of_a_lap": ("move", "hopline.errors.ResultError", "move() returned what it does not declare: currency: "),
}


async def ended(engine: RunningEngine, workflow: str) -> tuple[str, str, str]:
    error = (await engine.client.ended(await engine.client.start(workflow)))["error"]
    return error["step"], error["type"], error["message"]


async def test_value_of_another_type_is_refused_with_step_and_field_wherever_it_comes_in(tmp_path: Path) -> None:
    async with running_engine(tmp_path, write(tmp_path, "shops.py", FILE)) as engine:
        told = {workflow: await ended(engine, workflow) for workflow in EXPECTED}
        assert {workflow: (step, kind) for workflow, (step, kind, _) in told.items()} == {
            workflow: (step, kind) for workflow, (step, kind, _) in EXPECTED.items()
        }
        misses = {
            workflow: message for workflow, (_, _, message) in told.items() if EXPECTED[workflow][2] not in message
        }
        assert misses == {}
        settled = await engine.client.ended(await engine.client.start("of_a_settled_element"))
        fine, bad = settled["result"]
        assert (fine, bad["err"]["type"]) == ({"ok": "a"}, "hopline.errors.ArgumentError")
        attempts = await engine.client.attempts(settled["id"], "name")
        assert [(one["item"], one["state"]) for one in attempts] == [(0, "succeeded"), (1, "failed")]
