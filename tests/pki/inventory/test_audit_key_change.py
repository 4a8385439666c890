"""Tests of a log whose key was changed: who trusts the old key follows, who trusts the new one looks back."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from chargepki.pki import files
from chargepki.pki.errors import StateError, UnavailableError
from chargepki.pki.inventory import AuditKey, Checkpoint, Inventory, LogHead, verify_log
from chargepki.pki.inventory.audit import AuditPublicKey
from chargepki.pki.inventory.audit_chain import ChainState
from chargepki.pki.inventory.audit_key import next_key_path
from chargepki.pki.inventory.audit_key_change import LogKeyChange
from chargepki.pki.log_key import rotate_log_key
from testkit.inventories import ACTOR, NOW, add_station
from testkit.tampering import Victim


class NoTokens:
    """Where no token is reached."""

    def open(self, uri: str) -> AuditKey:
        raise AssertionError(uri)


TOKENS = NoTokens()


def rotate(inventory: Inventory, path: Path) -> AuditKey:
    return rotate_log_key(inventory, path, None, TOKENS, actor=ACTOR, now=NOW).key  # type: ignore[arg-type]  # opens none


def codes(inventory: Inventory, *pinned: AuditPublicKey, checkpoint: Checkpoint | None = None) -> set[str]:
    return {str(each.code) for each in verify_log(inventory, checkpoint=checkpoint, pinned_keys=pinned).findings}


def test_each_key_of_a_log_leads_to_all_others_and_to_their_checkpoints(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    keys = [AuditKey.load_or_create(path)]
    with Inventory.open(database_url, log_key=AuditKey.load(path)) as inventory:
        kept: list[Checkpoint] = []
        for number in range(3):
            add_station(inventory, f"CS-{number}")
            kept.append(Checkpoint.of(inventory))
            if number < 2:
                keys.append(rotate(inventory, path))
                kept.append(Checkpoint.of(inventory))
        assert [head.head.key_id for head in kept] == [keys[number].key_id for number in (0, 1, 1, 2, 2)]
        assert AuditKey.load(path).key_id == keys[2].key_id and not next_key_path(path).exists()
        for key in keys:
            for checkpoint in (*kept, None):
                assert codes(inventory, key.public, checkpoint=checkpoint) == set()
        report = verify_log(inventory, pinned_keys=[keys[1].public])
        assert [(change.seq, change.old, change.new) for change in report.key_changes] == [
            (2, keys[0].public, keys[1].public), (4, keys[1].public, keys[2].public),
        ]  # fmt: skip
        stranger = AuditKey.generate().public
        assert codes(inventory, stranger, checkpoint=kept[0]) == {"head-key-unknown", "checkpoint-key-unknown"}
        # A key signs its own part of the log, and no other: one that was stolen after it was replaced proves nothing.
        last, first = kept[-1].head.state, kept[0].head.state
        late = Checkpoint(LogHead.sign(last, keys[0]))
        early = Checkpoint(LogHead.sign(first, keys[2]))
        for forged in (late, early):
            assert codes(inventory, keys[2].public, checkpoint=forged) == {"checkpoint-key-replaced"}


def test_processes_that_run_on_go_on_with_the_new_key(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    AuditKey.load_or_create(path)
    with (
        Inventory.open(database_url, log_key=AuditKey.load(path)) as running,
        Inventory.open(database_url, log_key=AuditKey.load(path)) as inventory,
    ):
        add_station(running, "CS-1")
        rotate(inventory, path)
        add_station(running, "CS-2")
        rotate(inventory, path)
        add_station(inventory, "CS-3")
        add_station(running, "CS-4")
        assert codes(running, AuditKey.load(path).public) == set()
    elsewhere = tmp_path / "elsewhere"
    AuditKey.load_or_create(elsewhere)
    with (
        Inventory.open(database_url, log_key=AuditKey.load(elsewhere)) as foreign,
        pytest.raises(StateError, match="another log key"),
    ):
        add_station(foreign, "CS-5")


def test_the_new_key_signs_for_what_shares_its_commit(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    with Inventory.open(database_url, log_key=AuditKey.load_or_create(path)) as inventory:
        new = AuditKey.generate()
        inventory.write_all(
            [
                lambda tx: tx.audit(ACTOR, "test.act", "before", now=NOW),
                lambda tx: tx.rotate_log_key(new, actor=ACTOR, now=NOW),
                lambda tx: tx.audit(ACTOR, "test.act", "after", now=NOW),
            ]
        )
        assert Checkpoint.of(inventory).head.key_id == new.key_id
        assert codes(inventory, new.public) == set()
        (again,) = inventory.write_all([lambda tx: tx.rotate_log_key(new, actor=ACTOR, now=NOW)])
        assert isinstance(again, StateError)
        assert Checkpoint.of(inventory).head.count == 3


@pytest.mark.parametrize("step", ["store", "write", "take_place", "remove"])
def test_a_change_that_is_interrupted_is_taken_up_again(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two of its steps; every process that starts or runs then can go on."""
    path = tmp_path / "audit.key"
    old = AuditKey.load_or_create(path)
    url = f"sqlite:///{tmp_path / 'inventory.db'}"

    def fail(*_: object, **__: object) -> None:
        raise UnavailableError("the disk is full")

    with Inventory.open(url, log_key=AuditKey.load(path)) as inventory:
        add_station(inventory, "CS-1")
        with monkeypatch.context() as patch, pytest.raises(UnavailableError):
            patch.setattr(*_STEPS[step], fail)
            rotate(inventory, path)
        waiting = AuditKey.load(next_key_path(path)).key_id if next_key_path(path).exists() else None
        add_station(inventory, "CS-2")
        with Inventory.open(url, log_key=AuditKey.load(path)) as fresh:
            add_station(fresh, "CS-3")
            assert codes(fresh, old.public) == set()
        new = rotate(inventory, path)
        assert AuditKey.load(path).key_id == new.key_id == Checkpoint.of(inventory).head.key_id
        assert not next_key_path(path).exists()
        changes = verify_log(inventory, pinned_keys=[old.public]).key_changes
        assert len(changes) == (1 if step in ("store", "write") else 2)
        assert waiting in (None, *(change.new.key_id for change in changes)), "no key is made that nobody uses"
        assert codes(inventory, old.public) == codes(inventory, new.public) == set()


