"""The step function of `set-profile`: the messages, what it needs first, refusals, falling back, unknown outcomes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from chargepki.ocpp_security.operations import Finish, OperationKind, SendAttempt, Snapshot, Wait, next_step
from chargepki.ocpp_security.operations_profile import profile_parameters, read_profile_answer
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.records import (
    AttemptRecord,
    CertificateRecord,
    CertificateState,
    Delivery,
    OperationRecord,
    OperationState,
)
from testkit.flows import NOW, station_record

V16, V201, V21 = OcppVersion
URL = "wss://csms.example/ocpp"
LATER = timedelta(seconds=61)
Answers = list[tuple[str, dict[str, object] | None]]
READ: tuple[str, dict[str, object] | None] = ("GetVariables", {"status": "Accepted", "value": "1,3"})
ACCEPTED: dict[str, object] = {"status": "Accepted"}


def snapshot(
    version: OcppVersion, wanted: int, answers: Answers, *, live: int = 1, here: bool = True, **more: object
) -> Snapshot:
    attempts = tuple(
        AttemptRecord("op-1", number, NOW, action, NOW if answer is not None else None, answer)
        for number, (action, answer) in enumerate(answers, start=1)
    )
    parameters = profile_parameters(wanted, url=None if version is V16 else URL)
    operation = OperationRecord(
        "op-1", OperationKind.SET_PROFILE.value, "CS1", parameters, OperationState.RUNNING, "alice", NOW,
        NOW + timedelta(days=1),
    )  # fmt: skip
    made = Snapshot(operation, attempts, station_record(), version, live, sent_here=here)
    return replace(made, **more)  # type: ignore[arg-type]  # by name


def certificate(
    delivery: Delivery = Delivery.DELIVERED, not_after: datetime = NOW + timedelta(days=60)
) -> CertificateRecord:
    return CertificateRecord(
        id="t@1:1", ca="t@1", serial="1", profile="ocpp/charging-station", state=CertificateState.ISSUED,
        subject="CN=CS1", subject_der=b"", spki_sha256="", not_before=NOW - timedelta(days=1), not_after=not_after,
        request_key="r",
        requester="alice", reserved_at=NOW - timedelta(days=1), delivery=delivery,
    )  # fmt: skip


def sent(made: Snapshot, now: datetime = NOW) -> SendAttempt:
    step = next_step(made, now)
    assert isinstance(step, SendAttempt), step
    return step


def test_2x_reads_the_order_writes_a_free_slot_puts_it_first_and_resets() -> None:
    """A05.FR.02 to FR.05, B09.FR.01, B10.FR.01: the flow of ocpp-security 3.4."""
    answers: Answers = []
    assert sent(snapshot(V201, 2, answers)).action == "GetVariables"
    answers.append(READ)
    network = sent(snapshot(V201, 2, answers))
    assert network.payload == {
        "configurationSlot": 2,
        "connectionData": {
            "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": URL, "messageTimeout": 60,
            "securityProfile": 2, "ocppInterface": "Wired0",
        },
    }  # fmt: skip
    answers.append(("SetNetworkProfile", ACCEPTED))
    order = sent(snapshot(V201, 2, answers))
    assert order.payload["setVariableData"][0]["attributeValue"] == "2,1,3"  # type: ignore[index]  # JSON
    answers.append(("SetVariables", {"status": "RebootRequired"}))
    reset = sent(snapshot(V201, 2, answers))
    assert (reset.action, reset.payload) == ("Reset", {"type": "OnIdle"})
    answers.append(("Reset", ACCEPTED))
    assert isinstance(next_step(snapshot(V201, 2, answers), NOW), Wait)
    done = next_step(snapshot(V201, 2, answers, live=2, here=False), NOW)
    assert isinstance(done, Finish) and (done.state, done.security_profile) == (OperationState.DONE, 2)


def test_21_names_its_own_version_in_the_slot() -> None:
    data = sent(snapshot(V21, 2, [READ])).payload["connectionData"]
    assert isinstance(data, dict) and data["ocppVersion"] == "OCPP21"


def test_a_2x_station_that_comes_back_on_its_old_profile_gets_its_old_order_again() -> None:
    """B10.FR.07: the station fell back; the next reset must not try the broken slot again."""
    answers: Answers = [
        READ, ("SetNetworkProfile", ACCEPTED), ("SetVariables", ACCEPTED), ("Reset", ACCEPTED),
    ]  # fmt: skip
    restore = sent(snapshot(V201, 2, answers, here=False))
    assert restore.payload["setVariableData"][0]["attributeValue"] == "1,3"  # type: ignore[index]  # JSON
    answers.append(("SetVariables", ACCEPTED))
    failed = next_step(snapshot(V201, 2, answers), NOW)
    assert isinstance(failed, Finish) and failed.outcome["fell_back"] is True and failed.security_profile is None


def test_a_scheduled_reset_is_waited_for_across_lost_links() -> None:
    answers: Answers = [
        READ, ("SetNetworkProfile", ACCEPTED), ("SetVariables", ACCEPTED), ("Reset", {"status": "Scheduled"}),
    ]  # fmt: skip
    assert isinstance(next_step(snapshot(V201, 2, answers, here=False), NOW), Wait)


@pytest.mark.parametrize("action", ["SetNetworkProfile", "SetVariables"])
def test_a_refusal_of_2x_fails_and_changes_nothing_of_ours(action: str) -> None:
    """A05.FR.02, A05.FR.03, B09.FR.02, B09.FR.04, B10.FR.02."""
    answers: Answers = [READ, ("SetNetworkProfile", ACCEPTED), ("SetVariables", ACCEPTED)]
    cut = next(number for number, (name, _) in enumerate(answers) if name == action)
    failed = next_step(snapshot(V201, 2, [*answers[:cut], (action, {"status": "Rejected"})]), NOW)
    assert isinstance(failed, Finish) and failed.state is OperationState.FAILED
    assert failed.outcome["profile"] == "unchanged" and failed.security_profile is None


@pytest.mark.parametrize("value", ["", "one", "[]", "1;2"])
def test_a_station_whose_order_cannot_be_read_is_left_alone(value: str) -> None:
    failed = next_step(snapshot(V201, 2, [("GetVariables", {"status": "Accepted", "value": value})]), NOW)
    assert isinstance(failed, Finish) and failed.state is OperationState.FAILED


def test_16_changes_the_key_and_the_station_reconnects() -> None:
    """1.6 A05.FR.05 to FR.07."""
    change = sent(snapshot(V16, 2, []))
    assert (change.action, change.payload) == ("ChangeConfiguration", {"key": "SecurityProfile", "value": "2"})
    assert isinstance(next_step(snapshot(V16, 2, [("ChangeConfiguration", ACCEPTED)]), NOW), Wait)
    done = next_step(snapshot(V16, 2, [("ChangeConfiguration", ACCEPTED)], live=2, here=False), NOW)
    assert isinstance(done, Finish) and done.security_profile == 2
    fallen = next_step(snapshot(V16, 2, [("ChangeConfiguration", ACCEPTED)], here=False), NOW)
    assert isinstance(fallen, Finish) and fallen.outcome["fell_back"] is True  # 1.6 A05.FR.08


def test_16_that_needs_a_reboot_is_reset() -> None:
    answers: Answers = [("ChangeConfiguration", {"status": "RebootRequired"})]
    assert sent(snapshot(V16, 2, answers)).payload == {"type": "Soft"}


@pytest.mark.parametrize("answer", [{"status": "Rejected"}, {"status": "NotSupported"}, {"error": "NotImplemented"}])
def test_16_that_refuses_fails(answer: dict[str, object]) -> None:
    """1.6 A05.FR.01 to FR.04."""
    failed = next_step(snapshot(V16, 2, [("ChangeConfiguration", answer)]), NOW)
    assert isinstance(failed, Finish) and failed.state is OperationState.FAILED


@pytest.mark.parametrize("version", list(OcppVersion))
def test_profile_3_fetches_a_certificate_first_where_none_is_valid(version: OcppVersion) -> None:
    """A05.FR.03, 1.6 A05.FR.04: the precondition is fetched before the profile is touched."""
    trigger = "ExtendedTriggerMessage" if version is V16 else "TriggerMessage"
    assert sent(snapshot(version, 3, [], live=2)).action == trigger
    expired = certificate(not_after=NOW)
    assert sent(snapshot(version, 3, [], live=2, certificates=(expired,))).action == trigger
    refused = certificate(Delivery.UNDELIVERED)
    assert sent(snapshot(version, 3, [], live=2, certificates=(refused,))).action == trigger
    after = "ChangeConfiguration" if version is V16 else "GetVariables"
    assert sent(snapshot(version, 3, [(trigger, ACCEPTED)], live=2, certificates=(certificate(),))).action == after


def test_profile_3_fails_with_the_reason_when_no_certificate_can_be_had() -> None:
    failed = next_step(snapshot(V201, 3, [("TriggerMessage", {"status": "Rejected"})], live=2), NOW)
    assert isinstance(failed, Finish) and "needs a certificate first" in str(failed.outcome["why"])


@pytest.mark.parametrize("version", [V16, V201])
def test_an_unanswered_message_is_repeated_at_most_three_times(version: OcppVersion) -> None:
    action = "ChangeConfiguration" if version is V16 else "GetVariables"
    assert isinstance(next_step(snapshot(version, 2, [(action, None)]), NOW), Wait)
    assert sent(snapshot(version, 2, [(action, None)]), NOW + LATER).action == action
    assert sent(snapshot(version, 2, [(action, None)], here=False)).action == action
    assert isinstance(next_step(snapshot(version, 2, [(action, None)] * 3), NOW + LATER), Wait)


def test_an_unanswered_reset_is_read_back_from_the_next_connection() -> None:
    answers: Answers = [READ, ("SetNetworkProfile", ACCEPTED), ("SetVariables", ACCEPTED), ("Reset", None)]
    assert isinstance(next_step(snapshot(V201, 2, answers), NOW + LATER), Wait)
    assert sent(snapshot(V201, 2, answers, here=False)).action == "SetVariables"


def test_a_station_that_is_there_already_is_done_without_a_message() -> None:
    done = next_step(snapshot(V201, 2, [], live=3), NOW)
    assert isinstance(done, Finish) and (done.state, done.security_profile) == (OperationState.DONE, 2)


def test_the_answers_are_recorded_by_what_they_mean() -> None:
    assert read_profile_answer({"status": "Rejected"}) == {"status": "Rejected"}
    assert read_profile_answer({"setVariableResult": [{"attributeStatus": "Accepted"}]}) == {"status": "Accepted"}
    read = {"getVariableResult": [{"attributeStatus": "Accepted", "attributeValue": "1,2"}]}
    assert read_profile_answer(read) == {"status": "Accepted", "value": "1,2"}


@pytest.mark.parametrize(
    ("profile", "url", "slot"),
    [(0, None, None), (4, None, None), (2, "ws://x", None), (1, "wss://x", None), (2, None, 0)],
)
def test_parameters_that_no_station_could_use_are_refused(profile: int, url: str | None, slot: int | None) -> None:
    with pytest.raises(InputError):
        profile_parameters(profile, url=url, slot=slot)
