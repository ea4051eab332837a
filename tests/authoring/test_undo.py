"""Undo steps: how they are written, what they compile to, and what plain calls do with them."""

import pytest

from hopline import DefinitionError, Request, Retry, http, step, workflow
from hopline.testing import stub

done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@http
def reserve(order: int) -> Request[str]:
    return http.post("https://stock.example.com/reservations", json=order)


@reserve.undo
@http(retry=Retry(5))
def release(reservation: str, reason: str = "cancelled") -> Request[None]:
    return http.delete(f"https://stock.example.com/reservations/{reservation}", params={"why": reason})


@step
def book(order: int) -> int:
    done.append(f"book {order}")
    return order * 10


@book.undo
def unbook(booking: int) -> None:
    done.append(f"unbook {booking}")


@step
def charge(booking: int) -> int:
    if booking == 20:
        raise PermissionError("declined")
    return booking


@workflow(compensate=True)
def buy(order: int) -> int:
    held = reserve(order)
    booked = book.after(held)(order)
    return charge(booked)


@workflow
def careless(order: int) -> int:
    return charge(book(order))


def test_undo_step_stands_with_the_step_that_it_undoes() -> None:
    node = buy.compile().nodes["reserve"]
    assert node.policy["undo"] == "release"
    assert node.undo is not None
    assert node.undo["kind"] == "http"
    reservation = {"$ref": "$item", "path": [], "format": ""}
    assert node.undo["request"]["url"] == {"$text": ["https://stock.example.com/reservations/", reservation]}
    assert node.undo["policy"]["retry"]["attempts"] == 5
    assert buy.compile().nodes["book"].undo == {
        "id": "unbook",
        "kind": "python",
        "step": "unbook",
        "signature": unbook.signature,
        "inputs": {"booking": {"$ref": "$item", "path": []}},
        "request": None,
        "result": {"type": "null"},
        "policy": unbook.policy.to_json(),
    }


def test_only_workflows_that_compensate_have_undo_steps() -> None:
    compiled = careless.compile().to_json()
    assert "compensate" not in compiled
    assert all("undo" not in node and "undo" not in node["policy"] for node in compiled["nodes"])
    assert buy.compile().to_json()["compensate"] is True


def test_undo_steps_are_no_part_of_the_graph() -> None:
    assert set(buy.compile().graph.nodes) == {"reserve", "book", "charge"}


def test_step_used_twice_has_two_undo_steps() -> None:
    @workflow(compensate=True)
    def twice(order: int) -> list[int]:
        return [book(order), book.using(timeout="1s")(order)]

    undos = [node.undo for node in twice.compile().nodes.values()]
    assert {undo["id"] for undo in undos if undo} == {"unbook", "unbook_2"}


def test_plain_call_that_fails_undoes_what_was_done_last_first() -> None:
    with stub(reserve, "r") as reserved, stub(release, None) as released, pytest.raises(PermissionError):
        buy(2)
    assert done == ["book 2", "unbook 20"]
    assert reserved.calls == [{"order": 2}]
    assert released.calls == [{"reservation": "r", "reason": "cancelled"}]


def test_plain_call_that_succeeds_undoes_nothing() -> None:
    with stub(reserve, "r"), stub(release, None) as released:
        assert buy(1) == 10
    assert (done, released.calls) == (["book 1"], [])


def test_plain_call_of_a_workflow_that_does_not_compensate_undoes_nothing() -> None:
    with pytest.raises(PermissionError):
        careless(2)
    assert done == ["book 2"]


def test_undo_step_that_fails_in_a_plain_call_stops_no_other_and_is_told() -> None:
    def unable(booking: int) -> None:
        raise OSError(f"no way back from {booking}")

    with (
        stub(reserve, "r"),
        stub(release, None) as released,
        stub(unbook, calls=unable),
        pytest.raises(PermissionError) as failed,
    ):
        buy(2)
    assert len(released.calls) == 1
    assert failed.value.__notes__ == [
        "unbook(), which was to undo what had been done, failed: OSError('no way back from 20')"
    ]


def test_undo_step_that_takes_another_type_is_refused_with_the_place() -> None:
    @step
    def make(order: int) -> int:
        return order

    @make.undo  # type: ignore[arg-type]
    def unmake(text: str) -> None:
        """Take something else."""

    @workflow(compensate=True)
    def wrong(order: int) -> int:
        return make(order)

    with pytest.raises(DefinitionError, match=r"unmake\(\): text does not fit its type") as refused:
        wrong.compile()
    assert refused.value.line is not None


def test_undo_step_that_needs_more_than_the_result_is_refused() -> None:
    with pytest.raises(DefinitionError, match="does not take just the result of charge"):

        @charge.undo  # type: ignore[arg-type]
        def refund(booking: int, account: str) -> None:
            """Need an account, too."""


def test_second_undo_step_is_refused() -> None:
    with pytest.raises(DefinitionError, match="is a second undo step of book"):

        @book.undo
        def unbook_again(booking: int) -> None:
            """Do it once more."""


def test_workflow_cannot_undo_a_step_but_can_be_undone() -> None:
    with pytest.raises(DefinitionError, match="is a workflow and cannot undo a step"):
        charge.undo(careless)

    @careless.undo
    def forget(booking: int) -> None:
        """Undo all of it."""

    @workflow(compensate=True)
    def above(order: int) -> int:
        return charge.after(careless(order))(5)

    assert above.compile().nodes["careless"].policy["undo"] == "forget"
