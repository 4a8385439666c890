"""An estate of certificates, lists, stations and roots with something of everything that questions ask about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.codec import ROW_KINDS
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.records import (
    CaRecord,
    CaState,
    CertificateRecord,
    CertificateState,
    CrlDeltaRecord,
    CrlRecord,
    Delivery,
    RevocationChangeRecord,
)
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.inventory.trust_records import (
    StationRootRecord,
    StationRootReportRecord,
    StationRootState,
    TrustRootRecord,
)
from chargepki.pki.keys import KeyAlgorithm, spki_der, spki_sha256
from testkit.authorities import open_inventory
from testkit.chains import Made, make
from testkit.inventories import NOW, ca_record, crl_record, station_record

__all__ = ["CERTIFICATES", "CHANGES", "DELTAS", "LISTS", "Estate", "fill_estate", "made_cas"]

_DAY = timedelta(days=1)
_ALGORITHMS = (KeyAlgorithm.SECP256R1, KeyAlgorithm.ED25519, KeyAlgorithm.RSA2048, KeyAlgorithm.SECP521R1)
_SUBJECTS = ("CN=CS-1,O=Acme,C=DE", "CN=CS-2,O=Volt,C=FR", "CN=CS-3,O=Acme", "CN=x\\,C=IT,O=Smith\\, Sons")


@dataclass(frozen=True, slots=True)
class Estate:
    """The certificates of CAs: two roots, a sub-CA below the first, and its cross certificate from the second."""

    root: Made
    other: Made
    sub: Made
    cross: Made
    stranger: Made
    """A root that somebody added, signed by nobody whom we know."""


@cache
def made_cas() -> Estate:
    """Make the certificates of CAs, once."""
    start, end = NOW - 400 * _DAY, NOW + 4000 * _DAY
    root = make("Root CA", nth=0, start=start, end=end)
    other = make("Other CA", nth=1, start=start, end=end)
    sub = make("Sub CA", root, nth=2, start=NOW - 300 * _DAY, end=NOW + 2000 * _DAY)
    cross = make("Sub CA", other, nth=2, start=NOW - 300 * _DAY, end=NOW + 1000 * _DAY)
    hidden = make("Hidden CA", nth=3)
    stranger = make("Stranger CA", hidden, nth=4, start=start, end=end)
    return Estate(root, other, sub, cross, stranger)


def _ca(name: str, made: Made, issuer: str | None, profile: str) -> CaRecord:
    certificate = made.certificate
    return replace(
        ca_record(name, issuer=issuer),
        profile=profile,
        state=CaState.ACTIVE,
        certificate_der=made.der,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        spki_sha256=spki_sha256(spki_der(made.key)),
    )


def _cas() -> list[CaRecord]:
    cas = made_cas()
    return [
        _ca("r", cas.root, None, "ocpp/cso-root"),
        _ca("o", cas.other, None, "ocpp/cso-root"),
        _ca("s", cas.sub, "r@1", "ocpp/cso-sub"),
    ]


def _certificates() -> list[CertificateRecord]:
    leaves = [make(f"leaf {number}", algorithm=kind, nth=5) for number, kind in enumerate(_ALGORITHMS)]
    ca_key = _cas()[2].spki_sha256 or ""
    found = []
    for number in range(64):
        made = leaves[number % len(leaves)]
        state = tuple(CertificateState)[(1, 1, 2, 1, 0, 1, 2, 1, 3)[number % 9]]
        is_revoked = state is CertificateState.REVOKED
        # Keys: some of one subject, some of several, some over stations, one of a CA.
        key = ca_key if number in (11, 12) else f"{number % 23 if number % 3 else number + 100:064x}"
        found.append(
            CertificateRecord(
                id=f"{('r@1', 's@1')[number % 4 > 0]}:{number:x}",
                ca=("r@1", "s@1")[number % 4 > 0],
                serial=f"{number:x}",
                profile=("ocpp/charging-station", "ocpp/charging-station", "ocpp/csms", "iso15118-2/secc")[number % 4],
                state=state,
                subject=_SUBJECTS[number % len(_SUBJECTS)],
                subject_der=_SUBJECTS[number % len(_SUBJECTS)].encode(),
                spki_sha256=key,
                not_before=NOW - 90 * _DAY,
                not_after=NOW + (number % 5 * 30 + number % 7 - 10) * _DAY,
                request_key=f"id:{number}",
                requester=("alice", "bob")[number % 2],
                reserved_at=NOW - 90 * _DAY,
                der=None if state is CertificateState.RESERVED else made.der,
                sha256=f"{number:064x}",
                station=(None, "CS-1", "CS-2", "CS-3", "CS-1")[number % 5],
                issued_at=NOW - (number * 20) * _DAY,
                revoked_at=NOW - timedelta(hours=number * 3) if is_revoked else None,
                revocation_reason=("keyCompromise", "superseded")[number // 2 % 2] if is_revoked else None,
                delivery=Delivery.SUPERSEDED if number == 9 else None,
                shard=(None, 1)[number // 8 % 2],
            )
        )
    cross = made_cas().cross
    found.append(
        replace(
            found[0],
            id="o@1:ff",
            ca="o@1",
            serial="ff",
            profile="ocpp/cso-sub",
            state=CertificateState.ISSUED,
            der=cross.der,
            sha256=hashlib.sha256(cross.der).hexdigest(),
            spki_sha256=ca_key,
            not_after=cross.certificate.not_valid_after_utc,
            station=None,
        )
    )
    return found


CERTIFICATES = _certificates()
"""What the table holds, in no order."""


def _changes() -> list[RevocationChangeRecord]:
    """Number most revocations, some twice (a corrected entry); one is from before there were numbers."""
    found: list[RevocationChangeRecord] = []
    counts: dict[str, int] = {}
    for record in CERTIFICATES:
        if record.state is not CertificateState.REVOKED or record.serial == "2":
            continue
        for _ in range(1 + (record.serial == "6")):
            counts[record.ca] = counts.get(record.ca, 0) + 1
            seq = counts[record.ca]
            found.append(
                RevocationChangeRecord(f"{record.ca}/{seq}", record.ca, seq, record.shard or 0, record.id, b"entry")
            )
    return found


CHANGES = _changes()


def _lists() -> list[CrlRecord]:
    plan = (  # number, shard, changes, hours before NOW
        (1, None, None, 190),
        (2, None, 2, 100),
        (3, 1, 4, 60),
        (4, None, 2, 50),
        (5, None, 6, 40),
        (7, 1, 9, 3),
    )
    return [
        replace(
            crl_record(number, ca="s@1"),
            shard=shard,
            changes=changes,
            this_update=NOW - timedelta(hours=hours),
        )
        for number, shard, changes, hours in plan
    ]


LISTS = _lists()
DELTAS = [CrlDeltaRecord("s@1/6", "s@1", 6, 5, NOW - 20 * timedelta(hours=1), NOW + _DAY, 1, "cd" * 32, b"delta", 8)]


def _hash(made: Made, issuer: Made) -> dict[str, Any]:
    data = CertificateHashData.of(made.der, issuer.der, "SHA256")
    return {"hash": data.to_wire(), "children": []}


def _roots() -> list[StationRootRecord]:
    cas = made_cas()
    plan = (  # CS-1 has one root, CS-2 both, CS-3 was told to delete the first, CS-4 never told
        ("CS-1", "csms", cas.root, StationRootState.INSTALLED),
        ("CS-2", "csms", cas.root, StationRootState.INSTALLED),
        ("CS-2", "csms", cas.other, StationRootState.INSTALLED),
        ("CS-3", "csms", cas.root, StationRootState.DELETED),
        ("CS-4", "csms", cas.root, StationRootState.INSTALLED),
        ("CS-4", "v2g", cas.root, StationRootState.INSTALLED),
    )
    return [
        StationRootRecord(station, use, hashlib.sha256(made.der).hexdigest(), state, "op", NOW - _DAY)
        for station, use, made, state in plan
    ]


def _reports() -> list[StationRootReportRecord]:
    cas = made_cas()
    root, other = _hash(cas.root, cas.root), _hash(cas.other, cas.other)
    riddle = {"hash": {**root["hash"], "serialNumber": "deadbeef", "issuerKeyHash": "00" * 32}, "children": []}
    plan: tuple[tuple[str, list[Mapping[str, Any]]], ...] = (
        ("CS-1", [root]),
        ("CS-2", [root, other]),
        ("CS-3", [root, riddle]),
    )
    return [StationRootReportRecord(station, "csms", {"entries": entries}, NOW) for station, entries in plan]


def _stored(table: str, record: Any) -> dict[str, Any]:
    values = ROW_KINDS[table].encode(record)
    if table != "certificate":
        return values
    # Some are without traits, as those with very long names are.
    return {**values, "traits": None} if record.serial[-1:] in "03" else with_traits(values)


def fill_estate(url: str, folder: Path) -> Inventory:
    """Put the estate into the database at *url*, straight into the tables, and return it opened."""
    inventory = open_inventory(url, folder)
    stranger = made_cas().stranger
    rows: list[tuple[str, Any]] = [("ca", each) for each in _cas()]
    rows += [("station", station_record(f"CS-{number}")) for number in (1, 2, 3, 4)]
    rows += [("certificate", each) for each in CERTIFICATES]
    rows += [("crl", each) for each in LISTS] + [("crl_delta", each) for each in DELTAS]
    rows += [("revocation_change", each) for each in CHANGES]
    trusted = TrustRootRecord(
        hashlib.sha256(stranger.der).hexdigest(), stranger.der, None, "CN=Stranger CA", "alice", NOW
    )
    rows += [("trust_root", trusted)]
    rows += [("station_root", each) for each in _roots()] + [("station_root_report", each) for each in _reports()]
    database = Database(DatabaseAddress.parse(url))
    with database.session() as session:
        session.begin_write()
        for table, record in rows:
            session.run(f"{table}_insert", _stored(table, record))
        session.commit()
    database.close()
    return inventory
