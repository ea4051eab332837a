"""The Flask handler and the workflow that calls it: each alone, and together in a real run with retries."""

import sys
from urllib.parse import urlsplit

from examples.flask_handler.app import app
from examples.flask_handler.workflow import Message, Receipt, confirm, deliver, send
from hopline.testing import stub
from tests.examples.conftest import EXAMPLES, Hopline, service

HEADERS = {"Idempotency-Key": "r_1/send", "Hopline-Attempt": "1"}


def test_handler_is_busy_once_for_each_key() -> None:
    client = app.test_client()
    statuses = [client.post("/my-task-handler", json={"a": 1}, headers=HEADERS).status_code for _ in range(3)]
    assert statuses == [503, 200, 200]


def test_request_is_built_without_sending_it() -> None:
    request = send.fn("Hello", "http://example.com")
    assert (request.method, request.url) == ("POST", "http://example.com/my-task-handler")
    assert request.json == {"text": "Hello", "in_reply_to": None}


def test_second_step_replies_to_the_first() -> None:
    first = Receipt(received=Message(text="Hello", in_reply_to=None), calls=2)
    second = Receipt(received=Message(text="Thanks", in_reply_to="Hello"), calls=1)
    with stub(send, first), stub(confirm, second) as confirmed:
        assert deliver("Hello") == second
    assert confirmed.calls[0]["receipt"] == first


def test_needs_no_worker() -> None:
    assert {node.kind for node in deliver.compile().nodes.values()} == {"http"}


def test_runs_with_a_retry_of_each_step(hopline: Hopline) -> None:
    flask = [sys.executable, "-m", "flask", "--app", str(EXAMPLES / "flask_handler" / "app"), "run", "--port", "0"]
    with service(*flask) as url:
        assert urlsplit(url).port
        run = hopline.run(EXAMPLES / "flask_handler" / "workflow.py", "text=Good morning", f"base_url={url}")
    assert run["result"] == {
        "received": {"text": "Received after 2 calls", "in_reply_to": "Good morning"},
        "calls": 2,
    }
    assert [attempt["status"] for attempt in hopline.attempts("send")] == [503, 200]
    assert [attempt["status"] for attempt in hopline.attempts("confirm")] == [503, 200]
