"""Read what an existing CA left in its folder: its certificate and key, what it issued and revoked, its lists.

Understood are the folders of ``openssl ca``, easy-rsa, cfssl (its SQLite database) and step-ca. The database of step-ca
(badger, bbolt) is not read: what it issued is known only from files of certificates and from its lists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from chargepki.pki import files, keys, private_keys
from chargepki.pki.crl import CrlView, parse_crl
from chargepki.pki.errors import ChargePkiError, InputError, SignerError
from chargepki.pki.importing import Intake
from chargepki.pki.importing.facts import read_facts
from chargepki.pki.inventory.import_records import ForeignRevocation, FoundCertificate
from chargepki.pki.keys import PrivateKey

__all__ = ["CaEstate", "MissingCertificate", "open_key", "read_estate"]

_MAX_FILE: Final = 1 << 16
_MAX_CRL: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class MissingCertificate:
    """A serial number that the CA gave away, to a certificate of which there is no file."""

    serial: str
    not_after: datetime
    revocation: ForeignRevocation | None


@dataclass(slots=True)
class CaEstate:
    """One CA and what it left."""

    certificate: x509.Certificate
    facts: FoundCertificate
    key: PrivateKey = field(repr=False)
    key_place: str
    issued: list[FoundCertificate] = field(default_factory=list)
    """Certificates that its key has signed, each once; not its own."""
    revocations: dict[str, ForeignRevocation] = field(default_factory=dict)
    """By serial number; the earliest instant that a database or list says."""
    missing: list[MissingCertificate] = field(default_factory=list)
    lists: list[CrlView] = field(default_factory=list)
    """Its revocation lists that are signed by it, oldest number first."""
    others: int = 0
    """Certificates of other CAs that lie there."""
    problems: list[str] = field(default_factory=list)

    @property
    def is_root(self) -> bool:
        """Whether it certified itself."""
        return self.facts.issuer_der == self.facts.subject_der


def open_key(data: bytes, passphrase: Callable[[], bytes]) -> PrivateKey:
    """Return the private key in PEM or DER, encrypted in any way that openssl or step write.

    Raises:
        InputError: no key, or an algorithm or size that this product does not use.
        SignerError: the passphrase is wrong.
    """
    if b"ENCRYPTED PRIVATE KEY" in data:
        return private_keys.decrypt_private_key(data, passphrase())
    if b"Proc-Type: 4,ENCRYPTED" in data:  # the older form of openssl, which step-ca writes
        try:
            key = load_pem_private_key(data, passphrase())
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise SignerError("the private key cannot be opened", why="wrong passphrase or damaged key") from exc
        return private_keys.load_private_key(private_keys.serialise_private_key(key))  # type: ignore[arg-type]  # judged by the reader
    return private_keys.load_private_key(data)


def read_estate(
    folder: Path,
    *,
    passphrase: Callable[[], bytes],
    certificate: Path | None = None,
    key: Path | None = None,
    lists: Sequence[Path] = (),
) -> CaEstate:
    """Read the CA in *folder* and everything of it that lies there.

    Args:
        passphrase: asked when an encrypted key is met.
        certificate: the CA's own, where the folder holds several CAs with their keys.
        key: its key, where it lies elsewhere.
        lists: revocation lists from elsewhere, the newest published one above all.

    Raises:
        InputError: no CA with its key, or several; the key is another's, weak, or of an unknown kind.
        SignerError: the key does not open.
        UnavailableError: a file cannot be read.
    """
    intake = Intake()
    found = {each.sha256: each for each in intake.path(str(folder))}
    if certificate is not None:
        data = files.read_limited(certificate, _MAX_FILE, "certificate")
        chosen = _load(data, str(certificate))
        found.setdefault(chosen.sha256, chosen)
        candidates = [found[chosen.sha256]]
    else:
        candidates = [each for each in found.values() if _is_ca(each.der)]
    facts, private, place = _with_key(candidates, _key_files(folder, key), passphrase, key is not None)
    estate = CaEstate(x509.load_der_x509_certificate(facts.der), facts, private, place)
    estate.problems += [f"{each.place}: {each.reason}" for each in intake.problems]
    _sort(estate, found.values())
    _read_lists(estate, [*_list_files(folder), *lists])
    _take_revocations(estate, intake)
    return estate


def _load(data: bytes, place: str) -> FoundCertificate:
    try:
        loaded = x509.load_pem_x509_certificate(data) if b"-----BEGIN" in data else x509.load_der_x509_certificate(data)
    except ValueError as exc:
        raise InputError(f"{place} holds no certificate", why=str(exc)[:200]) from exc
    return read_facts(loaded.public_bytes(Encoding.DER), place, "")


def _is_ca(der: bytes) -> bool:
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        return bool(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(root, name)).is_file())


def _key_files(folder: Path, key: Path | None) -> Iterator[tuple[Path, bytes]]:
    if key is not None:
        yield key, files.read_limited(key, _MAX_FILE, "private key")
        return
    for path in _walk(folder):
        if path.stat().st_size > _MAX_FILE:
            continue
        data = files.read_limited(path, _MAX_FILE, "file")
        if b"PRIVATE KEY-----" in data:
            yield path, data


def _with_key(
    candidates: Sequence[FoundCertificate],
    sources: Iterator[tuple[Path, bytes]],
    passphrase: Callable[[], bytes],
    is_named: bool,
) -> tuple[FoundCertificate, PrivateKey, str]:
    """Return the one CA certificate whose key is there."""
    wanted = {each.spki_sha256: each for each in candidates}
    fitting: list[tuple[FoundCertificate, PrivateKey, str]] = []
    refused: list[tuple[str, ChargePkiError]] = []
    for path, data in sources:
        try:
            private = open_key(data, passphrase)
        except (InputError, SignerError) as error:
            refused.append((str(path), error))
            continue
        match = wanted.get(keys.spki_sha256(keys.spki_der(private)))
        if match is not None:
            fitting.append((match, private, str(path)))
        elif is_named:
            raise InputError(
                f"{path} is not the key of the CA",
                why="the certificate holds another public key",
                fix="name the right --certificate and --key",
            )
    unique = {match.sha256: (match, private, place) for match, private, place in fitting}
    if len(unique) == 1:
        return next(iter(unique.values()))
    if unique:
        places = ", ".join(sorted(match.place for match, _, _ in unique.values()))
        raise InputError(
            f"there are {len(unique)} CAs with their keys: {places}",
            why="one is imported at a time, the root first",
            fix="name one: --certificate FILE",
        )
    if refused:
        place, first = refused[0]
        kind = SignerError if isinstance(first, SignerError) else InputError
        raise kind(f"the key {place} is not taken: {first.what}", why=first.why, fix=first.fix)
    raise InputError(
        "there is no CA with its key",
        why=f"{len(candidates)} certificates of CAs were found, and no private key of one",
        fix="name them: --certificate FILE --key FILE",
    )


def _sort(estate: CaEstate, found: Iterable[FoundCertificate]) -> None:
    """Tell what the CA's key has signed from what lies beside it."""
    serials: dict[str, str] = {}
    for each in found:
        if each.sha256 == estate.facts.sha256:
            continue
        if each.issuer_der != estate.facts.subject_der or not _signed_by(each.der, estate.certificate):
            estate.others += 1
        elif each.serial in serials:
            estate.problems.append(f"{each.place}: serial {each.serial} was used for {serials[each.serial]} too")
        else:
            serials[each.serial] = each.place
            estate.issued.append(each)


