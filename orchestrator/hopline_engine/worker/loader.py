"""Finds the workflows and steps in users' files and compiles the workflows.

The only place where users' files come in; it runs in the worker's process (or in the one of ``worker.check``), never in
the engine's.
"""

import hashlib
import importlib
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from hopline import Definition, Step, Workflow
from hopline.errors import DefinitionError
from hopline.source import Location, of_function
from hopline_engine.worker.modules import add_to_search_path, import_file, taken_from_other_folders, time_limit
from hopline_engine.worker.problems import LoadError, of_definition, of_import

IMPORT_SECONDS = 60.0
"""How long one file may take to be imported."""
FILE_MAX_BYTES = 5_000_000
SERVED = frozenset({"python", "dynamic"})
"""Kinds of steps that are run by a worker; the others are the engine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWorkflow:
    """A workflow that was found and compiled, and where."""

    workflow: "Workflow[..., Any]"
    definition: Definition
    file: str
    line: int


@dataclass(slots=True)
class Loaded:
    """What was found in users' files. With errors, the rest is what could be loaded in spite of them."""

    workflows: dict[str, LoadedWorkflow] = field(default_factory=dict)
    steps: dict[str, "Step[..., Any]"] = field(default_factory=dict)
    """What the worker runs, by name: Python steps, and dynamic workflows, which it traces."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file that was named, in hexadecimal, by its absolute path."""
    errors: list[LoadError] = field(default_factory=list)

    def definitions(self) -> list[Definition]:
        """Return the definitions of all workflows and of those they call, each once."""
        found: dict[str, Definition] = {}
        for loaded in self.workflows.values():
            found |= {child.digest: child for child in loaded.definition.children.values()}
            found[loaded.definition.digest] = loaded.definition
        return list(found.values())


def load(paths: Sequence[str], *, import_seconds: float = IMPORT_SECONDS) -> Loaded:
    """Import the files that *paths* name and return what is in them. Never raises for what users wrote.

    A path is a file, a folder (its ``*.py`` files that mention hopline, tests left out), or ``FILE:WORKFLOW``.
    Importing is not undone: modules and the module search path stay.
    """
    importlib.invalidate_caches()
    add_to_search_path(Path.cwd())
    loading = _Loading(import_seconds)
    for file in _files(paths, loading.loaded.errors):
        loading.add(file)
    loading.add_steps_of_imported_modules()
    return loading.loaded


