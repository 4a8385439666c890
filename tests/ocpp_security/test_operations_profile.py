"""The step function of `set-profile`: the messages, what it needs first, refusals, falling back, unknown outcomes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from chargepki.ocpp_security.operations import (
    Finish,
    OperationKind,
    PasswordChange,
    PasswordSecret,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Wait,
    next_step,
)
from chargepki.ocpp_security.operations_profile import profile_parameters, read_profile_answer
from chargepki.ocpp_security.operations_trust import TrustFacts
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata_oracle import KnownCertificate
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
    # Most begin on profile 1, without TLS.
    made = Snapshot(operation, attempts, station_record(), version, live, allowed_unsecured=True, sent_here=here)
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
    restore = sent(snapshot(V201, 2, answers, here=False, booted_here=True))
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


RESET_16: Answers = [("ChangeConfiguration", {"status": "RebootRequired"})]
RESET_2X: Answers = [READ, ("SetNetworkProfile", ACCEPTED), ("SetVariables", ACCEPTED)]


@pytest.mark.parametrize(("version", "before"), [(V16, RESET_16), (V201, RESET_2X)])
def test_an_unanswered_reset_is_read_back_from_the_next_boot(version: OcppVersion, before: Answers) -> None:
    """B01.FR.01, B10.FR.10: without a BootNotification nothing shows that the station got the message."""
    answers: Answers = [*before, ("Reset", None)]
    assert isinstance(next_step(snapshot(version, 2, answers), NOW + LATER), Wait)
    assert isinstance(next_step(snapshot(version, 2, answers, here=False), NOW), Wait)
    assert sent(snapshot(version, 2, answers, here=False), NOW + LATER).action == "Reset"
    fell_back = snapshot(version, 2, answers, here=False, booted_here=True)
    if version is V201:
        assert sent(fell_back).action == "SetVariables"
        fell_back = snapshot(version, 2, [*answers, ("SetVariables", ACCEPTED)], here=False, booted_here=True)
    failed = next_step(fell_back, NOW)
    assert isinstance(failed, Finish) and failed.outcome["fell_back"] is True


def test_a_lost_link_after_an_accepted_reset_is_no_fall_back() -> None:
    answers: Answers = [*RESET_2X, ("Reset", ACCEPTED)]
    waiting = next_step(snapshot(V201, 2, answers, here=False), NOW + LATER)
    assert isinstance(waiting, Wait)
    # It has had its time, and says nothing: its order is restored.
    assert sent(snapshot(V201, 2, answers, here=False), waiting.until).action == "SetVariables"


def test_a_reset_that_is_never_answered_is_sent_three_times_and_then_counts_as_a_fall_back() -> None:
    answers: Answers = [*RESET_2X, *[("Reset", None)] * 3]
    waiting = next_step(snapshot(V201, 2, answers, here=False), NOW + LATER)
    assert isinstance(waiting, Wait)
    assert sent(snapshot(V201, 2, answers, here=False), waiting.until).action == "SetVariables"


# --- what it needs first ---------------------------------------------------------------------------------------------

ROOT = b"a root"
ROOT_ID = hashlib.sha256(ROOT).hexdigest()
INSTALL, LIST, SETTINGS = "InstallCertificate(csms)", "GetInstalledCertificateIds(csms)", "GetVariables(settings)"
NOTHING: dict[str, object] = {"status": "NotFound", "entries": []}


def needy(version: OcppVersion, answers: Answers, *, wanted: int = 2, **more: object) -> Snapshot:
    made = snapshot(version, wanted, answers, **more)  # type: ignore[arg-type]  # by name
    operation = replace(made.operation, parameters={**made.operation.parameters, "root": ROOT_ID})
    target = KnownCertificate("root", ROOT, ROOT)
    return replace(made, operation=operation, trust=TrustFacts((target,), target))


def test_the_root_is_looked_for_and_installed_before_anything_else() -> None:
    """A05.FR.02: list, settings, install, list again; then the change itself."""
    answers: Answers = []
    flow: Answers = [(LIST, NOTHING), (SETTINGS, {"settings": {}}), (INSTALL, ACCEPTED)]
    for label, answer in flow:
        step = sent(needy(V201, answers))
        assert (step.recorded, step.action) == (label, label.partition("(")[0])
        answers.append((label, answer))
    assert sent(needy(V201, answers)).action == "GetInstalledCertificateIds"
    # It cannot list them: its word counts, and what comes next is the change.
    answers.append((LIST, {"error": "NotImplemented"}))
    assert sent(needy(V201, answers)).payload == {"getVariableData": [
        {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "NetworkConfigurationPriority"}}
    ]}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "goes_on"),
    [({"status": "Rejected"}, False), ({"status": "Failed"}, False), ({"error": "NotImplemented"}, True)],
)
def test_a_root_that_the_station_refuses_ends_it_but_one_without_the_message_judges_itself(
    answer: dict[str, object], goes_on: bool
) -> None:
    """M05.FR.03 to FR.06; a station that knows no InstallCertificate was built with its roots."""
    step = next_step(needy(V201, [(LIST, NOTHING), (SETTINGS, {"settings": {}}), (INSTALL, answer)]), NOW)
    if goes_on:
        assert isinstance(step, SendAttempt) and step.action == "GetVariables"
    else:
        assert isinstance(step, Finish) and "profile 2 needs a CSMS root first" in str(step.outcome["why"])


SECRET = PasswordSecret(b"0123456789abcdef", "hash")


@pytest.mark.parametrize("version", [V16, V201])
def test_a_station_without_a_password_gets_one_which_is_on_record_before_the_change(version: OcppVersion) -> None:
    """A01.FR.02, FR.03; 1.6 A05.FR.02: pending while it is sent, in force with the first message after it."""
    step = sent(snapshot(version, 2, [], secret=SECRET, live=0))
    label = "ChangeConfiguration(password)" if version is V16 else "SetVariables(password)"
    assert step.recorded == label and step.password == PasswordChange(PasswordStep.PEND, "hash")
    taken = read_profile_answer(version, label, _password_answer(version, "Accepted"))
    then = sent(snapshot(version, 2, [(label, taken)], secret=SECRET, live=0))
    assert then.action == ("ChangeConfiguration" if version is V16 else "GetVariables")
    assert then.password == PasswordChange(PasswordStep.PROMOTE, "hash")


def _password_answer(version: OcppVersion, status: str) -> dict[str, object]:
    return {"status": status} if version is V16 else {"setVariableResult": [{"attributeStatus": status}]}


@pytest.mark.parametrize("version", [V16, V201])
def test_a_password_that_the_station_refuses_is_forgotten_and_nothing_else_is_touched(version: OcppVersion) -> None:
    """A01.FR.04."""
    label = "ChangeConfiguration(password)" if version is V16 else "SetVariables(password)"
    refused = read_profile_answer(version, label, _password_answer(version, "Rejected"))
    failed = next_step(snapshot(version, 2, [(label, refused)], secret=SECRET, live=0), NOW)
    assert isinstance(failed, Finish) and failed.password == PasswordChange(PasswordStep.DROP, "hash")
    assert "needs a password first" in str(failed.outcome["why"])


def test_an_unanswered_password_is_sent_again_when_the_station_is_back() -> None:
    """It changes nothing that the station held: there was no password on record."""
    answers: Answers = [("SetVariables(password)", None)]
    assert isinstance(next_step(snapshot(V201, 2, answers, secret=SECRET, live=0), NOW), Wait)
    assert sent(snapshot(V201, 2, answers, secret=SECRET, live=0, here=False)).recorded == "SetVariables(password)"


def test_a_certificate_that_is_about_to_expire_is_replaced_first_unless_it_was_never_meant_to_last() -> None:
    soon = certificate(not_after=NOW + timedelta(days=6))
    made = snapshot(V201, 3, [], live=2, certificates=(replace(soon, not_before=NOW - timedelta(days=60)),))
    assert sent(made).action == "TriggerMessage"
    short_lived = replace(soon, not_before=NOW - timedelta(hours=1))
    assert sent(snapshot(V201, 3, [], live=2, certificates=(short_lived,))).action == "GetVariables"


# --- down, where the errata allow it ---------------------------------------------------------------------------------


def lowering(answers: Answers, version: OcppVersion = V201, live: int = 3, **more: object) -> Snapshot:
    made = snapshot(version, 2, answers, live=live, **more)  # type: ignore[arg-type]  # by name
    return replace(made, operation=replace(made.operation, parameters={**made.operation.parameters, "downgrade": True}))


def test_a_station_that_allows_it_is_lowered_from_3_to_2_and_let_in_from_its_reset_on() -> None:
    """A05.FR.08 (errata): the record follows the station, and only at the moment of the reset."""
    allowed: Answers = [("GetVariables(downgrade)", {"status": "Accepted", "value": "true"})]
    assert sent(lowering([])).recorded == "GetVariables(downgrade)"
    before = [sent(lowering([*allowed, *RESET_2X[:cut]])) for cut in range(3)]
    assert [step.lets_in for step in before] == [None, None, None]
    reset = sent(lowering([*allowed, *RESET_2X]))
    assert (reset.action, reset.lets_in) == ("Reset", 2)
    done = next_step(lowering([*allowed, *RESET_2X, ("Reset", ACCEPTED)], live=2, here=False), NOW)
    assert isinstance(done, Finish) and (done.state, done.outcome["profile"]) == (OperationState.DONE, 2)


def test_a_station_that_stays_on_3_is_expected_there_again() -> None:
    answers: Answers = [
        ("GetVariables(downgrade)", {"status": "Accepted", "value": "True"}), *RESET_2X, ("Reset", ACCEPTED),
        ("SetVariables", ACCEPTED),
    ]  # fmt: skip
    failed = next_step(lowering(answers, here=False, booted_here=True), NOW)
    assert isinstance(failed, Finish) and (failed.state, failed.security_profile) == (OperationState.FAILED, 3)


@pytest.mark.parametrize(
    "answer", [{"status": "Accepted", "value": "false"}, {"status": "UnknownVariable"}, {"error": "NotSupported"}]
)
def test_a_station_that_does_not_allow_it_is_not_lowered(answer: dict[str, object]) -> None:
    """A05.FR.10."""
    failed = next_step(lowering([("GetVariables(downgrade)", answer)]), NOW)
    assert isinstance(failed, Finish) and "AllowSecurityProfileDowngrade" in str(failed.outcome["why"])


def test_16_is_never_lowered_and_nothing_goes_below_2() -> None:
    """1.6 A05.FR.01; A05.FR.09."""
    failed = next_step(lowering([], version=V16), NOW)
    assert isinstance(failed, Finish) and failed.state is OperationState.FAILED
    for profile in (1, 3):
        with pytest.raises(InputError):
            profile_parameters(profile, downgrade=True)


def test_a_station_that_is_there_already_is_done_without_a_message() -> None:
    done = next_step(snapshot(V201, 2, [], live=3), NOW)
    assert isinstance(done, Finish) and (done.state, done.security_profile) == (OperationState.DONE, 2)


def test_the_answers_are_recorded_by_what_they_mean() -> None:
    assert read_profile_answer(V16, "", {"status": "Rejected"}) == {"status": "Rejected"}
    assert read_profile_answer(V201, "", {"setVariableResult": [{"attributeStatus": "Accepted"}]}) == {
        "status": "Accepted"
    }
    read = {"getVariableResult": [{"attributeStatus": "Accepted", "attributeValue": "1,2"}]}
    assert read_profile_answer(V201, "", read) == {"status": "Accepted", "value": "1,2"}


@pytest.mark.parametrize(
    ("profile", "url", "slot"),
    [(0, None, None), (4, None, None), (2, "ws://x", None), (1, "wss://x", None), (2, None, 0)],
)
def test_parameters_that_no_station_could_use_are_refused(profile: int, url: str | None, slot: int | None) -> None:
    with pytest.raises(InputError):
        profile_parameters(profile, url=url, slot=slot)
