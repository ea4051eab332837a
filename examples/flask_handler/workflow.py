"""Two HTTP steps that call the Flask handler of app.py and try again when it is busy.

    hopline run examples/flask_handler/workflow.py text='Good morning'

There is no Python step here: what the engine sends is stored as data, and no code of ours runs to send it.
"""

from dataclasses import dataclass

from hopline import Request, Retry, http, workflow

patient = Retry(5, first="200ms", max="10s")


@dataclass
class Message:
    text: str
    in_reply_to: str | None


@dataclass
class Receipt:
    received: Message
    calls: int


@http(retry=patient, timeout="10s")
def send(text: str, base_url: str) -> Request[Receipt]:
    return http.post(f"{base_url}/my-task-handler", json={"text": text, "in_reply_to": None})


@http(retry=patient, timeout="10s")
def confirm(receipt: Receipt, base_url: str) -> Request[Receipt]:
    return http.post(
        f"{base_url}/my-task-handler",
        json={"text": f"Received after {receipt.calls} calls", "in_reply_to": receipt.received.text},
    )


@workflow
def deliver(text: str = "Hello", base_url: str = "http://127.0.0.1:8080") -> Receipt:
    return confirm(send(text, base_url), base_url)
