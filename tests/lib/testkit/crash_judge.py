"""Judge what a command left behind: certificates outside, rows inside, keys, lists, the audit log."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from chargepki.pki.errors import StateError, UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.records import CaState, CertificateState
from testkit.crash import PASSPHRASE, Outcome, Place

__all__ = ["cheapen_keys", "key_files", "left_the_process", "problems"]


def cheapen_keys(place: Place) -> None:
    """Encrypt the CA keys anew with a cost of milliseconds, where ours takes 0.1 s by design."""
    for path in (place.home / "keys").glob("*.key"):
        key = load_pem_private_key(path.read_bytes(), PASSPHRASE)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE)))


def left_the_process(place: Place, outcomes: Sequence[Outcome] = ()) -> dict[str, set[bytes]]:
    """Return the DER certificates that are outside the inventory, by where they are."""
    found: dict[str, set[bytes]] = {}
    texts = {str(path): path.read_bytes() for path in place.out.iterdir() if path.suffix == ".pem"}
    # With --json, the line ends of a PEM text are escapes.
    texts |= {f"stdout {number}": outcome.stdout.replace(b"\\n", b"\n") for number, outcome in enumerate(outcomes)}
    for name, text in texts.items():
        if b"-----END CERTIFICATE-----" in text:
            whole = text[: text.rindex(b"-----END CERTIFICATE-----") + 25]
            certificates = x509.load_pem_x509_certificates(whole)
            found[name] = {certificate.public_bytes(Encoding.DER) for certificate in certificates}
        elif name.endswith(".pem"):
            raise AssertionError(f"{name} holds no whole certificate: {text[:80]!r}")
    for path in place.published.glob("ca/*.cer"):
        found[str(path)] = {path.read_bytes()}
    return found


def problems(place: Place, outcomes: Sequence[Outcome] = (), *, keys: Mapping[str, bytes] | None = None) -> list[str]:
    """Return what is wrong with what a run left at *place*; the empty list is what every crash must give.

    Judges a copy, because opening an SQLite database repairs it, and the next command must meet what the crash left.

    Args:
        outcomes: the runs whose standard output may hold certificates.
        keys: name and content of the key files that were there before.
    """
    with tempfile.TemporaryDirectory(dir=place.root.parent) as folder:
        copy = place.copy_to(Path(folder) / "copy")
        return [*_key_problems(copy, keys or {}), *_record_problems(copy, outcomes)]


def key_files(place: Place) -> dict[str, bytes]:
    """Return name and content of all CA keys."""
    return {path.name: path.read_bytes() for path in (place.home / "keys").glob("*.key")}


def _key_problems(place: Place, before: Mapping[str, bytes]) -> Iterator[str]:
    now = key_files(place)
    for name, content in before.items():
        if name not in now:
            yield f"the key {name} is lost"
        elif now[name] != content:
            yield f"the key {name} was overwritten"
    for name, content in now.items():
        if not content.rstrip().endswith(b"-----END ENCRYPTED PRIVATE KEY-----"):
            yield f"the key {name} is not whole"


def _record_problems(place: Place, outcomes: Sequence[Outcome]) -> Iterator[str]:
    outside = left_the_process(place, outcomes)
    lists = [*place.published.rglob("*.crl"), *place.out.glob("*.crl")]
    log_key = place.home / "audit.key"
    try:
        key = AuditKey.load(log_key) if log_key.exists() else None
        inventory = Inventory.open(place.url, log_key=key, create=False)
    except (StateError, UnavailableError) as none_yet:
        if outside or lists:
            yield f"{sorted(outside)} {lists} are outside, and there is no inventory: {none_yet}"
        return
    with inventory:
        if key is not None:
            report = verify_log(inventory, pinned_keys=[key.public])
            # A crash between schema and first head leaves an empty log, which the next run begins.
            empty = inventory.audit_head() is None and report.entries == 0 and not list(inventory.list_cas())
            if not empty:
                yield from (f"audit: {finding.code}: {finding.what}" for finding in report.findings)
        records = list(inventory.list_certificates())
        if len({(record.ca, record.serial) for record in records}) != len(records):
            yield "a serial was used twice"
        issued = {
            record.der for record in records if record.state in (CertificateState.ISSUED, CertificateState.REVOKED)
        }
        # What is taken over with a CA whose key is elsewhere stands in its own row.
        issued |= {ca.certificate_der for ca in inventory.list_cas() if ca.is_external}
        for name, certificates in outside.items():
            if not certificates <= issued:
                yield f"{name} holds a certificate that the inventory does not know"
        yield from _list_problems(inventory, lists)
        yield from _ca_problems(place, inventory)


def _list_problems(inventory: Inventory, lists: Sequence[Path]) -> Iterator[str]:
    with inventory.snapshot() as session:
        known = {row[0] for row in session.execute("SELECT sha256 FROM crl UNION SELECT sha256 FROM crl_delta")}
    for path in lists:
        if hashlib.sha256(path.read_bytes()).hexdigest() not in known:
            yield f"{path} is no list that the inventory knows"


def _ca_problems(place: Place, inventory: Inventory) -> Iterator[str]:
    for ca in inventory.list_cas():
        if ca.state is CaState.PENDING or ca.is_external:
            continue
        if not (place.home / "keys" / f"{ca.id}.key").exists():
            yield f"{ca.id} is {ca.state} and has no key"
        if ca.certificate_der is None:
            yield f"{ca.id} is {ca.state} and has no certificate"
