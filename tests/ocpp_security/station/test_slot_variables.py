"""NetworkConfiguration of OCPP 2.1 at the simulated station: slots as variables, with their own credentials (pure)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from chargepki.ocpp_security.link import Reply
from chargepki.ocpp_security.rpc import CallReceived
from chargepki.ocpp_security.schemas import Kind, check_payload
from chargepki.ocpp_security.station import StationSimulator, StationStore
from chargepki.ocpp_security.station.answering import StationAnswers
from chargepki.ocpp_security.station.network import SLOTS
from chargepki.ocpp_security.station.session import StationSession
from chargepki.ocpp_security.versions import OcppVersion

PLAIN, SECURE = "ws://csms.example:80/ocpp", "wss://csms.example:443/ocpp"
FIRST, OWN, LATER = "the-first-password", "password-of-slot-2", "a-password-for-later"
REQUIRED = {
    "OcppCsmsUrl", "OcppInterface", "OcppTransport", "OcppVersion", "MessageTimeout", "SecurityProfile",
    "BasicAuthPassword", "VpnEnabled", "ApnEnabled",
}  # fmt: skip


@pytest.fixture
def station(tmp_path: Path) -> StationSimulator:
    store = StationStore(tmp_path)
    store.set_password(FIRST.encode())
    return StationSimulator(PLAIN, "CS-1", store, OcppVersion.V21)


def write(
    station: StationSimulator, name: str, value: str, *, slot: int | None = None, component: str = "SecurityCtrlr"
) -> tuple[str, str | None]:
    """Write one variable of a slot, or of a component; as a CSMS's message does it."""
    where = {"name": component} if slot is None else {"name": "NetworkConfiguration", "instance": str(slot)}
    item = {"component": where, "variable": {"name": name}, "attributeValue": value}
    answer, password = station.device.set_variables({"setVariableData": [item]})
    station.take_variables()
    if password is not None:
        station.store.offer_password(station.read_password(password))
        station.network.forget_password()
    (result,) = answer["setVariableResult"]
    return result["attributeStatus"], result.get("attributeStatusInfo", {}).get("reasonCode")


def read(station: StationSimulator, name: str, *, slot: int | None = None) -> str | None:
    where = {"name": "SecurityCtrlr"} if slot is None else {"name": "NetworkConfiguration", "instance": str(slot)}
    (found,) = station.device.get_variables({"getVariableData": [{"component": where, "variable": {"name": name}}]})[
        "getVariableResult"
    ]
    return str(found["attributeValue"]) if "attributeValue" in found else None


def fill(station: StationSimulator, slot: int = 2, url: str = "ws://other.example", **more: str) -> None:
    for name, value in {"OcppCsmsUrl": url, "SecurityProfile": "1", **more}.items():
        assert write(station, name, value, slot=slot) == ("Accepted", None), name


def told(station: StationSimulator, slot: int = 2, **more: Any) -> str:
    data = {
        "ocppTransport": "JSON", "ocppCsmsUrl": "ws://other.example", "messageTimeout": 30, "securityProfile": 1,
        "ocppInterface": "Wired0", **more,
    }  # fmt: skip
    answer = station.network.set_profile({"configurationSlot": slot, "connectionData": data})
    station.network_changed()
    return str(answer["status"])


def goes_to(station: StationSimulator, order: str) -> tuple[str, bytes | None]:
    """Boot with an order; return as whom the station comes in on its first slot."""
    assert write(station, "NetworkConfigurationPriority", order, component="OCPPCommCtrlr") == ("Accepted", None)
    station.network.restarted()
    chosen = station.dialler.choose_credentials()
    return station.dialler.address(chosen.identity), chosen.password


def test_b09_fr_08_and_fr_10_the_base_report_has_every_slot(station: StationSimulator) -> None:
    """B09.FR.13: neither APN nor VPN; passwords are written and never read."""
    assert told(station, identity="CS-2", basicAuthPassword=OWN) == "Accepted"
    found = station.device.report(settable_only=False)
    slots = [item for item in found if item["component"]["name"] == "NetworkConfiguration"]
    for slot in SLOTS:
        mine = {item["variable"]["name"]: item for item in slots if item["component"]["instance"] == str(slot)}
        assert set(mine) >= REQUIRED
        modes = {name: item["variableAttribute"][0]["mutability"] for name, item in mine.items()}
        assert modes["BasicAuthPassword"] == "WriteOnly"
        assert "value" not in mine["BasicAuthPassword"]["variableAttribute"][0]
        assert modes["ApnEnabled"] == modes["VpnEnabled"] == "ReadOnly"
        assert mine["ApnEnabled"]["variableAttribute"][0]["value"] == "false"
        assert modes["OcppCsmsUrl"] == modes["SecurityProfile"] == modes["Identity"] == "ReadWrite"
    assert OWN not in str(found)
    report = {"requestId": 1, "generatedAt": "2026-03-01T12:00:00Z", "seqNo": 0, "tbc": False, "reportData": found}
    check_payload(OcppVersion.V21, "NotifyReport", Kind.REQUEST, report, sending=True)
    settable = station.device.report(settable_only=True)
    assert {item["variableAttribute"][0]["mutability"] for item in settable} == {"ReadWrite", "WriteOnly"}


