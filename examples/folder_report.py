"""A report on a folder of your own: list its files, read them in parallel, add up, write a page of Markdown.

    hopline run examples/folder_report.py folder=docs

Every step may be run twice, as after a power cut, without harm: they only read, and the last one writes the same page.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hopline import Fail, step, workflow

MAX_FILES = 1_000
MAX_BYTES = 10_000_000
WORDS_PER_FILE = 20
WORD = re.compile(r"\b[^\W\d_]{4,30}\b")
FOLDERS_OF_TOOLS = {"node_modules", "__pycache__"}


@dataclass
class Listing:
    folder: str
    files: list[str]
    left_out: int
    """Files that are unreadable, larger than ``MAX_BYTES`` or beyond the first ``MAX_FILES``."""


@dataclass
class WordCount:
    word: str
    times: int


@dataclass
class FileFacts:
    path: str
    sha256: str
    is_text: bool
    lines: int
    words: int
    frequent: list[WordCount]


@dataclass
class Summary:
    folder: str
    files: int
    text_files: int
    left_out: int
    lines: int
    words: int
    frequent: list[WordCount]
    """Added up from the ``WORDS_PER_FILE`` most frequent words of each file."""


@dataclass
class Report:
    path: str
    summary: Summary


@step
def list_files(folder: str, report: str) -> Listing:
    """Find the files to read, always in the same order; an earlier report is not one of them."""
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise Fail(f"{folder!r} is not a folder; name one with folder=PATH")
    found = sorted(file for file in walk(root) if file != Path(report).resolve())
    files = list(islice(filter(is_readable, found), MAX_FILES))
    names = [file.relative_to(root).as_posix() for file in files]
    return Listing(folder=str(root), files=names, left_out=len(found) - len(files))


@step
def read_file(path: str, folder: str) -> FileFacts:
    data = Path(folder, path).read_bytes()
    decoded = decode(data)
    text = decoded or ""
    return FileFacts(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        is_text=decoded is not None,
        lines=len(text.splitlines()),
        words=len(text.split()),
        frequent=most_frequent(Counter(WORD.findall(text.lower())), WORDS_PER_FILE),
    )


@step
def add_up(listing: Listing, files: list[FileFacts], top: int) -> Summary:
    counts = Counter[str]()
    for file in files:
        counts.update({count.word: count.times for count in file.frequent})
    return Summary(
        folder=listing.folder,
        files=len(files),
        text_files=sum(file.is_text for file in files),
        left_out=listing.left_out,
        lines=sum(file.lines for file in files),
        words=sum(file.words for file in files),
        frequent=most_frequent(counts, top),
    )


@step
def write_report(summary: Summary, files: list[FileFacts], report: str, top: int) -> Report:
    path = Path(report).resolve()
    path.write_text(page(summary, files, top), encoding="utf-8")
    return Report(path=str(path), summary=summary)


@workflow
def folder_report(folder: str, report: str = "report.md", top: int = 5) -> Report:
    listing = list_files(folder, report)
    files = read_file.map(listing.files, listing.folder)
    summary = add_up(listing, files, top)
    return write_report(summary, files, report, top)


def walk(root: Path) -> Iterator[Path]:
    """Yield the files below *root*, without hidden ones and without the folders of tools."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name not in FOLDERS_OF_TOOLS]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def is_readable(file: Path) -> bool:
    """Return whether *file* is a regular file that may be read, not too large, with a name that fits in JSON."""
    has_utf8_name = str(file).encode(errors="ignore") == os.fsencode(file)
    return has_utf8_name and file.is_file() and os.access(file, os.R_OK) and file.stat().st_size <= MAX_BYTES


def decode(data: bytes) -> str | None:
    """Return *data* as text, or ``None`` when it is something else: a picture, an archive, another encoding."""
    try:
        return None if b"\0" in data else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def most_frequent(counts: Counter[str], top: int) -> list[WordCount]:
    """Return the *top* most frequent words; equally frequent ones in alphabetical order."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [WordCount(word=word, times=times) for word, times in ranked[: max(top, 0)]]


def page(summary: Summary, files: list[FileFacts], top: int) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# {summary.folder}",
        "",
        f"{summary.files:,} files, {summary.text_files:,} of them text, {summary.left_out:,} more left out.",
        f"{summary.lines:,} lines and {summary.words:,} words in all.",
        "",
        f"Most frequent words: {listed(summary.frequent)}.",
        "",
        "| file | lines | words | SHA-256 | most frequent words |",
        "|---|---:|---:|---|---|",
        *(row(file, top) for file in files),
    ]
    return "\n".join(lines) + "\n"


def row(file: FileFacts, top: int) -> str:
    name = file.path.replace("|", "\\|").replace("\n", " ")
    lines, words = (f"{file.lines:,}", f"{file.words:,}") if file.is_text else ("binary", "")
    return f"| {name} | {lines} | {words} | `{file.sha256[:12]}` | {listed(file.frequent[: max(top, 0)])} |"


def listed(counts: list[WordCount]) -> str:
    return ", ".join(f"{count.word} ({count.times})" for count in counts) or "none"
