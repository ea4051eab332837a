"""``key=``, ``key_limit=``, ``priority=`` and ``max_runs=`` while compiling and as a plain call."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import DefinitionError, Failure, Request, dynamic, http, step, workflow
from tests.authoring.refused import refused


class Order(BaseModel):
    id: int
    customer: str
    lines: list[str] = []


@step
def find(name: str) -> Order:
    return Order(id=1, customer=name)


@step(key="customer-{order.customer}", key_limit=2, priority=3)
def charge(order: Order) -> None: ...


@http(key="order-{order.id}")
def ship(order: Order) -> Request[None]:
    return http.post("https://post.example.com", json=order)


@step
def pack(order: Order) -> None: ...


@step
def mail(customer: str, text: str = "") -> None: ...


@step
def complain(failure: Failure) -> None: ...


@workflow
def child(name: str) -> None:
    pack(find(name))


@dynamic
def grown(name: str) -> None:
    pack(find(name))


def key_of(body: Callable[..., Any], node: str) -> Any:
    return workflow(body).compile().nodes[node].policy.get("key")


def test_template_names_parameters_of_the_step_and_paths_into_them() -> None:
    def body(name: str) -> None:
        charge(find(name))

    assert key_of(body, "charge") == {
        "$text": ["customer-", {"$ref": "find", "path": ["customer"], "format": ""}],
    }


def test_key_of_a_mapped_step_is_made_of_each_element() -> None:
    def body(orders: list[Order]) -> None:
        ship.map(orders)
        mail.using(key="{customer}").map(["a", "b"])

    assert key_of(body, "ship") == {"$text": ["order-", {"$ref": "$item", "path": ["id"], "format": ""}]}
    assert key_of(body, "mail") == {"$text": [{"$ref": "$item", "path": [], "format": ""}]}


def test_result_and_text_with_a_result_can_be_keys() -> None:
    def body(name: str) -> None:
        order = find(name)
        pack.using(key=order.id)(order)
        mail.using(key=f"mail-{order.customer}")(name)

    assert key_of(body, "pack") == {"$ref": "find", "path": ["id"]}
    assert key_of(body, "mail") == {"$text": ["mail-", {"$ref": "find", "path": ["customer"], "format": ""}]}


def test_step_waits_for_what_its_key_is_made_of() -> None:
    @workflow
    def body(name: str) -> None:
        mail.using(key=find(name).customer)(name)

    assert list(body.compile().graph.edges) == [("find", "mail")]


def test_policy_holds_what_is_said_and_nothing_else() -> None:
    @workflow
    def body(name: str) -> None:
        charge(find(name))
        pack.using(priority=0)(find(name))

    nodes = body.compile().nodes
    assert (nodes["charge"].policy["key_limit"], nodes["charge"].policy["priority"]) == (2, 3)
    assert not {"key", "key_limit", "priority"} & nodes["pack"].policy.keys()


def test_key_of_an_undo_step_is_made_of_the_result_that_it_undoes() -> None:
    @step
    def reserve(name: str) -> Order:
        return find(name)

    @reserve.undo
    @step(key="order-{order.id}")
    def release(order: Order) -> None: ...

    @workflow(compensate=True)
    def body(name: str) -> None:
        pack(reserve(name))

    undo = body.compile().nodes["reserve"].undo
    assert undo is not None
    assert undo["policy"]["key"] == {"$text": ["order-", {"$ref": "$item", "path": ["id"], "format": ""}]}


def test_plain_call_takes_no_notice_of_keys() -> None:
    assert mail.using(key="{nobody}", priority=5)("a") is None


def test_key_that_cannot_be_made_is_refused() -> None:
    @workflow
    def unknown(name: str) -> None:
        mail.using(key="{nobody}")(name)  # refused

    @workflow
    def no_text(name: str) -> None:
        order = find(name)
        pack.using(key=order.lines)(order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # refused

    @workflow
    def empty(name: str) -> None:
        mail.using(key="")(name)  # refused

    @workflow
    def of_nothing(name: str) -> None:
        mail.using(key_limit=3)(name)  # refused

    refused(unknown, "cannot be made")
    refused(no_text, "does not fit")
    refused(empty, "the key of mail is ''")
    refused(of_nothing, "no key")


def test_steps_that_are_not_sent_one_by_one_have_no_key() -> None:
    @workflow
    def of_a_run(name: str) -> None:
        child.using(key=name)(name)  # refused

    @workflow
    def of_a_graph(name: str) -> None:
        grown.using(priority=1)(name)  # refused

    @workflow
    def of_a_batch(names: list[str]) -> None:
        mail.using(key="{customer}", batch=10).map(names)  # refused

    refused(of_a_run, "which is for steps that are sent")
    refused(of_a_graph, "which is for steps that are sent")
    refused(of_a_batch, "a key of its own")


@pytest.mark.parametrize(
    ("given", "message"),
    [({"priority": 6}, "priority is 6"), ({"priority": True}, "priority"), ({"key_limit": 0}, "key_limit is 0")],
)
def test_numbers_out_of_range_are_refused_where_they_are_written(given: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        step(**given)
    assert caught.value.hint
    assert caught.value.line is not None


def test_steps_of_a_workflow_have_its_priority_unless_they_name_one() -> None:
    @workflow(priority=2)
    def body(name: str) -> None:
        charge(find(name))
        mail.using(priority=0)(name)

    nodes = body.compile().nodes
    assert nodes["find"].policy["priority"] == 2
    assert nodes["charge"].policy["priority"] == 3
    assert "priority" not in nodes["mail"].policy


def test_first_steps_of_a_workflow_that_limits_its_runs_wait_for_its_turn() -> None:
    @workflow(max_runs=3, on_failure=complain)
    def body(name: str) -> None:
        charge(find(name))
        mail(name)

    compiled = body.compile()
    assert set(compiled.graph.edges) == {("turn", "find"), ("turn", "mail"), ("find", "charge")}
    assert (compiled.nodes["turn"].kind, compiled.nodes["turn"].inputs) == ("turn", {"limit": 3})


@pytest.mark.parametrize("given", [{"max_runs": 0}, {"max_runs": "3"}, {"priority": 9}])
def test_limits_of_a_workflow_that_make_no_sense_are_refused_where_they_are_written(given: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"workflow\({next(iter(given))}=\)") as caught:
        workflow(**given)
    assert caught.value.hint
