"""What a station must refuse, over the wire in every version; and mistakes with certificates that it takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from chargepki.ocpp_security.station import Milestone, StationSimulator, parse_conduct
from chargepki.ocpp_security.station.roots import StationRoots
from chargepki.ocpp_security.trust_store import TrustPolicy
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.pem import to_pem
from testkit.csms_rig import run_on, wait_for
from testkit.desk import Desk, desk_with
from testkit.flows import NOW, Ca, new_key, operator

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
ACME = operator("Acme")
ROGUE = operator("Rogue")
Forge = Callable[[Ca, Any], str]


def leaf(ca: Ca, public_key: Any, **more: Any) -> str:
    settings = {"common_name": "CS-1", "organization": "Acme", **more}
    return ca.chain_pem(ca.issue(public_key, **settings))


CHAINS: dict[str, tuple[Forge, str]] = {
    "a foreign key": (lambda ca, key: leaf(ca, new_key().public_key()), "another public key"),
    "a wrong chain": (lambda ca, key: leaf(ROGUE, key), "no issuer found"),
    "another station's name": (lambda ca, key: leaf(ca, key, common_name="CS-2"), "CN is 'CS-2'"),
    "another operator": (lambda ca, key: leaf(ca, key, organization="Other"), "O is 'Other'"),
    "expired": (
        lambda ca, key: leaf(ca, key, not_before=NOW - timedelta(days=9), lifetime=timedelta(days=8)), "expired"
    ),
    "no certificate": (lambda ca, key: "nothing", "no PEM certificate"),
    "a CA certificate": (lambda ca, key: to_pem("CERTIFICATE", ca.sub_der), "another public key"),
}  # fmt: skip


async def asked(desk: Desk, version: str) -> tuple[Any, int | None]:
    """Trigger a CSR and return its public key and requestId."""
    await desk.expect("StatusNotification")
    wanted = (
        ("ExtendedTriggerMessage", "SignChargePointCertificate")
        if version == "ocpp1.6"
        else ("TriggerMessage", "SignChargingStationCertificate")
    )
    assert (await desk.call(wanted[0], {"requestedMessage": wanted[1]}))["status"] == "Accepted"
    sent = await desk.expect("SignCertificate")
    return x509.load_pem_x509_csr(sent["csr"].encode()).public_key(), sent.get("requestId")


def signed(chain: str, request_id: int | None = None) -> dict[str, Any]:
    return {"certificateChain": chain, **({} if request_id is None else {"requestId": request_id})}


def options() -> dict[str, Any]:
    return {"clock": lambda: NOW, "roots": {"csms": to_pem("CERTIFICATE", ACME.root_der).encode()}}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_that_is_not_for_it_is_refused(tmp_path: Path, version: str) -> None:
    """A02.FR.06, A02.FR.07, A02.FR.26; then the right one is taken for the same request."""

    async def story() -> None:
        async with desk_with(tmp_path, version=version, **options()) as (desk, station, told):
            key, number = await asked(desk, version)
            for what, (forge, why) in CHAINS.items():
                assert (await desk.call("CertificateSigned", signed(forge(ACME, key), number)))["status"] == "Rejected"
                refused = [one.text for one in told if one.milestone is Milestone.CERTIFICATE_REFUSED]
                assert why in refused[-1], (what, refused)
                assert station.flow.installed == ()
            if version == "ocpp2.1":
                unknown = signed(leaf(ACME, key), 4711)
                assert (await desk.call("CertificateSigned", unknown))["status"] == "Rejected"
            event = "InvalidChargePointCertificate" if version == "ocpp1.6" else "InvalidChargingStationCertificate"
            while (await desk.expect("SecurityEventNotification"))["type"] != event:
                pass
            assert (await desk.call("CertificateSigned", signed(leaf(ACME, key), number)))["status"] == "Accepted"
            assert len(station.flow.installed) == 1

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_of_the_future_is_refused_since_the_errata(tmp_path: Path, version: str) -> None:
    """A02.FR.06 as changed by the errata; 1.6 A02.FR.08 takes it and waits."""

    async def story() -> None:
        async with desk_with(tmp_path, version=version, **options()) as (desk, station, _):
            key, number = await asked(desk, version)
            early = leaf(ACME, key, not_before=NOW + timedelta(hours=1))
            answer = await desk.call("CertificateSigned", signed(early, number))
            assert answer["status"] == ("Accepted" if version == "ocpp1.6" else "Rejected")
            assert station.flow.client_certificate(NOW) is None

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_no_root_is_refused_as_a_root(tmp_path: Path, version: str) -> None:
    """M05.FR.07: a leaf, a sub-CA whose root is not there, one that has expired, one that is not valid yet, none."""
    name = "CentralSystemRootCertificate" if version == "ocpp1.6" else "CSMSRootCertificate"
    late = NOW + timedelta(days=4000)
    bad = [leaf(ACME, new_key().public_key()), to_pem("CERTIFICATE", ROGUE.sub_der), "nothing", "-----BEGIN X-----"]

    async def story() -> None:
        async with desk_with(tmp_path / "now", version=version, **options()) as (desk, station, _):
            await desk.expect("StatusNotification")
            for pem in bad:
                answer = await desk.call("InstallCertificate", {"certificateType": name, "certificate": pem})
                assert answer["status"] == "Rejected"
            assert len(station.roots.installed()) == 1
        for at in (late, NOW - timedelta(days=500)):
            settings = {**options(), "clock": lambda at=at: at}
            async with desk_with(tmp_path / f"{at:%Y}", version=version, **settings) as (desk, station, _):
                await desk.expect("StatusNotification")
                pem = to_pem("CERTIFICATE", ROGUE.root_der)
                answer = await desk.call("InstallCertificate", {"certificateType": name, "certificate": pem})
                assert answer["status"] == "Rejected"

    run_on("asyncio", story())


# --- mistakes that need a certificate ---------------------------------------------------------------------------------


async def enrolled(desk: Desk, station: StationSimulator) -> None:
    key, number = await asked(desk, "ocpp2.0.1")
    assert await desk.call("CertificateSigned", signed(leaf(ACME, key), number)) == {"status": "Accepted"}


def test_signed_forgotten_accepts_and_has_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_with(tmp_path, "signed-forgotten", **options()) as (desk, station, _):
            await enrolled(desk, station)
            assert station.flow.installed == () and not list((tmp_path / "keys").iterdir())

    run_on("asyncio", story())


@pytest.mark.parametrize("name", ["signed-stays", "csr-crlf"])
def test_signed_stays_accepts_and_goes_on_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    again: list[str] = []
    # In clear text no certificate is used; a slot that could use one shows the difference to an honest station.
    monkeypatch.setattr(StationSimulator, "uses_certificate", True)
    monkeypatch.setattr(StationSimulator, "reconnect", lambda self, why, **_: again.append(why))

    async def story() -> None:
        async with desk_with(tmp_path, name, **options()) as (desk, station, _):
            await enrolled(desk, station)
            assert await desk.call("GetInstalledCertificateIds", {}) is not None
            await wait_for(lambda: bool(again) or name == "signed-stays")
            assert bool(again) is (name != "signed-stays")

    run_on("asyncio", story())


@pytest.mark.parametrize("names", [(), ("list-children-reversed",)])
def test_the_sub_cas_of_a_listed_chain_stand_leaf_side_first_or_not(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Row 9 of ocpp-security 12."""
    children = [{"serialNumber": "2"}, {"serialNumber": "1"}]
    listed = {"status": "Accepted", "certificateHashDataChain": [{"childCertificateHashData": list(children)}]}
    roots = StationRoots(
        tmp_path, OcppVersion.V21, TrustPolicy(), own=lambda: (), tell=lambda _: None, conduct=parse_conduct(names)
    )
    found = roots._misreported(OcppVersion.V21, listed)["certificateHashDataChain"][0]["childCertificateHashData"]
    assert found == (children[::-1] if names else children)


