"""What an interrupted run leaves, and how the next one continues."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.pki import keys
from chargepki.pki.authority import Authority, CaOrder, IssuedCertificate, IssueOrder, batch, creation, issuance
from chargepki.pki.authority.queue import answer_of, enqueue
from chargepki.pki.errors import ChargePkiError, Conflict, PolicyRefusal, SignerError, StateError
from chargepki.pki.inventory import Inventory, Transaction, codec
from chargepki.pki.inventory.records import CaState, CertificateState, IssuanceRecord, IssuanceState
from chargepki.pki.pointers import Pointers
from chargepki.pki.profiles import get_profile
from chargepki.pki.template import build_tbs
from chargepki.pki.validity import Window
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, log_findings, make_authority, make_csr, ocpp_authority


def order(csr: bytes) -> IssueOrder:
    """Return an order for a charging-station certificate."""
    return IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=csr)


class Crash(BaseException):
    """Stands for the end of the process: no handler of ours catches it."""


@pytest.fixture
def reserved_only(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A request whose reservation is committed and whose signing never happened."""
    csr = make_csr()

    def crash(*args: object, **kwargs: object) -> bytes:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(batch, "complete", crash)
        with pytest.raises(Crash):
            authority.issue(order(csr))
    return csr


def reserved(inventory: Inventory) -> list[str]:
    """Return the ids of open reservations."""
    return [record.id for record in inventory.list_reserved()]


def test_a_reservation_is_completed_from_its_stored_bytes(authority: Authority, reserved_only: bytes) -> None:
    (open_id,) = reserved(authority.inventory)
    before = authority.inventory.get_certificate(open_id)
    (settled,) = authority.recover("t-sub")
    assert settled.id == open_id
    assert settled.state is CertificateState.ISSUED
    assert settled.tbs == before.tbs
    assert reserved(authority.inventory) == []


def test_the_same_request_takes_up_its_own_reservation(authority: Authority, reserved_only: bytes) -> None:
    (open_id,) = reserved(authority.inventory)
    assert authority.issue(order(reserved_only)).record.id == open_id


def test_a_reservation_whose_validity_is_over_is_voided(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority, reserved_only: bytes
) -> None:
    later = make_authority(inventory, keystore=keystore, clock=lambda: NOW + timedelta(days=3000))
    (settled,) = later.recover("t-sub")
    assert settled.state is CertificateState.VOIDED
    assert reserved(inventory) == []


def test_two_processes_that_complete_one_reservation_hand_out_one_certificate(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority, reserved_only: bytes
) -> None:
    (open_id,) = reserved(inventory)
    record = inventory.get_certificate(open_id)
    issuer = authority.open_issuer("t-sub")
    first, second = issuance.complete(record, issuer), issuance.complete(record, issuer)
    assert first != second  # ECDSA signatures are randomised
    one = inventory.write(lambda tx: issuance.finish(tx, record, first, actor=ACTOR, now=NOW))
    two = inventory.write(lambda tx: issuance.finish(tx, record, second, actor=ACTOR, now=NOW))
    assert one.der == two.der == first


def test_a_voided_reservation_never_becomes_a_certificate(
    inventory: Inventory, authority: Authority, reserved_only: bytes
) -> None:
    (open_id,) = reserved(inventory)
    record = inventory.get_certificate(open_id)
    der = issuance.complete(record, authority.open_issuer("t-sub"))

    def void(tx: Transaction) -> None:
        tx.void_certificate(open_id)
        tx.audit(ACTOR, "certificate.void", open_id, now=NOW)

    inventory.write(void)
    with pytest.raises(StateError, match="voided"):
        inventory.write(lambda tx: issuance.finish(tx, record, der, actor=ACTOR, now=NOW))


