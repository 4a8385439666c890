"""A station gets the chain that it can verify, by the roots that it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.cli.csms_tls import server_identities
from chargepki.ocpp_security.deliveries import list_pending
from chargepki.ocpp_security.sign_certificate import IssuePlan
from chargepki.ocpp_security.station_chain import chain_for_station, station_anchors
from chargepki.ocpp_security.wire import CertificateUse, RootUse
from chargepki.pki.authority import IssuedCertificate, IssueOrder, utc_now
from chargepki.pki.authority.rollover import RolloverOrder, roll_over
from chargepki.pki.chain import verify_chain
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootReportRecord, StationRootState
from chargepki.pki.keys import KeyAlgorithm
from testkit.authorities import make_csr
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on
from testkit.ocpp_peers import build_station_csr, foreign_station

S = "ROLLED"


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Root and sub-CA in their second generation; two stations, of which one was given the first root."""
    with Rig(tmp_path_factory.mktemp("rolled")) as rig:
        for name in (S, "FRESH", "TOLD"):
            rig.add_station(name, profile=1)
        roll_over(rig.authority, RolloverOrder("t-cso-root"))
        roll_over(rig.authority, RolloverOrder("t-cso-sub"))
        sha256 = hashlib.sha256(rig.root_der).hexdigest()
        texts = CertificateHashData.of(rig.root_der, rig.root_der).to_wire()

        def work(tx: Transaction) -> None:
            now = utc_now()
            tx.put_station_root(StationRootRecord(S, "csms", sha256, StationRootState.INSTALLED, "op", now))
            entry = {"hash": dict(texts), "children": []}
            tx.put_root_report(StationRootReportRecord("TOLD", "csms", {"entries": [entry]}, now))
            tx.audit(ACTOR, "test.fill", S, now=now)

        rig.inventory.write(work)
        yield rig


def issued_by(rig: Rig, ca: str = "t-cso-sub") -> IssuedCertificate:
    return rig.authority.issue(IssueOrder(ca=ca, profile="ocpp/charging-station", csr=make_csr("CS-X")))


def chosen(rig: Rig, station: str, *, max_characters: int | None = None) -> tuple[bytes, ...]:
    issued = issued_by(rig)
    return chain_for_station(
        rig.inventory,
        issued.chain,
        ca_id=issued.record.ca,
        station=station,
        use=RootUse.CSMS,
        now=utc_now(),
        max_characters=max_characters,
    )


def test_the_roots_of_a_station_are_what_it_listed_or_else_what_was_installed(rolled: Rig) -> None:
    for station in (S, "TOLD"):
        assert station_anchors(rolled.inventory, station, RootUse.CSMS) == (rolled.root_der,)
    assert station_anchors(rolled.inventory, "FRESH", RootUse.CSMS) is None
    assert station_anchors(rolled.inventory, S, RootUse.V2G) is None


@pytest.mark.parametrize("station", [S, "TOLD"])
def test_a_station_with_the_old_root_alone_gets_the_cross_certificate(rolled: Rig, station: str) -> None:
    chain = chosen(rolled, station)
    assert len(chain) == 3
    verify_chain(chain[0], chain[1:], [rolled.root_der], at=utc_now())
    # Two octets too long for the field: the usual chain, which the station may know how to complete.
    assert len(chosen(rolled, station, max_characters=2000)) == 2


def test_a_station_of_which_nothing_is_known_gets_the_usual_chain(rolled: Rig) -> None:
    assert len(chosen(rolled, "FRESH")) == 2


def test_certificate_signed_carries_the_chain_for_the_station(rolled: Rig) -> None:
    async def story() -> None:
        async with (
            rolled.server(1) as server,
            foreign_station(rolled.url_of(server), S, "ocpp2.0.1", password=PASSWORD) as peer,
        ):
            assert await peer.boot(S) == "Accepted"
            assert await peer.send_csr(build_station_csr(ec.generate_private_key(ec.SECP256R1()), S)) == "Accepted"
            delivered = x509.load_pem_x509_certificates((await peer.next_chain()).encode())
        ders = [each.public_bytes(Encoding.DER) for each in delivered]
        assert len(ders) == 3
        verify_chain(ders[0], ders[1:], [rolled.root_der], at=utc_now())

    run_on("asyncio", story())


def test_what_waits_for_a_station_is_handed_over_with_its_chain(rolled: Rig) -> None:
    order = IssueOrder(
        ca="t-cso-sub", profile="ocpp/charging-station", csr=make_csr("TOLD"), station="TOLD", must_deliver=True
    )
    rolled.authority.issue(order)
    plans = {CertificateUse.CHARGING_STATION: IssuePlan("t-cso-sub", "ocpp/charging-station")}
    (waiting,) = list_pending(rolled.inventory, "TOLD", plans, utc_now(), chain_limit=10_000)
    verify_chain(waiting.chain[0], waiting.chain[1:], [rolled.root_der], at=utc_now())


def test_the_server_shows_stations_of_either_generation_a_chain(rolled: Rig) -> None:
    class Workspace:
        authority = rolled.authority

    (identity,) = server_identities(Workspace(), "t-cso-sub", ("localhost",), algorithms=[KeyAlgorithm.SECP256R1])  # type: ignore[arg-type]  # it needs nothing else of a workspace
    new_root = rolled.inventory.get_ca("t-cso-root").certificate_der
    assert new_root is not None and len(identity.chain_der) == 3
    for root in (rolled.root_der, new_root):
        verify_chain(identity.chain_der[0], identity.chain_der[1:], [root], at=utc_now())
