"""What docs/changing-workflows.md says of its example, done with it by command."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Start, developing, save
from tests.packaging.test_docs import BLOCK, ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)  # a dozen commands, each a process

PAGE = (ROOT / "docs" / "changing-workflows.md").read_text()


def test_page_tells_what_commands_print(folder: Path, start: Start, hopline: Cli) -> None:
    (program,) = [match["body"] for match in BLOCK.finditer(PAGE) if match["language"] == "python"]
    (file := folder / "flows" / "squares.py").parent.mkdir()
    file.write_text(program)
    dev = developing(start, "flows")
    (first,) = hopline("workflows", "versions", "squares", "-q").out.split()
    hopline("queues", "pause", "default")
    run = hopline("run", "squares", "count=3", "--detach").out.strip()

    save(file, "# squares\n" + program.replace("number * number", "number ** 2"))
    dev.wait_for("loaded again")
    assert hopline("workflows", "versions", "squares", "-q").out.split() == [first], "no new version"

    save(file, program.replace("Retry(3)", "Retry(5)"))
    dev.wait_for("loaded again", count=2)
    _, old = hopline("workflows", "versions", "squares", "-q").out.split()
    assert old == first
    told = hopline("workflows", "diff", f"squares@{old[:6]}", "squares").out
    assert told in PAGE
    assert re.search(r"3 → 5", told)

    save(file, program.replace("squares: list[int]) -> int", "squares: list[int], extra: int = 0) -> int"))
    dev.wait_for("loaded again", count=3)
    checked = hopline("workflows", "check", "flows/", "--against", "live", code=1)
    assert f"step total has another signature now; 1 live run needs it: {run}" in checked.out
    (hint,) = re.findall(r"hint: (keep a worker .+)", PAGE)
    assert hint in checked.out

    hopline("queues", "resume", "default")
    (waits,) = re.findall(r"^total waits: .+\n.+(?=\n```)", PAGE, re.MULTILINE)
    eventually(lambda: hopline("runs", "why", run, "total").out.split() == waits.split(), "total waits for a worker")
    (folder / "kept.py").write_text(program)
    start("worker", "kept.py")
    assert hopline("runs", "watch", run).out == "5\n"
