"""What steps print, warn and log is kept per attempt, in bounds."""

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest

from hopline_engine.worker import capture
from hopline_engine.worker.capture import LIMIT_BYTES, Capture


@contextmanager
def worker_streams(*, echo: bool = False) -> Iterator[io.StringIO]:
    """Put the worker's streams and its log handler in place; gives what reaches the real stderr."""
    stream = io.StringIO()
    with redirect_stderr(stream), capture.routed(echo=echo), capture.logged():
        yield stream


@pytest.fixture
def attempt() -> Iterator[Capture]:
    kept = Capture()
    token = capture.current.set(kept)
    yield kept
    capture.current.reset(token)


def test_nothing_written_is_none() -> None:
    assert Capture().text() is None


def test_what_an_attempt_prints_and_logs_is_kept_in_order(attempt: Capture) -> None:
    with worker_streams() as stderr:
        print("printed")
        logging.getLogger("shop").info("logged %d", 1)
        print("to stderr", file=sys.stderr)
    assert attempt.text() == "printed\nINFO shop: logged 1\nto stderr\n"
    assert stderr.getvalue() == ""


def test_text_outside_an_attempt_goes_to_stderr() -> None:
    with worker_streams() as stderr:
        print("while importing")
        logging.getLogger("shop").info("not told")
        logging.getLogger("shop").warning("told")
    assert stderr.getvalue() == "while importing\nWARNING shop: told\n"


def test_verbose_worker_also_shows_what_attempts_print(attempt: Capture) -> None:
    with worker_streams(echo=True) as stderr:
        print("both")
    assert (attempt.text(), stderr.getvalue()) == ("both\n", "both\n")


def test_exception_of_a_log_call_is_kept_with_its_traceback(attempt: Capture) -> None:
    with worker_streams():
        try:
            raise ValueError("inner")
        except ValueError:
            logging.getLogger("shop").exception("it broke")
    assert "ERROR shop: it broke\nTraceback" in (attempt.text() or "")
    assert "ValueError: inner" in (attempt.text() or "")


def test_log_level_chosen_by_the_user_stands(monkeypatch: pytest.MonkeyPatch, attempt: Capture) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.ERROR)
    with worker_streams():
        logging.getLogger("shop").warning("too quiet")
        logging.getLogger("shop").error("loud")
    assert attempt.text() == "ERROR shop: loud\n"


def test_console_logging_set_up_by_the_user_is_kept_once(monkeypatch: pytest.MonkeyPatch, attempt: Capture) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with capture.routed(echo=False):
        root.addHandler(logging.StreamHandler())
        with capture.logged():
            logging.getLogger("shop").warning("once")
    assert attempt.text() == "once\n"


def test_long_output_keeps_its_beginning_and_its_end() -> None:
    kept = Capture()
    kept.write("first\n")
    for number in range(100_000):
        kept.write(f"line {number}\n")
    text = kept.text() or ""
    assert text.startswith("first\nline 0\n")
    assert text.endswith("line 99999\n")
    assert "bytes left out" in text
    assert LIMIT_BYTES - 1000 < len(text.encode()) <= LIMIT_BYTES


def test_output_at_the_limit_is_whole() -> None:
    kept = Capture()
    whole = "x" * (LIMIT_BYTES - 64)
    kept.write(whole)
    assert kept.text() == whole


def test_one_huge_line_is_cut_between_characters() -> None:
    kept = Capture()
    kept.write("é" * 1_000_000)
    text = kept.text() or ""
    assert set(text.replace("left out", "").partition("\n")[0]) == {"é"}
    assert len(text.encode()) <= LIMIT_BYTES


def test_text_that_no_store_can_hold_is_replaced() -> None:
    kept = Capture()
    kept.write("a\x00b\ud800c")
    assert kept.text() == "a\ufffdb?c"


def test_threads_of_one_attempt_may_write_at_the_same_time() -> None:
    kept = Capture()

    def write() -> None:
        for _ in range(500):
            kept.write("abcdefg\n")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.text() == "abcdefg\n" * 2000
