"""Generations of a CA under one name: rollover, cross-certificates, and which chain leads to which root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.pki.authority import Authority, CaOrder, IssuedCertificate, IssueOrder, batch, queue
from chargepki.pki.authority.cross import links_to_earlier, links_to_later
from chargepki.pki.authority.external import connect_ca
from chargepki.pki.authority.issuance import Issuer, complete
from chargepki.pki.authority.ocsp import OcspAuthority, ocsp_cas
from chargepki.pki.authority.revocation import blast_radius
from chargepki.pki.authority.rollover import Rollover, RolloverOrder, cross_sign_cas, preview_rollover, roll_over
from chargepki.pki.chain import verify_chain
from chargepki.pki.errors import ChargePkiError, Conflict, PolicyRefusal, ProfileViolation, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import CaState, CertificateRecord, CertificateState, IssuanceState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import lint_certificate
from chargepki.pki.policy_settings import Mode, PolicySettings
from chargepki.pki.profiles import get_profile
from chargepki.pki.questions import list_authorities
from chargepki.pki.questions.paths import PathFinder
from chargepki.pki.services.est import ca_certificates
from testkit.authorities import (
    ACTOR,
    NOW,
    MemoryKeyStore,
    log_findings,
    make_authority,
    make_csr,
    ocpp_authority,
    open_inventory,
)

YEAR = timedelta(days=365)


def issue(authority: Authority, ca: str = "t-sub", name: str = "CS-0001") -> IssuedCertificate:
    return authority.issue(IssueOrder(ca=ca, profile="ocpp/charging-station", csr=make_csr(name)))


def der_of(authority: Authority, ca: str) -> bytes:
    found = authority.inventory.get_ca(ca).certificate_der
    assert found is not None
    return found


def roll(authority: Authority, name: str, **more: object) -> Rollover:
    return roll_over(authority, RolloverOrder(name, **more))  # type: ignore[arg-type]  # checked by the dataclass' users


@pytest.fixture
def inventory(sqlite_url: str, tmp_path: Path) -> Iterator[Inventory]:
    """SQLite alone: PostgreSQL has a test of its own below."""
    with open_inventory(sqlite_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def rolled(authority: Authority) -> Authority:
    """Root and sub-CA in their second generation, one certificate of the first."""
    issue(authority, name="CS-OLD")
    roll(authority, "t-root")
    roll(authority, "t-sub")
    return authority


def test_the_next_generation_has_the_name_another_key_and_the_issuing(rolled: Authority, tmp_path: Path) -> None:
    old, new = (rolled.inventory.get_ca(f"t-sub@{number}") for number in (1, 2))
    assert rolled.inventory.get_ca("t-sub") == new
    assert (old.state, new.state, new.issuer) == (CaState.RETIRED, CaState.ACTIVE, "t-root@2")
    assert old.subject_der == new.subject_der and old.spki_sha256 != new.spki_sha256
    assert issue(rolled).record.ca == "t-sub@2"
    with pytest.raises(StateError, match=r"t-sub@1 is retired"):
        issue(rolled, "t-sub@1")
    assert log_findings(rolled.inventory, tmp_path) == []


def test_each_generation_has_key_identifiers_and_a_list_of_its_own_about_all(rolled: Authority) -> None:
    certificates = [x509.load_der_x509_certificate(der_of(rolled, f"t-sub@{number}")) for number in (1, 2)]
    skis = [each.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest for each in certificates]
    assert skis[0] != skis[1]
    old = next(rolled.inventory.list_certificates(ca="t-sub@1"))
    rolled.revoke(old.id, "superseded")
    for number in (1, 2):
        crl = rolled.publish_crl(f"t-sub@{number}")
        assert crl.entries == 1  # see test_generations.py
        loaded = x509.load_der_x509_crl(crl.der)
        aki = loaded.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert aki == skis[number - 1]
    assert {ca.id for ca in rolled.crl_issuers()} == {"t-root@1", "t-root@2", "t-sub@1", "t-sub@2"}


def test_each_generation_is_answered_for(rolled: Authority) -> None:
    responder = OcspAuthority(rolled)
    answering = {ca.id: ca for ca in ocsp_cas(rolled.inventory, NOW)}
    assert set(answering) == {"t-root@1", "t-root@2", "t-sub@1", "t-sub@2"}
    # The retired one issues no delegate any more: its own key signs (RFC 6960 4.2.2.2).
    assert responder.signer(answering["t-sub@1"]).certificates == ()
    assert len(responder.signer(answering["t-sub@2"]).certificates) == 1
    assert responder.presign(answering["t-sub@1"]) > 0


def check_all_paths(authority: Authority) -> None:
    finder = PathFinder(list_authorities(authority.inventory))
    leaves = {
        "t-sub@1": next(authority.inventory.list_certificates(ca="t-sub@1")).der,
        "t-sub@2": issue(authority).certificate_der,
    }
    for ca, leaf in leaves.items():
        for anchor in ("t-root@1", "t-root@2"):
            (path,) = finder.paths(ca, [der_of(authority, anchor)], NOW)
            assert path.is_crossed is (ca[-1] != anchor[-1])
            assert leaf is not None
            found = verify_chain(leaf, path.certificates, [der_of(authority, anchor)], at=NOW)
            assert len(found.certificates) == (4 if path.is_crossed else 3)
        # Who holds both gets the short one.
        best = finder.paths(ca, [der_of(authority, f"t-root@{number}") for number in (1, 2)], NOW)[0]
        assert not best.is_crossed and best.anchor == der_of(authority, f"t-root@{ca[-1]}")


def test_both_generations_of_a_root_lead_to_what_is_below_either(rolled: Authority) -> None:
    check_all_paths(rolled)


def test_a_rollover_on_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    with open_inventory(postgresql_url, tmp_path) as inventory:
        authority = ocpp_authority(inventory)
        issue(authority, name="CS-OLD")
        roll(authority, "t-root")
        roll(authority, "t-sub")
        assert roll(authority, "t-sub").repeated
        check_all_paths(authority)
        assert log_findings(inventory, tmp_path) == []


def test_cross_certificates_pass_the_linter_and_never_outlive_either_ca(rolled: Authority) -> None:
    found = [each for each in rolled.inventory.list_certificates() if each.profile == "common/cross"]
    assert {each.ca for each in found} == {"t-root@1", "t-root@2"}
    ends = [rolled.inventory.get_ca(f"t-root@{number}").not_after for number in (1, 2)]
    for each in found:
        assert each.der is not None
        assert lint_certificate(each.der, profile=get_profile("common/cross"), now=NOW).errors == ()
        assert all(end is not None and each.not_after <= end for end in ends)
    with pytest.raises(PolicyRefusal, match="outlive"):
        cross_sign_cas(rolled, "t-root@1", "t-root@2", validity=30 * YEAR)


def test_a_rollover_that_is_repeated_makes_nothing_until_the_generation_is_used(authority: Authority) -> None:
    first = roll(authority, "t-sub")
    again = roll(authority, "t-sub")
    assert (first.repeated, again.repeated, again.ca.id) == (False, True, first.ca.id)
    assert roll(authority, "t-sub", again=True).ca.id == "t-sub@3"
    issue(authority)
    assert roll(authority, "t-sub").ca.id == "t-sub@4"


def test_three_generations_of_a_root_are_linked_one_to_the_next(authority: Authority) -> None:
    roll(authority, "t-root")
    roll(authority, "t-root", again=True)
    roll(authority, "t-sub")
    links = links_to_earlier(authority.inventory, authority.inventory.get_ca("t-root"), NOW)
    assert len(links) == 2
    leaf = issue(authority)
    for number in (1, 2, 3):
        verify_chain(leaf.certificate_der, [*leaf.chain[1:], *links], [der_of(authority, f"t-root@{number}")], at=NOW)


def test_what_is_below_the_first_generation_is_linked_to_each_that_followed(authority: Authority) -> None:
    leaf = issue(authority)
    roll(authority, "t-root")
    last = roll(authority, "t-root", again=True)
    first = authority.inventory.get_ca("t-root@1")
    links = links_to_later(authority.inventory, first, NOW)
    for number in (1, 2, 3):
        verify_chain(leaf.certificate_der, [*leaf.chain[1:], *links], [der_of(authority, f"t-root@{number}")], at=NOW)
    assert links_to_later(authority.inventory, last.ca, NOW) == ()
    assert last.old_with_new is not None
    authority.revoke(last.old_with_new.id, "superseded")
    assert links_to_later(authority.inventory, first, NOW) == links[:1]


def test_a_crash_after_the_activation_leaves_nothing_that_the_repeat_does_not_complete(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("chargepki.pki.authority.rollover._completed", dies)
        with pytest.raises(KeyboardInterrupt):
            roll(authority, "t-root")
    assert authority.inventory.get_ca("t-root").id == "t-root@2"
    found = roll(authority, "t-root")
    assert found.repeated and found.old_with_new is not None and found.new_with_old is not None


def test_issuing_goes_on_while_a_rollover_is_interrupted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("chargepki.pki.authority.creation.complete", dies)
        with pytest.raises(KeyboardInterrupt):
            roll(authority, "t-sub")
    assert authority.inventory.get_ca("t-sub@2").state is CaState.PENDING
    assert issue(authority).record.ca == "t-sub@1"
    assert roll(authority, "t-sub").ca.id == "t-sub@2"


def test_what_was_queued_for_a_generation_is_answered_by_the_one_that_followed(authority: Authority) -> None:
    order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr("CS-Q"))
    queued = authority.queue(order)
    roll(authority, "t-sub")
    answers: list[IssuedCertificate | ChargePkiError] = []
    authority.serve_queue_once("w", answered=lambda _, answer: answers.append(answer))
    assert isinstance(answers[0], IssuedCertificate) and answers[0].record.ca == "t-sub@2"
    assert authority.inventory.get_issuance(queued.id).certificate == answers[0].record.id


def dies_before_it_answers(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is queued, make its certificates, and end between their record and that of the answers."""

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("chargepki.pki.authority.queue._answer", dies)
        with pytest.raises(KeyboardInterrupt):
            authority.serve_queue_once("w")


