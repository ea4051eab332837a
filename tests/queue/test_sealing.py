"""Values of secrets as the store keeps them."""

import base64
import sys
from pathlib import Path

import pytest

from hopline_engine.queue.sealing import KEY_BYTES, Sealer, SealError, read_keys

ONE, TWO = bytes(range(KEY_BYTES)), bytes(range(1, KEY_BYTES + 1))


def test_what_one_key_encrypts_that_key_reads_and_no_other() -> None:
    sealed = Sealer([ONE]).seal("TOKEN", "välue")
    assert b"lue" not in sealed
    assert Sealer([TWO, ONE]).open("TOKEN", sealed) == "välue"
    with pytest.raises(SealError, match="a key that is not here"):
        Sealer([TWO]).open("TOKEN", sealed)


def test_the_first_key_encrypts() -> None:
    assert Sealer.key_of(Sealer([TWO, ONE]).seal("TOKEN", "value")) == Sealer([TWO]).first


def test_equal_values_are_stored_differently() -> None:
    sealer = Sealer([ONE])
    assert sealer.seal("TOKEN", "value") != sealer.seal("TOKEN", "value")


def test_a_value_cannot_be_given_to_another_name_or_changed() -> None:
    sealer = Sealer([ONE])
    sealed = sealer.seal("TOKEN", "value")
    for name, stored in (("OTHER", sealed), ("TOKEN", sealed[:-1] + bytes([sealed[-1] ^ 1]))):
        with pytest.raises(SealError, match="what is stored was changed"):
            sealer.open(name, stored)


def test_keys_are_read_from_the_setting_and_then_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(base64.urlsafe_b64encode(TWO) + b"\n")
    assert read_keys([base64.b64encode(ONE).decode()], file) == [ONE, TWO]


@pytest.mark.parametrize("text", ["", "short", "ä" * 44, base64.b64encode(ONE[:-1]).decode()])
def test_what_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SealError, match="32 bytes in base64") as refused:
        read_keys([text], None)
    assert not text or text not in str(refused.value)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SealError, match="there is no key"):
        Sealer([]).seal("TOKEN", "value")
    with pytest.raises(SealError, match="cannot be read"):
        read_keys([], tmp_path / "none")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(SealError, match="cryptography") as refused:
        Sealer([ONE]).seal("TOKEN", "value")
    assert "hopline[secrets]" in refused.value.hint
