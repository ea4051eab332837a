"""What an ``@http`` function becomes when it is compiled."""

from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, Field

from hopline import Request, http, secret, step, workflow
from hopline.request import Verbs
from tests.authoring.refused import refused


class Order(BaseModel):
    id: str
    total: float
    ship_to: str = Field(alias="shipTo")


@step
def order() -> Order:
    return Order(id="7", total=9.5, shipTo="Bonn")


def request_of(fn: Any) -> Any:
    made = http(fn)

    @workflow
    def wired(day: date) -> None:
        made(order(), day)

    return wired.compile().nodes[fn.__name__].request


def test_request_is_stored_with_references() -> None:
    def send(order: Order, day: date) -> Request[None]:
        return http.put(
            f"https://a.example.com/orders/{order.id}",
            json={"total": order.total, "order": order, "fixed": [1, None]},
            params={"day": f"{day}", "top": 5, "deep": True, "who": order.id, "tag": ["a", order.id], "no": None},
            headers={"Authorization": f"Bearer {secret('TOKEN')}", "X-Key": secret("KEY")},
        )

    assert request_of(send) == {
        "method": "PUT",
        "url": {"$text": ["https://a.example.com/orders/", {"$ref": "order", "path": ["id"], "format": ""}]},
        "params": {
            "day": {"$text": [{"$ref": "$input", "path": ["day"], "format": ""}]},
            "top": 5,
            "deep": True,
            "who": {"$ref": "order", "path": ["id"]},
            "tag": ["a", {"$ref": "order", "path": ["id"]}],
            "no": None,
        },
        "headers": {"Authorization": {"$text": ["Bearer ", {"$secret": "TOKEN"}]}, "X-Key": {"$secret": "KEY"}},
        "has_json": True,
        "json": {
            "total": {"$ref": "order", "path": ["total"]},
            "order": {"$ref": "order", "path": []},
            "fixed": [1, None],
        },
    }


def test_body_of_null_differs_from_no_body() -> None:
    def null(order: Order, day: date) -> Request[None]:
        return http.post("https://a.example.com/", json=None)

    def none(order: Order, day: date) -> Request[None]:
        return http.post("https://a.example.com/")

    assert request_of(null)["has_json"] is True
    assert request_of(null)["json"] is None
    assert request_of(none)["has_json"] is False
    assert "json" not in request_of(none)


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_each_verb_makes_its_request(method: str) -> None:
    request = getattr(Verbs(), method)("https://a.example.com", params={"a": 1}, headers={"B": "c"})
    assert request == Request(method=method.upper(), url="https://a.example.com", params={"a": 1}, headers={"B": "c"})


def test_names_of_params_may_start_with_a_dollar() -> None:
    def send(order: Order, day: date) -> Request[None]:
        return http.get("https://a.example.com", params={"$filter": order.id, "$ref": "order"})

    assert request_of(send)["params"] == {"$filter": {"$ref": "order", "path": ["id"]}, "$ref": "order"}


def test_url_may_be_a_result() -> None:
    def send(order: Order, day: date) -> Request[None]:
        return http.get(order.ship_to)

    assert request_of(send)["url"] == {"$ref": "order", "path": ["shipTo"]}


def test_json_may_be_a_model_of_the_file() -> None:
    def send(order: Order, day: date) -> Request[None]:
        return http.post("https://a.example.com", json=[Order(id="a", total=1, shipTo="b"), date(2026, 1, 2)])

    assert request_of(send)["json"] == [{"id": "a", "total": 1.0, "shipTo": "b"}, "2026-01-02"]


def test_arguments_of_the_file_are_values_in_the_request() -> None:
    @http
    def send(day: date, name: str = "x") -> Request[int]:
        return http.get(f"https://a.example.com/{day:%Y}/{day.month + 1}/{name.upper()}")

    @workflow
    def wired() -> int:
        return send(date(2026, 11, 20))

    node = wired.compile().nodes["send"]
    assert node.kind == "http"
    assert node.inputs == {}
    assert node.request is not None
    assert node.request["url"] == "https://a.example.com/2026/12/X"


def test_secret_may_be_an_argument_of_an_http_step() -> None:
    @http
    def send(token: str) -> Request[None]:
        return http.get("https://a.example.com", headers={"Authorization": token})

    @workflow
    def wired() -> None:
        send(secret("TOKEN"))

    node = wired.compile().nodes["send"]
    assert node.request is not None
    assert node.request["headers"] == {"Authorization": {"$secret": "TOKEN"}}


def test_answer_may_lack_what_the_type_has_defaults_for() -> None:
    class Answer(BaseModel):
        id: str
        note: str = ""

    @http
    def ask() -> Request[Answer]:
        return http.get("https://a.example.com")

    @workflow
    def wired() -> str:
        return ask().note

    assert wired.compile().nodes["ask"].result["required"] == ["id"]


