"""The tests of ``docs/testing.md`` pass."""

import subprocess
import sys
from pathlib import Path

from tests.packaging.test_docs import BLOCK, ROOT
from tests.testing.test_engine_fixture import plug_in_arguments


def test_tests_of_the_page_pass(tmp_path: Path) -> None:
    blocks = [match["body"] for match in BLOCK.finditer((ROOT / "docs" / "testing.md").read_text())]
    programs = [body for body in blocks if "def test_" in body]
    assert len(programs) == 3
    (tmp_path / "test_page.py").write_text("\n".join(programs))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plug_in_arguments(), "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout
