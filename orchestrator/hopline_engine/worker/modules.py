"""Imports one user's file by its path, as ``python file.py`` would see the world.

Its folder and the working directory can be imported from. Unlike there, the standard library comes first, so that a
user's file called ``queue.py`` takes nothing away from anybody.
"""

import ast
import contextlib
import importlib.util
import linecache
import os
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType

from hopline_engine.worker.problems import LoadError, TookTooLong


def import_file(file: Path) -> ModuleType:
    """Import *file*, or return its module when another file imported it already."""
    name = _module_name(file)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file, loader=_FromSource(name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    for other in set(sys.modules) - before | {name}:
        _keep_source(sys.modules[other], file.parent)
    return module


def _keep_source(module: ModuleType, folder: Path) -> None:
    """Let tracebacks show the lines that run here, whatever is in the file of *module* later, when it was edited."""
    path = getattr(module, "__file__", None)
    if isinstance(path, str) and Path(path).parent == folder and (lines := linecache.getlines(path)):
        linecache.cache[path] = (sum(map(len, lines)), None, lines, path)  # without a time it is never read again


class _FromSource(SourceFileLoader):
    """Compiles the file each time: a bytecode cache tells versions apart by second and size, too coarse for edits."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _module_name(file: Path) -> str:
    """Return the name under which other files would import *file*, or one of its own when that finds something else.

    The folder does not enter: names of users' exception classes are part of a definition, which is the same everywhere.
    """
    if file.stem.isidentifier() and _is_file_of(file, _spec(file.stem)):
        return file.stem
    name, number = f"hopline_file_{file.stem}", 1
    while (module := sys.modules.get(name)) is not None and not _is_file_of(file, module.__spec__):
        number += 1
        name = f"hopline_file_{file.stem}_{number}"
    return name


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module in memory that was not imported from anywhere, such as __main__
        return None


def _is_file_of(file: Path, spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.origin is not None and spec.has_location and _same(file, Path(spec.origin))


def _same(one: Path, other: Path) -> bool:
    return one == other or (other.exists() and one.samefile(other))


def taken_from_other_folders(file: Path, folders: set[Path]) -> list[LoadError]:
    """Return an error for each import in *file* that got a module of another folder instead of its own neighbour."""
    errors = []
    for name, line in _imported_names(file):
        origin = getattr(sys.modules.get(name), "__file__", None)
        neighbour = file.parent / f"{name}.py"
        if origin and Path(origin).parent in folders and neighbour.is_file() and not _same(neighbour, Path(origin)):
            message = f"{name!r} was imported from {origin}, not from this folder"
            hint = "start one worker for each folder, or rename one of the two files"
            errors.append(LoadError(code="module-conflict", message=message, file=str(file), line=line, hint=hint))
    return errors


def _imported_names(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def add_to_search_path(folder: Path) -> None:
    """Let modules of *folder* be imported, after the standard library and before what is installed."""
    if str(folder) not in sys.path:
        library = Path(os.__file__).parent
        positions = [i for i, entry in enumerate(sys.path) if Path(entry) in {library, library / "lib-dynload"}]
        sys.path.insert(max(positions, default=-1) + 1, str(folder))


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TookTooLong`` in what runs inside after *seconds*; only in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"loading the file took over {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, stop)
    # Repeated, in case the file catches everything; the alarm of whoever set one before is put back.
    before = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)
