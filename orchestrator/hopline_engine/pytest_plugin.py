"""The pytest plug-in: the fixture ``engine``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hopline_engine.testing import Engine


@pytest.fixture
def engine(tmp_path: Path) -> "Iterator[Engine]":
    """Give a test an engine of its own, in virtual time; see ``hopline.testing``."""
    from hopline_engine import testing  # not before a test asks for it: pytest loads this wherever Hopline is

    opened = testing.Engine(tmp_path / "hopline")
    try:
        yield opened
    finally:
        opened.close()