def _signed_by(der: bytes, ca: x509.Certificate) -> bool:
    try:
        x509.load_der_x509_certificate(der).verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _list_files(folder: Path) -> Iterator[Path]:
    for path in _walk(folder):
        if path.suffix.lower() in (".crl", ".pem", ".der") and path.stat().st_size <= _MAX_CRL:
            with path.open("rb") as stream:
                head = stream.read(4096)
            if b"-----BEGIN X509 CRL-----" in head or path.suffix.lower() == ".crl":
                yield path


def _read_lists(estate: CaEstate, paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            data = files.read_limited(path, _MAX_CRL, "revocation list")
            view = parse_crl(data, max_bytes=_MAX_CRL)
        except InputError as error:
            estate.problems.append(f"{path}: {error.what}")
            continue
        if view.issuer_der != estate.facts.subject_der:
            continue
        public = estate.certificate.public_key()
        if not x509.load_der_x509_crl(view.der).is_signature_valid(public):  # type: ignore[arg-type]  # the reader of the key has refused others
            estate.problems.append(f"{path}: the list is not signed by the CA")
        elif view.delta_base_number is None:
            estate.lists.append(view)
    estate.lists.sort(key=lambda view: (view.number or 0, view.this_update))


def _take_revocations(estate: CaEstate, intake: Intake) -> None:
    """Bring together what databases and lists say; of two instants the earlier counts."""
    own = {each.serial: each for each in estate.issued}
    for fact in intake.revocations:
        if fact.serial in own and fact.sha256 in (None, own[fact.serial].sha256):
            _note(estate, fact)
    for place, rows in intake.indexes:
        for row in rows:
            there = own.get(row.serial)
            if row.serial == estate.facts.serial and there is None:
                continue  # the CA's own certificate, which `openssl ca -selfsign` puts into its index
            if there is not None and there.not_after != row.not_after:
                estate.problems.append(f"{place}: line {row.line} ends at another time than its certificate")
                continue
            if row.revocation is not None:
                _note(estate, row.revocation)
            if there is None:
                estate.missing.append(MissingCertificate(row.serial, row.not_after, row.revocation))
    known = {*own, *(each.serial for each in estate.missing)}
    for view in estate.lists:
        # Only the newest list counts for what is not in a database: a hold may have been lifted since an older one.
        for entry in view.entries if view is estate.lists[-1] else ():
            serial = f"{entry.serial:x}"
            reason = entry.reason.value if entry.reason is not None else "unspecified"
            fact = ForeignRevocation(serial, entry.revoked_at, reason, entry.invalidity_date)
            _note(estate, fact)
            if serial not in known:
                known.add(serial)
                estate.missing.append(MissingCertificate(serial, estate.facts.not_after, fact))


def _note(estate: CaEstate, fact: ForeignRevocation) -> None:
    known = estate.revocations.get(fact.serial)
    if known is None or fact.revoked_at < known.revoked_at:
        estate.revocations[fact.serial] = fact
