"""The folder report: its steps as functions, the workflow as a function, and a real run."""

import hashlib
from pathlib import Path

import pytest

from examples.folder_report import FileFacts, WordCount, add_up, folder_report, list_files, read_file, write_report
from hopline import Fail
from hopline.testing import stub
from tests.examples.conftest import EXAMPLES, Hopline

TEXT = "Winter is coming.\nwinter, WINTER; snow-snow at 8\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a text, a picture and things that nobody wants in a report."""
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "winter.txt").write_text(TEXT)
    (folder / "deep" / "picture.png").write_bytes(b"\x89PNG\0\xff")
    (folder / "deep" / "latin.txt").write_bytes("Käse".encode("latin-1"))
    (folder / ".git" / "config").write_text("hidden")
    return folder


def test_files_are_listed_in_order_without_hidden_ones(folder: Path) -> None:
    listing = list_files(str(folder), "report.md")
    assert listing.files == ["deep/latin.txt", "deep/picture.png", "winter.txt"]
    assert listing.left_out == 0


def test_earlier_report_is_not_read(folder: Path) -> None:
    (folder / "report.md").write_text("# yesterday")
    assert "report.md" not in list_files(str(folder), str(folder / "report.md")).files


def test_files_beyond_the_cap_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.folder_report.MAX_FILES", 1)
    monkeypatch.setattr("examples.folder_report.MAX_BYTES", 10)
    listing = list_files(str(folder), "report.md")
    assert listing.files == ["deep/latin.txt"]
    assert listing.left_out == 2


def test_broken_link_is_left_out(folder: Path) -> None:
    (folder / "gone").symlink_to(folder / "nowhere")
    assert list_files(str(folder), "report.md").left_out == 1


def test_missing_folder_fails_without_retry(tmp_path: Path) -> None:
    with pytest.raises(Fail, match="is not a folder"):
        list_files(str(tmp_path / "nowhere"), "report.md")


def test_words_are_counted_without_regard_to_case(folder: Path) -> None:
    facts = read_file("winter.txt", str(folder))
    assert (facts.lines, facts.words) == (2, 8)
    assert facts.frequent == [WordCount("winter", 3), WordCount("snow", 2), WordCount("coming", 1)]
    assert facts.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.mark.parametrize("name", ["deep/picture.png", "deep/latin.txt"])
def test_file_that_is_not_utf8_has_a_hash_and_no_words(folder: Path, name: str) -> None:
    facts = read_file(name, str(folder))
    assert not facts.is_text
    assert (facts.lines, facts.words, facts.frequent) == (0, 0, [])
    assert len(facts.sha256) == 64


def test_word_of_a_megabyte_is_no_word(folder: Path) -> None:
    (folder / "blob.txt").write_text("x" * 1_000_000)
    assert read_file("blob.txt", str(folder)).frequent == []


def test_empty_folder_gives_an_empty_report(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    report = folder_report(str(tmp_path / "empty"), str(tmp_path / "report.md"))
    assert (report.summary.files, report.summary.words, report.summary.frequent) == (0, 0, [])
    assert "0 files" in Path(report.path).read_text()


def test_workflow_as_a_function_writes_the_page(folder: Path, tmp_path: Path) -> None:
    report = folder_report(str(folder), str(tmp_path / "report.md"), top=1)
    page = (tmp_path / "report.md").read_text()
    assert report.summary.frequent == [WordCount("winter", 3)]
    assert "| winter.txt | 2 | 8 |" in page
    assert "| deep/picture.png | binary |" in page


def test_steps_can_be_stubbed(tmp_path: Path) -> None:
    listing = list_files(str(tmp_path), "report.md")
    facts = FileFacts(path="a", sha256="0" * 64, is_text=True, lines=1, words=2, frequent=[WordCount("word", 2)])
    listing.files.extend(["a", "b"])
    with stub(list_files, listing), stub(read_file, facts) as read:
        summary = folder_report("anywhere", str(tmp_path / "report.md")).summary
    assert [call["path"] for call in read.calls] == ["a", "b"]
    assert (summary.lines, summary.words, summary.frequent) == (2, 4, [WordCount("word", 4)])


def test_compiles_to_four_steps_with_the_reading_mapped() -> None:
    definition = folder_report.compile()
    assert set(definition.graph.edges) == {
        ("list_files", "read_file"),
        ("list_files", "add_up"),
        ("read_file", "add_up"),
        ("read_file", "write_report"),
        ("add_up", "write_report"),
    }
    assert definition.nodes["read_file"].over == "path"
    assert {add_up.name, write_report.name} <= set(definition.nodes)


def test_runs_on_a_folder(hopline: Hopline, folder: Path) -> None:
    run = hopline.run(EXAMPLES / "folder_report.py", f"folder={folder}", "top=2")
    assert run["state"] == "succeeded"
    assert run["result"]["path"] == str(hopline.folder / "report.md")
    assert run["result"]["summary"]["text_files"] == 1
    assert run["result"]["summary"]["frequent"] == [{"word": "winter", "times": 3}, {"word": "snow", "times": 2}]
    assert "| winter.txt | 2 | 8 |" in (hopline.folder / "report.md").read_text()


def test_run_on_a_missing_folder_says_so(hopline: Hopline) -> None:
    done = hopline.call("run", str(EXAMPLES / "folder_report.py"), "folder=nowhere", code=3)
    assert "is not a folder" in done.stderr
