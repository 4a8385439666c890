"""Our station at CSMS endpoints that are not ours, as it should go and as it should not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.station.driver import Contract
from chargepki.ocpp_security.station.misbehaviour import HONEST
from chargepki.ocpp_security.station.status_asking import question, send_to_csms
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata import CertificateHashData
from testkit.csms_rig import run_on, wait_for
from testkit.foreign_csms import KINDS, PASSWORD, ForeignCsms, Hierarchy, foreign_csms
from testkit.hierarchy import make_node
from testkit.node_station import need_node

pytestmark = pytest.mark.foreign

VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")
USUAL = {
    ("ocpp", "ocpp1.6", "foreign-key"), ("ocpp", "ocpp2.0.1", "wrong-chain"), ("ocpp", "ocpp2.1", "garbage"),
    ("ocpp-rpc", "ocpp1.6", "wrong-chain"), ("ocpp-rpc", "ocpp2.1", "foreign-key"),
}  # fmt: skip
FAST = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.2))


@pytest.fixture(scope="module")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> Hierarchy:
    return Hierarchy(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ocpp-rpc":
        need_node()
    return str(request.param)


class Station:
    """Our station with all that it told."""

    def __init__(self, csms: ForeignCsms, hierarchy: Hierarchy, folder: Path, version: str, **options: Any) -> None:
        self.told: list[Progress] = []
        store = StationStore(folder / "store")
        store.set_trust(options.pop("trust", hierarchy.root_pem))
        store.set_password(options.pop("password", PASSWORD.encode()))
        self.simulator = StationSimulator(
            csms.url, "CS1", store, version, retry=FAST, progress=self.told.append, **options
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.simulator.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def has(self, milestone: Milestone, *, profile: int | None = None) -> bool:
        return any(one.milestone is milestone and profile in (None, one.profile) for one in self.told)

    async def until(self, milestone: Milestone, *, profile: int | None = None) -> Progress:
        await wait_for(lambda: self.has(milestone, profile=profile), seconds=60)
        return next(one for one in self.told if one.milestone is milestone and profile in (None, one.profile))


async def csr_of(csms: ForeignCsms) -> tuple[str, int | None]:
    """Wait for SignCertificate and return its CSR and requestId."""
    params = (await csms.expect("received", method="SignCertificate"))["params"]
    return params["csr"], params.get("requestId", params.get("request_id"))


@pytest.mark.parametrize("version", VERSIONS)
def test_it_enrols_on_a_trigger_and_comes_back_with_the_certificate(
    hierarchy: Hierarchy, kind: str, version: str, tmp_path: Path
) -> None:
    async def story() -> None:
        async with foreign_csms(kind, hierarchy, version, trigger="") as csms:
            station = Station(csms, hierarchy, tmp_path, version, enrol=False)
            async with station.running():
                assert (await csms.expect("arrived"))["profile"] == 2
                csr, request_id = await csr_of(csms)
                assert (request_id is not None) == (version == "ocpp2.1")
                await csms.deliver(hierarchy.sign(csr), request_id)
                assert (await csms.expect("delivered"))["status"] == "Accepted"
                arrived = await csms.expect("arrived", profile=3)
                assert (arrived["subject"].get("CN") or arrived["subject"].get("commonName")) == "CS1"
                await station.until(Milestone.CERTIFICATE_PROVEN, profile=3)
                await station.until(Milestone.BOOTED, profile=3)

    run_on("asyncio", story())


@pytest.mark.parametrize("version", ["ocpp1.6", pytest.param("ocpp2.1", marks=pytest.mark.campaign)])
def test_profile_1_and_a_wrong_password(hierarchy: Hierarchy, kind: str, version: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with foreign_csms(kind, hierarchy, version, profile=1) as csms:
            station = Station(csms, hierarchy, tmp_path / "right", version, enrol=False)
            async with station.running():
                await station.until(Milestone.BOOTED, profile=1)
            wrong = Station(csms, hierarchy, tmp_path / "wrong", version, enrol=False, password=b"wrong-password-01")
            async with wrong.running():
                assert (await wrong.until(Milestone.REFUSED)).status == 401
            assert not wrong.has(Milestone.CONNECTED)

    run_on("asyncio", story())


# Every endpoint, version and forgery in `make campaign`; in CI each of them at least once with each endpoint.
FORGERIES = [
    pytest.param(kind, version, how, marks=() if (kind, version, how) in USUAL else pytest.mark.campaign)
    for kind in KINDS
    for version in VERSIONS
    for how in ("foreign-key", "wrong-chain", "garbage")
]


@pytest.mark.parametrize(("peer", "version", "how"), FORGERIES)
def test_a_certificate_that_is_not_for_it_is_rejected(
    hierarchy: Hierarchy, peer: str, version: str, how: str, tmp_path: Path
) -> None:
    if peer == "ocpp-rpc":
        need_node()

    async def story() -> None:
        async with foreign_csms(peer, hierarchy, version) as csms:
            station = Station(csms, hierarchy, tmp_path, version)
            async with station.running():
                csr, request_id = await csr_of(csms)
                await csms.deliver(hierarchy.forge(csr, how), request_id)
                assert (await csms.expect("delivered"))["status"] == "Rejected"
                await station.until(Milestone.CERTIFICATE_REFUSED)
                name = "InvalidChargePointCertificate" if version == "ocpp1.6" else "InvalidChargingStationCertificate"
                while (await csms.expect("received", method="SecurityEventNotification"))["params"]["type"] != name:
                    pass
            assert not station.has(Milestone.CERTIFICATE_INSTALLED)
            assert not station.has(Milestone.CONNECTED, profile=3)

    run_on("asyncio", story())


def test_a_certificate_that_nobody_asked_for_is_rejected(hierarchy: Hierarchy, kind: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with foreign_csms(kind, hierarchy, "ocpp2.0.1") as csms:
            station = Station(csms, hierarchy, tmp_path, "ocpp2.0.1", enrol=False)
            async with station.running():
                await station.until(Milestone.BOOTED)
                await csms.deliver(hierarchy.forge("", "garbage"))
                assert (await csms.expect("delivered"))["status"] == "Rejected"
            assert not station.has(Milestone.CERTIFICATE_INSTALLED)

    run_on("asyncio", story())


@pytest.mark.parametrize("mode", ["callerror", pytest.param("reject", marks=pytest.mark.campaign)])
def test_a_refused_request_leaves_it_connected(hierarchy: Hierarchy, kind: str, mode: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with foreign_csms(kind, hierarchy, "ocpp2.0.1", sign=mode) as csms:
            station = Station(csms, hierarchy, tmp_path, "ocpp2.0.1")
            async with station.running():
                await station.until(Milestone.CSR_REFUSED)
                # It still answers: a certificate now is unasked.
                await csms.deliver(hierarchy.forge("", "garbage"))
                assert (await csms.expect("delivered"))["status"] == "Rejected"
            assert not station.has(Milestone.DISCONNECTED)

    run_on("asyncio", story())


def test_a_request_that_stays_unanswered_blocks_nothing(hierarchy: Hierarchy, kind: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with foreign_csms(kind, hierarchy, "ocpp2.0.1", sign="silent") as csms:
            station = Station(csms, hierarchy, tmp_path, "ocpp2.0.1")
            async with station.running():
                csr, _ = await csr_of(csms)
                # The CSMS may have accepted it: the certificate counts although the answer was lost.
                await csms.deliver(hierarchy.sign(csr))
                assert (await csms.expect("delivered"))["status"] == "Accepted"
                await station.until(Milestone.CERTIFICATE_PROVEN, profile=3)

    run_on("asyncio", story())


def test_a_boot_that_is_answered_with_an_error_is_not_the_end(hierarchy: Hierarchy, kind: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with foreign_csms(kind, hierarchy, "ocpp2.1", boot="callerror") as csms:
            station = Station(csms, hierarchy, tmp_path, "ocpp2.1")
            async with station.running():
                await csms.expect("received", method="BootNotification")
                await wait_for(lambda: any("refused the BootNotification" in one.text for one in station.told))
                await csms.deliver(hierarchy.forge("", "garbage"))
                assert (await csms.expect("delivered"))["status"] == "Rejected"
            assert not station.has(Milestone.CSR_SENT), "nothing before the boot is accepted"

    run_on("asyncio", story())


def test_a_server_of_another_root_gets_no_password(hierarchy: Hierarchy, kind: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Hierarchy(tmp_path / "other")

    async def story() -> None:
        async with foreign_csms(kind, hierarchy, "ocpp2.0.1") as csms:
            station = Station(csms, hierarchy, tmp_path, "ocpp2.0.1", trust=other.root_pem)
            async with station.running():
                refused = await station.until(Milestone.REFUSED)
                assert "not accepted" in refused.text
            assert not station.has(Milestone.CONNECTED)

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
def test_roots_are_managed_and_drivers_and_status_asked_about(
    hierarchy: Hierarchy, kind: str, version: str, tmp_path: Path
) -> None:
    """InstallCertificate, GetInstalledCertificateIds, DeleteCertificate, Authorize and GetCertificateStatus."""
    contract = make_node("DEABC123456789", hierarchy.sub, ca=False)
    subject = Contract("DEABC123456789", (contract.der, hierarchy.sub.der))
    is_16 = version == "ocpp1.6"
    name = "CentralSystemRootCertificate" if is_16 else "V2GRootCertificate"
    other = make_node("another root", None, ca=True).certificate.public_bytes(Encoding.PEM).decode()

    async def story() -> None:
        async with foreign_csms(kind, hierarchy, version) as csms:
            station = Station(csms, hierarchy, tmp_path, version, enrol=False, driver=subject)
            async with station.running():
                # No root for it here: the chain goes to the CSMS, in 1.6 inside a DataTransfer.
                asked = await csms.expect("received", method="DataTransfer" if is_16 else "Authorize")
                told = json.loads(asked["params"]["data"]) if is_16 else asked["params"]
                assert told["certificate"].count("BEGIN CERTIFICATE") == 2
                await station.until(Milestone.AUTHORIZED)
                wanted: dict[str, Any] = {"certificateType": name if is_16 else [name]}
                before = await csms.call("GetInstalledCertificateIds", wanted)
                given = {"certificateType": name, "certificate": other}
                assert (await csms.call("InstallCertificate", given))["status"] == "Accepted"
                after = await csms.call("GetInstalledCertificateIds", wanted)
                new = [data for data in hashes_of(after) if data not in hashes_of(before)]
                assert len(new) == 1
                gone = await csms.call("DeleteCertificate", {"certificateHashData": new[0]})
                assert gone["status"] == "Accepted"
                assert hashes_of(await csms.call("GetInstalledCertificateIds", wanted)) == hashes_of(before)
                pair = (hierarchy.sub.der, hierarchy.root.der)
                with pytest.raises(InputError, match="names no OCSP responder"):
                    question(pair, HONEST)
                payload = {"ocspRequestData": {**CertificateHashData.of(*pair).to_wire(), "responderURL": "http://x"}}
                answer = await send_to_csms(
                    OcppVersion(version), station.simulator.call, "GetCertificateStatus", payload
                )
                assert answer["status"] == "Failed"
                await csms.expect("received", method="DataTransfer" if is_16 else "GetCertificateStatus")
                await changes_profile(csms, station, is_16=is_16)

    run_on("asyncio", story())


async def changes_profile(csms: ForeignCsms, station: Station, *, is_16: bool) -> None:
    """Be told a profile: one that lacks its certificate is refused, and a slot on the same profile is used."""
    if is_16:
        refused = await csms.call("ChangeConfiguration", {"key": "SecurityProfile", "value": "3"})
        assert refused["status"] == "Rejected"
        return
    data = {
        "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": csms.url, "messageTimeout": 30,
        "ocppInterface": "Wired0",
    }  # fmt: skip
    order = {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "NetworkConfigurationPriority"}}
    for slot, profile, status in ((3, 3, "Rejected"), (2, 2, "Accepted")):
        payload = {"configurationSlot": slot, "connectionData": {**data, "securityProfile": profile}}
        assert (await csms.call("SetNetworkProfile", payload))["status"] == "Accepted"
        written = await csms.call("SetVariables", {"setVariableData": [{**order, "attributeValue": f"{slot},1"}]})
        assert written["setVariableResult"][0]["attributeStatus"] == status
    assert (await csms.call("Reset", {"type": "OnIdle"}))["status"] == "Accepted"
    assert "slot 2 is in use" in (await station.until(Milestone.NETWORK)).text


def hashes_of(listing: dict[str, Any]) -> list[Any]:
    """Return the hash data of an answer to GetInstalledCertificateIds."""
    if "certificateHashData" in listing:
        return list(listing["certificateHashData"])
    return [item["certificateHashData"] for item in listing.get("certificateHashDataChain", [])]
