"""The documentation stays true: commands exist with the options shown, links lead somewhere, programs work."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hopline import Workflow
from tests.cli.conftest import Cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _commands(text: str) -> Iterator[str]:
    """Yield each call of ``hopline`` in code, without prompt, variables, pipes and redirections."""
    blocks = [match["body"] for match in BLOCK.finditer(text) if match["language"] in {"sh", "console"}]
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines() + SPAN.findall(BLOCK.sub("", text)):
        for part in re.split(r"&&|\|\||[|>;]", line.split("  #")[0]):
            words = part.removeprefix("$ ").split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words and Path(words[0]).name == "hopline":
                yield " ".join(words[1:])


PROGRAMS = [m["body"] for page in PAGES for m in BLOCK.finditer(page.read_text()) if "@workflow\n" in m["body"]]
COMMANDS = sorted({command for page in PAGES for command in _commands(page.read_text())})


@pytest.mark.parametrize("command", COMMANDS)
def test_command_in_documentation_exists(cli: Cli, command: str) -> None:
    """``--help`` at the end makes the command parse its options and stop before it does anything."""
    arguments = [word for word in shlex.split(command) if word != "--"]
    done = cli(*arguments, "--help")
    assert done.code == 0, done.err


def test_documentation_shows_commands() -> None:
    """Guards the parser above: if it found nothing, every test here would pass."""
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    broken = [link for link in LINK.findall(BLOCK.sub("", page.read_text())) if not _resolves(page, link)]
    assert broken == []


def _resolves(page: Path, link: str) -> bool:
    if re.match(r"https?://", link):
        return True
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in {_slug(title) for title in HEADING.findall(target.read_text())})


def _slug(title: str) -> str:
    """Return the anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = [match["body"].strip() for match in BLOCK.finditer((ROOT / "README.md").read_text())]
    (tests,) = [command for command in commands if "/pytest " in command]
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith(tests)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_in_documentation_compiles(program: str, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(program)
    found = [value for value in runpy.run_path(str(file)).values() if isinstance(value, Workflow)]
    assert [workflow.compile().digest for workflow in found]


def test_program_in_readme_counts_words(tmp_path: Path) -> None:
    file = tmp_path / "words.py"
    file.write_text(PROGRAMS[0])
    words = runpy.run_path(str(file))["words"]
    assert words([str(file), str(file)]) == 2 * len(PROGRAMS[0].split())
