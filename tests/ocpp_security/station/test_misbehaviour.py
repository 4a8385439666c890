"""Each mistake by its name: what the station does with it, as a CSMS sees it over its connection."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.station import (
    MISBEHAVIOURS,
    Misbehaviour,
    RetryPolicy,
    StationSimulator,
)
from chargepki.pki.csr import parse_csr
from chargepki.pki.hashdata_defects import HashDefect
from testkit.csms_rig import run_on
from testkit.desk import Desk, desk_with
from testkit.hierarchy import make_node

Check = Callable[[Desk, StationSimulator], Awaitable[None]]
ROOT = make_node("A root", None, ca=True).certificate.public_bytes(Encoding.PEM).decode()
INSTALL = {"certificateType": "V2GRootCertificate", "certificate": ROOT}
TRIGGER = {"requestedMessage": "SignChargingStationCertificate"}


async def _asked(desk: Desk) -> dict[str, Any]:
    await desk.expect("StatusNotification")
    assert await desk.call("TriggerMessage", TRIGGER) == {"status": "Accepted"}
    return await desk.expect("SignCertificate")


def csr_spelled(check: Callable[[str], bool]) -> Check:
    async def checked(desk: Desk, station: StationSimulator) -> None:
        csr = (await _asked(desk))["csr"]
        assert check(csr), csr
        parse_csr(csr.encode())  # ours is read in every spelling

    return checked


def csr_asks(check: Callable[[x509.CertificateSigningRequest], bool]) -> Check:
    async def checked(desk: Desk, station: StationSimulator) -> None:
        assert check(x509.load_pem_x509_csr((await _asked(desk))["csr"].encode()))

    return checked


def usage(csr: x509.CertificateSigningRequest) -> x509.KeyUsage:
    return csr.extensions.get_extension_for_class(x509.KeyUsage).value


async def csr_untyped(desk: Desk, station: StationSimulator) -> None:
    assert "certificateType" not in await _asked(desk)


async def csr_storm(desk: Desk, station: StationSimulator) -> None:
    found = [(await _asked(desk))["csr"], *[(await desk.expect("SignCertificate"))["csr"] for _ in range(3)]]
    assert len(set(found)) == 1


async def csr_never(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    assert await desk.call("TriggerMessage", TRIGGER) == {"status": "Accepted"}
    assert await desk.call("TriggerMessage", {"requestedMessage": "Heartbeat"}) == {"status": "Accepted"}
    await desk.expect("Heartbeat")
    assert station.flow.pending == ()


async def takes_anything(desk: Desk, station: StationSimulator) -> None:
    await _asked(desk)
    assert await desk.call("CertificateSigned", {"certificateChain": ROOT}) == {"status": "Accepted"}
    assert station.flow.installed == ()


async def refuses(desk: Desk, station: StationSimulator) -> None:
    await _asked(desk)
    assert await desk.call("CertificateSigned", {"certificateChain": ROOT}) == {"status": "Rejected"}
    # An honest station says why.


async def hangs(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    late = asyncio.create_task(desk.call("CertificateSigned", {"certificateChain": ROOT}))
    behind = asyncio.create_task(desk.call("GetVariables", {"getVariableData": []}))
    done, _ = await asyncio.wait([late, behind], timeout=0.3)
    assert not done
    for task in (late, behind):
        task.cancel()


async def root_forgotten(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    assert await desk.call("InstallCertificate", INSTALL) == {"status": "Accepted"}
    assert await desk.call("GetInstalledCertificateIds", {}) == {"status": "NotFound"}


async def root_anything(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    leaf = make_node("no root", make_node("its issuer", None, ca=True), ca=False).certificate
    payload = {**INSTALL, "certificate": leaf.public_bytes(Encoding.PEM).decode()}
    assert await desk.call("InstallCertificate", payload) == {"status": "Accepted"}
    assert await desk.call("GetInstalledCertificateIds", {}) == {"status": "NotFound"}


async def delete_forgotten(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    await desk.call("InstallCertificate", INSTALL)
    (listed,) = (await desk.call("GetInstalledCertificateIds", {}))["certificateHashDataChain"]
    payload = {"certificateHashData": listed["certificateHashData"]}
    assert await desk.call("DeleteCertificate", payload) == {"status": "Accepted"}
    assert len((await desk.call("GetInstalledCertificateIds", {}))["certificateHashDataChain"]) == 1


async def list_empty(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    found = await desk.call("GetInstalledCertificateIds", {})
    assert found == {"status": "Accepted", "certificateHashDataChain": []}


def _password(value: str) -> dict[str, Any]:
    where = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "BasicAuthPassword"}}
    return {"setVariableData": [{**where, "attributeValue": value}]}


async def password_forgotten(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    answer = await desk.call("SetVariables", _password("another-password-01"))
    assert answer["setVariableResult"][0]["attributeStatus"] == "Accepted"
    await desk.expect("BootNotification")
    assert desk.arrivals[0] == desk.arrivals[1]


async def password_hex(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    new = b"another-password-01".hex()
    assert await desk.call("ChangeConfiguration", {"key": "AuthorizationKey", "value": new}) == {"status": "Accepted"}
    await desk.expect("BootNotification")
    assert base64.b64decode(desk.arrivals[1].partition(" ")[2]) == f"CS-1:{new}".encode()


async def profile_forgotten(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    data = {
        "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": "ws://127.0.0.1:1", "messageTimeout": 30,
        "securityProfile": 1, "ocppInterface": "Wired0",
    }  # fmt: skip
    payload = {"configurationSlot": 2, "connectionData": data}
    assert await desk.call("SetNetworkProfile", payload) == {"status": "Accepted"}
    station.network.set_order("2,1")
    assert await desk.call("Reset", {"type": "OnIdle"}) == {"status": "Accepted"}
    await desk.expect("BootNotification")  # nothing listens at the new address
    assert len(desk.arrivals) == 2


async def other_serial(desk: Desk, station: StationSimulator) -> None:
    boot = await desk.expect("BootNotification")
    assert boot["chargingStation"]["serialNumber"] == "XCS-1"


async def events_early(desk: Desk, station: StationSimulator) -> None:
    action, payload = await asyncio.wait_for(desk.calls.get(), 60)
    assert (action, payload["type"]) == ("SecurityEventNotification", "StartupOfTheDevice")


async def events_twice(desk: Desk, station: StationSimulator) -> None:
    assert await desk.expect("SecurityEventNotification") == await desk.expect("SecurityEventNotification")


async def storms_back(desk: Desk, station: StationSimulator) -> None:
    station._retry = RetryPolicy(timedelta(hours=1), timedelta(hours=1))
    for _ in range(3):
        await desk.expect("BootNotification")
        await desk.sockets[-1].close()


async def second_connection(desk: Desk, station: StationSimulator) -> None:
    await desk.expect("StatusNotification")
    while len(desk.arrivals) < 2:
        await asyncio.sleep(0.01)
    assert len([socket for socket in desk.sockets if socket.state.name == "OPEN"]) == 2


CHECKS: dict[Misbehaviour, Check] = {
    Misbehaviour.CSR_CA: csr_asks(lambda csr: usage(csr).key_cert_sign),
    Misbehaviour.CSR_OTHER_NAME: csr_asks(lambda csr: "CN=SOMEBODY-ELSE" in csr.subject.rfc4514_string()),
    Misbehaviour.CSR_EXTENSIONS: csr_asks(
        lambda csr: usage(csr).key_agreement and "DC=CPO" in csr.subject.rfc4514_string()
    ),
    Misbehaviour.CSR_NEW_LABEL: csr_spelled(lambda csr: csr.startswith("-----BEGIN NEW CERTIFICATE REQUEST")),
    Misbehaviour.CSR_BASE64: csr_spelled(lambda csr: base64.b64decode(csr).startswith(b"-----BEGIN")),
    Misbehaviour.CSR_CRLF: csr_spelled(lambda csr: "\r\n" in csr),
    Misbehaviour.CSR_ESCAPED: csr_spelled(lambda csr: "\n" not in csr and "\\n" in csr),
    Misbehaviour.CSR_UNTYPED: csr_untyped,
    Misbehaviour.CSR_STORM: csr_storm,
    Misbehaviour.CSR_NEVER: csr_never,
    Misbehaviour.SIGNED_TAKES_ANYTHING: takes_anything,
    Misbehaviour.SIGNED_REFUSED: refuses,
    Misbehaviour.SIGNED_UNANSWERED: hangs,
    Misbehaviour.ROOT_ANYTHING: root_anything,
    Misbehaviour.ROOT_FORGOTTEN: root_forgotten,
    Misbehaviour.DELETE_FORGOTTEN: delete_forgotten,
    Misbehaviour.LIST_EMPTY: list_empty,
    Misbehaviour.PASSWORD_FORGOTTEN: password_forgotten,
    Misbehaviour.PASSWORD_HEX: password_hex,
    Misbehaviour.PROFILE_FORGOTTEN: profile_forgotten,
    Misbehaviour.BOOT_OTHER_SERIAL: other_serial,
    Misbehaviour.EVENTS_EARLY: events_early,
    Misbehaviour.EVENTS_TWICE: events_twice,
    Misbehaviour.RECONNECT_STORM: storms_back,
    Misbehaviour.SECOND_CONNECTION: second_connection,
}
ELSEWHERE = {
    Misbehaviour.SIGNED_FORGOTTEN, Misbehaviour.SIGNED_STAYS, Misbehaviour.LIST_CHILDREN_REVERSED,
    Misbehaviour.STATUS_JOINED_URLS, Misbehaviour.STATUS_PRIVATE_URL,
    Misbehaviour.AUTHORIZE_BOTH, Misbehaviour.AUTHORIZE_WITH_ROOT, Misbehaviour.AUTHORIZE_UNORDERED,
    Misbehaviour.NETWORK_BY_VARIABLES, Misbehaviour.SLOT_PASSWORD_IGNORED,
}  # fmt: skip
"""They need certificates, or a second endpoint: see test_refusals, test_plug_and_charge, csms/test_profile_upgrade."""


@pytest.mark.parametrize("name", CHECKS)
def test_it_errs_as_its_name_says(name: Misbehaviour, tmp_path: Path) -> None:
    async def story() -> None:
        version = "ocpp1.6" if name is Misbehaviour.PASSWORD_HEX else "ocpp2.0.1"
        async with desk_with(tmp_path, name.value, version=version) as (desk, station, _):
            await CHECKS[name](desk, station)

    run_on("asyncio", story())


def test_every_misbehaviour_has_a_meaning_and_a_test() -> None:
    assert set(CHECKS) | ELSEWHERE == set(Misbehaviour)
    assert {*map(str, Misbehaviour), *map(str, HashDefect)} < set(MISBEHAVIOURS)
    assert all(text and text[-1] != "." for text in MISBEHAVIOURS.values())