class _Loading:
    """One call of ``load``: what was found so far."""

    def __init__(self, import_seconds: float) -> None:
        self.loaded = Loaded()
        self._import_seconds = import_seconds
        self._places: dict[tuple[type, str], Location] = {}
        self._folders: set[Path] = set()

    def add(self, file: Path) -> None:
        """Import *file* and add what it defines."""
        add_to_search_path(file.parent)
        try:
            # Read before it is imported: should it change in between, it is not taken for what it is now.
            self.loaded.files[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
            with time_limit(self._import_seconds):
                module = import_file(file)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt at import included
            self.loaded.errors.append(of_import(error, file))
            return
        self.loaded.errors += taken_from_other_folders(file, self._folders)
        self._folders.add(file.parent)
        found = _steps_in(module)
        if not found:
            hint = "decorate a function with @workflow (from hopline import workflow)"
            self.loaded.errors.append(
                LoadError(code="no-workflow", message="the file has no workflow and no step", file=str(file), hint=hint)
            )
        for value in found:
            if isinstance(value, Workflow):
                self._add_workflow(value)
            if value.kind in SERVED:
                self._add_step(value)

    def add_steps_of_imported_modules(self) -> None:
        """Add the steps that workflows use without having their names, as in ``import lib; lib.totals(...)``."""
        missing = self._missing_steps()
        if missing:
            for module in list(sys.modules.values()):
                for step in _steps_in(module):
                    if step.kind in SERVED and (step.name, step.signature) in missing:
                        self._add_step(step)
            missing = self._missing_steps()
        for (name, _), workflow in missing.items():
            self.loaded.errors.append(
                LoadError(
                    code="step-not-found",
                    message=f"step {name!r} of {workflow.workflow.name!r} is not at the top level of any module",
                    file=workflow.file,
                    line=workflow.line,
                    hint="the worker finds steps by name: define it in a file, not in a function or a class, "
                    "with @step above all other decorators",
                )
            )

    def _missing_steps(self) -> dict[tuple[str, str], LoadedWorkflow]:
        served = {(step.name, step.signature) for step in self.loaded.steps.values()}
        return {
            (node.step, node.signature): workflow
            for workflow in self.loaded.workflows.values()
            for definition in (workflow.definition, *workflow.definition.children.values())
            for node in definition.nodes.values()
            if node.unit_kind in SERVED and (node.step, node.signature) not in served
        }

    def _add_workflow(self, workflow: "Workflow[..., Any]") -> None:
        if not self._is_new(Workflow, workflow):
            return
        place = of_function(workflow.fn)
        try:
            with time_limit(self._import_seconds):
                definition = workflow.compile()
        except BaseException as error:  # noqa: BLE001 - the body is users' code
            self._note(of_definition(error, Path(place.file)))
            return
        self.loaded.workflows[workflow.name] = LoadedWorkflow(
            workflow=workflow, definition=definition, file=place.file, line=place.line
        )

    def _add_step(self, step: "Step[..., Any]") -> None:
        if not self._is_new(Step, step):
            return
        try:
            step.signature  # noqa: B018 - computed now: it fails when a type has no JSON schema
        except DefinitionError as error:
            self._note(of_definition(error, Path(of_function(step.fn).file)))
        else:
            self.loaded.steps[step.name] = step

    def _is_new(self, kind: type, found: "Step[..., Any]") -> bool:
        """Return whether *found* was not seen before; another function of the same name is an error."""
        place = of_function(found.fn)
        first = self._places.setdefault((kind, found.name), place)
        if first != place:
            message = f"{kind.__name__.lower()} {found.name!r} is also defined in {first}"
            hint = "names are shared by all files of a worker: rename one of the two functions"
            self._note(LoadError(code="duplicate-name", message=message, file=place.file, line=place.line, hint=hint))
        return first is place

    def _note(self, error: LoadError) -> None:
        """Add *error* once: what is wrong with a step is found again in each workflow that calls it."""
        if error not in self.loaded.errors:
            self.loaded.errors.append(error)


def _steps_in(module: ModuleType | None) -> list["Step[..., Any]"]:
    # By type() and not by isinstance(), which asks the value for its class: proxies of other libraries may object.
    names: dict[str, Any] = getattr(module, "__dict__", {})  # ``None`` stands for a module that is not to be imported
    return [value for value in list(names.values()) if issubclass(type(value), Step)]


def _files(paths: Iterable[str], errors: list[LoadError]) -> list[Path]:
    """Return the files that *paths* name, each once, and note what is wrong with the paths."""
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(os.path.abspath(text))  # noqa: PTH100 - resolve() would put symlinks' targets into messages
        if not path.exists() and ":" in text:
            path = Path(os.path.abspath(text.rpartition(":")[0]))  # noqa: PTH100
        if path.is_dir():
            files = _files_of_folder(path)
            if not files:
                message, hint = "no file of the folder mentions hopline", "name the file itself"
                errors.append(LoadError(code="no-workflow", message=message, file=str(path), hint=hint))
            found |= dict.fromkeys(files)
        elif (error := _unreadable(path)) is not None:
            errors.append(error)
        else:
            found[path] = None
    return list(found)


def _files_of_folder(folder: Path) -> list[Path]:
    # Files that do not mention hopline are not imported: a folder may hold scripts that do things when imported.
    return [
        file
        for file in sorted(folder.glob("*.py"))
        if not _is_left_out(file.name) and _unreadable(file) is None and b"hopline" in file.read_bytes()
    ]


def _is_left_out(name: str) -> bool:
    return name.startswith((".", "__", "test_")) or name.endswith("_test.py") or name in {"conftest.py", "setup.py"}


def _unreadable(path: Path) -> LoadError | None:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and path.suffix == ".py" and status.st_size <= FILE_MAX_BYTES:
            path.open("rb").close()
            return None
    except FileNotFoundError:
        hint = f"the path is relative to {Path.cwd()}"
        return LoadError(code="file-not-found", message="there is no such file", file=str(path), hint=hint)
    except OSError as error:
        return LoadError(code="file-not-found", message=error.strerror or str(error), file=str(path))
    message = f"not a Python file: a regular file called *.py of at most {FILE_MAX_BYTES} bytes"
    return LoadError(code="not-python", message=message, file=str(path))