@pytest.mark.parametrize(
    ("base", "status"),
    [("FullInventory", "Accepted"), ("ConfigurationInventory", "Accepted"), ("SummaryInventory", "NotSupported")],
)
def test_a_base_report_comes_in_parts(station: StationSimulator, base: str, status: str) -> None:
    """B07: one sequence for the request, and only the last part says that nothing follows."""
    sent: list[dict[str, Any]] = []

    class Session:
        def __init__(self) -> None:
            self.station = station
            self.is_rejected = False

        async def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
            check_payload(OcppVersion.V21, action, Kind.REQUEST, payload, sending=True)
            sent.append(payload)
            return {}

    answers = StationAnswers(cast("StationSession", Session()))

    async def ask() -> Reply:
        reply = await answers.answer(CallReceived("1", "GetBaseReport", {"requestId": 7, "reportBase": base}))
        if reply.then is not None:
            await reply.then()
        return reply

    assert asyncio.run(ask()).payload == {"status": status}
    if status == "Accepted":
        assert {each["requestId"] for each in sent} == {7} and len(sent) > 1
        assert [each["seqNo"] for each in sent] == list(range(len(sent)))
        assert [each["tbc"] for each in sent] == [True] * (len(sent) - 1) + [False]
        parts = [item for each in sent for item in each["reportData"]]
        assert parts == station.device.report(settable_only=base == "ConfigurationInventory")


def test_b09_fr_09_fr_11_and_fr_12_set_network_profile_changes_the_variables(station: StationSimulator) -> None:
    assert told(station, identity="CS-2", basicAuthPassword=OWN) == "Accepted"
    names = ("OcppCsmsUrl", "OcppInterface", "MessageTimeout", "SecurityProfile", "Identity", "ApnEnabled")
    assert [read(station, name, slot=2) for name in names] == [
        "ws://other.example", "Wired0", "30", "1", "CS-2", "false",
    ]  # fmt: skip
    assert read(station, "BasicAuthPassword", slot=2) is None
    assert told(station, apn={"apn": "x", "apnAuthentication": "NONE"}) == "Rejected"


def test_tc_b_100_cs_and_b09_fr_18_a_slot_with_its_own_identity_and_password_uses_them(
    station: StationSimulator,
) -> None:
    assert told(station, identity="CS-2", basicAuthPassword=OWN) == "Accepted"
    assert goes_to(station, "2,1") == ("ws://other.example/ocpp/CS-2", OWN.encode())
    station.network.connected(1, "CS-2")
    station.network_changed()
    # B09.FR.28: what SecurityCtrlr shows is what is in use.
    assert read(station, "Identity") == "CS-2"


def test_b09_fr_16_a_slot_without_them_uses_those_of_security_ctrlr(station: StationSimulator) -> None:
    assert told(station) == "Accepted"
    assert goes_to(station, "2,1") == ("ws://other.example/ocpp/CS-1", FIRST.encode())
    # FR.18: and takes over nothing from the slot that is in use.
    assert told(station, slot=3, identity="CS-3", basicAuthPassword=OWN) == "Accepted"
    assert goes_to(station, "3,2")[1] == OWN.encode()
    station.network.connected(1, "CS-3")
    assert told(station, slot=4) == "Accepted"
    assert goes_to(station, "4,3") == ("ws://other.example/ocpp/CS-1", FIRST.encode())


def test_tc_b_105_and_tc_b_107_cs_a_slot_is_added_by_variables(station: StationSimulator) -> None:
    """B09.FR.23, FR.25, FR.33, FR.34: each is judged when written, and all of it when the slot goes on the order."""
    priority = ("NetworkConfigurationPriority", "2,1")
    assert write(station, *priority, component="OCPPCommCtrlr") == ("Rejected", "InvalidNetworkConf")
    assert write(station, "OcppCsmsUrl", "wss://other.example", slot=2) == ("Accepted", None)
    assert write(station, "SecurityProfile", "1", slot=2) == ("Accepted", None)
    # Profile 1 does not fit wss.
    assert write(station, *priority, component="OCPPCommCtrlr") == ("Rejected", "InvalidNetworkConf")
    fill(station, Identity="CS-2", BasicAuthPassword=OWN, MessageTimeout="45", OcppInterface="Wireless0")
    assert goes_to(station, "2,1") == ("ws://other.example/ocpp/CS-2", OWN.encode())
    again = StationSimulator(PLAIN, "CS-1", StationStore(station.store.folder), OcppVersion.V21)
    assert again.network.slots == station.network.slots and again.network.order == (2, 1)
    # B09.FR.20: leaving slots out is always possible.
    assert write(station, "NetworkConfigurationPriority", "1", component="OCPPCommCtrlr") == ("Accepted", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OcppCsmsUrl", "https://other.example"),
        ("OcppCsmsUrl", "wss://user:secret@other.example"),
        ("SecurityProfile", "4"),
        ("SecurityProfile", "0"),
        ("OcppInterface", "Wired9"),
        ("MessageTimeout", "0"),
        ("MessageTimeout", "9" * 40),
        ("Identity", "half:half"),
        ("BasicAuthPassword", "short"),
    ],
)
def test_b09_fr_24_a_value_that_cannot_be_used_is_rejected(station: StationSimulator, name: str, value: str) -> None:
    before = dict(station.network.slots)
    assert write(station, name, value, slot=2) == ("Rejected", "InvalidNetworkConf")
    assert station.network.slots == before


