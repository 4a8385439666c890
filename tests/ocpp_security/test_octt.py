"""Cases of the OCTT that ask a CSMS to survive what a station answers: one test a case, by the pure steps alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from chargepki.ocpp_security.operations import (
    Finish,
    OperationKind,
    SendAttempt,
    Snapshot,
    Wait,
    next_step,
    read_answer,
)
from chargepki.ocpp_security.operations_firmware import FirmwareFacts
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.operations_trust import TrustFacts, listed_by
from chargepki.ocpp_security.trust_store import InstalledRoot, TrustPolicy, answer_listing
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.hashdata_oracle import KnownCertificate
from chargepki.pki.inventory.firmware_records import FirmwareStatusRecord
from chargepki.pki.inventory.records import AttemptRecord, OperationRecord, OperationState
from testkit.chains import make
from testkit.flows import NOW, station_record

V16, V201, V21 = OcppVersion
ROOT, SUB1 = make("V2G CA", nth=1), make("Sub1 CA", make("V2G CA", nth=1), nth=2)
SUB2 = make("Sub2 CA", SUB1, nth=3)
SECC = make("secc", SUB2, nth=4)
KNOWN = KnownCertificate("root", ROOT.der, ROOT.der)
FAILED, DONE = OperationState.FAILED, OperationState.DONE
Answer = tuple[str, dict[str, Any] | None]


def snapshot(
    kind: OperationKind, parameters: dict[str, Any], answers: list[Answer], version: OcppVersion = V201, **facts: Any
) -> Snapshot:
    """An operation of which the attempts of *answers* were made, each answered as stated (``None``: not at all)."""
    until = NOW + timedelta(hours=1)
    operation = OperationRecord("op-1", kind.value, "CS1", parameters, OperationState.RUNNING, "alice", NOW, until)
    attempts = tuple(
        AttemptRecord("op-1", number, NOW, label, NOW if payload is not None else None, read(operation, label, payload))
        for number, (label, payload) in enumerate(answers, start=1)
    )
    return Snapshot(operation, attempts, station_record(), version, 2, sent_here=True, **facts)


def read(operation: OperationRecord, label: str, payload: dict[str, Any] | None) -> dict[str, Any] | None:
    return read_answer(operation, V201, payload, recorded=label)


def finish(made: Snapshot) -> Finish:
    step = next_step(made, NOW)
    assert isinstance(step, Finish), step
    return step


# --- block L ---------------------------------------------------------------------------------------------------------


def update(answer: str | None, *statuses: str) -> Snapshot:
    reported = tuple(FirmwareStatusRecord("op-1", number, each, NOW) for number, each in enumerate(statuses, start=1))
    return snapshot(
        OperationKind.UPDATE_FIRMWARE,
        {"release": "r", "request_id": 1},
        [("UpdateFirmware", None if answer is None else {"status": answer})],
        firmware=FirmwareFacts(None, None, None, reported, None),
    )


@pytest.mark.parametrize("answer", ["RevokedCertificate", "InvalidCertificate", "Rejected"])
def test_tc_l_04_tc_l_05_and_tc_l_11_csms_a_request_that_is_not_accepted_ends_the_update(answer: str) -> None:
    """L01.FR.01: revoked, invalid, and one that could not cancel its predecessor (L01.FR.27)."""
    ended = finish(update(answer))
    assert (ended.state, answer in str(ended.outcome["why"])) == (FAILED, True)


LOADED = ("Downloading", "Downloaded")


@pytest.mark.parametrize(
    ("case", "statuses"),
    [
        ("TC_L_06", (*LOADED, "InvalidSignature")),
        ("TC_L_07", ("Downloading", "DownloadFailed")),
        ("TC_L_08", (*LOADED, "SignatureVerified", "Installing", "InstallVerificationFailed")),
        ("TC_L_09", (*LOADED, "SignatureVerified", "Installing", "InstallationFailed")),
        ("TC_L_01", (*LOADED, "SignatureVerified", "Installing", "InstallRebooting", "Installed")),
        ("TC_L_02", (*LOADED, "SignatureVerified", "InstallScheduled", "Installing", "Installed")),
        ("TC_L_03", ("DownloadScheduled", *LOADED, "SignatureVerified", "Installing", "Installed")),
        ("TC_L_13", (*LOADED, "SignatureVerified", "InstallScheduled", "Installing", "Installed")),
    ],
)
def test_tc_l_01_to_03_06_to_09_and_13_csms_an_update_is_followed_to_its_end(
    case: str, statuses: tuple[str, ...]
) -> None:
    """L01.FR.01: whatever the last status says, and the ones before it are kept in their order."""
    for seen in range(len(statuses)):
        assert isinstance(next_step(update("Accepted", *statuses[:seen]), NOW), Wait)
    ended = finish(update("Accepted", *statuses))
    assert ended.state is (DONE if statuses[-1] == "Installed" else FAILED), case
    assert ended.outcome["statuses"] == list(statuses) and "out_of_order" not in ended.outcome


def test_tc_l_10_csms_accepted_canceled_is_followed_like_accepted() -> None:
    """L01.FR.24."""
    assert isinstance(next_step(update("AcceptedCanceled"), NOW), Wait)
    assert finish(update("AcceptedCanceled", *LOADED, "SignatureVerified", "Installing", "Installed")).state is DONE


# --- block M ---------------------------------------------------------------------------------------------------------


def listing(*uses: RootUse, held: bool = True) -> Answer:
    roots = [InstalledRoot(RootUse.V2G, ROOT.der)] if held else []
    payload = answer_listing(V201, uses, roots, TrustPolicy(), chains=[(SECC.der, SUB2.der, SUB1.der, ROOT.der)])
    return f"GetInstalledCertificateIds({','.join(use.value for use in uses)})", payload


def trust(kind: OperationKind, parameters: dict[str, Any], answers: list[Answer]) -> Snapshot:
    return snapshot(kind, parameters, answers, trust=TrustFacts((KNOWN,), KNOWN))


def carry_out(kind: OperationKind, parameters: dict[str, Any], answer: Answer, held: bool) -> Finish:
    """Answer what is asked: settings with none, listings with what is held, and *answer* to the message itself."""
    answers: list[Answer] = []
    for _ in range(8):
        step = next_step(trust(kind, parameters, answers), NOW)
        if isinstance(step, Finish):
            assert answer[0] in [label.partition("(")[0] for label, _ in answers]
            return step
        assert isinstance(step, SendAttempt), step
        told: dict[str, Any] | None = {"getVariableResult": []}
        if step.action == answer[0]:
            told = answer[1]
        elif step.action == "GetInstalledCertificateIds":
            told = listing(RootUse.V2G, held=held)[1]
        answers.append((step.recorded, told))
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("status", ["Failed", "Rejected"])
def test_tc_m_05_csms_an_installation_that_the_station_fails_is_a_failure(status: str) -> None:
    """M05.FR.01, M05.FR.03."""
    parameters = {"use": "v2g", "certificate": "x"}
    ended = carry_out(OperationKind.INSTALL_ROOT, parameters, ("InstallCertificate", {"status": status}), False)
    assert (ended.state, status in str(ended.outcome)) == (FAILED, True)


def test_tc_m_21_csms_a_deletion_that_the_station_fails_is_a_failure() -> None:
    """M04.FR.01, M04.FR.07."""
    parameters = {"use": "v2g", "certificate": "x"}
    ended = carry_out(OperationKind.DELETE_ROOT, parameters, ("DeleteCertificate", {"status": "Failed"}), True)
    assert ended.state is FAILED
    assert "refuses to delete it" in str(ended.outcome["why"])


def test_tc_m_15_csms_a_v2g_chain_is_read_with_its_sub_cas() -> None:
    """M03.FR.01, M03.FR.05: the children come along, in whatever order they are listed."""
    made = trust(OperationKind.LIST_ROOTS, {"uses": ["v2g-chain"]}, [listing(RootUse.V2G_CHAIN)])
    (listed,) = listed_by(made.attempts[0]) or ()
    assert listed.use is RootUse.V2G_CHAIN
    serials = [int(each["serialNumber"], 16) for each in (listed.hash_data, *listed.children)]
    assert serials == [made.certificate.serial_number for made in (SECC, SUB2, SUB1)]
    assert finish(made).state is DONE


@pytest.mark.parametrize("use", [RootUse.CSMS, RootUse.MANUFACTURER, RootUse.V2G, RootUse.MO])
def test_tc_m_12_to_14_16_and_19_csms_one_use_is_asked_for_and_none_found_is_an_answer(use: RootUse) -> None:
    """M03.FR.01, M03.FR.02."""
    kind, parameters = OperationKind.LIST_ROOTS, {"uses": [use.value]}
    asked = next_step(trust(kind, parameters, []), NOW)
    assert isinstance(asked, SendAttempt)
    names = {"csms": "CSMSRootCertificate", "manufacturer": "ManufacturerRootCertificate"}
    names |= {"v2g": "V2GRootCertificate", "mo": "MORootCertificate"}
    assert asked.payload == {"certificateType": [names[use.value]]}
    ended = finish(trust(kind, parameters, [(asked.recorded, {"status": "NotFound"})]))
    assert (ended.state, ended.outcome) == (DONE, {"listed": 0})


def test_tc_m_17_csms_two_uses_go_in_one_request() -> None:
    """M03.FR.01."""
    asked = next_step(trust(OperationKind.LIST_ROOTS, {"uses": ["csms", "manufacturer"]}, []), NOW)
    assert isinstance(asked, SendAttempt)
    assert asked.payload == {"certificateType": ["CSMSRootCertificate", "ManufacturerRootCertificate"]}


# --- block B ---------------------------------------------------------------------------------------------------------


def network(status: str) -> Snapshot:
    order = {"getVariableResult": [{"attributeStatus": "Accepted", "attributeValue": "1"}]}
    parameters = profile_parameters(2, url="wss://csms.example/ocpp")
    answers: list[Answer] = [("GetVariables", order), ("SetNetworkProfile", {"status": status})]
    made = snapshot(OperationKind.SET_PROFILE, dict(parameters), answers)
    # The station is on profile 1 still.
    return Snapshot(made.operation, made.attempts, made.station, V201, 1, sent_here=True)


def test_tc_b_42_csms_an_accepted_slot_is_put_first() -> None:
    """B09.FR.01."""
    step = next_step(network("Accepted"), NOW)
    assert isinstance(step, SendAttempt) and step.action == "SetVariables"


@pytest.mark.parametrize("status", ["Failed", "Rejected"])
def test_tc_b_44_csms_a_slot_that_the_station_does_not_take_ends_the_change(status: str) -> None:
    """B09.FR.02, B09.FR.03: nothing more is sent, and the record stays on the old profile."""
    ended = finish(network(status))
    assert (ended.state, ended.security_profile, ended.outcome["status"]) == (FAILED, None, status)
