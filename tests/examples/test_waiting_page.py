"""The programs of docs/waiting.md, run on the engine in virtual time."""

import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hopline.testing import Engine
from tests.packaging.test_docs import BLOCK, ROOT

FARM = "https://farm.example.com"
CHAT = "https://chat.example.com"


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """Returns the names of the program of the page that has a workflow."""
    page = (ROOT / "docs" / "waiting.md").read_text()

    def names_of(workflow: str) -> dict[str, Any]:
        (body,) = [match["body"] for match in BLOCK.finditer(page) if f"def {workflow}(" in match["body"]]
        file = tmp_path / f"{workflow}.py"
        file.write_text(body)
        return runpy.run_path(str(file))

    return names_of


def test_reminders_come_when_the_invoice_is_due_and_two_days_later(engine: Engine, program: Any) -> None:
    run = engine.start(program("collect")["collect"], "7")
    engine.advance(f"{(datetime(2027, 1, 30, 23, tzinfo=UTC) - engine.now).days}d")
    assert run.step("remind").state == "pending"
    engine.advance("2d")
    assert (run.step("remind").state, run.step("remind_2").state) == ("succeeded", "pending")
    engine.advance("2d")
    assert run.state == "succeeded"


def test_film_is_made_of_two_answers_that_take_long(engine: Engine, program: Any) -> None:
    engine.server(FARM).post("/convert").reply(200, "taken")
    run = engine.start(program("film")["film"], "a.mov")
    assert run.step("first_frame").state == "waiting"
    engine.callback(run.step("first_frame"), "a.png")
    assert run.step("convert").state == "waiting", "an answer of success only means that the order has arrived"
    engine.callback(run.step("convert"), "a.mp4")
    assert run.result() == "a.mp4"


def test_tables_are_copied_by_a_step_that_says_how_far_it_is(engine: Engine, program: Any) -> None:
    run = engine.start(program("nightly")["nightly"], ["orders", "customers"])
    assert run.result() == 2


def test_folder_is_imported_once_its_upload_is_done(engine: Engine, program: Any, tmp_path: Path) -> None:
    (folder := tmp_path / "upload").mkdir()
    run = engine.start(program("import_folder")["import_folder"], str(folder))
    engine.advance("1h")
    assert run.step("uploaded").state == "scheduled"
    (folder / "done").touch()
    engine.advance("30s")
    assert run.result() == 1


def test_order_is_placed_and_its_parcel_scanned_in_either_order(engine: Engine, program: Any) -> None:
    names = program("fulfil")
    engine.register(names["fulfil"])
    (first,) = engine.emit(names["placed"], names["Order"](id="7"), key="7")
    engine.emit(names["scanned"], names["Scan"](tracking="t7", place="Bonn"), key="t7")
    engine.emit(names["scanned"], names["Scan"](tracking="t8", place="Kiel"), key="t8")
    (second,) = engine.emit(names["placed"], names["Order"](id="8"), key="8")
    assert (first.result(), second.result()) == ("Bonn", "Kiel")
    assert engine.emit(names["placed"], names["Order"](id="7"), key="7") == [], "of each key there is one run"


def test_article_is_decided_by_a_person_who_is_sent_the_link(engine: Engine, program: Any) -> None:
    chat = engine.server(CHAT)
    chat.post("/hook").reply(200)
    engine.register(program("send_link")["send_link"])
    names = program("article")
    run = engine.start(names["article"], "ants")
    engine.settle()
    (sent,) = chat.requests
    assert sent.json["text"].startswith("Publish this? A text about ants. http")
    engine.approve(run.step("approval"), form=names["Review"](reason="well written"), by="Ada")
    assert run.result() == "Ada: well written"
