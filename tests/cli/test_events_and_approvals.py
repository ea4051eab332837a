"""``hopline events`` and ``hopline approvals``."""

import json
from pathlib import Path
from typing import Any

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli
from tests.cli.fake_api import FakeApi, a_run, a_step

EVENT = {"name": "parcel.scanned", "key": "t1", "payload": {"place": "Bonn"}, "emitted_at": "2026-11-21T09:00:00.000Z"}
RUN = "r_7h2kq9m3xa"
FORM = {"$ref": "#/$defs/Why", "$defs": {"Why": {"properties": {"reason": {"type": "string"}}}}}
ASKED: dict[str, Any] = {
    "run": RUN, "workflow": "publish", "step": "approval", "prompt": "Publish it?", "to": ["ada@example.com"],
    "state": "open", "asked_at": "2026-11-21T09:00:00.000Z", "expires_at": None, "by": None, "decided_at": None,
    "form": None, "link": "http://127.0.0.1/page", "form_schema": FORM,
}  # fmt: skip
ASKING = a_run(RUN, "running", a_step("approval", "waiting", kind="approval"))


def test_event_is_emitted_with_its_key_and_begun_runs_are_printed(api: FakeApi, cli: Cli) -> None:
    api.answer("POST", "/events", EVENT | {"created": True, "runs": [RUN]}, 201)
    said = cli("events", "emit", "parcel.scanned", "--key", "t1", '{"place": "Bonn"}')
    assert (said.code, said.out) == (0, f"{RUN}\n")
    assert "emitted parcel.scanned with the key t1; it began 1 run" in said.err
    assert api.asked_for("POST", "/events") == [{"name": "parcel.scanned", "key": "t1", "payload": {"place": "Bonn"}}]


def test_event_that_was_emitted_before_is_told(api: FakeApi, cli: Cli, folder: Path) -> None:
    (folder / "scan.json").write_text('{"place": "Kiel"}')
    api.answer("POST", "/events", EVENT | {"created": False, "runs": []})
    assert "the first one is kept" in cli("event", "emit", "parcel.scanned", "--key", "t1", "@scan.json").err
    assert api.asked_for("POST", "/events")[0]["payload"] == {"place": "Kiel"}


@pytest.mark.parametrize(
    "words",
    [
        ["n"], ["n", "--key", "k", "{"], ["n", "--key", "k", "@missing.json"], ["n", "--key", "k", "NaN"],
        ["n", "--key", "k", '{"most": 1e999}'], ["n", "--key", "k", '"\\ud800"'], ["n", "--key", "\udcff"],
    ],
)  # fmt: skip
def test_event_without_key_or_json_is_refused(api: FakeApi, cli: Cli, words: list[str]) -> None:
    assert cli("events", "emit", *words).code == ExitCode.USAGE
    assert api.asked_for("POST", "/events") == []


def test_events_are_listed(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/events", {"events": [EVENT]})
    line = cli("events", "list").out.splitlines()[1]
    assert line.split(maxsplit=3)[:2] == ["parcel.scanned", "t1"]
    assert '{"place": "Bonn"}' in line
    assert json.loads(cli("events", "list", "--json").out) == [EVENT]


def test_approvals_are_listed_and_shown_with_their_link(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/approvals", {"approvals": [ASKED]})
    api.answer("GET", f"/runs/{RUN}", ASKING)
    api.answer("GET", f"/approvals/{RUN}/approval", ASKED)
    assert "Publish it?" in cli("approvals", "list").out
    shown = cli("approvals", "show", RUN).out.splitlines()
    assert shown[0] == "Publish it?"
    assert shown[-2:] == ["form with the fields reason", "http://127.0.0.1/page"]


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["approvals", "approve", RUN, "--form", '{"reason": "x"}', "--by", "Ada"], (True, {"reason": "x"})),
        (["runs", "approve", RUN, "--form", '{"reason": "x"}', "--by", "Ada"], (True, {"reason": "x"})),
        (["approvals", "reject", RUN, "--by", "Ada"], (False, None)),
    ],
)
def test_decision_is_sent_with_who_made_it(api: FakeApi, cli: Cli, words: list[str], sent: tuple[bool, Any]) -> None:
    api.answer("GET", f"/runs/{RUN}", ASKING)
    api.answer("POST", f"/approvals/{RUN}/approval", ASKED | {"state": "approved" if sent[0] else "rejected"})
    said = cli(*words)
    assert said.code == 0
    assert f"{'approved' if sent[0] else 'rejected'} approval of run {RUN}, as Ada" in said.err
    assert api.asked_for("POST", f"/approvals/{RUN}/approval") == [{"approved": sent[0], "form": sent[1], "by": "Ada"}]


def test_run_that_asks_nobody_or_several_is_told(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", f"/runs/{RUN}", a_run(RUN, "running", a_step("work", "running")))
    assert "asks nobody" in cli("approvals", "approve", RUN).err
    two = [a_step(name, "waiting", kind="approval") for name in ("approval", "approval_2")]
    api.answer("GET", f"/runs/{RUN}", a_run(RUN, "running", *two))
    said = cli("approvals", "reject", RUN)
    assert (said.code, "approval, approval_2" in said.err) == (ExitCode.USAGE, True)
