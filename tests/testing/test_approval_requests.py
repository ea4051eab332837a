"""The event by which a workflow is given the links of approvals, to send them to people."""

from urllib.parse import parse_qs, urlsplit

import pytest

from hopline import ApprovalRequest, Request, approval, approval_requested, http, step, workflow
from hopline.testing import Engine
from hopline_engine.errors import InvalidEventError
from hopline_engine.testing import Run

CHAT = "https://chat.example.com"


@http
def post(asked: ApprovalRequest) -> Request[None]:
    return http.post(f"{CHAT}/hook", json={"text": f"{asked.workflow}: {asked.prompt} {asked.link}", "to": asked.to})


@workflow(on=approval_requested)
def send_link(asked: ApprovalRequest) -> None:
    post(asked)


@workflow
def publish(total: float) -> bool:
    return approval(f"Publish {total} EUR?", to=["finance@example.com"], timeout="2h").approved


@step
def text_of(asked: ApprovalRequest) -> str:
    return asked.prompt


@workflow(on=approval_requested, key="ask-{asked.run}")
def ask_about_asking(asked: ApprovalRequest) -> bool:
    return approval(text_of(asked)).approved


def test_link_of_an_approval_is_sent_once_and_is_good(engine: Engine) -> None:
    chat = engine.server(CHAT)
    chat.post("/hook").reply(200)
    engine.register(send_link)
    run = engine.start(publish, 12.5)
    (sent,) = chat.requests
    text, link = sent.json["text"].rsplit(" ", 1)
    assert (text, sent.json["to"]) == ("publish: Publish 12.5 EUR?", ["finance@example.com"])
    asked = engine.ask(lambda service: service.approval(run.id, "approval"))
    assert urlsplit(link).path == f"/api/v1/approvals/{run.id}/approval/page"
    assert parse_qs(urlsplit(link).query).keys() == {"expires", "signature"}
    assert asked.prompt == "Publish 12.5 EUR?"


def test_link_is_sent_once_wherever_the_engine_dies(engine: Engine) -> None:
    def prepare(engine: Engine) -> None:
        engine.server(CHAT).post("/hook").reply(200)
        engine.register(send_link)

    def drive(engine: Engine, _: Run[bool]) -> None:
        engine.advance("1m")
        assert len({sent.headers["Idempotency-Key"] for sent in engine.server(CHAT).requests}) == 1
        engine.advance("3h")  # nobody decides

    for point in engine.crash_points(publish, 1.0, prepare=prepare, drive=drive):
        assert point.outcome == point.outcome_without_crash


def test_nothing_is_emitted_where_no_workflow_wants_to_know(engine: Engine) -> None:
    engine.start(publish, 1.0)
    assert engine.ask(lambda service: service._engine.events.newest(None, 10)) == []


def test_approvals_of_those_who_tell_are_not_told_of(engine: Engine) -> None:
    engine.register(ask_about_asking)
    engine.start(publish, 1.0)
    engine.advance("1h")
    told = engine.ask(lambda service: service._engine.events.newest(None, 10))
    assert len(told) == 1


def test_event_of_the_engine_cannot_be_emitted_by_others(engine: Engine) -> None:
    engine.register(send_link)
    with pytest.raises(InvalidEventError, match="the server emits it itself"):
        engine.ask(lambda service: service.emit_event("hopline.approval_requested", "k", b"{}"))
