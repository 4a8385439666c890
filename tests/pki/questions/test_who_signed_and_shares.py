"""What questions must tell apart: names from signatures, kinds of shared keys, lists of ours from those of others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chargepki.pki import names
from chargepki.pki.csr import parse_csr
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.codec import CERTIFICATE
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.records import CertificateState, EstRequestRecord, EstRequestState
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.inventory.trust_records import TrustRootRecord
from chargepki.pki.keys import spki_sha256
from chargepki.pki.questions import KeyReuseKind, Publication, find_key_reuse, find_orphans, revocation_effects
from testkit.chains import Made, make
from testkit.estates import CERTIFICATES, fill_estate, made_cas
from testkit.inventories import NOW, do
from testkit.requests import make_csr


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Inventory]:
    with closing(fill_estate(f"sqlite:///{tmp_path / 'i.db'}", tmp_path)) as inventory:
        yield inventory


def trust(inventory: Inventory, made: Made) -> None:
    name = made.certificate.subject.rfc4514_string()
    root = TrustRootRecord(hashlib.sha256(made.der).hexdigest(), made.der, None, name, "alice", NOW)
    do(inventory, lambda tx: tx.put_trust_root(root))


def insert(inventory: Inventory, **changes: Any) -> None:
    record = replace(CERTIFICATES[1], **changes)
    with inventory._database.session() as session:
        session.run("certificate_insert", with_traits(CERTIFICATE.encode(record)))


def orphans(inventory: Inventory) -> Sequence[str]:
    return [each.subject for each in find_orphans(inventory)]


def test_issuer_of_the_same_name_and_another_key_is_no_issuer(estate: Inventory) -> None:
    trust(estate, make("Below ours", made_cas().root, nth=6))
    assert orphans(estate) == ["CN=Stranger CA"]
    trust(estate, make("Below its twin", make("Root CA", nth=7), nth=8))
    assert sorted(orphans(estate)) == ["CN=Below its twin", "CN=Stranger CA"]


def test_issuer_that_was_revoked_is_an_issuer_still(estate: Inventory) -> None:
    gone = make("Gone CA", made_cas().root, nth=6)
    trust(estate, make("Below gone", gone, nth=7))
    assert sorted(orphans(estate)) == ["CN=Below gone", "CN=Stranger CA"]
    digest = hashlib.sha256(gone.der).hexdigest()
    state = {"state": CertificateState.REVOKED, "revoked_at": NOW, "revocation_reason": "superseded"}
    insert(estate, id="r@1:abc", ca="r@1", serial="abc", profile="ocpp/cso-sub", der=gone.der, sha256=digest, **state)
    assert orphans(estate) == ["CN=Stranger CA"]


def test_key_of_a_ca_on_another_name_is_told_as_that(estate: Inventory) -> None:
    row = next(each for each in CERTIFICATES if each.id == "o@1:ff")
    assert row.state == "issued" and row.station is None
    twin = {"spki_sha256": row.spki_sha256, "subject_der": b"another", "station": None, "not_after": row.not_after}
    insert(estate, id="r@1:abd", ca="r@1", serial="abd", sha256="ab" * 32, **twin)
    wanted = parse_filter("id in ('o@1:ff', 'r@1:abd')", now=NOW)
    (found,) = find_key_reuse(estate, NOW, wanted=wanted)
    assert (found.kind, found.certificates) == (KeyReuseKind.CA_KEY, 2)
    assert found.examples == ("o@1:ff", "r@1:abd", "CA s@1")


def test_key_of_a_request_that_waits_for_an_approval_is_told(estate: Inventory) -> None:
    csr = parse_csr(make_csr(names.parse_rdns("CN=CS-1"))).der
    key = spki_sha256(parse_csr(csr).spki_der)
    insert(
        estate,
        id="r@1:abe",
        ca="r@1",
        serial="abe",
        sha256="ac" * 32,
        spki_sha256=key,
        not_after=NOW.replace(year=2030),
    )
    request = EstRequestRecord("e1", "label", "account", "CN=CS-1", csr, EstRequestState.WAITING, NOW)
    do(estate, lambda tx: tx.add_est_request(request))
    (found,) = [each for each in find_key_reuse(estate, NOW) if each.kind is KeyReuseKind.REQUESTED]
    assert (found.key_sha256, found.certificates, found.examples) == (key, 1, ("request e1",))


def test_lists_of_a_ca_that_is_not_ours_are_not_called_late(estate: Inventory) -> None:
    ours = {each.publication for each in revocation_effects(estate, NOW, ca="s")}
    assert Publication.UNPUBLISHED in ours and Publication.EXTERNAL not in ours
    with estate._database.session() as session:
        session.execute("UPDATE ca SET key_uri = 'est:https://ca.test' WHERE id = 's@1'")
    assert {each.publication for each in revocation_effects(estate, NOW, ca="s")} == {Publication.EXTERNAL}
