"""Thumbnails: plainly, on the engine in virtual time, and for real against the stand-in for the farm."""

import json
import sys
from pathlib import Path
from urllib.request import Request

import pytest

from examples.thumbnails import workflow
from examples.thumbnails.workflow import (
    DONE,
    Album,
    Summary,
    Thumb,
    album_job,
    first_frame,
    nightly,
    one,
    resize,
    upload_finished,
)
from hopline.testing import Engine, stub
from tests.examples.conftest import EXAMPLES, served, service

FILE = EXAMPLES / "thumbnails" / "workflow.py"


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with a picture, an empty one and a film, whose upload is not finished."""
    folder = tmp_path / "album"
    folder.mkdir()
    for name, content in {"a.jpg": "picture", "b.jpg": "", "c.mov": "film"}.items():
        (folder / name).write_text(content)
    return folder


def test_steps_are_functions(album: Path) -> None:
    assert resize(str(album / "a.jpg"), 2) == Thumb(file="a.jpg", width=2)
    with pytest.raises(ValueError, match=r"b\.jpg is empty"):
        resize(str(album / "b.jpg"), 2)


def test_one_bad_picture_does_not_sink_the_album() -> None:
    def flaky(file: str, width: int) -> Thumb:
        if file == "b.jpg":
            raise OSError("broken")
        return Thumb(file=file, width=width)

    with stub(upload_finished, Album(files=["a.jpg", "b.jpg"])), stub(resize, calls=flaky):
        assert album_job("folder", "farm") == Summary(made=["a.jpg"], failed=1)


def test_film_goes_through_the_farm() -> None:
    def made(file: str, width: int) -> Thumb:
        return Thumb(file=file, width=width)

    albums = stub(upload_finished, Album(files=["a.jpg", "b.mov"]))
    with albums, stub(resize, calls=made), stub(first_frame, "b.png") as farm:
        assert nightly(["1"], "farm") == [Summary(made=["a.jpg", "b.png"], failed=0)]
    assert farm.calls == [{"film": "b.mov", "farm": "farm"}]


def test_graphs() -> None:
    definition = album_job.compile()
    assert list(definition.graph.edges) == [("upload_finished", "one"), ("one", "count")]
    assert definition.nodes["one"].over == "file"
    assert nightly.compile().nodes["album_job"].over == "folder"
    assert one.compile().nodes.keys() == {"one"}


def test_on_the_engine_the_sensor_waits_and_the_farm_calls_back(
    engine: Engine, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered: list[Request] = []

    class Taken:
        def close(self) -> None:
            """Say nothing more."""

    def order(request: Request) -> Taken:
        ordered.append(request)
        return Taken()

    monkeypatch.setattr(workflow, "urlopen", order)
    run = engine.start(album_job, str(album), "https://farm.example.com")
    engine.advance("1h")
    assert run.step("upload_finished").state not in {"succeeded", "failed"}
    (album / DONE).touch()
    engine.advance("3s")
    (film,) = [graph for graph in run.runs("one") if graph.state == "running"]
    engine.callback(film.step("first_frame"), "c.frame")
    engine.advance("1s")
    assert run.result() == Summary(made=["a.jpg", "c.frame"], failed=1)


def test_album_is_made_under_hopline_dev(tmp_path: Path, album: Path) -> None:
    (album / DONE).touch()
    with (
        service(sys.executable, str(EXAMPLES / "thumbnails" / "farm.py"), "0") as farm,
        served(tmp_path, FILE, environment={}) as hopline,
    ):
        made = hopline.call("run", "album_job", f"folder={album}", f"farm={farm}")
    assert json.loads(made.stdout) == {"made": ["a.jpg", "c.mov.frame"], "failed": 1}
