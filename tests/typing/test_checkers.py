"""mypy --strict and basedpyright accept correct workflows, and refuse wrong ones at the marked lines alone."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RIGHT, WRONG = HERE / "right_wirings.py", HERE / "wrong_wirings.py"
SOURCES = [str(ROOT / folder) for folder in ("workflows", "orchestrator", "cli")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def marked(checker: str) -> list[int]:
    lines = enumerate(WRONG.read_text().splitlines(), start=1)
    marks = ((line, re.search(r"# E: ([\w,]+)$", text)) for line, text in lines)
    return [line for line, mark in marks if mark and checker in mark[1].split(",")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the checkers keep what they learned of the sources: that is the same for both files."""
    return tmp_path_factory.mktemp("checkers")


def said_by_mypy(file: Path, cache: Path) -> Iterator[tuple[int, str]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    where = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache), str(file)]
    finished = subprocess.run([*command, *where], capture_output=True, text=True, cwd=ROOT, check=False)
    assert not finished.stderr, finished.stderr
    for text in finished.stdout.splitlines():
        found = re.fullmatch(r"(?P<file>.+?):(?P<line>\d+): error: (?P<message>.*)", text)
        if found:
            assert Path(found["file"]).name == file.name, text
            yield int(found["line"]), found["message"]


def said_by_pyright(file: Path, folder: Path) -> Iterator[tuple[int, str]]:
    # The project's own configuration leaves the wrong file out.
    project = {"include": [str(file)], "extraPaths": SOURCES, "pythonVersion": "3.11", "typeCheckingMode": "standard"}
    config = folder / "pyrightconfig.json"
    config.write_text(json.dumps(project))
    finished = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(config), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    report = json.loads(finished.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, finished.stdout
    for one in report["generalDiagnostics"]:
        assert Path(one["file"]).name == file.name, one
        yield one["range"]["start"]["line"] + 1, one["message"]


SAID = {"mypy": said_by_mypy, "pyright": said_by_pyright}


@pytest.mark.parametrize("checker", SAID)
def test_checker_has_nothing_to_say_about_correct_workflows(checker: str, folder: Path) -> None:
    assert list(SAID[checker](RIGHT, folder)) == []


@pytest.mark.parametrize("checker", SAID)
def test_checker_refuses_exactly_the_marked_lines(checker: str, folder: Path) -> None:
    said = dict(SAID[checker](WRONG, folder))
    expected = marked(checker)
    assert expected
    assert {line: said[line] for line in said if line not in expected} == {}
    assert [line for line in expected if line not in said] == []
