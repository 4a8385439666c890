"""`chargepki ca change-passphrase`: the old one opens nothing, an interrupted change goes on, no secret leaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from chargepki.pki import files, keys, private_keys
from chargepki.pki.errors import SignerError, UnavailableError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.passphrase import change_passphrase
from chargepki.pki.signer import SoftwareKeyStore
from testkit.command_line import CommandLine, snapshot

OLD, NEW = b"correct horse battery staple", b"another battery of horses"


@pytest.fixture
def new_file(place: Path) -> Path:
    path = place / "new"
    path.write_bytes(NEW + b"\n")
    path.chmod(0o600)
    return path


def opens(home: Path, passphrase: bytes) -> set[str]:
    """Return the key files that a passphrase opens."""
    found = set()
    for path in (home / "keys").glob("*.key"):
        try:
            private_keys.decrypt_private_key(path.read_bytes(), passphrase)
        except SignerError:
            continue
        found.add(path.name)
    return found


def test_every_key_has_the_new_passphrase_and_none_the_old_one(run: CommandLine, place: Path, new_file: Path) -> None:
    before = opens(run.home, OLD)
    assert len(before) == 3
    words = ("ca", "change-passphrase", "--new-passphrase-file", new_file)
    untouched = snapshot(run.home / "keys")
    run(*words, "--dry-run")
    assert snapshot(run.home / "keys") == untouched
    done = run(*words, "--json")
    assert set(done.json()["changed"]) == before and done.json()["had_it"] == []
    assert opens(run.home, OLD) == set() and opens(run.home, NEW) == before
    assert {path.stat().st_mode & 0o777 for path in (run.home / "keys").iterdir()} == {0o600}
    request = ("--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", str(place / "station.csr"))
    issue = ("cert", "issue", "--again", *request, "--out", str(place / "x.pem"))
    assert "wrong passphrase" in run.run(*issue).check_one_error(4).stderr
    run(*issue, "--passphrase-file", new_file)
    shown = run("audit", "show", "--json")
    assert "keys.change-passphrase" in shown.out
    said = (done.stdout + done.stderr.encode() + shown.stdout).lower()
    assert OLD not in said and NEW not in said
    run("audit", "verify")


def test_a_change_that_stopped_in_the_middle_is_gone_on_from(
    run: CommandLine, new_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = files.write_durable, [1]

    def failing(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if not left:
            raise UnavailableError(f"cannot write {path}", why="No space left on device", fix="make space")
        left.pop()
        write(path, data, mode=mode)

    words = ("ca", "change-passphrase", "--new-passphrase-file", new_file)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_durable", failing)
        run.run(*words).check_one_error(4)
    assert (len(opens(run.home, OLD)), len(opens(run.home, NEW))) == (2, 1)
    row = run(*words, "--json").json()
    assert (len(row["changed"]), len(row["had_it"])) == (2, 1)
    assert opens(run.home, OLD) == set()


def test_nothing_is_changed_unless_every_key_opens(run: CommandLine, place: Path, new_file: Path) -> None:
    path = run.home / "keys" / "zz@1.key"
    path.write_bytes(
        private_keys.encrypt_private_key(keys.generate_private_key(KeyAlgorithm.SECP256R1), b"a third one")
    )
    path.chmod(0o600)
    before = snapshot(run.home / "keys")
    words = ("ca", "change-passphrase", "--new-passphrase-file")
    assert "zz@1.key" in run.run(*words, new_file).check_one_error(4).stderr
    assert "for both" in run.run(*words, place / "passphrase").check_one_error(3).stderr
    path.unlink()
    (place / "same").write_bytes(OLD)
    (place / "same").chmod(0o600)
    assert "is the old one" in run.run(*words, place / "same").check_one_error(3).stderr
    assert "no new passphrase" in run.run("ca", "change-passphrase").check_one_error(3).stderr
    (place / "same").write_bytes(b"")
    assert "is empty" in run.run(*words, place / "same").check_one_error(3).stderr
    assert snapshot(run.home / "keys").items() <= before.items()


def test_a_process_that_knew_the_old_passphrase_makes_no_key_under_it(tmp_path: Path) -> None:
    """It has proven its passphrase once, and then the passphrase is changed."""
    store = SoftwareKeyStore(tmp_path / "keys", lambda: OLD)
    store.create("a@1", KeyAlgorithm.SECP256R1)
    change_passphrase(tmp_path / "keys", OLD, NEW)
    with pytest.raises(SignerError, match="cannot open the key"):
        store.create("b@1", KeyAlgorithm.SECP256R1)
    assert not (tmp_path / "keys" / "b@1.key").exists()
