"""The steps of operations on roots against a station that loses requests, loses answers and restarts (pure)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security.operations import (
    Finish,
    OperationKind,
    SendAttempt,
    Snapshot,
    Wait,
    check_parameters,
    next_step,
    read_answer,
)
from chargepki.ocpp_security.operations_trust import TrustFacts
from chargepki.ocpp_security.pnc_transfer import read_transfer, wrap_answer
from chargepki.ocpp_security.trust_messages import (
    build_install_certificate,
    build_list_certificates,
    list_rounds,
    uses_of,
)
from chargepki.ocpp_security.trust_store import (
    InstalledRoot,
    TrustPolicy,
    answer_listing,
    plan_delete,
    plan_install,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse, parse_root_use
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata_defects import HashDefect
from chargepki.pki.hashdata_oracle import KnownCertificate
from chargepki.pki.inventory.records import AttemptRecord, OperationRecord, OperationState
from testkit.chains import AT, make
from testkit.effort import examples
from testkit.flows import station_record

ROOT, OTHER = make("Model CA", nth=1), make("Other CA", nth=2)
KNOWN = tuple(KnownCertificate(name, made.der, made.der) for name, made in (("root", ROOT), ("other", OTHER)))
INSTALL, DELETE, LIST = OperationKind.INSTALL_ROOT, OperationKind.DELETE_ROOT, OperationKind.LIST_ROOTS


class ModelStation:
    """Does what a station does, one message at a time, without a connection."""

    def __init__(self, version: OcppVersion, policy: TrustPolicy, *held: InstalledRoot) -> None:
        self.version, self.policy, self.held = version, policy, list(held)
        self.acted: list[str] = []

    def take(self, step: SendAttempt) -> dict[str, Any]:
        payload: Mapping[str, Any] = step.payload
        if step.action == "DataTransfer":
            found = read_transfer(payload)
            assert found is not None
            return wrap_answer(found, self._answer(OcppVersion.V201, found.message, found.payload))
        return self._answer(self.version, step.action, payload)

    def _answer(self, version: OcppVersion, action: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        self.acted.append(action)
        if action in ("GetConfiguration", "GetVariables"):
            return {"configurationKey": []}
        if action == "GetInstalledCertificateIds":
            asked = payload.get("certificateType", [])
            names = [asked] if isinstance(asked, str) else asked
            return answer_listing(version, [parse_root_use(version, name) for name in names], self.held, self.policy)
        if action == "DeleteCertificate":
            plan = plan_delete(payload["certificateHashData"], self.held, self.policy)
            self.held = [each for each in self.held if each not in plan.removes]
            return {"status": plan.status}
        use = parse_root_use(version, str(payload["certificateType"]))
        new = plan_install(use, payload["certificate"], self.held, self.policy, AT)
        if not new.replaces:
            self.held.append(new.root)
        return {"status": "Accepted"}


def operation(kind: OperationKind, **parameters: Any) -> OperationRecord:
    check_parameters(kind, parameters, None)
    state, until = OperationState.RUNNING, AT + timedelta(hours=1)
    return OperationRecord("op-1", kind.value, "CS1", parameters, state, "alice", AT, until)


def run(
    record: OperationRecord, station: ModelStation, fates: list[str], target: int | None = 0, *, most: int = 40
) -> tuple[Finish, tuple[AttemptRecord, ...]]:
    """Carry the operation out; each fate is what happens to one message, and afterwards everything arrives."""
    facts = TrustFacts(KNOWN, None if target is None else KNOWN[target])
    snapshot = Snapshot(record, (), station_record(), station.version, 2, trust=facts)
    now, here = AT, False
    for _ in range(most):
        step = next_step(replace(snapshot, sent_here=here), now)
        if isinstance(step, Finish):
            return step, snapshot.attempts
        if isinstance(step, Wait):
            assert step.until > now
            now = min(step.until, record.deadline)
            continue
        assert isinstance(step, SendAttempt)
        fate = fates.pop(0) if fates else "fine"
        answer = station.take(step) if fate != "request-lost" else None
        told = None if fate in ("request-lost", "answer-lost", "cut") else answer
        # A lost connection: the station is back on another one.
        here = fate not in ("cut", "request-lost")
        recorded = read_answer(record, station.version, told, recorded=step.recorded)
        number = len(snapshot.attempts) + 1
        attempt = AttemptRecord("op-1", number, now, step.recorded, now if recorded else None, recorded)
        snapshot = replace(snapshot, attempts=(*snapshot.attempts, attempt))
        now += timedelta(seconds=1)
    raise AssertionError("it does not come to an end")


FATES = st.lists(st.sampled_from(["fine", "request-lost", "answer-lost", "cut"]), max_size=8)
PLACES = [
    (OcppVersion.V16, RootUse.CSMS),
    (OcppVersion.V16, RootUse.V2G),
    (OcppVersion.V201, RootUse.MO),
    (OcppVersion.V21, RootUse.OEM),
]
POLICIES = [TrustPolicy(), TrustPolicy(hash_defects=frozenset({HashDefect.KEY_INFO, HashDefect.UPPER_CASE}))]


@settings(max_examples=examples(20))
@given(st.sampled_from(PLACES), st.sampled_from(POLICIES), FATES, st.booleans())
def test_an_installation_ends_with_what_the_station_shows(
    place: tuple[OcppVersion, RootUse], policy: TrustPolicy, fates: list[str], there: bool
) -> None:
    version, use = place
    station = ModelStation(version, policy, InstalledRoot(use, OTHER.der))
    if there:
        station.held.append(InstalledRoot(use, ROOT.der))
    finish, _ = run(operation(INSTALL, use=use.value, certificate="x"), station, fates)
    is_held = any(each.der == ROOT.der for each in station.held)
    if finish.state is OperationState.DONE:
        assert is_held
    # What was there is not sent again, and nothing is there twice.
    assert not (there and "InstallCertificate" in station.acted)
    assert [each.der for each in station.held].count(ROOT.der) <= 1
    if fates.count("fine") == len(fates):
        assert finish.state is OperationState.DONE


@settings(max_examples=examples(20))
@given(st.sampled_from(PLACES), st.sampled_from(POLICIES), FATES, st.booleans())
def test_a_deletion_ends_with_what_the_station_shows(
    place: tuple[OcppVersion, RootUse], policy: TrustPolicy, fates: list[str], by_hash: bool
) -> None:
    version, use = place
    station = ModelStation(version, policy, InstalledRoot(use, OTHER.der), InstalledRoot(use, ROOT.der))
    told = answer_listing(OcppVersion.V21, [use], station.held[1:], policy)["certificateHashDataChain"][0]
    named = {"hash": told["certificateHashData"]} if by_hash else {"certificate": "x"}
    finish, attempts = run(operation(DELETE, use=use.value, **named), station, fates)
    is_held = any(each.der == ROOT.der for each in station.held)
    if finish.state is OperationState.DONE:
        assert not is_held
    assert any(each.der == OTHER.der for each in station.held), "another root must never go"
    # Before every DeleteCertificate the station was read, and an unanswered one is resolved by reading.
    names = [each.action.partition("(")[0] for each in attempts]
    for before, after in itertools.pairwise(names):
        assert (before, after) != ("DeleteCertificate", "DeleteCertificate")
    assert names[0] == "GetInstalledCertificateIds"


def test_an_unanswered_deletion_is_not_repeated_when_it_took_place() -> None:
    station = ModelStation(OcppVersion.V201, POLICIES[0], InstalledRoot(RootUse.MO, ROOT.der))
    finish, attempts = run(operation(DELETE, use="mo", certificate="x"), station, ["fine", "answer-lost"])
    assert (finish.state, finish.outcome) == (OperationState.DONE, {"attempts": 1})
    assert len(attempts) == 3


def test_the_last_csms_root_is_kept_unless_that_is_wanted() -> None:
    for last in (False, True):
        station = ModelStation(
            OcppVersion.V201, TrustPolicy(protects_last=False), InstalledRoot(RootUse.CSMS, ROOT.der)
        )
        parameters = {"use": "csms", "certificate": "x", **({"last": True} if last else {})}
        finish, _ = run(operation(DELETE, **parameters), station, [])
        assert finish.state is (OperationState.DONE if last else OperationState.FAILED)
        assert ("last csms root" in str(finish.outcome)) is not last


def test_verbatim_hash_data_are_sent_unread() -> None:
    station = ModelStation(OcppVersion.V201, POLICIES[0], InstalledRoot(RootUse.MO, ROOT.der))
    told = {"hashAlgorithm": "SHA256", "issuerNameHash": "0", "issuerKeyHash": "0", "serialNumber": "0"}
    finish, attempts = run(operation(DELETE, use="mo", hash=told, verbatim=True), station, [], None)
    assert attempts[0].action == "DeleteCertificate(mo)"
    # Not found, and not listed: there is nothing of that name.
    assert finish.state is OperationState.DONE
    assert len(station.held) == 1


def test_a_listing_asks_for_each_use_in_1_6_and_for_all_at_once_in_2x() -> None:
    """M03: one type a request in 1.6, the type left out for all in 2.x."""
    held = [InstalledRoot(RootUse.CSMS, ROOT.der), InstalledRoot(RootUse.V2G, OTHER.der)]
    for version, rounds in ((OcppVersion.V16, 5), (OcppVersion.V201, 1), (OcppVersion.V21, 1)):
        finish, attempts = run(operation(LIST, uses=[]), ModelStation(version, POLICIES[0], *held), [], None)
        assert (finish.outcome, len(attempts)) == ({"listed": 2}, rounds)
        assert build_list_certificates(OcppVersion.V201, uses_of(OcppVersion.V201)).payload == {}
    assert list_rounds(OcppVersion.V21, [RootUse.OEM]) == [(RootUse.OEM,)]


def test_a_use_that_the_version_lacks_fails_before_anything_is_sent() -> None:
    station = ModelStation(OcppVersion.V201, POLICIES[0])
    finish, attempts = run(operation(INSTALL, use="oem", certificate="x"), station, [])
    assert finish.state is OperationState.FAILED
    assert "no root use oem" in str(finish.outcome)
    assert attempts == ()


def test_a_certificate_that_the_wire_has_no_room_for_is_not_sent() -> None:
    """ocpp-security 10: 5500 characters in 1.6 and 2.0.1, 10000 in 2.1."""
    for version, limit in ((OcppVersion.V16, 5500), (OcppVersion.V201, 5500), (OcppVersion.V21, 10_000)):
        build_install_certificate(version, RootUse.CSMS, "x" * limit)
        with pytest.raises(InputError, match=str(limit)):
            build_install_certificate(version, RootUse.CSMS, "x" * (limit + 1))
    with pytest.raises(InputError, match="CertificateSigned"):
        build_install_certificate(OcppVersion.V21, RootUse.V2G_CHAIN, "x")


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (INSTALL, {"use": "csms"}),
        (INSTALL, {"use": "v2g-chain", "certificate": "x"}),
        (INSTALL, {"use": "nothing", "certificate": "x"}),
        (INSTALL, {"use": "csms", "certificate": "x", "hash": {}}),
        (DELETE, {"use": "csms"}),
        (DELETE, {"use": "csms", "certificate": "x", "hash": {}}),
        (DELETE, {"use": "csms", "hash": {"hashAlgorithm": "SHA256"}}),
        (LIST, {"uses": ["nothing"]}),
        (LIST, {"uses": "csms"}),
    ],
)
def test_parameters_are_checked(kind: OperationKind, parameters: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        check_parameters(kind, parameters, None)


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "Accepted", "certificateHashDataChain": "x"},
        {"status": "Accepted", "certificateHashDataChain": [{"certificateHashData": {"serialNumber": 4}}, 7]},
        {"status": "Accepted", "certificateHashDataChain": [{"certificateType": "x", "certificateHashData": None}]},
        {"status": "NotFound"},
        {"status": "Accepted", "data": "{"},
        {"status": "Accepted", "data": "[]"},
        {"status": 4},
        {},
    ],
)
def test_answers_that_no_schema_allows_end_in_a_reason(payload: dict[str, Any]) -> None:
    record = operation(LIST, uses=[])
    told = read_answer(record, OcppVersion.V21, payload, recorded="GetInstalledCertificateIds(csms)")
    assert told is not None
    attempt = AttemptRecord("op-1", 1, AT, "GetInstalledCertificateIds(csms)", AT, told)
    facts = TrustFacts(KNOWN)
    record = operation(LIST, uses=["csms"])
    step = next_step(Snapshot(record, (attempt,), station_record(), OcppVersion.V21, 2, trust=facts), AT)
    assert isinstance(step, Finish)