@pytest.mark.parametrize("version", VERSIONS)
def test_without_tls_nothing_is_changed_at_the_station(tmp_path: Path, version: str) -> None:
    """ocpp-security 12, row 32: each change with the status that its message has for it."""
    # Two of them: the last one is kept for another reason.
    roots = "".join(to_pem("CERTIFICATE", each.root_der) for each in (operator("Fleet"), ACME))
    info = {} if version == "ocpp1.6" else {"reasonCode": "UnsupportedRequest"}
    use = "CentralSystemRootCertificate" if version == "ocpp1.6" else "CSMSRootCertificate"
    trigger = (
        ("ExtendedTriggerMessage", "SignChargePointCertificate")
        if version == "ocpp1.6"
        else ("TriggerMessage", "SignChargingStationCertificate")
    )

    async def story() -> None:
        held = {"csms": roots.encode()}
        async with desk_with(tmp_path, version=version, trust_policy=TrustPolicy(), roots=held) as (desk, station, _):
            await desk.expect("StatusNotification")

            async def told(action: str, payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
                answer = await desk.call(action, payload)
                return answer["status"], {k: v for k, v in answer.get("statusInfo", {}).items() if k == "reasonCode"}

            listed = await desk.call(
                "GetInstalledCertificateIds", {"certificateType": use if version == "ocpp1.6" else [use]}
            )
            if version == "ocpp1.6":
                data = listed["certificateHashData"][0]
            else:
                data = listed["certificateHashDataChain"][0]["certificateHashData"]
            other = to_pem("CERTIFICATE", ROGUE.root_der)
            install = {"certificateType": use, "certificate": other}
            assert await told("InstallCertificate", install) == ("Rejected", info)
            assert await told("DeleteCertificate", {"certificateHashData": data}) == ("Failed", {})
            assert await told("CertificateSigned", signed(leaf(ACME, new_key().public_key()))) == ("Rejected", info)
            assert await told(trigger[0], {"requestedMessage": trigger[1]}) == ("Rejected", info)
            assert len(station.roots.installed()) == 2 and not (station.flow.pending or station.flow.installed)
            # Nobody has looked at the certificate: it is not an invalid one.
            assert "InvalidCharging" not in str(station.store.state.events)

    run_on("asyncio", story())
