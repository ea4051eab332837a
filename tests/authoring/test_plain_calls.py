"""Outside a workflow body steps are functions."""

import asyncio
from typing import Any

import pytest

from hopline import Request, Workflow, http, secret, step, workflow
from hopline.errors import NotStubbedError, RunningLoopError
from hopline.testing import stub


@step
def double(number: int, plus: int = 0) -> int:
    """Double a number."""
    return 2 * number + plus


@step
async def halve(number: int) -> float:
    await asyncio.sleep(0)
    return number / 2


@http
def price(sku: str) -> Request[float]:
    return http.get("https://shop.example.com/price", params={"sku": sku}, headers={"Authorization": secret("SHOP")})


@workflow
def twice(number: int) -> int:
    return double(double(number))


@workflow
def everything(numbers: list[int], sku: str) -> list[float]:
    doubled = double.map(numbers, 1)
    first = price.after(doubled)(sku)
    return [halve.map(doubled)[0], first, halve(twice(2))]


def test_step_runs_its_function() -> None:
    assert double(2) == 4
    assert double(number=2, plus=1) == 5
    assert double.fn(3) == 6


def test_step_looks_like_its_function() -> None:
    assert double.__name__ == double.name == "double"
    assert double.__doc__ == "Double a number."
    assert repr(double) == "<python step double>"
    assert repr(twice) == "<workflow twice>"


def test_wrong_arguments_raise_as_the_function_would() -> None:
    wrong: Any = double
    with pytest.raises(TypeError, match="number"):
        wrong()


def test_async_step_is_awaited_for_the_caller() -> None:
    assert halve(3) == 1.5
    assert halve.map([2, 4]) == [1.0, 2.0]


def test_async_step_in_a_running_loop_says_to_await_its_function() -> None:
    async def inside() -> float:
        with pytest.raises(RunningLoopError, match=r"await halve\.fn\(\.\.\.\)"):
            halve(3)
        result: float = await halve.fn(3)
        return result

    assert asyncio.run(inside()) == 1.5


def test_after_and_using_change_nothing_in_plain_calls() -> None:
    assert double.after(1).using(timeout="1s")(2) == 4
    assert double.using(max_parallel=1).map(range(3), plus=1) == [1, 3, 5]


def test_http_step_without_stub_says_how_to_stub_it() -> None:
    with pytest.raises(NotStubbedError, match=r"stub\(price, answer\)"):
        price("a")


def test_request_of_an_http_step_can_be_looked_at() -> None:
    request = price.fn("a")
    assert (request.method, request.url, request.params) == ("GET", "https://shop.example.com/price", {"sku": "a"})
    assert request.headers == {"Authorization": secret("SHOP")}
    assert not request.has_json


def test_secret_in_a_text_can_be_compared() -> None:
    assert f"Bearer {secret('A')}" == f"Bearer {secret('A')}" == "Bearer " + secret("A")
    assert f"Bearer {secret('A')}" != f"Bearer {secret('B')}"
    assert secret("A") != secret("B")
    assert repr(secret("A")) == "secret('A')"


def test_whole_workflow_runs_with_stubs() -> None:
    with stub(price, 9.5) as asked:
        assert everything([1, 2], "lamp") == [1.5, 9.5, 4.0]
    assert asked.calls == [{"sku": "lamp"}]


def test_stub_computes_its_answer_and_records_every_element() -> None:
    with stub(double, calls=lambda number, plus=0: number + plus) as seen:
        assert double.map([1, 2], 10) == [11, 12]
    assert seen.calls == [{"number": 1, "plus": 10}, {"number": 2, "plus": 10}]


def test_stub_records_defaults() -> None:
    with stub(double, 0) as seen:
        double(5)
    assert seen.calls == [{"number": 5, "plus": 0}]


def test_stub_of_what_is_no_step_is_refused_with_what_it_is() -> None:
    for other in (double.fn, "double"):
        with pytest.raises(TypeError, match="takes a step or a workflow"), stub(other, 1):  # type: ignore[call-overload]
            pass


def test_stub_stands_in_for_a_workflow() -> None:
    with stub(twice, 100) as seen, stub(price, 0.0):
        assert everything([1], "x")[2] == 50.0
    assert seen.calls == [{"number": 2}]


def test_stub_holds_for_the_step_with_another_policy_and_in_async_code() -> None:
    async def inside() -> float:
        return halve.using(timeout="1s")(1)

    with stub(halve, 7.0):
        assert asyncio.run(inside()) == 7.0


def test_stub_may_be_async() -> None:
    async def answer(number: int) -> float:
        return number * 1.0

    calls: Any = answer
    with stub(halve, calls=calls):
        assert halve(3) == 3.0


def test_stub_may_fail() -> None:
    def down(sku: str) -> float:
        raise ConnectionError(sku)

    with stub(price, calls=down), pytest.raises(ConnectionError, match="lamp"):
        everything([1], "lamp")


def test_inner_stub_goes_first_and_ends_with_its_block() -> None:
    with stub(price, 1.0):
        with stub(price, 2.0):
            assert price("a") == 2.0
        assert price("a") == 1.0
    with pytest.raises(NotStubbedError):
        price("a")


def test_stub_takes_arguments_as_the_step_does() -> None:
    wrong: Any = price
    with stub(price, 1.0), pytest.raises(TypeError):
        wrong()


def test_compiling_runs_no_step_and_asks_no_stub() -> None:
    with stub(double, calls=lambda number, plus=0: pytest.fail("called")), stub(price, 1.0) as asked:
        everything.compile()
    assert asked.calls == []


def test_body_is_traced_once_for_each_compilation() -> None:
    traced: list[str] = []

    @workflow
    def child(number: int) -> int:
        traced.append("child")
        return double(number)

    @workflow
    def parent(numbers: list[int]) -> list[int]:
        traced.append("parent")
        return [child(1), child.using(deadline="1h")(2), child.map(numbers)[0]]

    parent.compile()
    assert traced == ["parent", "child"]


def test_workflow_is_a_step_with_compile() -> None:
    assert isinstance(twice, Workflow)
    assert twice.compile().name == "twice"
    assert twice.using(timeout="1s").compile().digest == twice.compile().digest
