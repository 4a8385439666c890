"""An inventory of very many certificates, for what reads all of them: real ones, which lint and verify.

The same seed gives the same names, keys, dates and states; keys and signatures of CAs differ from run to run.
Rows are written straight into the tables, past the audit log.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.bulk import loading
from benchmarks.harness import SIZE, tell
from benchmarks.material import ACTOR
from chargepki.pki import keys, names, private_keys
from chargepki.pki.authority import Authority, CaOrder
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.audit import AuditKey
from chargepki.pki.inventory.codec import CERTIFICATE, CRL, REVOCATION_CHANGE, STATION
from chargepki.pki.inventory.records import (
    CertificateRecord,
    CertificateState,
    CrlRecord,
    RevocationChangeRecord,
    StationRecord,
    StationState,
)
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pointers import choose_pointers
from chargepki.pki.profiles import get_profile
from chargepki.pki.signer import SoftwareKeyStore
from chargepki.pki.template import IssuerInfo, Window, assemble_certificate, build_tbs

__all__ = ["AT", "SEED", "Kind", "Made", "fill", "kept_folder", "made", "size"]

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
"""The present of the estate."""
SEED = 20261101
_PASSPHRASE = b"benchmark"
_CHUNK = 1000
_CHUNKS_A_COMMIT = 25
_TELLS_FROM = 100_000
_URL = "http://pki.cso.eu"
_VENDORS = ("Acme Charging", "Volt AG", "Ladewerk", "Borne SA", "Chargely", "Ampere Ltd", "Kwik", "Elbil")
_COUNTRIES = ("DE", "FR", "NL", "NO", "IT", "ES", "AT", "SE")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of certificate of the estate."""

    profile: str
    ca: str
    share: float
    days: int


KINDS = (
    Kind("ocpp/charging-station", "e-cso-sub", 0.6, 365),
    Kind("iso15118-2/secc", "e-cpo-sub2", 0.25, 60),
    Kind("iso15118-2/contract", "e-mo-sub2", 0.1489, 730),
    Kind("ocpp/csms", "e-cso-sub", 0.001, 365),
    Kind("ocpp/firmware-signing", "e-manufacturer-root", 0.0001, 730),
)
_CAS = (
    ("e-cso-root", "ocpp/cso-root", None),
    ("e-cso-sub", "ocpp/cso-sub", "e-cso-root"),
    ("e-manufacturer-root", "ocpp/manufacturer-root", None),
    ("e-v2g-root", "iso15118-2/v2g-root", None),
    ("e-cpo-sub1", "iso15118-2/cpo-sub1", "e-v2g-root"),
    ("e-cpo-sub2", "iso15118-2/cpo-sub2", "e-cpo-sub1"),
    ("e-mo-root", "iso15118-2/mo-root", None),
    ("e-mo-sub1", "iso15118-2/mo-sub1", "e-mo-root"),
    ("e-mo-sub2", "iso15118-2/mo-sub2", "e-mo-sub1"),
)


def size(default: int) -> int:
    """Return how many certificates to make: ``CHARGEPKI_BENCH_CERTIFICATES``, or *default*."""
    return int(os.environ.get(SIZE, default))


def kept_folder() -> str | None:
    """Return the folder for gigabytes that ``CHARGEPKI_BENCH_FOLDER`` names; ``None``: where the system has room."""
    return os.environ.get("CHARGEPKI_BENCH_FOLDER")


@dataclass(frozen=True, slots=True)
class Made:
    """An estate in a folder that is a workspace."""

    folder: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "inventory.db"

    @property
    def log_key(self) -> AuditKey:
        """The key of its audit log."""
        return AuditKey.load_or_create(self.folder / "audit.key")

    def open(self) -> Inventory:
        """Return it opened."""
        return Inventory.open(f"sqlite:///{self.database}", log_key=self.log_key)