def certificates_of(authority: Authority, station: str) -> list[tuple[str, str]]:
    """Return CA and state of the certificates made for *station*, oldest first."""
    found = [row for row in authority.inventory.list_certificates() if f"CN={station}," in f"{row.subject},"]
    return sorted((row.ca, row.state.value) for row in found)


@pytest.mark.parametrize("times", [1, 2])
def test_a_queued_request_whose_answer_was_lost_gets_its_certificate_after_a_rollover(
    times: int, inventory: Inventory, keystore: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    authority = ocpp_authority(inventory, keystore=keystore, clock=lambda: now[0])
    csr = make_csr("CS-Q")
    order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=csr, requester="csms")
    queued = authority.queue(order)
    dies_before_it_answers(authority, monkeypatch)
    for _ in range(times):
        roll(authority, "t-sub", again=True)
    now[0] += 2 * queue.LEASE
    assert authority.serve_queue_once("w") == 1
    assert certificates_of(authority, "CS-Q") == [("t-sub@1", "issued")], "one request, one certificate"
    answer = queue.answer_of(inventory, queued.id)
    assert isinstance(answer, IssuedCertificate) and answer.record.ca == "t-sub@1"
    assert answer.chain[1] == der_of(authority, "t-sub@1")
    # Whoever asks anew, after the rollover, gets a certificate of the new generation.
    assert authority.issue(order).record.ca == f"t-sub@{times + 1}"


