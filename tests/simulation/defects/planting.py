"""Plants a defect: one place of the engine's source is another one when it is imported.

For a process that has not imported the engine yet. What is replaced must stand in the source exactly once, so that a
defect cannot rot unseen.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType

from tests.simulation.defects.defect import Defect


class RottenDefectError(Exception):
    """A defect does not fit the source any more."""


def spoiled(defect: Defect, source: str) -> str:
    """Return a source with the defect in it.

    Raises:
        RottenDefectError: what it replaces is not there, or more than once.
    """
    times = source.count(defect.old)
    if times != 1:
        raise RottenDefectError(f"{defect.name}: its text stands {times} times in {defect.module}: {defect.old!r}")
    return source.replace(defect.old, defect.new)


def source_of(defect: Defect) -> str:
    """Return the source of the module that a defect is for."""
    spec = find_spec(defect.module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def plant(defect: Defect) -> None:
    """Have the defect in the engine that this process imports from now on."""
    assert not any(name.split(".")[0] == "hopline_engine" for name in sys.modules), "the engine is imported already"
    sys.meta_path.insert(0, _Finder(defect))


class _Finder(MetaPathFinder):
    def __init__(self, defect: Defect) -> None:
        self._defect = defect

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._defect.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self._defect)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, defect: Defect) -> None:
        super().__init__(name, path)
        self._defect = defect

    def get_code(self, fullname: str) -> CodeType:
        """Return the code with the defect; never the compiled file of the right one."""
        path = self.get_filename(fullname)
        return compile(spoiled(self._defect, self.get_data(path).decode()), path, "exec", dont_inherit=True)
