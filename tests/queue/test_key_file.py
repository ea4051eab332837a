"""The file of the key that signs callbacks: made once, and there for whoever comes after a power cut."""

import os
from pathlib import Path

import pytest

from hopline_engine.queue.signing import load_key


def test_key_and_the_name_of_its_file_are_on_the_disk_before_anything_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    path = tmp_path / "key"
    key = load_key(path)
    assert flushed == [path.stat().st_ino, tmp_path.stat().st_ino]
    assert load_key(path) == key
