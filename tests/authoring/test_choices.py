"""``branch``, ``switch`` and conditions: what they compile to, what they mean in plain calls, and what is refused."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import (
    DefinitionError,
    Failure,
    Request,
    all_of,
    any_of,
    branch,
    first,
    http,
    not_,
    recover,
    step,
    switch,
    workflow,
)
from hopline.errors import NotStubbedError
from hopline.testing import stub
from hopline_engine.core.model import Digest
from hopline_engine.core.planning import build_plan
from tests.authoring.refused import refused


class Kind(StrEnum):
    BOOK = "book"
    FILE = "file"


class Order(BaseModel):
    id: str
    total: float
    kind: Kind = Kind.BOOK
    coupon: str | None = None
    day: date = date(2026, 11, 21)
    at: datetime = datetime(2026, 11, 21, tzinfo=UTC)
    price: Decimal = Decimal(1)
    lines: list[str] = []


class Receipt(BaseModel):
    url: str
    pages: int = 1


BIG = {"$op": ">", "args": [{"$ref": "$input", "path": ["order", "total"]}, 5000]}


@step
def approve(order: Order) -> bool:
    return order.id != "bad"


@step
def publish(order: Order) -> Receipt:
    return Receipt(url=order.id)


@step
def count(order: Order) -> int:
    return len(order.lines)


@step
def pages(order: Order) -> int:
    return 1


@step
def tell(text: str) -> None: ...


@step
def maybe(order: Order) -> Receipt | None:
    return None


@http
def post(order: Order) -> Request[None]:
    return http.post("https://a.example.com", json=order)


def conditions_of(choose: Callable[[Any], Any]) -> Any:
    """Return the condition that *choose* makes of an order, as it stands in a definition."""

    @workflow
    def wired(order: Order) -> None:
        branch(choose(order), then=lambda: tell("x"))

    (guard,) = wired.compile().nodes["tell"].guards
    assert guard["is"] is True
    return guard["if"]


def field(name: str) -> dict[str, Any]:
    return {"$ref": "$input", "path": ["order", name]}


# --- what is compiled -------------------------------------------------------------------------------------------------


def test_branch_guards_the_steps_of_its_arms_and_is_a_node_behind_them() -> None:
    @workflow
    def wired(order: Order) -> Receipt | int:
        ok = approve(order)
        return branch(ok, then=lambda: publish(order), otherwise=lambda: count(order))

    made = wired.compile()
    asked = {"$ref": "approve", "path": []}
    assert list(made.graph.edges) == [
        ("approve", "publish"),
        ("approve", "count"),
        ("approve", "branch"),
        ("publish", "branch"),
        ("count", "branch"),
    ]
    assert made.nodes["publish"].guards == [{"if": asked, "is": True}]
    assert made.nodes["count"].guards == [{"if": asked, "is": False}]
    assert made.nodes["branch"].arms == (
        {"guards": [{"if": asked, "is": True}], "value": {"$ref": "publish", "path": []}},
        {"guards": [{"if": asked, "is": False}], "value": {"$ref": "count", "path": []}},
    )
    assert made.result == {"$ref": "branch", "path": []}


def test_comparison_of_a_parameter_needs_no_step() -> None:
    @workflow
    def wired(order: Order) -> bool:
        return branch(order.total > 5000, then=lambda: approve(order), otherwise=lambda: True)

    made = wired.compile()
    assert made.nodes["approve"].guards == [{"if": BIG, "is": True}]
    assert made.nodes["branch"].arms[1]["value"] is True


def test_nested_arms_have_the_guards_of_all_arms_around_them() -> None:
    @workflow
    def wired(order: Order) -> None:
        def inner() -> None:
            ok = approve(order)
            branch(ok, then=lambda: tell("ok"))

        branch(order.total > 5000, then=inner)

    nodes = wired.compile().nodes
    outer = {"if": BIG, "is": True}
    assert nodes["tell"].guards == [outer, {"if": {"$ref": "approve", "path": []}, "is": True}]
    assert nodes["branch"].guards == [outer]
    assert nodes["branch_2"].guards == []


def test_switch_compares_with_each_case_and_its_default_with_all() -> None:
    @workflow
    def wired(order: Order) -> int | None:
        return switch(
            order.kind, {Kind.BOOK: lambda: count(order), Kind.FILE: lambda: pages(order)}, default=lambda: None
        )

    made = wired.compile()
    book, file = ({"$op": "==", "args": [field("kind"), kind]} for kind in ("book", "file"))
    assert made.nodes["count"].guards == [{"if": book, "is": True}]
    assert made.nodes["pages"].guards == [{"if": file, "is": True}]
    assert made.nodes["switch"].kind == "branch"
    assert made.nodes["switch"].arms[2] == {
        "guards": [{"if": book, "is": False}, {"if": file, "is": False}],
        "value": None,
    }


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda order: order.total == 1, {"$op": "==", "args": [field("total"), 1]}),
        (lambda order: order.total != 1, {"$op": "!=", "args": [field("total"), 1]}),
        (lambda order: order.total >= 1.5, {"$op": ">=", "args": [field("total"), 1.5]}),
        (lambda order: 1 < order.total, {"$op": ">", "args": [field("total"), 1]}),  # noqa: SIM300
        (lambda order: 1 >= order.total, {"$op": "<=", "args": [field("total"), 1]}),  # noqa: SIM300
        (lambda order: order.coupon == None, {"$op": "==", "args": [field("coupon"), None]}),  # noqa: E711
        (lambda order: order.day < date(2026, 1, 1), {"$op": "<", "args": [field("day"), "2026-01-01"]}),
        (lambda order: order.id == order.coupon, {"$op": "==", "args": [field("id"), field("coupon")]}),
        (
            lambda order: order.id == f"{order.coupon}-1",
            {"$op": "==", "args": [field("id"), {"$text": [{**field("coupon"), "format": ""}, "-1"]}]},
        ),
        (lambda order: not_(order.total == 1), {"$op": "not_", "args": [{"$op": "==", "args": [field("total"), 1]}]}),
        (
            lambda order: all_of(order.total > 5000, any_of(order.total > 5000, approve(order))),
            {"$op": "all_of", "args": [BIG, {"$op": "any_of", "args": [BIG, {"$ref": "approve", "path": []}]}]},
        ),
    ],
)
def test_comparing_results_makes_a_condition(choose: Callable[[Any], Any], expected: Any) -> None:
    assert conditions_of(choose) == expected


def test_arms_hold_maps_requests_and_sub_workflows() -> None:
    @workflow
    def below(order: Order) -> int:
        return count(order)

    @workflow
    def wired(orders: list[Order]) -> list[int] | None:
        def go() -> list[int]:
            post.map(orders)
            return below.map(orders)

        return branch(orders[0].total > 1, then=go)

    made = wired.compile()
    assert all(made.nodes[name].guards for name in ("post", "below"))
    assert made.nodes["branch"].upstream() == ["below"]


def test_definitions_without_choices_do_not_mention_them() -> None:
    @workflow
    def wired(order: Order) -> int:
        return count(order)

    node = wired.compile().to_json()["nodes"][0]
    assert not node.keys() & {"guards", "arms", "on"}


def test_definition_with_choices_is_the_same_each_time() -> None:
    @workflow
    def wired(order: Order) -> Receipt | None:
        return branch(all_of(order.total > 5, order.kind == "book"), then=lambda: publish(order))

    made = wired.compile()
    assert made.digest == wired.compile().digest
    assert json.loads(made.canonical()) == made.to_json()


# --- plain calls ------------------------------------------------------------------------------------------------------


@workflow
def shop(order: Order) -> str:
    kind = switch(order.kind, {Kind.BOOK: lambda: "a book", Kind.FILE: lambda: "a file"})
    gate = branch(order.total > 5000, then=lambda: approve(order), otherwise=lambda: True)
    sent = branch(all_of(gate, not_(any_of(order.total < 0, order.id == "no"))), then=lambda: publish(order))
    return f"{kind}: {sent}"


def test_plain_call_runs_the_arm_that_is_chosen() -> None:
    with stub(approve, calls=lambda order: False) as asked, stub(publish, Receipt(url="u")) as sent:
        assert shop(Order(id="a", total=1)) == "a book: url='u' pages=1"
        assert shop(Order(id="a", total=6000, kind=Kind.FILE)) == "a file: None"
        assert shop(Order(id="no", total=1)) == "a book: None"
    assert (len(asked.calls), len(sent.calls)) == (1, 1)


def test_plain_switch_without_a_case_that_fits_is_none_or_its_default() -> None:
    assert switch(3, {1: lambda: "one"}) is None
    assert switch(3, {1: lambda: "one"}, default=lambda: "many") == "many"


# --- what is refused --------------------------------------------------------------------------------------------------


def refusal(choose: Callable[[Any], Any]) -> DefinitionError:
    @workflow
    def wired(order: Order) -> None:
        branch(choose(order), then=lambda: tell("x"))

    with pytest.raises(DefinitionError) as caught:
        wired.compile()
    assert caught.value.file == __file__
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("choose", "message", "hint"),
    [
        (lambda order: order.total, "which is a number", "compare it"),
        (lambda order: count(order), "count as a condition, which is a number", "compare it"),
        (lambda order: True, "True as a condition, which is known", "write if"),
        (lambda order: f"{order.id}" == "a", "False as a condition, which is known", "not texts made of them"),
        (lambda order: order.total == "5", "a number is compared with text", "one type"),
        (lambda order: order.total == None, "a number is compared with null", "never null"),  # noqa: E711
        (lambda order: order.lines == [], "a list is compared", "one of its fields"),
        (lambda order: order == order, "an object is compared", "one of its fields"),
        (lambda order: order.at > datetime(2026, 1, 1, tzinfo=UTC), "compare as texts", "inside a step"),
        (
            lambda order: getattr(publish(order), "price"),  # noqa: B009
            "has no 'price'",
            "it has 'pages', 'url'",
        ),
        (lambda order: approve(order) < True, "has no order", "inside a step"),
        (lambda order: order.totl > 1, "has no 'totl'", "did you mean 'total'"),
        (lambda order: (order.total > 1) == (order.total > 2), "a comparison needs the value", "all_of"),
        (lambda order: order.total == (order.total > 2), "compared with the condition", "all_of"),
        (lambda order: order.total > 1 and order.total < 5, "a truth test needs", "all_of"),
        (lambda order: 1 < order.total < 5, "a truth test needs", "all_of"),
        (lambda order: not (order.total > 1), "a truth test needs", "not_"),
        (lambda order: (order.total > 1) & (order.total < 3), "an operator needs", "all_of"),
        (lambda order: order.id in ("a", "b"), "a truth test needs", "any_of"),
        (lambda order: all_of(), "all_of() is given no condition", "comparisons"),
        (lambda order: all_of(order.total > 1, order.id), "all_of() is given order.id", "compare it"),
        (lambda order: not_(5), "not_() is given 5", "write if"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_condition_is_refused(choose: Callable[[Any], Any], message: str, hint: str) -> None:
    error = refusal(choose)
    assert message in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    "use",
    [
        lambda condition: tell(condition),
        lambda condition: tell(f"{condition}"),
        lambda condition: tell(f"{[condition]}"),
        lambda condition: tell(str(condition)),
        lambda condition: tell.after(condition)("x"),
        lambda condition: tell({"a": condition}),  # type: ignore[arg-type]
        lambda condition: tell(condition.real),
        lambda condition: switch(condition, {"a": lambda: tell("x")}),
        lambda condition: 1 if condition else 2,
    ],
)
def test_condition_anywhere_else_is_refused_with_a_hint(use: Callable[[Any], object]) -> None:
    @workflow
    def wired(order: Order) -> None:
        use(order.total > 5000)

    with pytest.raises(DefinitionError, match=r"condition order\.total > 5000|tell\.after|switch") as caught:
        wired.compile()
    assert caught.value.hint


def test_condition_as_the_result_of_a_workflow_is_refused() -> None:
    @workflow
    def wired(order: Order) -> bool:  # refused
        return order.total > 5000

    assert "inside a step" in (refused(wired, "the result of wired is the condition order.total > 5000").hint or "")


@pytest.mark.parametrize(
    "use",
    [
        lambda kept, order: tell(kept[0].url),
        lambda kept, order: tell(f"{kept[0].url}!"),
        lambda kept, order: tell.after(kept[0])("x"),
        lambda kept, order: branch(kept[0].pages > 1, then=lambda: tell("x")),
        lambda kept, order: branch(kept[1], then=lambda: tell("x")),
        lambda kept, order: branch(order.total > 6000, then=lambda: tell(kept[0].url)),
    ],
)
def test_result_of_an_arm_outside_of_it_is_refused(use: Callable[[list[Any], Any], object]) -> None:
    @workflow
    def wired(order: Order) -> None:
        kept: list[Any] = []

        def go() -> None:
            kept.append(publish(order))
            kept.append(kept[0].pages > 3)
            tell(kept[0].url)

        branch(order.total > 5000, then=go)
        use(kept, order)

    with pytest.raises(DefinitionError, match=r"is made in an arm of branch\(\) that may not run") as caught:
        wired.compile()
    assert "return it from the arm" in (caught.value.hint or "")


def test_arm_that_is_no_function_is_refused() -> None:
    @workflow
    def wired(order: Order) -> None:
        branch(order.total > 1, then=tell("x"))  # type: ignore[call-overload]  # refused

    assert "lambda" in (refused(wired, r"branch\(then=\) is given <result tell> and not a function").hint or "")


def test_result_that_is_null_without_otherwise_does_not_fit_a_parameter() -> None:
    @workflow
    def wired(order: Order) -> None:
        tell(branch(order.total > 1, then=lambda: publish(order)).url)  # type: ignore[union-attr]  # refused

    assert refused(wired, "branch has no 'url'").hint


@pytest.mark.parametrize("other", [None, 5])
def test_every_arm_must_fit_where_the_result_goes(other: Any) -> None:
    @step
    def read(receipt: Receipt) -> None: ...

    @workflow
    def wired(order: Order) -> None:
        read(branch(order.total > 1, then=lambda: publish(order), otherwise=lambda: other))  # refused

    refused(wired, "in one arm, it is")


def test_optional_result_of_a_step_fits_in_an_arm_as_it_does_elsewhere() -> None:
    @step
    def read(receipt: Receipt) -> None: ...

    @workflow
    def wired(order: Order) -> None:
        read(branch(order.total > 1, then=lambda: publish(order), otherwise=lambda: maybe(order)))  # type: ignore[arg-type]

    assert wired.compile().nodes["read"].upstream() == ["branch"]


def test_path_that_all_arms_have_goes_on() -> None:
    @workflow
    def wired(order: Order) -> None:
        made = branch(order.total > 1, then=lambda: publish(order), otherwise=lambda: publish(order))
        other = branch(order.total > 1, then=lambda: publish(order), otherwise=lambda: Order(id="a", total=1))
        tell(made.url)
        tell.after(other)("x")

    assert wired.compile().nodes["tell"].inputs == {"text": {"$ref": "branch", "path": ["url"]}}


def test_case_that_never_comes_is_refused() -> None:
    @workflow
    def wired(order: Order) -> None:
        switch(order.kind, {"bok": lambda: tell("x")})  # type: ignore[dict-item]  # refused

    assert (refused(wired, "never 'bok'").hint or "") == "it is one of 'book', 'file'"


def test_switch_needs_a_result_and_cases() -> None:
    @workflow
    def known(order: Order) -> None:
        switch("a", {"a": lambda: tell("x")})  # refused

    @workflow
    def empty(order: Order) -> None:
        switch(order.id, {})  # refused

    refused(known, "which is known before the run")
    refused(empty, "no cases")


def test_choice_while_a_request_is_built_is_refused() -> None:
    @http
    def send(order: Order) -> Request[None]:
        return http.post("https://a.example.com", json=branch(order.total > 1, then=lambda: 5))  # refused

    @workflow
    def wired(order: Order) -> None:
        send(order)

    refused(wired, r"send\(\) calls branch\(\) while it builds a request")


def test_unused_result_of_a_choice_is_refused_as_that_of_a_step() -> None:
    @workflow
    def wired(order: Order) -> None:
        branch(order.total > 1, then=lambda: publish(order))  # refused

    refused(wired, "nothing uses the result of branch")


def test_is_none_on_a_choice_is_refused() -> None:
    @workflow
    def wired(order: Order) -> int:
        found = branch(order.total > 1, then=lambda: publish(order))
        return 1 if found is None else 2  # refused

    refused(wired, "`is` needs the value of found")


# --- recover and first ------------------------------------------------------------------------------------------------


@step
def charge(order: Order) -> Receipt:
    return Receipt(url="card")


@step
def invoice(order: Order, why: Failure) -> Receipt:
    return Receipt(url=f"{why.step}: {why.error}")


@step
def apologize(why: Failure) -> Receipt:
    return Receipt(url=why.error)


@workflow
def paid(order: Order) -> Receipt:
    def by_card() -> Receipt:
        receipt = charge(order)
        tell(receipt.url)
        return receipt

    return recover(by_card, lambda why: invoice(order, why), on=(402, range(500, 600), KeyError))


def test_recover_is_a_node_behind_the_primary_part_and_one_behind_both() -> None:
    nodes = paid.compile().nodes
    failed = {"$ref": "recover", "path": ["failed"]}
    assert nodes["recover"].kind == "recover"
    assert nodes["recover"].arms == ({"value": None, "steps": ["charge", "tell"]},)
    assert nodes["recover"].on == ({"status": 402}, {"range": [500, 600]}, {"error": "KeyError"})
    assert nodes["invoice"].guards == [{"if": failed, "is": True}]
    assert nodes["invoice"].inputs["why"] == {"$ref": "recover", "path": ["failure"]}
    assert nodes["recovered"].arms == (
        {"guards": [{"if": failed, "is": False}], "value": {"$ref": "charge", "path": []}},
        {"guards": [{"if": failed, "is": True}], "value": {"$ref": "invoice", "path": []}},
    )
    assert paid.compile().result == {"$ref": "recovered", "path": []}


def test_fallback_may_be_a_step_that_takes_the_failure_or_a_function_without_parameters() -> None:
    @workflow
    def wired(order: Order) -> Receipt:
        first_try = recover(lambda: charge(order), apologize)
        return recover(lambda: publish.after(first_try)(order), lambda: charge(order))

    nodes = wired.compile().nodes
    assert nodes["apologize"].inputs == {"why": {"$ref": "recover", "path": ["failure"]}}
    assert nodes["charge_2"].guards == [{"if": {"$ref": "recover_2", "path": ["failed"]}, "is": True}]


def test_fields_of_a_failure_are_paths() -> None:
    @workflow
    def wired(order: Order) -> None:
        def instead(why: Failure) -> None:
            branch(why.status == 402, then=lambda: tell(f"{why.step} {why.run_url} {why.attempts}"))

        recover(lambda: tell("x"), instead)

    assert [each["if"] for each in wired.compile().nodes["tell_2"].guards][1]["args"][0] == {
        "$ref": "recover",
        "path": ["failure", "status"],
    }


def raising(error: Exception) -> Callable[..., Any]:
    def answer(**_: Any) -> Any:
        raise error

    return answer


class AnswerError(Exception):
    status = 503


@pytest.mark.parametrize("error", [PermissionError("402"), KeyError("x"), AnswerError("down")])
def test_plain_recover_falls_back_on_what_it_names(error: Exception) -> None:
    with stub(charge, calls=raising(error)), stub(tell, None):
        assert paid(Order(id="a", total=1)).url == f"charge: {error}"


def test_plain_recover_lets_other_failures_through() -> None:
    with stub(charge, calls=raising(ValueError("no"))), pytest.raises(ValueError, match="no"):
        paid(Order(id="a", total=1))
    with stub(charge, Receipt(url="u")), stub(tell, None):
        assert paid(Order(id="a", total=1)).url == "u"


def test_plain_recover_does_not_hide_a_missing_stub() -> None:
    @workflow
    def wired(order: Order) -> None:
        recover(lambda: post(order), lambda: tell("x"))

    with pytest.raises(NotStubbedError):
        wired(Order(id="a", total=1))


@workflow
def fastest(order: Order) -> Receipt | int:
    return first(lambda: publish(order), lambda: count(order), lambda: charge(order))


def test_first_is_a_node_behind_all_arms() -> None:
    node = fastest.compile().nodes["first"]
    assert node.kind == "first"
    assert node.arms == tuple(
        {"value": {"$ref": name, "path": []}, "steps": [name]} for name in ("publish", "count", "charge")
    )
    assert node.guards == []


def test_plain_first_tries_one_arm_after_the_other() -> None:
    order = Order(id="a", total=1, lines=["x"])
    assert fastest(order) == Receipt(url="a")
    with stub(publish, calls=raising(OSError())):
        assert fastest(order) == 1
    with (
        stub(publish, calls=raising(OSError())),
        stub(count, calls=raising(OSError())),
        stub(charge, calls=raising(ValueError("last"))),
        pytest.raises(ValueError, match="last"),
    ):
        fastest(order)


def test_choices_nest_in_recoveries_and_races() -> None:
    @workflow
    def wired(order: Order) -> None:
        def tried() -> None:
            first(
                lambda: tell("a"),
                lambda: recover(lambda: tell("b"), lambda: branch(order.total > 1, then=lambda: tell("c"))),
            )

        recover(tried, lambda: None)

    nodes = wired.compile().nodes
    assert nodes["recover"].arms[0]["steps"] == ["tell_2"]
    assert nodes["first"].arms[1]["steps"] == ["recover", "tell_3", "branch", "recovered"]
    assert nodes["recover_2"].arms[0]["steps"] == ["first"]
    assert build_plan(wired.compile().to_json(), Digest("d"), {}).by_id["tell_2"].within is not None


untyped: Any = recover  # what type checkers refuse is refused at run time too


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda order: recover(lambda: 5, lambda: tell("x")), "the first part of recover() calls no step"),
        (lambda order: untyped(tell("x"), lambda: None), "is given <result tell> and not a function"),
        (lambda order: untyped(lambda: tell("x"), tell("y")), "the fallback of recover() is given <result tell>"),
        (lambda order: untyped(lambda: tell("x"), lambda: None, on=("402",)), "recover(): on holds '402'"),
        (lambda order: untyped(lambda: tell("x"), lambda: None, on=402), "recover(): on is 402"),
        (lambda order: first(), "first() is given nothing"),
        (lambda order: first(lambda: tell("x"), lambda: None), "arm 2 of first() calls no step"),
    ],
)
def test_recovery_or_race_that_means_nothing_is_refused(use: Callable[[Any], Any], message: str) -> None:
    @workflow
    def wired(order: Order) -> None:
        use(order)

    with pytest.raises(DefinitionError) as caught:
        wired.compile()
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("choose", [lambda order, fn: recover(fn, lambda: None), lambda order, fn: first(fn)])
def test_result_from_inside_a_recovery_or_race_is_refused_outside(choose: Callable[..., Any]) -> None:
    @workflow
    def wired(order: Order) -> None:
        kept: list[Any] = []

        def inside() -> None:
            kept.append(publish(order))
            tell(kept[0].url)

        choose(order, inside)
        tell(kept[0].url)

    with pytest.raises(DefinitionError, match=r"is made in an arm of (recover|first)\(\) that may not run"):
        wired.compile()


def test_is_none_on_a_recovery_is_refused() -> None:
    @workflow
    def wired(order: Order) -> int:
        found = recover(lambda: publish(order), lambda: None)
        return 1 if found is None else 2  # refused

    refused(wired, "`is` needs the value of found")