def test_what_was_made_by_a_generation_between_two_rollovers_answers_too(
    inventory: Inventory, keystore: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    authority = ocpp_authority(inventory, keystore=keystore, clock=lambda: now[0])
    queued = authority.queue(IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr("CS-Q")))
    roll(authority, "t-sub")
    dies_before_it_answers(authority, monkeypatch)
    roll(authority, "t-sub")
    now[0] += 2 * queue.LEASE
    authority.serve_queue_once("w")
    assert certificates_of(authority, "CS-Q") == [("t-sub@2", "issued")]
    made = authority.inventory.get_issuance(queued.id).certificate
    authority.revoke(made or "", "superseded")
    # A request that was queued for the same generation and stayed there meets a certificate that is no answer any more.
    later = replace(authority.inventory.get_issuance(queued.id), id="later", state=IssuanceState.QUEUED, fence=0)
    later = replace(later, certificate=None, lease_until=None)

    def put(tx: Transaction) -> None:
        tx.queue_issuance(later)
        tx.audit(ACTOR, "issuance.queue", later.id, now=NOW)

    inventory.write(put)
    authority.serve_queue_once("w")
    assert certificates_of(authority, "CS-Q") == [("t-sub@2", "revoked"), ("t-sub@3", "issued")]


def test_what_was_only_reserved_for_a_queued_request_is_given_up_by_the_next_generation(
    inventory: Inventory, keystore: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    authority = ocpp_authority(inventory, keystore=keystore, clock=lambda: now[0])
    authority.queue(IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr("CS-Q")))

    def dies(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "complete", dies)
        with pytest.raises(KeyboardInterrupt):
            authority.serve_queue_once("w")
    roll(authority, "t-sub")
    now[0] += 2 * queue.LEASE
    authority.serve_queue_once("w")
    assert certificates_of(authority, "CS-Q") == [("t-sub@1", "voided"), ("t-sub@2", "issued")]


