"""The files of keys that sign: made once, and there for whoever comes after a power cut."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hopline_engine.queue.signing import load_key
from hopline_engine.queue.tokens import key_in_file


@pytest.mark.parametrize("key_of", [load_key, key_in_file])
def test_key_and_the_name_of_its_file_are_on_the_disk_before_anything_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_of: Callable[[Path], bytes | str]
) -> None:
    pytest.importorskip("cryptography")
    flushed: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    path = tmp_path / "key"
    key = key_of(path)
    assert flushed == [path.stat().st_ino, tmp_path.stat().st_ino]
    assert key_of(path) == key
    assert path.stat().st_mode & 0o077 == 0
