"""Backups before an age that is not ours: npm's age-encryption, by an author of the format."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyrage
import pytest

from testkit.command_line import CommandLine
from testkit.foreign import node_program, run

pytestmark = pytest.mark.foreign


@pytest.fixture
def home(tmp_path: Path) -> CommandLine:
    (tmp_path / "passphrase").write_bytes(b"correct horse")
    (tmp_path / "passphrase").chmod(0o600)
    made = CommandLine(tmp_path / "home", {"CHARGEPKI_PASSPHRASE_FILE": str(tmp_path / "passphrase")})
    made("ca", "create", "r", "--profile", "ocpp/cso-root", "--subject", "CN=R,O=Acme,C=DE")
    return made


def test_a_foreign_age_opens_our_backup_and_we_restore_one_that_it_made(home: CommandLine, tmp_path: Path) -> None:
    age = node_program("age.mjs", package="age-encryption")
    identity = pyrage.x25519.Identity.generate()
    keys, ours, plain, theirs = (tmp_path / name for name in ("identity", "ours.age", "plain.tar", "theirs.age"))
    keys.write_text(f"# made by a test\n{identity}\n")
    keys.chmod(0o600)
    recipient = str(identity.to_public())
    home("backup", "create", "--recipient", recipient, "--out", ours)
    opened = run(*age, "decrypt", keys, ours, plain)
    assert opened.returncode == 0, opened.stderr
    assert plain.read_bytes() == pyrage.decrypt(ours.read_bytes(), [identity])
    # A changed backup is refused by both.
    changed = bytearray(ours.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.age").write_bytes(changed)
    assert run(*age, "decrypt", keys, tmp_path / "changed.age", tmp_path / "none").returncode != 0
    home("backup", "verify", tmp_path / "changed.age", "--identity", keys, code=1)
    # A file that it made holds another header and other pieces, and the same workspace.
    made = run(*age, "encrypt", recipient, plain, theirs)
    assert made.returncode == 0 and theirs.read_bytes() != ours.read_bytes(), made.stderr
    before = home("ca", "list", "--json").json()
    shutil.rmtree(home.home)
    assert home("restore", theirs, "--identity", keys, "--json").json()["keys"] == 1
    assert home("ca", "list", "--json").json() == before
    home("audit", "verify")