def test_a_rollover_in_the_midst_of_an_answer_refuses_nobody(
    inventory: Inventory, keystore: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = ocpp_authority(inventory, keystore=keystore)
    queued = authority.queue(IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr("CS-Q")))
    issue_many = authority.issue_many
    rolled: list[str] = []

    def rolled_over_meanwhile(orders: Sequence[IssueOrder]) -> list[IssuedCertificate | ChargePkiError]:
        if not rolled:
            rolled.append(roll(authority, "t-sub").ca.id)
        return issue_many(orders)

    monkeypatch.setattr(authority, "issue_many", rolled_over_meanwhile)
    authority.serve_queue_once("w")
    answer = queue.answer_of(inventory, queued.id)
    assert isinstance(answer, IssuedCertificate) and answer.record.ca == "t-sub@2"


def test_a_request_id_that_is_repeated_after_a_rollover_brings_back_its_certificate(authority: Authority) -> None:
    order = IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr("CS-R"), request_id="ticket-7")
    first = authority.issue(order)
    roll(authority, "t-root")
    roll(authority, "t-sub")
    again = authority.issue(order)
    assert again.certificate_der == first.certificate_der and again.repeated
    assert again.chain == first.chain, "the chain is that of the generation that signed it"
    for other in (replace(order, csr=make_csr("CS-R")), replace(order, ca="t-sub@2"), replace(order, ca="t-root")):
        with pytest.raises((Conflict, PolicyRefusal), match=r"was used for another request|does not issue"):
            authority.issue(other)
    by_content = replace(order, request_id=None)
    assert authority.issue(by_content).record.ca == "t-sub@2"
    authority.revoke(first.record.id, "superseded")
    assert authority.issue(order).record.ca == "t-sub@2"


def test_what_was_reserved_before_a_rollover_is_given_up_when_its_request_comes_again(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr("CS-R"), request_id="ticket-8")
    late: list[str] = []

    def rolled_over_meanwhile(record: CertificateRecord, issuer: Issuer) -> bytes:
        monkeypatch.setattr(batch, "complete", complete)
        roll(authority, "t-sub")
        late.append(record.id)
        assert authority.issue(order).record.ca == "t-sub@2"
        return complete(record, issuer)

    monkeypatch.setattr(batch, "complete", rolled_over_meanwhile)
    with pytest.raises(StateError, match="voided meanwhile"):
        authority.issue(order)
    assert authority.inventory.get_certificate(late[0]).state is CertificateState.VOIDED
    assert authority.issue(order).record.ca == "t-sub@2"


