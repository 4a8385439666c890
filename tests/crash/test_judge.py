"""The judge of the crash tests finds each kind of loss; otherwise its silence would prove nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from chargepki.pki import keys, private_keys
from chargepki.pki.keys import KeyAlgorithm
from testkit.crash import Place, Runner
from testkit.crash_judge import key_files, problems
from testkit.crash_scenarios import ISSUE


def forget_a_certificate(place: Place) -> None:
    execute(place, "UPDATE certificate SET state = 'reserved', der = NULL, sha256 = NULL WHERE subject LIKE '%CS-A%'")


def sign_again(place: Place) -> None:
    execute(place, "UPDATE certificate SET der = x'3000' WHERE subject LIKE '%CS-A%'")


def execute(place: Place, sql: str) -> None:
    connection = sqlite3.connect(place.home / "inventory.db")
    with connection:
        assert connection.execute(sql).rowcount == 1
    connection.close()


def lose_a_key(place: Place) -> None:
    (place.home / "keys" / "s@1.key").unlink()


def overwrite_a_key(place: Place) -> None:
    key = keys.generate_private_key(KeyAlgorithm.SECP256R1)
    (place.home / "keys" / "s@1.key").write_bytes(private_keys.encrypt_private_key(key, b"other"))


def cut_a_key(place: Place) -> None:
    path = place.home / "keys" / "s@1.key"
    path.write_bytes(path.read_bytes()[:-40])


def publish_an_unknown_list(place: Place) -> None:
    execute(place, "DELETE FROM crl WHERE shard IS NULL AND length(der) > 0")


def lose_the_inventory(place: Place) -> None:
    (place.home / "inventory.db").unlink()


def change_the_log(place: Place) -> None:
    execute(place, "UPDATE audit_entry SET actor_name = 'nobody' WHERE seq = 3")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (forget_a_certificate, "does not know"),
        (sign_again, "does not know"),
        (lose_a_key, "is lost"),
        (overwrite_a_key, "overwritten"),
        (cut_a_key, "not whole"),
        (publish_an_unknown_list, "no list that the inventory knows"),
        (lose_the_inventory, "there is no inventory"),
        (change_the_log, "audit: "),
    ],
)
def test_every_kind_of_loss_is_found(
    damage: Callable[[Place], None], word: str, runner: Runner, templates: dict[str, Place], folder: Path
) -> None:
    place = templates["ready"].copy_to(folder / "place")
    assert runner.run(place, *ISSUE, "--csr", "a.csr", "--out", "out/a.pem").code == 0
    assert runner.run(place, "crl", "publish", "--ca", "s", "--publish-dir", "www").code == 0
    before = key_files(place)
    assert problems(place, keys=before) == []
    damage(place)
    assert any(word in problem for problem in problems(place, keys=before))
