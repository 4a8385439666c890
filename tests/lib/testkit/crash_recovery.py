"""The commands that move a whole workspace, change all its keys or take over a CA, and what must hold after a crash."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pyrage
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaState, CertificateState
from testkit.crash import Call, Outcome, Place, Runner
from testkit.crash_judge import key_files, problems
from testkit.crash_scenarios import ISSUE, open_place

__all__ = ["RECOVERY", "Recovery", "prepare", "recovers"]

NEW = b"the passphrase after that"


@dataclass(frozen=True, slots=True)
class Recovery:
    """One command."""

    arguments: tuple[str, ...]
    settled: Callable[[Place, Inventory], str | None]
    """Says what is missing once the command has been repeated with success; ``None`` when nothing is."""
    points: int
    """How many calls are tried in an ordinary test run."""
    keeps_keys: bool = True
    may_refuse: Callable[[Place], bool] = lambda place: False
    """Whether the crashed run had finished, so that the repeat may be refused (exit 3)."""


def _backup_settled(place: Place, inventory: Inventory) -> str | None:
    data = (place.out / "b.age").read_bytes()
    identity = pyrage.x25519.Identity.from_str((place.root / "identity").read_text().strip())
    return None if pyrage.decrypt(data, [identity])[:2] == b"\x1f\x8b" else "the backup is no archive"


def _passphrase_settled(place: Place, inventory: Inventory) -> str | None:
    for path in (place.home / "keys").glob("*.key"):
        load_pem_private_key(path.read_bytes(), NEW)
    told = [entry for entry in inventory.list_audit(limit=1000) if entry.action == "keys.change-passphrase"]
    return None if told else "the log does not tell that the passphrase was changed"


def _restore_settled(place: Place, inventory: Inventory) -> str | None:
    if not inventory.list_restorations():
        return "nothing was restored"
    if left := [path.name for path in place.home.iterdir() if path.name.startswith((".restore", "restore.json"))]:
        return f"there are still {left}"
    if list(inventory.list_reserved()):
        return "a reservation was not voided"
    return None


def _import_settled(place: Place, inventory: Inventory) -> str | None:
    ca = inventory.get_ca("old")
    rows = list(inventory.list_certificates(ca="old@1"))
    revoked = [row for row in rows if row.state is CertificateState.REVOKED]
    if ca.state is not CaState.ACTIVE or len(rows) != 4 or len(revoked) != 1:
        return f"{ca.id} is {ca.state}, with {len(rows)} certificates, {len(revoked)} of them revoked"
    last = inventory.latest_crl("old@1")
    return None if last is not None and last.number == 5 else "its newest list is not on record"


def _renew_settled(place: Place, inventory: Inventory) -> str | None:
    made = [row for row in inventory.list_certificates() if "CN=CS-B" in row.subject]
    return None if len(made) == 2 else f"{len(made)} certificates of one that was renewed"


RECOVERY: Mapping[str, Recovery] = MappingProxyType(
    {
        "backup": Recovery(
            ("backup", "create", "--recipients-file", "recipients", "--out", "out/b.age"),
            _backup_settled,
            points=2,
            may_refuse=lambda place: (place.out / "b.age").exists(),
        ),
        "restore": Recovery(
            ("restore", "before.age", "--identity", "identity", "--replace"), _restore_settled, points=5
        ),
        "change-passphrase": Recovery(
            ("ca", "change-passphrase", "--new-passphrase-file", "new"),
            _passphrase_settled,
            points=2,
            keeps_keys=False,
        ),
        "import": Recovery(("ca", "import", "old", "old-ca", "--profile", "ocpp/cso-root"), _import_settled, points=3),
        "renew": Recovery(("cert", "renew", "out/b.pem", "--out", "out/c.pem"), _renew_settled, points=1),
    }
)


def prepare(runner: Runner, place: Place) -> None:
    """Put beside a prepared workspace what the commands need: a backup of it, an older CA, a new passphrase."""
    identity = pyrage.x25519.Identity.generate()
    (place.root / "identity").write_text(f"{identity}\n")
    (place.root / "recipients").write_text(f"{identity.to_public()}\n")
    (place.root / "new").write_bytes(NEW)
    for name in ("identity", "new"):
        (place.root / name).chmod(0o600)
    made = runner.run(place, "backup", "create", "--recipients-file", "recipients", "--out", "before.age")
    assert made.code == 0, made.stderr
    _make_old_ca(place.root / "old-ca")


def _make_old_ca(folder: Path) -> None:
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Old Root")])
    now = datetime.now(UTC).replace(microsecond=0)
    common = x509.CertificateBuilder().issuer_name(name).not_valid_before(now - timedelta(days=9))
    common = common.not_valid_after(now + timedelta(days=999))
    root = common.subject_name(name).public_key(key.public_key()).serial_number(1)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    (folder / "ca.pem").write_bytes(root.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "ca.key").write_bytes(plain)
    for serial in (2, 3, 4):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Old {serial}")])
        leaf = common.subject_name(subject).serial_number(serial)
        leaf = leaf.public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        (folder / f"{serial}.pem").write_bytes(leaf.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    gone = x509.RevokedCertificateBuilder().serial_number(3).revocation_date(now - timedelta(days=1)).build()
    crl = (
        x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now).next_update(now + timedelta(days=9))
    )
    crl = crl.add_extension(x509.CRLNumber(5), critical=False).add_revoked_certificate(gone)
    (folder / "old.crl").write_bytes(crl.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def undisturbed(runner: Runner, recovery: Recovery, place: Place, calls: tuple[str, ...]) -> tuple[Call, ...]:
    """Return the calls of a run at *place* that nothing disturbs."""
    outcome = runner.run(place, *recovery.arguments, traced=True, calls=calls)
    assert outcome.code == 0, outcome.stderr
    assert problems(place, [outcome]) == []
    with open_place(place) as inventory:
        assert recovery.settled(place, inventory) is None
    return outcome.calls


def recovers(runner: Runner, recovery: Recovery, place: Place, first: Outcome, start: Place) -> Iterator[str]:
    """Judge what a crash left, complete or repeat the command, and yield everything that is wrong."""
    if (place.home / "restore.json").exists():
        other = runner.run(place, *ISSUE, "--csr", "a.csr", "--out", "out/never.pem")
        if other.code != 3 or (place.out / "never.pem").exists():
            yield f"another command opened a workspace that is half replaced: {other.code}"
        resumed = runner.run(place, "restore", "--resume")
        if resumed.code != 0:
            yield f"it could not be resumed: {resumed.code}: {resumed.stderr.strip()}"
            return
    keys = key_files(start) if recovery.keeps_keys else None
    yield from problems(place, [first], keys=keys)
    finished = recovery.may_refuse(place)
    repeat = runner.run(place, *recovery.arguments)
    if repeat.code != 0 and not (finished and repeat.code == 3):
        yield f"the repeat ended with {repeat.code}: {repeat.stderr.strip()}"
        return
    yield from problems(place, [first, repeat], keys=keys)
    with open_place(place) as inventory:
        if missing := recovery.settled(place, inventory):
            yield missing
    shutil.rmtree(place.root.with_name(f"{place.root.name}-look"), ignore_errors=True)
