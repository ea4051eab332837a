"""What can be wrong with a user's file, as data: a code, a message, the place, and what to do."""

import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hopline.errors import DefinitionError
from hopline.hints import misuse_hint


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadError:
    """One thing that keeps users' files from being served."""

    code: str
    """``file-not-found``, ``not-python``, ``syntax-error``, ``import-error``, ``load-timeout``, ``definition-error``,
    ``duplicate-name``, ``module-conflict`` or ``no-workflow``."""
    message: str
    file: str | None = None
    line: int | None = None
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the error as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        place = "" if self.file is None else self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{place}: {self.message}" if place else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class TookTooLong(BaseException):
    """Raised in a file that is still being loaded at the time limit; not an ``Exception``, so that it gets out."""


def of_import(error: BaseException, path: Path) -> LoadError:
    """Return what *error*, raised while *path* was imported, says about the file."""
    if isinstance(error, DefinitionError):
        return of_definition(error, path)
    file, line = _innermost_user_frame(error.__traceback__, path)
    if isinstance(error, SyntaxError) and (found := _of_syntax(error, None if line else file)) is not None:
        return found
    if isinstance(error, ValueError) and line is None and "null bytes" in _text(error):
        # What Python before 3.11.4 says of a file that is no text.
        return LoadError(code="syntax-error", message=_text(error), file=file, line=None)
    if isinstance(error, TookTooLong):
        return _of_timeout(error, file, line)
    message = f"{type(error).__name__} while importing the file"
    if text := _text(error):
        message += f": {text}"
    return LoadError(code="import-error", message=message, file=file, line=line, hint=_import_hint(error))


def of_definition(error: BaseException, path: Path) -> LoadError:
    """Return *error*, raised while a workflow of *path* was compiled, as data."""
    if isinstance(error, DefinitionError):
        file = str(path) if error.file is None else error.file
        return LoadError(
            code="definition-error", message=error.message, file=file, line=error.line, hint=error.hint or None
        )
    file, line = _innermost_user_frame(error.__traceback__, path)
    if isinstance(error, TookTooLong):
        return _of_timeout(error, file, line)
    return LoadError(
        code="definition-error",
        message=f"{type(error).__name__} in the body of the workflow: {_text(error)}",
        file=file,
        line=line,
        hint="the body is run once to find the steps and how they are wired; values are only known inside steps",
    )


def _of_timeout(error: TookTooLong, file: str, line: int | None) -> LoadError:
    hint = "a file is imported to find its workflows; move work into steps, or under `if __name__ == '__main__':`"
    return LoadError(code="load-timeout", message=str(error), file=file, line=line, hint=hint)


def _of_syntax(error: SyntaxError, compiled: str | None) -> LoadError | None:
    """Return the error of a file, *compiled* when Python does not name it; ``None`` when it is of other text."""
    file = error.filename or compiled
    if file is None or not Path(file).is_file():
        return None
    message = error.msg
    if error.text and error.text.strip():
        message += f": {error.text.strip()}"
    return LoadError(code="syntax-error", message=message, file=file, line=error.lineno or None)


def _innermost_user_frame(trace: TracebackType | None, path: Path) -> tuple[str, int | None]:
    """Return the last place in *path* that *trace* passes: where users look, however deep the error came from."""
    line = None
    for frame, number in traceback.walk_tb(trace):
        if frame.f_code.co_filename == str(path):
            line = number
    return str(path), line


def _import_hint(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {error.name.partition('.')[0]!r} in the environment of the worker"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "a workflow file is loaded by its path: import the other file by its name, without the dot"
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "a workflow file is imported, not run: put the program under `if __name__ == '__main__':`"
    return misuse_hint(error)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - users' __str__ may raise anything
        return ""