_STEPS: dict[str, tuple[object, str]] = {
    "store": (AuditKey, "store"),
    "write": (Inventory, "write"),
    "take_place": (AuditKey, "take_place"),
    "remove": (files, "remove_durable"),
}


def _another_key(details: dict[str, str]) -> None:
    details["new_key"] = AuditKey.generate().public.to_base64()


def _swapped(details: dict[str, str]) -> None:
    details["old_key"], details["new_key"] = details["new_key"], details["old_key"]


def _unsigned(details: dict[str, str]) -> None:
    details["signature"] = "AAAA"


def _made_by_a_stranger(details: dict[str, str]) -> None:
    """A statement that is right in itself, by a key that never was the log key."""
    stranger, next_one = AuditKey.generate(), AuditKey.generate()
    change = LogKeyChange.sign(STATE[0], stranger, next_one.public)
    details |= {name: str(value) for name, value in change.to_details().items()}


STATE: list[ChainState] = []


@pytest.mark.parametrize(
    "forge",
    [
        _another_key, _swapped, _unsigned, _made_by_a_stranger, dict.clear,
        lambda details: details.update(old_key="x\n"), lambda details: details.update(signature="\ud7ff"),
    ],
    ids=["another-key", "swapped", "unsigned", "stranger", "empty", "no-key", "no-signature"],
)  # fmt: skip
def test_a_change_that_the_old_key_did_not_sign_leads_nowhere(
    tmp_path: Path, forge: Callable[[dict[str, str]], None]
) -> None:
    """By somebody who can write the database, and makes the chain of hashes whole again."""
    path, url = tmp_path / "audit.key", f"sqlite:///{tmp_path / 'inventory.db'}"
    old = AuditKey.load_or_create(path)
    with Inventory.open(url, log_key=AuditKey.load(path)) as inventory:
        add_station(inventory, "CS-1")
        rotate(inventory, path)
        STATE[:] = [Checkpoint.of(inventory).head.state]
        rotate(inventory, path)
    victim = Victim(url, tmp_path / "inventory.db")
    ((text,),) = victim.read("SELECT details FROM audit_entry WHERE seq = 3")
    details = orjson.loads(str(text))
    forge(details)
    with sqlite3.connect(victim.path) as connection:
        connection.execute("UPDATE audit_entry SET details = ? WHERE seq = 3", (orjson.dumps(details).decode(),))
    connection.close()
    victim.rehash(2)
    # They sign the head as well, with the key that they would have us follow.
    attacker = AuditKey.generate()
    ((log_id, last),) = victim.read("SELECT log_id, (SELECT entry_hash FROM audit_entry WHERE seq = 3) FROM audit_head")
    head = LogHead.sign(ChainState(str(log_id), 3, str(last), None), attacker)
    victim.sql(
        f"UPDATE audit_head SET hash = '{head.hash}', at = NULL, key_id = '{head.key_id}', "
        f"signature = '{head.signature}'"
    )
    with Inventory.open(url, log_key=None) as inventory:
        for pinned in (old.public, AuditKey.load(path).public):
            assert {"head-key-unknown", "log-key-change"} <= codes(inventory, pinned)


def test_a_replaced_key_that_was_stolen_does_not_sign_a_newer_head(tmp_path: Path) -> None:
    path, url = tmp_path / "audit.key", f"sqlite:///{tmp_path / 'inventory.db'}"
    old = AuditKey.load_or_create(path)
    with Inventory.open(url, log_key=AuditKey.load(path)) as inventory:
        new = rotate(inventory, path)
        add_station(inventory, "CS-1")
        state = Checkpoint.of(inventory).head.state
    head = LogHead.sign(state, old)
    Victim(url, tmp_path / "inventory.db").sql(
        f"UPDATE audit_head SET key_id = '{head.key_id}', signature = '{head.signature}'"
    )
    with Inventory.open(url, log_key=None) as inventory:
        assert codes(inventory, old.public) == codes(inventory, new.public) == {"head-key-replaced"}
    with Inventory.open(url, log_key=AuditKey.load(path)) as inventory, pytest.raises(StateError):
        add_station(inventory, "CS-2")


def test_a_public_key_survives_its_base64() -> None:
    key = AuditKey.generate().public
    assert AuditPublicKey.from_base64(key.to_base64()) == key
    assert base64.b64decode(key.to_base64()).endswith(key.raw)