@contextmanager
def made(count: int) -> Iterator[Made]:
    """Lend an estate of *count* certificates.

    Where ``CHARGEPKI_BENCH_FOLDER`` names a folder, it is kept there, and made only once: a million takes minutes.
    """
    kept = kept_folder()
    with tempfile.TemporaryDirectory(dir=kept) as temporary:
        estate = Made(Path(kept or temporary) / f"estate-{count}-{SEED}")
        if not estate.folder.exists():
            new = Made(Path(temporary) / "new")
            new.folder.mkdir(mode=0o700)
            fill(f"sqlite:///{new.database}", new.folder, count).close()
            new.folder.rename(estate.folder)
        yield estate


def fill(url: str, folder: Path, count: int, *, seed: int = SEED, jobs: int | None = None) -> Inventory:
    """Put an estate of *count* certificates into the empty SQLite database at *url*, and return it opened."""
    inventory = Inventory.open(url, log_key=AuditKey.load_or_create(folder / "audit.key"))
    store = SoftwareKeyStore(folder / "keys", lambda: _PASSPHRASE)
    start = AT - timedelta(days=100)
    authority = Authority(inventory, store, actor=ACTOR, clock=lambda: start, public_url=_URL)
    for name, profile, issuer in _CAS:
        subject = [("CN", name), ("O", "Estate"), ("C", "DE")]
        if profile.startswith("iso"):
            subject.append(("DC", {"e-cpo": "CPO", "e-mo-": "MO"}.get(name[:5], "V2G")))
        authority.create_ca(CaOrder(name, profile, issuer=issuer, subject=tuple(subject)))
    with loading(url) as session:
        stations = max(1, count // 4)
        for first in range(0, stations, 10_000):
            rows = [STATION.encode(_station(number)) for number in range(first, min(stations, first + 10_000))]
            session.begin_write()
            session.run_many("station_insert", rows)
            session.commit()
        changes: dict[str, int] = {}
        chunks = _chunks(_issuers(inventory, folder / "keys"), count, seed, stations, jobs or os.cpu_count() or 1)
        # Many in one transaction: ids are random, so that each writes to nearly every page.
        written = 0
        while several := list(islice(chunks, _CHUNKS_A_COMMIT)):
            session.begin_write()
            for chunk in several:
                session.run_many("certificate_insert", chunk)
                session.run_many("revocation_change_insert", _changes(chunk, changes))
            session.commit()
            written += sum(map(len, several))
            if count >= _TELLS_FROM:
                tell(f"{written} of {count} certificates made")
        session.begin_write()
        for ca, last in changes.items():
            # The newest list of each CA does not tell the last three revocations.
            made = AT - timedelta(hours=6)
            crl = CrlRecord(f"{ca}/9", ca, 9, made, made + timedelta(days=7), last, "00" * 32, b"crl")
            session.run("crl_insert", {**CRL.encode(crl), "changes": max(0, last - 3)})
        session.commit()
    return inventory


def _station(number: int) -> StationRecord:
    name = f"CS-{number:07d}"
    return StationRecord(name, name, _VENDORS[number % len(_VENDORS)], 2, StationState.ACTIVE, AT, None)


@dataclass(frozen=True, slots=True)
class _Issuer:
    ca: str
    info: IssuerInfo
    private: bytes
    """Unencrypted PKCS#8, for the processes that make certificates."""


def _issuers(inventory: Inventory, folder: Path) -> dict[str, _Issuer]:
    found = {}
    for name in sorted({kind.ca for kind in KINDS}):
        ca = inventory.get_ca(name)
        path = folder / ca.key_uri.partition(":")[2]
        key = private_keys.decrypt_private_key(path.read_bytes(), _PASSPHRASE)
        info = IssuerInfo(ca.subject_der, keys.key_identifier(keys.spki_der(key)), KeyAlgorithm.SECP256R1)
        found[name] = _Issuer(ca.id, info, private_keys.serialise_private_key(key))
    return found


def _chunks(
    issuers: Mapping[str, _Issuer], count: int, seed: int, stations: int, jobs: int
) -> Iterator[list[dict[str, Any]]]:
    tasks = [(seed, first, min(_CHUNK, count - first), stations, issuers) for first in range(0, count, _CHUNK)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_make, tasks)


def _make(task: tuple[int, int, int, int, Mapping[str, _Issuer]]) -> list[dict[str, Any]]:
    """Return the rows of one chunk; each is made from its number and the seed alone."""
    seed, first, count, stations, issuers = task
    random = Random(f"{seed}/{first}")
    signers = {name: private_keys.load_private_key(issuer.private) for name, issuer in issuers.items()}
    kinds = random.choices(KINDS, [kind.share for kind in KINDS], k=count)
    return [
        _row(random, first + offset, kind, issuers[kind.ca], signers[kind.ca], stations)
        for offset, kind in enumerate(kinds)
    ]


def _row(
    random: Random, number: int, kind: Kind, issuer: _Issuer, signer: keys.PrivateKey, stations: int
) -> dict[str, Any]:
    profile = get_profile(kind.profile)
    serial = random.getrandbits(158) | 1 << 157
    is_station = kind.profile == "ocpp/charging-station"
    station = f"CS-{number % stations:07d}" if is_station else None
    subject = names.name_der(names.build_name(_subject(random, number, kind, station)))
    private = ec.derive_private_key(random.getrandbits(240) + 1, ec.SECP256R1())
    spki = keys.spki_der(private)
    begin = (AT - timedelta(days=random.random() * kind.days * 1.2)).replace(microsecond=0)
    window = Window(begin, begin + timedelta(days=kind.days, seconds=-1))
    pointers = choose_pointers(profile, _URL, issuer.ca)
    dns = (f"csms{number}.example.com",) if kind.profile == "ocpp/csms" else ()
    tbs = build_tbs(
        profile, issuer=issuer.info, serial=serial, subject_der=subject, spki_der=spki, window=window,
        pointers=pointers, dns_names=dns,
    )  # fmt: skip
    algorithm = keys.signature_algorithm(KeyAlgorithm.SECP256R1).der
    der = assemble_certificate(tbs, algorithm, keys.sign(signer, tbs))
    is_revoked = random.random() < 0.05
    record = CertificateRecord(
        id=f"{issuer.ca}:{serial:x}",
        ca=issuer.ca,
        serial=f"{serial:x}",
        profile=kind.profile,
        state=CertificateState.REVOKED if is_revoked else CertificateState.ISSUED,
        subject=names.text(subject),
        subject_der=subject,
        spki_sha256=keys.spki_sha256(spki),
        not_before=window.not_before,
        not_after=window.not_after,
        request_key=hashlib.sha256(str(number).encode()).hexdigest(),
        requester=f"csms-{number % 5}",
        reserved_at=begin,
        tbs=tbs,
        der=der,
        sha256=hashlib.sha256(der).hexdigest(),
        station=station,
        csr=random.randbytes(320),
        verdict={"accepted": True},
        issued_at=begin,
        revoked_at=begin + (AT - begin) * random.random() if is_revoked else None,
        revocation_reason=random.choice(("superseded", "keyCompromise")) if is_revoked else None,
    )
    return with_traits(CERTIFICATE.encode(record))


def _subject(random: Random, number: int, kind: Kind, station: str | None) -> list[tuple[str, str]]:
    vendor, country = random.choice(_VENDORS), random.choice(_COUNTRIES)
    match kind.profile:
        case "ocpp/charging-station":
            return [("CN", station or ""), ("O", vendor), ("C", country)]
        case "ocpp/csms":
            return [("CN", f"csms{number}.example.com"), ("O", vendor)]
        case "iso15118-2/secc":
            return [("CN", f"DE*ABC*E{number:07d}"), ("O", vendor), ("C", country), ("DC", "CPO")]
        case "iso15118-2/contract":
            return [("CN", f"DE8AA{number % 10**9:09d}"), ("O", vendor), ("C", country), ("DC", "MO")]
    return [("CN", f"Signer {number}"), ("O", vendor)]


def _changes(rows: Sequence[Mapping[str, Any]], counts: dict[str, int]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        if row["state"] == "revoked":
            ca = str(row["ca"])
            counts[ca] = counts.get(ca, 0) + 1
            change = RevocationChangeRecord(f"{ca}/{counts[ca]}", ca, counts[ca], 0, str(row["id"]), b"entry")
            found.append(dict(REVOCATION_CHANGE.encode(change)))
    return found