def test_tc_b_108_cs_b09_fr_21_and_fr_22_a_slot_on_the_order_is_not_written(station: StationSimulator) -> None:
    assert write(station, "OcppCsmsUrl", "ws://evil.example", slot=1) == ("Rejected", "ActiveNetworkConf")
    assert read(station, "OcppCsmsUrl", slot=1) == PLAIN


def test_tc_b_109_cs_b09_fr_26_and_fr_27_what_is_written_to_security_ctrlr_takes_the_place_of_the_slots_own(
    station: StationSimulator,
) -> None:
    """After the errata of 2025-09: the slot in use loses its own, so that the new value is used."""
    assert told(station, identity="CS-2", basicAuthPassword=OWN) == "Accepted"
    goes_to(station, "2,1")
    station.network.connected(1, "CS-2")
    station.network_changed()
    assert write(station, "Identity", "CS-9") == ("Accepted", None)
    assert station.network.slots[2].identity is None and read(station, "Identity") == "CS-9"
    assert write(station, "BasicAuthPassword", LATER) == ("Accepted", None)
    assert station.network.slots[2].password is None
    assert goes_to(station, "2,1") == ("ws://other.example/ocpp/CS-9", LATER.encode())
    # The ones before are kept until the new ones have opened a connection, and tried when those are refused.
    tried = set()
    for _ in range(4):
        chosen = station.dialler.choose_credentials()
        tried.add((chosen.identity, chosen.password))
        station.dialler._turn += 1
    assert ("CS-1", FIRST.encode()) in tried and ("CS-9", LATER.encode()) in tried
    station.network.connected(1, "CS-9")
    assert station.network.identities == ("CS-9",)
    assert write(station, "Identity", "half:half") == ("Rejected", "InvalidValue")


@pytest.mark.parametrize("allowed", ["false", "true"])
def test_tc_b_111_and_tc_b_113_cs_no_downgrade_by_variable(station: StationSimulator, allowed: str) -> None:
    """B09.FR.32 and FR.35; 3 to 2 is open to a station that says so itself (A05.FR.08)."""
    station.store.set_profile(3)
    assert write(station, "AllowSecurityProfileDowngrade", allowed) == ("Accepted", None)
    assert write(station, "SecurityProfile", "1", slot=2) == ("Rejected", "NoSecurityDowngrade")
    expected = ("Accepted", None) if allowed == "true" else ("Rejected", "NoSecurityDowngrade")
    assert write(station, "SecurityProfile", "2", slot=2) == expected


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"component": {"name": "NetworkConfiguration"}, "variable": {"name": "Identity"}}, "UnknownComponent"),
        (
            {"component": {"name": "NetworkConfiguration", "instance": "9"}, "variable": {"name": "Identity"}},
            "UnknownComponent",
        ),
        (
            {"component": {"name": "NetworkConfiguration", "instance": "2"}, "variable": {"name": "SimPin"}},
            "UnknownVariable",
        ),
        (
            {
                "component": {"name": "NetworkConfiguration", "instance": "2"},
                "variable": {"name": "Identity"},
                "attributeType": "Target",
            },
            "NotSupportedAttributeType",
        ),
    ],
)
def test_what_there_is_not_is_said(station: StationSimulator, item: dict[str, Any], status: str) -> None:
    (result,) = station.device.get_variables({"getVariableData": [item]})["getVariableResult"]
    assert result["attributeStatus"] == status
    (result,) = station.device.set_variables({"setVariableData": [{**item, "attributeValue": "x"}]})[0][
        "setVariableResult"
    ]
    assert result["attributeStatus"] == status


def test_versions_before_2_1_know_no_such_component(tmp_path: Path) -> None:
    station = StationSimulator(PLAIN, "CS-1", StationStore(tmp_path), OcppVersion.V201)
    assert write(station, "Identity", "CS-2", slot=2) == ("UnknownComponent", None)
    assert write(station, "Identity", "CS-2") == ("Rejected", "ReadOnly")


def test_row_68_secrets_of_slots_are_in_a_private_file_and_in_no_text(station: StationSimulator) -> None:
    told(station, identity="CS-2", basicAuthPassword=OWN)
    path = station.store.folder / "network.json"
    assert path.stat().st_mode & 0o077 == 0 and OWN in path.read_text()
    assert OWN not in repr(station.network.slots[2])
    goes_to(station, "2,1")
    assert OWN not in repr(station.dialler.choose_credentials())
