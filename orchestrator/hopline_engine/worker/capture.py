"""What users' code prints, warns and logs, kept per attempt.

Which attempt a piece of text belongs to is said by a context variable, so steps that run at the same time, in threads
or on the loop, do not mix. Text that belongs to no attempt (a file being imported, a thread that a step started by
itself) goes to the worker's stderr; the worker never writes to stdout.
"""

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TextIO

LIMIT_BYTES = 65_536
_HALF = (LIMIT_BYTES - 64) // 2  # the rest is for the marker between the halves


class Capture:
    """The text of one attempt; of more than ``LIMIT_BYTES`` the beginning and the end. Any thread may write."""

    __slots__ = ("_dropped", "_head", "_lock", "_tail")

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Add *text*."""
        data = text.encode("utf-8", "replace")
        with self._lock:
            if room := _HALF - len(self._head):
                self._head += data[:room]
                data = data[room:]
            self._tail += data
            if len(self._tail) > 2 * _HALF:  # not at each write, so that the cost of cutting is spread
                self._cut()

    def text(self) -> str | None:
        """Return what was written, as text that any store can hold; ``None`` when nothing was."""
        if not self._head:
            return None
        with self._lock:
            if len(self._tail) > _HALF:
                self._cut()
            if not self._dropped:
                return _storable((self._head + self._tail).decode("utf-8", "ignore"))
            head, tail = self._head.decode("utf-8", "ignore"), self._tail.decode("utf-8", "ignore")
            return _storable(f"{head}\n[... {self._dropped} bytes left out ...]\n{tail}")

    def _cut(self) -> None:
        self._dropped += len(self._tail) - _HALF
        del self._tail[:-_HALF]


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


current: ContextVar[Capture | None] = ContextVar("hopline_capture", default=None)
"""Where the running code's text goes; ``None`` outside an attempt."""


@contextlib.contextmanager
def routed(*, echo: bool) -> Iterator[None]:
    """Put streams in the place of ``sys.stdout`` and ``sys.stderr`` that write to the current attempt.

    With *echo* the text of attempts also goes to the real stderr. To be entered before users' files are imported:
    they may keep a reference to the streams.
    """
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = _Stream(stderr, echo=echo)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Also write log records to the current attempt, from INFO on unless the user chose a level.

    To be entered after users' files are imported: when they configured logging to the console, that is respected and
    caught through the streams, and nothing is added.
    """
    root = logging.getLogger()
    if any(isinstance(getattr(handler, "stream", None), _Stream) for handler in root.handlers):
        yield
        return
    handler, level = _LogHandler(), root.level
    root.addHandler(handler)
    if level == logging.WARNING:
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


class _Stream(io.TextIOBase):
    """A text stream that finds the current attempt at each write."""

    def __init__(self, real: TextIO, *, echo: bool) -> None:
        super().__init__()
        self._real = real
        self._echo = echo

    def write(self, text: str, /) -> int:
        capture = current.get()
        if capture is not None:
            capture.write(text)
            if not self._echo:
                return len(text)
        return self._real.write(text)

    def flush(self) -> None:
        self._real.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._real.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def buffer(self) -> io.BufferedIOBase:
        """The real stderr's bytes: what is written there cannot be told apart by attempt."""
        return self._real.buffer  # type: ignore[return-value]


class _LogHandler(logging.Handler):
    """Writes records to the current attempt; outside one, warnings and worse to stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if current.get() is None and record.levelno < logging.WARNING:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as logging's own handlers: a bad log call must not fail the step
            self.handleError(record)