def test_a_signer_that_fails_keeps_the_reservation_for_the_next_run(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    csr = make_csr()

    def fail(*args: object) -> bytes:
        raise SignerError("the token is gone")

    with monkeypatch.context() as patch:
        patch.setattr(keys, "sign", fail)
        with pytest.raises(SignerError):
            authority.issue(order(csr))
    (open_id,) = reserved(authority.inventory)
    assert authority.issue(order(csr)).record.id == open_id


@pytest.mark.parametrize("step", ["_open_key", "_reserve_certificate", "complete", "finish"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_creation_of_a_ca_continues_wherever_it_was_interrupted(
    inventory: Inventory,
    keystore: MemoryKeyStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    step: str,
    when: str,
) -> None:
    authority = make_authority(inventory, keystore=keystore)
    root = CaOrder("r", "ocpp/cso-root", subject=(("CN", "Root"), ("O", "Test CSO"), ("C", "DE")))
    real = getattr(creation, step)

    def crash(*args: object, **kwargs: object) -> object:
        if when == "after":
            real(*args, **kwargs)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(creation, step, crash)
        with pytest.raises(Crash):
            authority.create_ca(root)
    made = make_authority(inventory, keystore=keystore).create_ca(root)
    assert made.state is CaState.ACTIVE
    assert len(keystore.signers) == 1
    assert [record.state for record in inventory.list_certificates()] == [CertificateState.ISSUED]
    assert log_findings(inventory, tmp_path) == []


def test_an_existing_ca_is_never_overwritten(authority: Authority) -> None:
    with pytest.raises(Conflict, match="exists already"):
        authority.create_ca(CaOrder("t-root", "ocpp/cso-root"))


def test_an_interrupted_creation_is_not_continued_with_other_parameters(
    inventory: Inventory, keystore: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(inventory, keystore=keystore)

    def crash(*args: object, **kwargs: object) -> object:
        raise Crash

    subject = (("CN", "Root"), ("O", "Test CSO"), ("C", "DE"))
    with monkeypatch.context() as patch:
        patch.setattr(creation, "_open_key", crash)
        with pytest.raises(Crash):
            authority.create_ca(CaOrder("r", "ocpp/cso-root", subject=subject))
    with pytest.raises(Conflict):
        authority.create_ca(CaOrder("r", "ocpp/cso-root", subject=(("CN", "Other"), ("O", "Test CSO"), ("C", "DE"))))


def test_a_refused_ca_leaves_nothing_behind(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    authority = ocpp_authority(inventory, keystore=keystore)
    head = inventory.audit_head()
    for bad in (
        CaOrder("x", "ocpp/charging-station", issuer="t-sub"),
        CaOrder("x", "ocpp/cso-sub"),
        CaOrder("x", "ocpp/cso-sub", issuer="t-sub"),
        CaOrder("x", "ocpp/cso-root", issuer="t-root"),
        CaOrder("../x", "ocpp/cso-root"),
        CaOrder("x", "ocpp/cso-sub", issuer="t-root", validity=timedelta(days=365 * 200)),
    ):
        with pytest.raises(ChargePkiError):
            authority.create_ca(bad)
    assert inventory.audit_head() == head
    assert len(keystore.signers) == 2


# --- what is stored is not believed ---


def tamper(inventory: Inventory, **changes: object) -> str:
    """Change the open reservation behind the audit log's back, as whoever can write to the database could."""
    (open_id,) = reserved(inventory)

    def work(tx: Transaction) -> None:
        before = tx._stored(codec.CERTIFICATE, "certificate", id=open_id)
        tx._change(codec.CERTIFICATE, before, changes)
        tx.audit(ACTOR, "test.tamper", open_id, now=NOW)

    inventory.write(work)
    return open_id


def other_tbs(authority: Authority, profile: str, **fields: object) -> bytes:
    """Return to-be-signed bytes that would verify under t-sub."""
    issuer = authority.open_issuer("t-sub")
    values: dict[str, object] = {
        "issuer": issuer.info,
        "serial": 12345,
        "subject_der": issuer.ca.subject_der,
        "spki_der": keys.spki_der(keys.generate_private_key(keys.KeyAlgorithm.SECP256R1)),
        "window": Window(NOW, NOW + timedelta(days=1)),
        "pointers": Pointers(),
    }
    return build_tbs(get_profile(profile), **{**values, **fields})  # type: ignore[arg-type]  # a test's short form


@pytest.mark.parametrize("profile", ["ocpp/cso-sub", "ocpp/charging-station"])
def test_bytes_that_were_put_in_place_of_the_reserved_ones_are_voided_not_signed(
    authority: Authority, reserved_only: bytes, profile: str
) -> None:
    open_id = tamper(authority.inventory, tbs=other_tbs(authority, profile))
    with pytest.raises(ChargePkiError):
        authority.issue(order(reserved_only))
    (settled,) = authority.recover("t-sub")
    assert (settled.id, settled.state, settled.der) == (open_id, CertificateState.VOIDED, None)
    assert authority.issue(order(reserved_only)).record.id != open_id


def test_a_reservation_whose_profile_was_changed_is_voided(authority: Authority, reserved_only: bytes) -> None:
    tamper(authority.inventory, profile="ocpp/cso-sub")
    (settled,) = authority.recover("t-sub")
    assert settled.state is CertificateState.VOIDED


def test_what_a_revoked_ca_had_reserved_is_voided(authority: Authority, reserved_only: bytes) -> None:
    (open_id,) = reserved(authority.inventory)
    own = authority.inventory.find_certificate_by_request_key("ca:t-sub@1")
    assert own is not None
    authority.revoke(own.id, "cACompromise")
    (settled,) = authority.recover()
    assert (settled.id, settled.state) == (open_id, CertificateState.VOIDED)


def test_a_repeat_does_not_complete_a_reservation_whose_validity_is_over(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority, reserved_only: bytes
) -> None:
    (open_id,) = reserved(inventory)
    end = inventory.get_certificate(open_id).not_after
    later = make_authority(inventory, keystore=keystore, clock=lambda: end + timedelta(seconds=1))
    assert later.issue(order(reserved_only)).record.id != open_id
    assert inventory.get_certificate(open_id).state is CertificateState.RESERVED


def test_a_ca_whose_certificate_was_revoked_before_it_was_activated_gets_another(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issuer's recovery completes a sub-CA's certificate before `ca create` is run again."""
    inventory = authority.inventory
    wanted = CaOrder("late", "ocpp/cso-sub", issuer="t-root", subject=(("CN", "Late"), ("O", "Test CSO")))

    def crash(*args: object, **kwargs: object) -> bytes:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(creation, "complete", crash)
        with pytest.raises(Crash):
            authority.create_ca(wanted)
    (settled,) = authority.recover("t-root")
    authority.revoke(settled.id, "superseded")
    made = authority.create_ca(wanted)
    assert made.state is CaState.ACTIVE
    assert made.certificate_der != inventory.get_certificate(settled.id).der


def test_a_cross_certificate_is_not_created_as_a_ca(authority: Authority) -> None:
    authority.create_ca(CaOrder("v", "iso15118-20/v2g-root", subject=(("CN", "V"), ("O", "Example"))))
    with pytest.raises(PolicyRefusal, match="exists already"):
        authority.create_ca(CaOrder("x", "iso15118-20/cross", issuer="v", subject=(("CN", "X"), ("O", "Example"))))


# --- the queue ---


def test_a_queued_request_is_answered_with_its_certificate(authority: Authority) -> None:
    inventory = authority.inventory
    queued = enqueue(inventory, order(make_csr()), actor=ACTOR, now=NOW)
    assert answer_of(inventory, queued.id) is None
    assert authority.serve_queue_once("me") == 1
    answer = answer_of(inventory, queued.id)
    assert answer is not None and not isinstance(answer, ChargePkiError)
    assert len(answer.chain) == 2
    assert authority.serve_queue_once("me") == 0


def test_a_refusal_travels_back_with_its_class_and_texts(authority: Authority) -> None:
    inventory = authority.inventory
    bad = enqueue(inventory, IssueOrder(ca="t-sub", profile="iso15118-2/secc", csr=make_csr()), actor=ACTOR, now=NOW)
    authority.serve_queue_once("me")
    answer = answer_of(inventory, bad.id)
    assert isinstance(answer, PolicyRefusal)
    assert "iso15118-2/secc" in answer.what and answer.fix


def test_a_crash_between_issuing_and_answering_leads_to_the_same_certificate(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = enqueue(inventory, order(make_csr()), actor=ACTOR, now=NOW)
    real = authority.issue_many

    def crash(orders: list[IssueOrder]) -> list[object]:
        real(orders)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(authority, "issue_many", crash)
        with pytest.raises(Crash):
            authority.serve_queue_once("first")
    made = [record.id for record in inventory.list_certificates(profile="ocpp/charging-station")]
    assert len(made) == 1
    # Until its lease ends the request belongs to the dead process.
    assert authority.serve_queue_once("second") == 0
    later = make_authority(inventory, keystore=keystore, clock=lambda: NOW + timedelta(minutes=2))
    assert later.serve_queue_once("second") == 1
    assert inventory.get_issuance(queued.id).state is IssuanceState.ISSUED
    assert inventory.get_issuance(queued.id).certificate == made[0]
    assert [record.id for record in inventory.list_certificates(profile="ocpp/charging-station")] == made


def put(inventory: Inventory, record: IssuanceRecord) -> None:
    """Write a queue row as another process could: nothing has judged it."""

    def work(tx: Transaction) -> None:
        tx.queue_issuance(record)
        tx.audit(ACTOR, "issuance.queue", record.id, now=NOW)

    inventory.write(work)


@pytest.mark.parametrize("profile", ["ocpp/cso-sub", "iso15118-20/cross", "common/ocsp-signer"])
def test_the_queue_makes_nothing_that_speaks_for_a_ca(authority: Authority, profile: str) -> None:
    inventory = authority.inventory
    wanted = IssueOrder(ca="t-root", profile=profile, csr=make_csr("Sub"))
    with pytest.raises(PolicyRefusal, match="not issued by queue"):
        enqueue(inventory, wanted, actor=ACTOR, now=NOW)
    sound = enqueue(inventory, order(make_csr()), actor=ACTOR, now=NOW)
    put(inventory, replace(sound, id="planted", ca="t-root@1", profile=profile))
    assert authority.serve_queue_once("me") == 2
    refused = answer_of(inventory, "planted")
    assert isinstance(refused, PolicyRefusal) and "not issued by queue" in refused.what


@pytest.mark.parametrize(
    "options",
    [
        {"validity_seconds": "soon"},
        {"validity_seconds": 10**17},
        {"validity_seconds": [1]},
        {"subject": [["CN"]]},
        {"subject": 7},
        {"defaults": "CN"},
        {"dns": 5},
        {"request_id": {"a": 1}, "subject": [["C", "D\u0001"]]},
        {"delivery": 3},
        {"subject": [["DC", "\u00fc"]]},
        {"subject": [["1.2.999999999999999999999999.3", "x"]]},
        {"subject": [["9.9", "x"]]},
        {"dns": ["a\u0001b"]},
    ],
)
def test_a_malformed_queue_row_is_refused_and_the_others_are_answered(
    authority: Authority, options: dict[str, object]
) -> None:
    inventory = authority.inventory
    sound = enqueue(inventory, order(make_csr()), actor=ACTOR, now=NOW)
    put(inventory, replace(sound, id="a-poisoned-row", options=options))
    assert authority.serve_queue_once("me") == 2
    assert isinstance(answer_of(inventory, "a-poisoned-row"), ChargePkiError)
    assert inventory.get_issuance(sound.id).state is IssuanceState.ISSUED


def test_another_certificate_is_made_once_for_each_queue_row_however_often_it_is_taken(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(order(make_csr()), again=True)
    rows = [enqueue(inventory, wanted, actor=ACTOR, now=NOW) for _ in range(2)]
    real = authority.issue_many

    def crash(orders: list[IssueOrder]) -> list[object]:
        real(orders)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(authority, "issue_many", crash)
        with pytest.raises(Crash):
            authority.serve_queue_once("first")
    later = make_authority(inventory, keystore=keystore, clock=lambda: NOW + timedelta(minutes=2))
    assert later.serve_queue_once("second") == 2
    made = {inventory.get_issuance(row.id).certificate for row in rows}
    assert made == {record.id for record in inventory.list_certificates(profile="ocpp/charging-station")}
    assert len(made) == 2


def test_a_lost_lease_costs_its_own_row_alone(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = (enqueue(inventory, order(make_csr(name)), actor=ACTOR, now=NOW) for name in ("CS-1", "CS-2"))
    real = authority.issue_many

    def lose(orders: list[IssueOrder]) -> list[IssuedCertificate | ChargePkiError]:
        answers = real(orders)
        fence = inventory.get_issuance(slow.id).fence
        inventory.write(lambda tx: tx.release_issuance(slow.id, fence=fence))
        inventory.write(lambda tx: tx.take_issuances("other", NOW + timedelta(hours=1), NOW, 1))
        return answers

    monkeypatch.setattr(authority, "issue_many", lose)
    authority.serve_queue_once("me")
    assert inventory.get_issuance(quick.id).state is IssuanceState.ISSUED
    assert answer_of(inventory, slow.id) is None
