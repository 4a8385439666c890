"""The step function of operations on stations: what is sent, how answers are read, what an unknown outcome means."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chargepki.ocpp_security.operations import (
    AskReconnect,
    Finish,
    OperationKind,
    PasswordChange,
    PasswordSecret,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Wait,
    check_parameters,
    expire,
    next_step,
    read_answer,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.records import (
    AttemptRecord,
    CertificateRecord,
    CertificateState,
    Delivery,
    OperationRecord,
    OperationState,
    StationRecord,
)
from testkit.flows import NOW, station_record

V16, V201, V21 = OcppVersion
USE = CertificateUse.CHARGING_STATION
SECOND = timedelta(seconds=1)
SECRET = PasswordSecret(b"new-new-new-new-", "$new")
OLD = station_record(password_hash="$old")


def operation(kind: OperationKind, **changes: object) -> OperationRecord:
    made = OperationRecord(
        id="op-1",
        kind=kind.value,
        station="CS1",
        parameters={"use": USE.value} if kind is OperationKind.TRIGGER_RENEWAL else {},
        state=OperationState.RUNNING,
        requester="alice",
        created_at=NOW,
        deadline=NOW + timedelta(hours=1),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # by name


def attempt(number: int = 1, answer: dict[str, object] | None = None, at: datetime = NOW) -> AttemptRecord:
    return AttemptRecord("op-1", number, at, "X", at if answer is not None else None, answer)


def renewal(*attempts: AttemptRecord, **changes: object) -> Snapshot:
    made = Snapshot(
        operation=operation(OperationKind.TRIGGER_RENEWAL),
        attempts=attempts,
        station=OLD,
        version=V201,
        security_profile=3,
        sent_here=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # by name


def password(*attempts: AttemptRecord, **changes: object) -> Snapshot:
    made = replace(
        renewal(*attempts), operation=operation(OperationKind.SET_PASSWORD), security_profile=2, secret=SECRET
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # by name


def certificate(delivery: Delivery | None, reserved_at: datetime = NOW, id: str = "c1") -> CertificateRecord:
    return CertificateRecord(
        id=id,
        ca="t@1",
        serial="1",
        profile="ocpp/charging-station",
        state=CertificateState.ISSUED,
        subject="",
        subject_der=b"",
        spki_sha256="",
        not_before=NOW,
        not_after=NOW,
        request_key="",
        requester="",
        reserved_at=reserved_at,
        delivery=delivery,
    )


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parameters", "secret"),
    [
        (OperationKind.TRIGGER_RENEWAL, {}, None),
        (OperationKind.TRIGGER_RENEWAL, {"use": "nothing"}, None),
        (OperationKind.TRIGGER_RENEWAL, {"use": USE.value, "evse": 0}, None),
        (OperationKind.TRIGGER_RENEWAL, {"use": USE.value, "evse": True}, None),
        (OperationKind.TRIGGER_RENEWAL, {"use": USE.value, "more": 1}, None),
        (OperationKind.TRIGGER_RENEWAL, {"use": USE.value}, SECRET),
        (OperationKind.SET_PASSWORD, {}, None),
        (OperationKind.SET_PASSWORD, {"password": "in the clear"}, SECRET),
        (OperationKind.SET_PASSWORD, {}, PasswordSecret(b"short", "$x")),
    ],
)
def test_wrong_parameters_are_refused(
    kind: OperationKind, parameters: dict[str, object], secret: PasswordSecret | None
) -> None:
    with pytest.raises(InputError):
        check_parameters(kind, parameters, secret)


def test_a_secret_survives_sealing_and_never_shows() -> None:
    binary = PasswordSecret(bytes(range(16)), "$h")
    assert PasswordSecret.from_bytes(binary.to_bytes()) == binary
    assert "new" not in repr(SECRET) and "new" not in repr(password())
    step = next_step(password(), NOW)
    assert "new-new" not in repr(step)
    for broken in (b"", b"{}", b'{"password": 1}', b"\xff"):
        with pytest.raises(InputError):
            PasswordSecret.from_bytes(broken)


def test_an_unknown_kind_and_a_naive_time_are_refused() -> None:
    with pytest.raises(InputError, match="unknown kind"):
        next_step(renewal(operation=replace(operation(OperationKind.SET_PASSWORD), kind="dance")), NOW)
    with pytest.raises(TypeError):
        next_step(renewal(), datetime(2026, 6, 1))  # noqa: DTZ001 - must be refused


# --- trigger-renewal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "action"), [(V16, "ExtendedTriggerMessage"), (V201, "TriggerMessage")])
def test_a02_a_renewal_begins_with_the_trigger_of_the_version(version: OcppVersion, action: str) -> None:
    step = next_step(renewal(version=version), NOW)
    assert isinstance(step, SendAttempt) and step.action == action


def test_a_use_that_the_version_does_not_have_fails_the_operation() -> None:
    later = operation(OperationKind.TRIGGER_RENEWAL, parameters={"use": CertificateUse.V2G20.value})
    step = next_step(renewal(version=V16, operation=later), NOW)
    assert isinstance(step, Finish) and step.state is OperationState.FAILED


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ({"status": "Accepted", "data": '{"status":"Accepted"}'}, "Accepted"),
        ({"status": "Accepted", "data": '{"status":"NotImplemented"}'}, "NotImplemented"),
        ({"status": "Accepted", "data": "{}"}, "Rejected"),
        ({"status": "UnknownVendorId"}, "NotSupported"),
        ({"status": "Rejected"}, "Rejected"),
    ],
)
def test_of_a_trigger_in_a_data_transfer_the_answer_inside_counts(answer: dict[str, str], wanted: str) -> None:
    v2g = operation(OperationKind.TRIGGER_RENEWAL, parameters={"use": CertificateUse.V2G.value})
    step = next_step(renewal(version=V16, operation=v2g), NOW)
    assert isinstance(step, SendAttempt) and step.action == "DataTransfer"
    assert read_answer(v2g, V16, answer) == {"status": wanted}


def test_a_renewal_is_done_when_the_certificate_was_delivered() -> None:
    accepted = attempt(answer={"status": "Accepted"})
    assert isinstance(next_step(renewal(accepted), NOW), Wait)
    assert isinstance(next_step(renewal(accepted, certificates=(certificate(Delivery.PENDING),)), NOW), Wait)
    done = Finish(OperationState.DONE, {"certificate": "c1"})
    for delivery in (Delivery.DELIVERED, Delivery.IN_USE):
        assert next_step(renewal(accepted, certificates=(certificate(delivery),)), NOW) == done
    assert next_step(renewal(accepted, delivered="c1"), NOW) == done


def test_a_certificate_from_before_the_trigger_proves_nothing() -> None:
    older = certificate(Delivery.IN_USE, NOW - SECOND)
    assert isinstance(next_step(renewal(attempt(answer={"status": "Accepted"}), certificates=(older,)), NOW), Wait)


def test_a_certificate_of_the_triggers_own_second_is_placed_by_when_its_csr_came() -> None:
    trigger = attempt(answer={"status": "Accepted"}, at=NOW + timedelta(milliseconds=700))

    def asked(milliseconds: int) -> CertificateRecord:
        at = NOW + timedelta(milliseconds=milliseconds)
        # The authority knows whole seconds.
        return replace(certificate(Delivery.DELIVERED, NOW), verdict={"delivery": {"received_at": at.isoformat()}})

    assert isinstance(next_step(renewal(trigger, certificates=(asked(600),)), NOW + SECOND), Wait)
    after = next_step(renewal(trigger, sent_here=False, certificates=(asked(800),)), NOW + SECOND)
    assert after == Finish(OperationState.DONE, {"certificate": "c1"})


def test_an_old_certificate_that_answers_a_request_after_the_trigger_shows_the_outcome() -> None:
    again = {"delivery": {"received_at": (NOW + SECOND).isoformat()}}
    old = replace(certificate(Delivery.DELIVERED, NOW - timedelta(days=30)), verdict=again)
    step = next_step(renewal(attempt(answer={"status": "Accepted"}), certificates=(old,)), NOW + 2 * SECOND)
    assert isinstance(step, Finish) and step.state is OperationState.DONE


@pytest.mark.parametrize("skew", [timedelta(hours=-3), timedelta(0), timedelta(hours=3)])
def test_clocks_that_differ_between_processes_change_no_step_of_a_password_change(skew: timedelta) -> None:
    tried = attempt(at=NOW + skew)
    pending = replace(OLD, pending_password_hash="$new")
    change = operation(OperationKind.SET_PASSWORD, created_at=NOW + skew, deadline=NOW + timedelta(hours=9))
    made = password(tried, operation=change, station=pending)
    assert isinstance(next_step(replace(made, sent_here=True), NOW), AskReconnect)
    # Another process's connection, authenticated before both passwords counted.
    assert isinstance(next_step(replace(made, sent_here=False), NOW), AskReconnect)
    back = replace(made, sent_here=False, admitted_pending="$new")
    assert isinstance(next_step(back, NOW), SendAttempt), "it has come back with the old one"
    # An operator who corrects the record meanwhile must not send the station round in circles.
    corrected = replace(made, sent_here=False, station=OLD)
    assert isinstance(next_step(corrected, NOW), SendAttempt)


def test_a_password_that_went_out_over_this_connection_may_be_held_whatever_its_admission_showed() -> None:
    leftover = replace(OLD, pending_password_hash="$earlier")
    step = next_step(password(station=leftover, admitted_pending="$earlier", password_sent_here=True), NOW)
    assert isinstance(step, AskReconnect)


@pytest.mark.parametrize("answer", [{"status": "Rejected"}, {"status": "NotImplemented"}, {"error": "NotSupported"}])
def test_a_refused_trigger_fails_the_renewal(answer: dict[str, object]) -> None:
    step = next_step(renewal(attempt(answer=answer)), NOW)
    assert isinstance(step, Finish) and step.state is OperationState.FAILED


def test_a_refused_csr_or_certificate_fails_the_renewal_with_the_reason() -> None:
    accepted = attempt(answer={"status": "Accepted"})
    refused = next_step(renewal(accepted, refusal="CN is another's"), NOW)
    assert refused == Finish(OperationState.FAILED, {"why": "CN is another's"})
    undelivered = next_step(renewal(accepted, certificates=(certificate(Delivery.UNDELIVERED),)), NOW)
    assert isinstance(undelivered, Finish) and undelivered.state is OperationState.FAILED


def test_an_unanswered_trigger_is_not_repeated_before_a_csr_could_have_shown_its_effect() -> None:
    early = next_step(renewal(attempt()), NOW + SECOND)
    assert isinstance(early, Wait)
    assert (early.until, early.state) == (NOW + 60 * SECOND, OperationState.UNKNOWN)
    assert isinstance(next_step(renewal(attempt()), NOW + 61 * SECOND), SendAttempt)
    assert isinstance(next_step(renewal(attempt(), sent_here=False), NOW + 2 * SECOND), SendAttempt)
    travelling = renewal(attempt(), certificates=(certificate(Delivery.PENDING),))
    assert isinstance(next_step(travelling, NOW + 61 * SECOND), Wait)


def test_a_trigger_is_tried_three_times_at_most_and_then_expires() -> None:
    attempts = tuple(attempt(number) for number in (1, 2, 3))
    assert isinstance(next_step(renewal(*attempts), NOW + timedelta(minutes=10)), Wait)
    # It has come back since: whatever ended the link before says nothing about the station.
    assert isinstance(next_step(renewal(*attempts, sent_here=False), NOW), SendAttempt)
    many = tuple(attempt(number) for number in range(1, 11))
    assert isinstance(next_step(renewal(*many, sent_here=False), NOW), Wait)
    step = next_step(renewal(*attempts), NOW + timedelta(hours=2))
    assert isinstance(step, Finish) and step.state is OperationState.EXPIRED


def test_a_csr_of_1_6_that_was_lost_with_its_link_is_asked_for_again() -> None:
    """1.6 knows no retry; a station of 2.x sends it again by itself (A02.FR.17)."""
    accepted = attempt(answer={"status": "Accepted"})
    here = renewal(accepted, version=OcppVersion.V16)
    assert isinstance(next_step(here, NOW + timedelta(minutes=10)), Wait)
    back = replace(here, sent_here=False)
    early = next_step(back, NOW)
    assert isinstance(early, Wait) and early.until == NOW + timedelta(seconds=60)
    assert isinstance(next_step(back, NOW + timedelta(seconds=60)), SendAttempt)
    assert isinstance(next_step(replace(back, version=V201), NOW + timedelta(minutes=10)), Wait)


# --- set-password ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "action", "value"),
    [(V16, "ChangeConfiguration", SECRET.password.hex()), (V201, "SetVariables", SECRET.password.decode())],
)
def test_a01_fr_02_the_new_password_is_pending_before_it_is_sent(version: OcppVersion, action: str, value: str) -> None:
    step = next_step(password(version=version), NOW)
    assert isinstance(step, SendAttempt) and step.action == action and value in str(step.payload)
    assert step.password == PasswordChange(PasswordStep.PEND, "$new")


def test_a_password_that_the_stations_version_does_not_take_is_not_sent() -> None:
    long = PasswordSecret(b"x" * 40, "$long")
    step = next_step(password(version=V16, secret=long), NOW)
    assert isinstance(step, Finish) and step.state is OperationState.FAILED and step.password is None


def answered(version: OcppVersion, status: str) -> dict[str, object]:
    payload: dict[str, object] = {"status": status}
    if version is not V16:
        payload = {"setVariableResult": [{"attributeStatus": status, "component": {}, "variable": {}}]}
    made = read_answer(operation(OperationKind.SET_PASSWORD), version, payload)
    assert made is not None
    return made


@pytest.mark.parametrize("version", OcppVersion)
def test_a01_fr_03_accepted_puts_the_new_password_on_record_and_refuses_the_old_one(version: OcppVersion) -> None:
    step = next_step(password(attempt(answer=answered(version, "Accepted"))), NOW)
    assert isinstance(step, Finish) and step.state is OperationState.DONE
    assert step.password == PasswordChange(PasswordStep.PROMOTE, "$new")


@pytest.mark.parametrize(
    ("version", "status"),
    [
        (V16, "Rejected"),
        (V16, "NotSupported"),
        (V201, "Rejected"),
        (V201, "UnknownVariable"),
        (V21, "UnknownComponent"),
    ],
)
def test_a01_fr_04_any_other_status_leaves_the_old_password(version: OcppVersion, status: str) -> None:
    step = next_step(password(attempt(answer=answered(version, status))), NOW)
    assert isinstance(step, Finish) and step.state is OperationState.FAILED and status in str(step.outcome)
    assert step.password == PasswordChange(PasswordStep.DROP, "$new")


@pytest.mark.parametrize("version", OcppVersion)
def test_reboot_required_keeps_both_passwords_until_the_station_is_back(version: OcppVersion) -> None:
    pending = attempt(answer=answered(version, "RebootRequired"))
    assert isinstance(next_step(password(pending, sent_here=False), NOW + 2 * SECOND), Wait)
    promoted = replace(OLD, password_hash="$new")
    step = next_step(password(pending, station=promoted), NOW)
    assert isinstance(step, Finish) and step.state is OperationState.DONE
    assert expire(operation(OperationKind.SET_PASSWORD), (pending,)).password is None, "both stay accepted"


@pytest.mark.parametrize("answer", [None, {"error": "InternalError"}])
def test_an_unanswered_change_is_resolved_by_a_reconnect_before_anything_is_sent_again(
    answer: dict[str, object] | None,
) -> None:
    tried = attempt(answer=answer)
    assert isinstance(next_step(password(tried), NOW + SECOND), AskReconnect)
    with_old = next_step(password(tried, sent_here=False), NOW + 2 * SECOND)
    assert isinstance(with_old, SendAttempt), "it came back with the old one: the change did not take place"
    with_new = next_step(password(tried, station=replace(OLD, password_hash="$new")), NOW + 2 * SECOND)
    assert isinstance(with_new, Finish) and with_new.state is OperationState.DONE


def test_on_profile_3_an_unanswered_change_stays_unknown_and_both_passwords_stay() -> None:
    step = next_step(password(attempt(), security_profile=3, sent_here=False), NOW + 2 * SECOND)
    assert isinstance(step, Wait) and step.state is OperationState.UNKNOWN
    late = next_step(password(attempt(), security_profile=3), NOW + timedelta(hours=2))
    assert isinstance(late, Finish) and late.state is OperationState.EXPIRED and late.password is None


def test_a_station_that_keeps_its_old_password_three_times_fails_the_operation() -> None:
    attempts = tuple(attempt(number) for number in (1, 2, 3))
    step = next_step(password(*attempts, sent_here=False), NOW + 2 * SECOND)
    assert isinstance(step, Finish) and step.password == PasswordChange(PasswordStep.DROP, "$new")


def test_an_unresolved_earlier_change_is_resolved_before_its_password_is_forgotten() -> None:
    leftover = replace(OLD, pending_password_hash="$earlier")
    assert isinstance(next_step(password(station=leftover), NOW), AskReconnect)
    fresh = next_step(password(station=leftover, admitted_pending="$earlier"), NOW + 2 * SECOND)
    assert isinstance(fresh, SendAttempt)


def test_the_answer_that_is_recorded_holds_no_secret() -> None:
    payload: dict[str, object] = {
        "setVariableResult": [{"attributeStatus": "Accepted", "attributeValue": "new-new-new-new-"}]
    }
    recorded = read_answer(operation(OperationKind.SET_PASSWORD), V201, payload)
    assert recorded == {"status": "Accepted", "meaning": "accepted"}
    assert read_answer(operation(OperationKind.SET_PASSWORD), V201, None) is None
    assert read_answer(operation(OperationKind.SET_PASSWORD), V201, None, "Internal\nError") == {
        "error": "Internal\\nError"
    }


# --- no order of losses locks a station out --------------------------------------------------------------------------


class PasswordMachine(RuleBasedStateMachine):
    """A station with one password, a record with one or two, and a link that loses calls and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.station: StationRecord = OLD
        self.holds = "$old"
        self.number = 0
        self.sent_here = self.password_sent = False
        self.admitted_pending: str | None = None
        self.open: OperationRecord | None = None
        self.attempts: list[AttemptRecord] = []
        self.secret = SECRET

    def tick(self) -> datetime:
        self.now += SECOND
        return self.now

    def apply(self, change: PasswordChange | None) -> None:
        if change is None:
            return
        if change.step is PasswordStep.PEND:
            self.station = replace(self.station, pending_password_hash=change.new_hash)
        elif change.step is PasswordStep.PROMOTE:
            self.station = replace(self.station, password_hash=change.new_hash, pending_password_hash=None)
        elif self.station.pending_password_hash == change.new_hash:
            self.station = replace(self.station, pending_password_hash=None)

    def reconnect(self) -> None:
        assert self.holds in (self.station.password_hash, self.station.pending_password_hash), "locked out"
        if self.holds == self.station.pending_password_hash:
            self.apply(PasswordChange(PasswordStep.PROMOTE, self.holds))
        self.tick()
        self.sent_here, self.password_sent = False, False
        self.admitted_pending = self.station.pending_password_hash

    def ask(self) -> OperationRecord:
        """An operator asks for a new password."""
        self.number += 1
        self.secret = PasswordSecret(b"new-new-new-%04d" % self.number, f"$new{self.number}")
        self.attempts, self.sent_here = [], False
        now = self.tick()
        return operation(OperationKind.SET_PASSWORD, created_at=now, deadline=now + timedelta(seconds=20))

    @rule(
        fate=st.sampled_from(["lost", "applied, answer lost", "Accepted", "Rejected", "InternalError", "half"]),
        late=st.booleans(),
    )
    def a_step_is_taken(self, fate: str, late: bool) -> None:
        if self.open is None:
            self.open = self.ask()
        elif late:
            self.now += timedelta(seconds=30)
        snapshot = Snapshot(
            self.open, tuple(self.attempts), self.station, V201, 2,
            sent_here=self.sent_here, password_sent_here=self.password_sent,
            admitted_pending=self.admitted_pending, secret=self.secret,
        )  # fmt: skip
        step = next_step(snapshot, self.tick())
        if isinstance(step, Finish):
            self.apply(step.password)
            self.open = None
        elif isinstance(step, AskReconnect):
            self.reconnect()
        elif isinstance(step, SendAttempt):
            self.send(step, fate)

    def send(self, step: SendAttempt, fate: str) -> None:
        self.apply(step.password)
        record = attempt(len(self.attempts) + 1, at=self.tick())
        answer: dict[str, object] | None = None
        if fate in ("applied, answer lost", "Accepted", "half"):
            self.holds = self.secret.password_hash
        if fate in ("Accepted", "Rejected"):
            answer = {"status": fate, "meaning": "accepted" if fate == "Accepted" else "refused"}
        elif fate in ("InternalError", "half"):
            answer = {"error": "InternalError"}
        self.sent_here = self.password_sent = True
        self.attempts.append(replace(record, answer=answer, answered_at=self.tick() if answer is not None else None))

    @rule()
    def the_station_reconnects(self) -> None:
        self.reconnect()

    @invariant()
    def the_station_can_always_come_back(self) -> None:
        accepted = (self.station.password_hash, self.station.pending_password_hash)
        last_answer = self.attempts[-1].answer if self.attempts else None
        assert self.holds in accepted, (self.holds, accepted, last_answer)


PasswordMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_no_order_of_lost_calls_and_answers_locks_a_station_out = PasswordMachine.TestCase
