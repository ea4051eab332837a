"""Approvals, as workflow files write them."""

from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import Decision, DefinitionError, approval, step, workflow
from hopline.errors import NotStubbedError
from hopline.testing import answer


class Review(BaseModel):
    reason: str


@step
def total(day: str) -> float:
    return 12.5


@step
def reason(decision: Decision[Review]) -> str:
    return f"{decision.by}: {decision.form.reason if decision.form else '-'} {decision.at.year}"


@workflow
def publish(day: str) -> bool:
    return approval(f"Publish {total(day)} EUR?", to=["finance@example.com"], timeout="2h").approved


@workflow
def reviewed(day: str) -> str:
    return reason(approval("Is it good?", form=Review, after=[total(day)]))


def test_approval_is_a_node_with_the_schema_of_the_decision() -> None:
    node = publish.compile().nodes["approval"]
    assert node.kind == "approval"
    assert node.inputs["prompt"] == {"$text": ["Publish ", {"$ref": "total", "path": [], "format": ""}, " EUR?"]}
    assert (node.inputs["to"], node.policy["deadline"]) == (["finance@example.com"], 7200.0)
    assert node.result["properties"]["form"] == {"type": "null"}
    assert publish.compile().result == {"$ref": "approval", "path": ["approved"]}


def test_form_is_part_of_the_decision() -> None:
    node = reviewed.compile().nodes["approval"]
    assert node.result["properties"]["form"] == {"anyOf": [{"$ref": "#/$defs/Review"}, {"type": "null"}]}
    assert node.after == ("total",)


def test_plain_call_is_answered_by_the_test() -> None:
    with answer():
        assert publish("today") is True
    with answer(), answer(approved=False):
        assert publish("today") is False
    with answer(form=Review(reason="fine"), by="Ada", at=datetime(2026, 1, 1)):  # noqa: DTZ001 - a zone is not needed
        assert reviewed("today") == "Ada: fine 2026"


def test_plain_call_asks_nobody() -> None:
    with pytest.raises(NotStubbedError, match="asks nobody"):
        publish("today")


def test_form_without_a_schema_is_refused() -> None:
    class Raw:
        pass

    @workflow
    def one() -> Any:
        return approval("?", form=Raw)

    with pytest.raises(DefinitionError, match=r"approval\(form=\)"):
        one.compile()
