"""Drift over all stations, and who is cut off when a root goes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chargepki.ocpp_security.drift import find_drift
from chargepki.ocpp_security.root_impact import CutReason, RootImpact, find_root, root_impact
from chargepki.pki.errors import Conflict, NotFound
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.codec import CERTIFICATE
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.inventory.trust_records import StationRootReportRecord, TrustRootRecord
from chargepki.pki.questions import list_authorities
from testkit.chains import make
from testkit.estates import CERTIFICATES, fill_estate, made_cas
from testkit.inventories import NOW, do, found_certificate, import_run

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inventory]:
    folder = tmp_path_factory.mktemp("estate")
    with closing(fill_estate(f"sqlite:///{folder / 'i.db'}", folder)) as inventory:
        yield inventory


def impact(estate: Inventory, name: str, days: int, *, limit: int = 1000) -> RootImpact:
    authorities = list_authorities(estate)
    return root_impact(estate, authorities, find_root(authorities, name), NOW + days * DAY, limit=limit)


def test_drift_of_the_fleet_is_what_each_station_shows(estate: Inventory) -> None:
    found = {(each.station, each.status.finding.value) for each in find_drift(estate)}
    assert found == {("CS-3", "returned"), ("CS-3", "unexplained")}
    more = {(each.station, each.status.finding.value) for each in find_drift(estate, unchecked=True)}
    assert more - found == {("CS-4", "unchecked")}


def test_chain_that_a_station_was_given_is_recognised_as_its_own(tmp_path: Path) -> None:
    leaf = make("SECC leaf", made_cas().sub, nth=6)
    digest = hashlib.sha256(leaf.der).hexdigest()
    changes: dict[str, Any] = {
        "ca": "s@1",
        "der": leaf.der,
        "sha256": digest,
        "station": "CS-4",
        "state": CertificateState.ISSUED,
    }
    record = replace(CERTIFICATES[1], id="s@1:abc", serial="abc", **changes)
    told = {"hash": CertificateHashData.of(leaf.der, made_cas().sub.der, "SHA256").to_wire(), "children": []}
    with closing(fill_estate(f"sqlite:///{tmp_path / 'i.db'}", tmp_path)) as inventory:
        report = StationRootReportRecord("CS-4", "v2g-chain", {"entries": [told]}, NOW)
        do(inventory, lambda tx: tx.put_root_report(report))

        def about_chains() -> list[tuple[str, str, str | None]]:
            found = [each for each in find_drift(inventory) if each.status.use == "v2g-chain"]
            return [(each.station, each.status.finding.value, each.status.label) for each in found]

        before = about_chains()
        with inventory._database.session() as session:
            session.run("certificate_insert", with_traits(CERTIFICATE.encode(record)))
        assert (before, about_chains()) == ([("CS-4", "unexplained", "")], [])


def test_cross_certificate_carries_on_while_it_is_valid(estate: Inventory) -> None:
    found = impact(estate, "r", 0)
    assert found.dependent == ("s@1",)
    assert found.rescued == ("s@1",)
    assert {each.ca for each in found.certificates} == {"r@1"}
    # The cross certificate ends after 1000 days; nothing of ours but the sub-CA's certificate lives that long.
    later = impact(estate, "r", 1001)
    assert later.rescued == ()
    assert impact(estate, "r", 1000 - 1).rescued == ("s@1",)
    assert impact(estate, "o", 0).rescued == ("o@1:ff",)


def test_root_that_has_ended_rescues_nobody_and_imported_certificates_are_cut_off_too(tmp_path: Path) -> None:
    start = NOW - 300 * DAY
    brief = make("Brief CA", nth=6, start=start, end=NOW + 1100 * DAY)
    longer = make("Sub CA", brief, nth=2, start=start, end=NOW + 1500 * DAY)
    leaf = make("Imported leaf", made_cas().sub, nth=7)
    digest = hashlib.sha256(leaf.der).hexdigest()
    issuer = leaf.certificate.issuer.rfc4514_string()
    found = found_certificate("7", issuer=issuer, der=leaf.der, sha256=digest, not_after=NOW + 1900 * DAY)
    with closing(fill_estate(f"sqlite:///{tmp_path / 'i.db'}", tmp_path)) as inventory:
        for made in (brief, longer):
            name = hashlib.sha256(made.der).hexdigest()
            root = TrustRootRecord(name, made.der, None, made.certificate.subject.rfc4514_string(), "alice", NOW)
            do(inventory, lambda tx, root=root: tx.put_trust_root(root))  # type: ignore[misc]  # bound per turn
        do(inventory, lambda tx: tx.import_certificates([found], import_run(), now=NOW))

        def cut(days: int) -> tuple[bool, list[tuple[str, int]]]:
            impacted = impact(inventory, "r", days)
            imported = [
                (each.profile, each.certificates) for each in impacted.certificates if each.profile == "foreign"
            ]
            return "s@1" in impacted.rescued, imported

        # Until day 1000 the cross certificate of the estate carries on, until 1100 the second one.
        assert [cut(days) for days in (0, 1050)] == [(True, []), (True, [])]
        assert cut(1200) == (False, [("foreign", 1)])


def test_root_carries_on_in_another_certificate_of_its_key_while_that_is_valid(tmp_path: Path) -> None:
    twin = make("Root CA", nth=0, start=NOW - DAY, end=NOW + 20 * DAY, serial=77)
    root = TrustRootRecord(hashlib.sha256(twin.der).hexdigest(), twin.der, None, "CN=Root CA", "alice", NOW)
    with closing(fill_estate(f"sqlite:///{tmp_path / 'i.db'}", tmp_path)) as inventory:
        do(inventory, lambda tx: tx.put_trust_root(root))
        cut = [{each.ca for each in impact(inventory, "r@1", days).certificates} for days in (10, 30)]
    assert cut == [set(), {"r@1"}]


def test_what_is_cut_off_is_counted_by_ca_and_profile(estate: Inventory) -> None:
    rows = [row for row in CERTIFICATES if row.ca == "r@1" and row.state == "issued" and row.not_after >= NOW]
    expected = {(profile, sum(row.profile == profile for row in rows)) for profile in {row.profile for row in rows}}
    found = impact(estate, "r", 0)
    assert {(each.profile, each.certificates) for each in found.certificates} == expected
    owned = {row.station for row in rows if row.station is not None}
    assert sum(each.stations for each in found.certificates) == len(owned)
    assert found.total_certificates == len(rows)
    # A day on which they have all expired cuts nobody off.
    assert impact(estate, "r", 900).total_certificates == 0


def test_stations_are_cut_off_by_what_they_trust(estate: Inventory) -> None:
    # CSMS certificates are issued below the sub-CA, which both roots anchor: whoever has the other one goes on.
    found = {(each.station, each.use): each.reason for each in impact(estate, "r", 0).stations}
    assert found == {
        ("CS-1", "csms"): CutReason.NO_ROOT_LEFT,
        ("CS-3", "csms"): CutReason.UNKNOWN,
        ("CS-4", "csms"): CutReason.NO_ROOT_LEFT,
        ("CS-4", "v2g"): CutReason.NO_ROOT_LEFT,
    }
    other = impact(estate, "o", 0)
    assert other.stations == ()
    few = impact(estate, "r", 0, limit=1)
    assert len(few.stations) == 1
    assert few.total_stations == 4
    # When the cross certificate has ended, the other root does not cover the CSMS any more.
    assert ("CS-2", "csms") not in found


def test_second_root_that_covers_nothing_does_not_help(estate: Inventory) -> None:
    authorities = [each for each in list_authorities(estate) if each.label != "o@1:ff"]
    found = root_impact(estate, authorities, find_root(authorities, "r"), NOW)
    (cut,) = [each for each in found.stations if each.station == "CS-2"]
    assert cut.reason is CutReason.NOT_COVERED
    assert cut.lost == ("s@1",)
    assert {each.ca for each in found.certificates} == {"r@1", "s@1"}


def test_roots_are_named_by_ca_generation_or_digest(estate: Inventory) -> None:
    authorities = list_authorities(estate)
    digest = hashlib.sha256(made_cas().root.der).hexdigest()
    for name in ("r", "r@1", digest, digest[:8].upper()):
        assert find_root(authorities, name).ca == "r@1"
    for name in ("s", "nobody", digest[:7], "00000000"):
        with pytest.raises(NotFound, match="no root"):
            find_root(authorities, name)
    with pytest.raises(Conflict):
        find_root([*authorities, *authorities], digest[:8])
