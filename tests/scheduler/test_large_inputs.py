"""What others send in, as the input of a run or with an event: it stays in its row, up to a limit that is said."""

import json as plain_json
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import Event, Request, http, workflow
from tests.support.running_engine import RunningEngine
from tests.support.targets import Asked, json, target

pytestmark = pytest.mark.anyio

FITTING = 900_000
TOO_LARGE = 1_100_000


class Said(BaseModel):
    url: str
    text: str


said = Event("said", Said)


@http
def measure(url: str, text: str) -> Request[int]:
    return http.post(url, json=text)


@workflow
def measured(url: str, text: str) -> int:
    return measure(url, text)


@workflow(on=said)
def begun(words: Said) -> int:
    return measure(words.url, words.text)


@workflow
def heard(url: str) -> int:
    return measure(url, said.wait(key="k").text)


def length(asked: Asked) -> Any:
    return json(len(plain_json.loads(asked.body)))


async def test_input_of_a_run_and_payload_of_an_event_may_be_almost_a_mebibyte(engine: RunningEngine) -> None:
    await engine.register(measured, begun, heard)
    client, text = engine.client, "x" * FITTING
    async with target(length) as service:
        waiting = await client.start("heard", {"url": service.url})
        run = await client.start("measured", {"url": service.url, "text": text})
        event = {"name": "said", "key": "k", "payload": {"url": service.url, "text": text}}
        (started,) = (await client.ask("POST", "/events", json=event))["runs"]
        assert [(await client.ended(each))["result"] for each in (run, started, waiting)] == [FITTING] * 3


async def test_more_is_refused_with_the_limit_and_what_to_do_and_leaves_nothing(engine: RunningEngine) -> None:
    await engine.register(measured, begun)
    text = "x" * TOO_LARGE
    payload = {"url": "http://127.0.0.1:9", "text": text}
    for path, body in (
        ("/runs", {"workflow": "measured", "input": payload}),
        ("/events", {"name": "said", "key": "k", "payload": payload}),
    ):
        answer = await engine.client.http.post(path, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (413, "body-too-large")
        assert error["message"] == "the body has more than 1048576 bytes"
        assert error["hint"] == "keep large values in files, buckets or results of steps, and send where they are"
    assert (await engine.client.ask("GET", "/runs"))["runs"] == []
    assert (await engine.client.ask("GET", "/events"))["events"] == []