def test_argument_that_the_request_does_not_show_is_waited_for() -> None:
    @http
    def send(order: Order, note: str) -> Request[None]:
        return http.get(f"https://a.example.com/{note}")

    @workflow
    def wired() -> None:
        first = order()
        send(first, first.ship_to)
        send(first, "x")
        send.map([first], "y")

    nodes = wired.compile().nodes
    assert [nodes[name].after for name in ("send", "send_2", "send_3")] == [(), ("order",), ()]
    assert [nodes[name].upstream() for name in ("send", "send_2", "send_3")] == [["order"]] * 3


def test_failure_in_the_function_names_its_line() -> None:
    @http
    def send(order: Order) -> Request[None]:
        raise LookupError("nowhere to send")  # refused

    @workflow
    def wired() -> None:
        send(order())

    refused(wired, match=r"send\(\) raised LookupError: nowhere to send")


def test_decision_in_the_function_names_its_line() -> None:
    @http
    def send(order: Order) -> Request[None]:
        if order.total > 10:  # refused
            return http.get("https://a.example.com/big")
        return http.get("https://a.example.com/small")

    @workflow
    def wired() -> None:
        send(order())

    refused(wired, match=r"a truth test needs the value of the condition order\.total > 10")


def test_function_that_calls_a_step_is_refused() -> None:
    @http
    def send() -> Request[None]:
        return http.get(f"https://a.example.com/{order().id}")  # refused

    @workflow
    def wired() -> None:
        send()

    refused(wired, match=r"send\(\) calls order\(\) while it builds a request")


def test_function_that_returns_something_else_is_refused() -> None:
    def text() -> Any:
        return "https://a.example.com"

    @http
    def send() -> Request[None]:
        return text()  # type: ignore[no-any-return]

    @workflow
    def wired() -> None:
        send()  # refused

    refused(wired, match=r"send\(\) returned 'https://a.example.com', not a request")


def test_http_function_that_does_not_declare_a_request_is_refused() -> None:
    wrong: Any = http

    @wrong  # type: ignore[untyped-decorator]
    def send() -> int:  # refused
        return 1

    @workflow
    def wired() -> int:
        return send()  # type: ignore[no-any-return]

    refused(wired, match="is an HTTP step but does not return a request")


def test_python_step_that_returns_a_request_is_refused() -> None:
    @step
    def send() -> Request[int]:  # refused
        return http.get("https://a.example.com")

    @workflow
    def wired() -> Request[int]:
        return send()

    assert refused(wired, match="which nothing would send").hint == "use @http"


def test_request_without_the_type_of_its_answer_is_refused() -> None:
    @http
    def send() -> Request:  # type: ignore[type-arg]  # refused
        return http.get("https://a.example.com")

    @workflow
    def wired() -> None:
        send()

    assert "Request[None]" in (refused(wired).hint or "")


WRONG_REQUESTS: dict[str, Request[Any]] = {
    "the URL of the request is '/relative'": http.get("/relative"),
    "the URL of the request is 'ftp://": http.get("ftp://a.example.com"),
    "the URL of the request is 5": http.get(5),  # type: ignore[arg-type]
    "the method of the request": Request(method="BREW", url="https://a.example.com"),
    "params is list": http.get("https://a.example.com", params=["a"]),  # type: ignore[arg-type]
    r"'a' in params is \[\[1\]\]": http.get("https://a.example.com", params={"a": [[1]]}),
    "'a' in headers is 5": http.get("https://a.example.com", headers={"a": 5}),  # type: ignore[dict-item]
    "'a' in headers is None": http.get("https://a.example.com", headers={"a": None}),  # type: ignore[dict-item]
    "the URL of the request is {": http.get({"a": 1}),  # type: ignore[arg-type]
    "'a' in params is": http.get("https://a.example.com", params={"a": {"b": 1}}),
    "params has the name '5'": http.get("https://a.example.com", params={5: "a"}),  # type: ignore[dict-item]
    "params has the name 'a": http.get("https://a.example.com", params={f"a{secret('B')}": "a"}),
    "'a' in headers is": http.get("https://a.example.com", headers={"a": {"$ref": "x"}}),  # type: ignore[dict-item]
    "'a b' cannot be set as a header": http.get("https://a.example.com", headers={"a b": "c"}),
    "'Content-Length' cannot be set": http.get("https://a.example.com", headers={"Content-Length": "5"}),
    "the header 'a' holds a line break": http.get("https://a.example.com", headers={"a": "b\r\nc: d"}),
    "the JSON body is nan": http.post("https://a.example.com", json=float("nan")),
    "the JSON body is a object, which cannot be written": http.post("https://a.example.com", json=object()),
}


@pytest.mark.parametrize("match", list(WRONG_REQUESTS))
def test_request_that_cannot_be_sent_is_refused(match: str) -> None:
    @http
    def send() -> Request[None]:
        return WRONG_REQUESTS[match]

    @workflow
    def wired() -> None:
        send()  # refused

    refused(wired, match=match)