def test_a_policy_on_keys_does_not_stop_a_cross_certificate(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    ocpp_authority(inventory, keystore=keystore)
    strict = make_authority(inventory, keystore=keystore)
    strict.policy = PolicySettings(modes={"key-renewal": Mode.ENFORCE, "key-reuse": Mode.ENFORCE})
    assert roll(strict, "t-root").old_with_new is not None


def test_a_rollover_may_change_the_algorithm_and_what_is_below_follows(authority: Authority) -> None:
    roll(authority, "t-root", key_algorithm=KeyAlgorithm.SECP384R1)
    below = roll(authority, "t-sub").ca
    assert x509.load_der_x509_certificate(below.certificate_der or b"").public_key().key_size == 384  # type: ignore[union-attr]  # an EC key
    (path,) = PathFinder(list_authorities(authority.inventory)).paths(below.id, [der_of(authority, "t-root@1")], NOW)
    assert path.is_crossed


def test_what_cannot_be_rolled_over_is_refused_and_nothing_changes(authority: Authority, tmp_path: Path) -> None:
    connect_ca(authority.inventory, "hub", "ocpp/cso-sub", [der_of(authority, "t-root"), der_of(authority, "t-sub")],
               actor=ACTOR, now=NOW)  # fmt: skip
    before = list(authority.inventory.list_cas())
    with pytest.raises(PolicyRefusal, match="no root"):
        cross_sign_cas(authority, "t-sub", "t-root")
    with pytest.raises(PolicyRefusal, match="issues no cross-certificates"):
        cross_sign_cas(authority, "t-root", "t-sub")
    with pytest.raises(PolicyRefusal, match="its own key already"):
        cross_sign_cas(authority, "t-root", "t-root")
    with pytest.raises(Conflict, match="exists already"):
        authority.create_ca(CaOrder("t-root", "ocpp/cso-root"))
    assert preview_rollover(authority, RolloverOrder("t-root"))
    assert list(authority.inventory.list_cas()) == before
    roll(authority, "t-sub")
    with pytest.raises(StateError, match="not the newest generation"):
        roll(authority, "t-sub@1")
    assert log_findings(authority.inventory, tmp_path) == []


def test_a_revoked_sub_ca_gets_a_successor_and_revoking_a_cross_certificate_revokes_no_ca(rolled: Authority) -> None:
    sub = next(each for each in rolled.inventory.list_certificates(ca="t-root@2") if each.profile == "ocpp/cso-sub")
    rolled.revoke(sub.id, "keyCompromise")
    assert roll(rolled, "t-sub").ca.id == "t-sub@3"
    cross = next(each for each in rolled.inventory.list_certificates(ca="t-root@1") if each.profile == "common/cross")
    assert blast_radius(rolled.inventory, cross, NOW) is None
    rolled.revoke(cross.id, "superseded")
    assert rolled.inventory.get_ca("t-root").state is CaState.ACTIVE
    # Without it nothing leads from the new generation to the old root.
    assert PathFinder(list_authorities(rolled.inventory)).paths("t-sub@3", [der_of(rolled, "t-root@1")], NOW) == []


def test_est_hands_out_every_generation_of_the_root_and_a_client_of_ours_finds_the_chain(rolled: Authority) -> None:
    told = ca_certificates(rolled.inventory, "t-sub", NOW)
    own = [der_of(rolled, ca) for ca in ("t-sub@2", "t-root@2", "t-root@1")]
    crosses = {each.der for each in rolled.inventory.list_certificates() if each.profile == "common/cross"}
    # RFC 7030 4.1.3: OldWithOld, OldWithNew and NewWithOld beside the chain.
    assert set(told) == {*own, *crosses} and list(told[:2]) == own[:2]
    assert len(told) == 5
    connected = connect_ca(rolled.inventory, "hub", "ocpp/cso-sub", told, actor=ACTOR, now=NOW)
    assert connected.certificate_der == own[0]


@pytest.mark.parametrize(
    "now",
    [
        datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
        datetime(2049, 12, 31, 23, 59, 30, tzinfo=UTC),
        datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
    ],
    ids=["2038", "2049", "2106"],
)
def test_a_rollover_works_where_clocks_and_encodings_end(now: datetime, tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}", tmp_path) as inventory:
        authority = ocpp_authority(inventory, clock=lambda: now)
        roll(authority, "t-root")
        roll(authority, "t-sub")
        anchor = der_of(authority, "t-root@1")
        (path,) = PathFinder(list_authorities(inventory)).paths("t-sub@2", [anchor], now)
        verify_chain(issue(authority).certificate_der, path.certificates, [anchor], at=now)
        assert authority.publish_crl("t-root@1").number < authority.publish_crl("t-root@1").number
        assert log_findings(inventory, tmp_path) == []


def test_a_clock_that_was_lost_rolls_nothing_over(authority: Authority, keystore: MemoryKeyStore) -> None:
    lost = make_authority(authority.inventory, keystore=keystore, clock=lambda: datetime(1970, 1, 1, tzinfo=UTC))
    before = list(authority.inventory.list_cas())
    with pytest.raises(ProfileViolation, match="reads as the year 19"):
        roll(lost, "t-root")
    assert list(authority.inventory.list_cas()) == before
