"""Renewal with proof of use, and the replacement of what a leaked key made worthless: nobody is cut off before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from chargepki.ocpp_security.campaign_renewal import replacement_parameters
from chargepki.ocpp_security.campaign_store import CampaignStore
from chargepki.ocpp_security.campaigns import Pace
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.authority.creation import CaOrder
from chargepki.pki.errors import InputError, StateError
from chargepki.pki.inventory.campaign_records import CampaignStationRecord, CampaignStationState
from chargepki.pki.inventory.records import CertificateState, Delivery
from testkit.csms_rig import ACTOR, ORGANIZATION, Rig, run_on, wait_for
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station

S = CampaignStationState
USE = CertificateUse.CHARGING_STATION


def start(rig: Rig, name: str, kind: str, parameters: dict[str, object], stations: list[str]) -> None:
    now = datetime.now(UTC)
    pace = Pace(deadline_seconds=60)
    CampaignStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR).create(
        name, kind, parameters, stations, pace, now=now, ends_at=now + timedelta(minutes=5)
    )


def member(rig: Rig, name: str, station: str) -> CampaignStationRecord:
    found = rig.inventory.find_campaign_station(name, station)
    assert found is not None
    return found


def certificate_of(rig: Rig, credential: Credential) -> str:
    leaf = x509.load_pem_x509_certificate(credential.chain_pem.encode())
    return rig.inventory.find_certificates_by_serial(f"{leaf.serial_number:x}")[0].id


def test_a_leaked_key_is_replaced_under_the_new_ca_and_revoked_once_the_new_one_is_proven(rig: Rig) -> None:
    """A02.FR.08, A02.FR.10: the station comes back with the new certificate, and only then is the old one retired."""
    subject = (("CN", "t-new-sub"), ("O", ORGANIZATION), ("C", "DE"))
    rig.authority.create_ca(CaOrder("t-new-sub", "ocpp/cso-sub", issuer="t-cso-root", subject=subject))
    rig.add_station("LEAK", profile=3)
    old, old_id = rig.credential("LEAK")
    new = Credential()
    parameters = replacement_parameters(USE, reason="keyCompromise", certificates=[old_id], by="t-new-sub")

    async def story() -> None:
        async with rig.server(3) as server:
            url = rig.url_of(server)
            async with foreign_station(url, "LEAK", "ocpp2.0.1", tls=rig.client_tls(old)) as peer:
                start(rig, "leak", "replace-certificate", parameters, ["LEAK"])
                await peer.next_trigger()
                await peer.send_csr(build_station_csr(new.key, "LEAK", ORGANIZATION))
                new.chain_pem = await peer.next_chain()
                operation = str(member(rig, "leak", "LEAK").operation)
                await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final)
                assert member(rig, "leak", "LEAK").state is S.RUNNING
                assert rig.inventory.get_certificate(old_id).state is CertificateState.ISSUED
            async with foreign_station(url, "LEAK", "ocpp2.0.1", tls=rig.client_tls(new)):
                await wait_for(lambda: member(rig, "leak", "LEAK").state is S.DONE)

    run_on("asyncio", story())
    assert certificate_of(rig, new).startswith("t-new-sub@1:")
    revoked = rig.inventory.get_certificate(old_id)
    assert (revoked.state, revoked.revocation_reason) == (CertificateState.REVOKED, "keyCompromise")
    assert member(rig, "leak", "LEAK").outcome == {"certificate": certificate_of(rig, new), "proven": True}


def test_a_station_that_never_comes_in_with_its_new_certificate_is_reported_and_keeps_the_old_one(rig: Rig) -> None:
    rig.add_station("STUCK", profile=3)
    old, old_id = rig.credential("STUCK")
    ahead = timedelta(0)

    async def story() -> None:
        nonlocal ahead
        async with (
            rig.server(3, clock=lambda: datetime.now(UTC) + ahead) as server,
            foreign_station(rig.url_of(server), "STUCK", "ocpp2.0.1", tls=rig.client_tls(old)) as peer,
        ):
            start(rig, "stuck", "trigger-renewal", {"use": USE.value}, ["STUCK"])
            await peer.next_trigger()
            await peer.send_csr(build_station_csr(Credential().key, "STUCK", ORGANIZATION))
            await peer.next_chain()
            operation = str(member(rig, "stuck", "STUCK").operation)
            await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final)
            ahead = timedelta(minutes=2)
            await wait_for(lambda: member(rig, "stuck", "STUCK").state is S.FAILED)

    run_on("asyncio", story())
    assert "the old one is kept" in str(member(rig, "stuck", "STUCK").outcome)
    kept = rig.inventory.get_certificate(old_id)
    assert (kept.state, kept.delivery) == (CertificateState.ISSUED, Delivery.IN_USE)


def test_a_ca_does_not_replace_itself(rig: Rig) -> None:
    rig.add_station("SELF")
    parameters = replacement_parameters(USE, reason="cACompromise", cas=["t-cso-sub@1"], by="t-cso-sub")
    with pytest.raises(StateError, match="cannot replace"):
        start(rig, "self", "replace-certificate", parameters, ["SELF"])


def test_a_replacement_of_nothing_or_for_no_reason_is_refused() -> None:
    with pytest.raises(InputError):
        replacement_parameters(USE, reason="keyCompromise")
    with pytest.raises(InputError):
        replacement_parameters(USE, reason="because", cas=["t@1"])
