"""Tests of the log key, the sealing key and checkpoints."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.errors import InputError, SignerError, StateError
from chargepki.pki.inventory import AuditKey, AuditPublicKey, Checkpoint, Inventory, LogHead, SealingKey
from chargepki.pki.inventory.audit_chain import ChainState
from testkit.inventories import add_station


def test_a_log_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    first = AuditKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert AuditKey.load_or_create(path).key_id == first.key_id
    assert AuditKey.load(path).key_id == first.key_id
    assert "PRIVATE" not in repr(first)


def test_two_that_make_the_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: AuditKey.load_or_create(tmp_path / "audit.key").key_id, range(8)))
    assert len(set(keys)) == 1


@pytest.mark.parametrize("load", [AuditKey.load_or_create, SealingKey.load_or_create])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, load: object) -> None:
    path = tmp_path / "key"
    assert callable(load)
    load(path)
    path.chmod(0o644)
    with pytest.raises(SignerError):
        load(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"abc", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"]
)
@pytest.mark.parametrize("load", [AuditKey.load_or_create, SealingKey.load_or_create])
def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path, load: object, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert callable(load)
    with pytest.raises(SignerError):
        load(path)


def test_a_public_key_survives_its_pem(log_key: AuditKey) -> None:
    assert AuditPublicKey.parse(log_key.public.to_pem()) == log_key.public
    for text in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(InputError):
            AuditPublicKey.parse(text)


def test_a_sealed_secret_opens_under_its_own_context_only(tmp_path: Path) -> None:
    key = SealingKey.load_or_create(tmp_path / "sealing.key")
    sealed = key.seal(b"secret", "o1")
    assert b"secret" not in sealed
    assert SealingKey.load_or_create(tmp_path / "sealing.key").open(sealed, "o1") == b"secret"
    with pytest.raises(SignerError, match="cannot be opened"):
        key.open(sealed, "o2")
    with pytest.raises(SignerError, match="cannot be opened"):
        SealingKey.load_or_create(tmp_path / "other.key").open(sealed, "o1")


@settings(max_examples=60)
@given(secret=st.binary(max_size=100), context=st.text(max_size=20), data=st.data())
def test_every_changed_byte_of_a_sealed_secret_is_refused(secret: bytes, context: str, data: st.DataObject) -> None:
    key = SealingKey(b"k" * 32)
    sealed = bytearray(key.seal(secret, context))
    assert key.open(bytes(sealed), context) == secret
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignerError):
        key.open(bytes(sealed), context)


@given(cut=st.integers(0, 40))
def test_every_cut_sealed_secret_is_refused(cut: int) -> None:
    key = SealingKey(b"k" * 32)
    with pytest.raises(SignerError):
        key.open(key.seal(b"a secret of some length", "o1")[:cut], "o1")


def test_a_checkpoint_survives_its_json_and_its_signature_its_fields(inventory: Inventory, log_key: AuditKey) -> None:
    add_station(inventory)
    checkpoint = Checkpoint.of(inventory)
    again = Checkpoint.parse(checkpoint.to_json())
    assert again == checkpoint
    assert again.head.count == 1
    assert again.head.is_signed_by(log_key.public)
    assert json.loads(checkpoint.to_json())["schema"] == "chargepki.audit-checkpoint"


def test_there_is_no_checkpoint_of_a_log_that_was_not_begun(database_url: str) -> None:
    with Inventory.open(database_url, log_key=None) as inventory, pytest.raises(StateError, match="no audit log"):
        Checkpoint.of(inventory)


HEAD = LogHead.sign(ChainState("l", 3, "h", "2026-03-01T12:00:00.000000Z"), AuditKey.generate())


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "x"},
        {"schema_version": 2},
        {"count": "3"},
        {"count": -1},
        {"count": True},
        {"hash": None},
        {"log_id": 5},
        {"at": 7},
        {"signature": None},
    ],
)
def test_a_checkpoint_with_a_wrong_field_is_refused(change: dict[str, object]) -> None:
    fields = {**json.loads(Checkpoint(HEAD).to_json()), **change}
    with pytest.raises(InputError):
        Checkpoint.parse(json.dumps(fields))


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b"{}", b"[" * 5000, b" " * 70_000, "\ud800"])
def test_what_is_no_checkpoint_is_refused(data: bytes | str) -> None:
    with pytest.raises(InputError):
        Checkpoint.parse(data)


@pytest.mark.parametrize("field", ["log_id", "count", "hash", "at", "key_id", "signature"])
def test_every_field_of_a_head_is_under_its_signature(field: str, log_key: AuditKey) -> None:
    head = LogHead.sign(HEAD.state, log_key)
    assert head.is_signed_by(log_key.public)
    values = head.to_values()
    values[field] = 4 if field == "count" else "AAAA"
    assert not LogHead(**values).is_signed_by(log_key.public)  # type: ignore[arg-type]  # values by column
