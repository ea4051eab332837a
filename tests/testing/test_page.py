"""The tests on pages of the documentation pass."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.test_docs import BLOCK, ROOT
from tests.testing.test_engine_fixture import plug_in_arguments


@pytest.mark.parametrize(("page", "count"), [("testing", 4), ("results", 1), ("secrets", 1)])
def test_tests_of_the_page_pass(page: str, count: int, tmp_path: Path) -> None:
    blocks = [match["body"] for match in BLOCK.finditer((ROOT / "docs" / f"{page}.md").read_text())]
    programs = [body for body in blocks if "def test_" in body]
    (tmp_path / "test_page.py").write_text("\n".join(programs))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plug_in_arguments(), "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{count} passed" in done.stdout, done.stdout
