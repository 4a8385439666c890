"""The four-eyes rule, asked by the acts themselves: no caller goes around it, and an approval is for one act."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from chargepki.ocpp_security.firmware_catalogue import FirmwareCatalogue
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.approvals import (
    Approval,
    ApprovalRequest,
    ApprovalSettings,
    sign_approval,
    verified_approvals,
)
from chargepki.pki.authority.four_eyes import ApprovalAsked, FourEyes, change_rule, recorded_rule
from chargepki.pki.authority.hierarchy import create_hierarchy
from chargepki.pki.authority.offline import accept_answer, answer_request, request_ca
from chargepki.pki.authority.rollover import RolloverOrder, cross_sign_cas, roll_over
from chargepki.pki.backup import restore
from chargepki.pki.errors import Conflict, InputError, PolicyRefusal
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.firmware_records import FirmwareApproverRecord
from chargepki.pki.keys import spki_sha256
from chargepki.pki.signer import Signer
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, make_authority, make_csr, make_key, ocpp_authority
from testkit.backups import World, settings_of
from testkit.inventories import do

PEOPLE = {name: Signer.of(f"memory:{name}", make_key()) for name in ("alice", "bob", "carol")}
DAY = timedelta(days=1)
SUBJECT = (("CN", "New"), ("O", "Test CSO"), ("C", "DE"))
NEW = CaOrder("n", "ocpp/cso-root", subject=SUBJECT)


def registered(name: str, signer: Signer | None = None) -> FirmwareApproverRecord:
    spki = (signer or PEOPLE[name]).spki_der
    return FirmwareApproverRecord(name, spki, spki_sha256(spki), True, "x", NOW)


@dataclass
class Desk:
    """An authority, and how people approve what it is asked for."""

    authority: Authority
    now: datetime = NOW

    def ask(self, act: Callable[[], object]) -> ApprovalRequest:
        """Return the request of *act*, of which nothing is done."""
        self.authority.four_eyes.is_asking = True
        try:
            with pytest.raises(ApprovalAsked) as asked:
                act()
        finally:
            self.authority.four_eyes.is_asking = False
        return asked.value.request

    def approve(self, request: ApprovalRequest, *names: str, valid: timedelta = DAY) -> list[Approval]:
        found = [sign_approval(request, name, PEOPLE[name], valid_until=self.now + valid) for name in names]
        self.authority.four_eyes.bring(found)
        return found


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Inventory]:
    world = World(tmp_path)
    with world.open(settings_of(tmp_path / "home")) as opened:
        for name in ("alice", "bob"):
            do(opened, lambda tx, name=name: tx.add_approver(registered(name)))  # type: ignore[misc]  # a default binds it
        yield opened


@pytest.fixture
def desk(inventory: Inventory) -> Desk:
    made = Desk(ocpp_authority(inventory))
    made.authority._clock = lambda: made.now
    return made


def need(desk: Desk, act: str, count: int = 2) -> None:
    change_rule(desk.authority.inventory, desk.authority.four_eyes, act, count, actor=ACTOR, now=desk.now)


def acts(desk: Desk, folder: Path) -> dict[str, Callable[[], object]]:
    """Return each act on the authority, in the order in which they can be done."""
    authority, inventory = desk.authority, desk.authority.inventory
    sub = next(each.id for each in inventory.list_certificates() if each.profile == "ocpp/cso-sub")
    catalogue = FirmwareCatalogue(inventory, folder, actor=ACTOR, four_eyes=authority.four_eyes)
    far = CaOrder("f", "ocpp/cso-sub", subject=SUBJECT)
    request = request_ca(authority, folder / "requests", far)
    with World(folder).open(settings_of(folder / "other")) as other:
        elsewhere = make_authority(other)
        elsewhere.create_ca(CaOrder("far", "ocpp/cso-root", subject=SUBJECT))
        answer = answer_request(elsewhere, request, "far")
        other_request = request_ca(elsewhere, folder / "other-requests", CaOrder("g", "ocpp/cso-sub", subject=SUBJECT))
    root = hashlib.sha256(answer.chain[-1].certificate).hexdigest()
    return {
        "ca.create": lambda: authority.create_ca(NEW),
        "ca.rollover": lambda: roll_over(authority, RolloverOrder("t-root")),
        "ca.cross-sign": lambda: cross_sign_cas(authority, "t-root@1", "n"),
        "ca.sign-request": lambda: answer_request(authority, other_request, "t-root"),
        "ca.accept": lambda: accept_answer(authority, folder / "requests", answer, root_sha256=root),
        "ca.revoke": lambda: authority.revoke(sub, "certificateHold"),
        "ca.release": lambda: authority.release(sub),
        "approver.register": lambda: catalogue.register_approver("carol", PEOPLE["carol"].spki_der, now=NOW),
        "approver.remove": lambda: catalogue.remove_approver("carol", now=NOW),
    }


def rows(inventory: Inventory) -> list[object]:
    return [*inventory.list_cas(), *inventory.list_certificates(), *inventory.list_approvers()]


NAMES = (
    "ca.create", "ca.rollover", "ca.cross-sign", "ca.sign-request", "ca.accept", "ca.revoke", "ca.release",
    "approver.register", "approver.remove",
)  # fmt: skip


def test_every_act_is_done_by_as_many_people_as_the_inventory_says_and_once(desk: Desk, tmp_path: Path) -> None:
    authority, inventory = desk.authority, desk.authority.inventory
    every = acts(desk, tmp_path)
    assert tuple(every) == NAMES
    for name, act in every.items():
        need(desk, name)
        before = rows(inventory)
        request = desk.ask(act)
        for brought in ((), ("alice",), ("alice", "alice")):
            desk.approve(request, *brought)
            with pytest.raises(PolicyRefusal, match="needs 2 approvals"):
                act()
        assert rows(inventory) == before, name
        approvals = desk.approve(request, "alice", "bob")
        act()
        assert rows(inventory) != before, name
        used = inventory.last_audit("approval.use", request.sha256)
        assert used is not None and used.details["request"] == request.to_json()
        desk.authority.four_eyes.bring(())
        if name == "ca.release":
            # Approved once, held once more: the hold that was approved before is another one.
            assert inventory.last_audit("certificate.release", request.parameters["certificate"]) is not None
            authority.four_eyes.bring(approvals)
            with pytest.raises(PolicyRefusal, match="another request"):
                every["ca.revoke"]()
            authority.four_eyes.bring(())


def test_what_does_not_count(desk: Desk) -> None:
    need(desk, "ca.create")
    inventory, four_eyes = desk.authority.inventory, desk.authority.four_eyes

    def refused(words: str) -> None:
        with pytest.raises(PolicyRefusal, match=words):
            desk.authority.create_ca(NEW)
        assert inventory.find_ca("n") is None

    request = desk.ask(lambda: desk.authority.create_ca(NEW))
    alice, bob = desk.approve(request, "alice", "bob")
    other = desk.ask(lambda: desk.authority.create_ca(replace(NEW, validity=99 * DAY)))
    four_eyes.bring([alice, sign_approval(other, "bob", PEOPLE["bob"], valid_until=NOW + DAY)])
    refused("another request")
    four_eyes.bring([alice, replace(bob, valid_until=NOW + 99 * DAY)])
    refused("did not sign")
    four_eyes.bring([alice, replace(bob, approver="alice")])
    refused("did not sign")
    desk.approve(request, "alice", "carol")
    refused("nobody of that name")
    desk.approve(request, "alice", "bob", valid=-timedelta(seconds=1))
    refused("it ended")
    # Whoever asks may be one of those who approve, and counts once.
    desk.approve(request, "alice", "alice")
    refused("has 1")
    # One key under two names is one person.
    again = PEOPLE["bob"]
    do(inventory, lambda tx: tx.add_approver(registered("carol", again)))
    twice = [sign_approval(request, name, again, valid_until=NOW + DAY) for name in ("bob", "carol")]
    four_eyes.bring(twice)
    refused("has 1")
    do(inventory, lambda tx: tx.remove_approver("bob"))
    desk.approve(request, "alice", "bob")
    refused("may not approve any more")
    assert verified_approvals(inventory, request, [alice], now=NOW)


def test_an_interrupted_creation_goes_on_with_what_was_approved_and_with_nothing_else(desk: Desk) -> None:
    need(desk, "ca.create")
    authority = desk.authority
    desk.approve(desk.ask(lambda: authority.create_ca(NEW)), "alice", "bob")

    class Stopped(MemoryKeyStore):
        def create(self, label: str, algorithm: object) -> str:
            raise KeyboardInterrupt

    keystore, authority._keystore = authority._keystore, Stopped()
    with pytest.raises(KeyboardInterrupt):
        authority.create_ca(NEW)
    authority._keystore = keystore
    authority.four_eyes.bring(())
    with pytest.raises(PolicyRefusal, match="needs 2 approvals and has 0"):
        authority.create_ca(replace(NEW, validity=timedelta(days=999)))
    assert authority.create_ca(NEW).id == "n@1"
    with pytest.raises(Conflict):
        authority.create_ca(NEW)


def test_a_hierarchy_is_approved_as_a_whole(desk: Desk) -> None:
    need(desk, "ca.create")
    authority = desk.authority

    def act(country: str = "DE") -> object:
        return create_hierarchy(authority, "ocpp", prefix="h", organization="O", country=country)

    desk.approve(desk.ask(act), "alice", "bob")
    with pytest.raises(PolicyRefusal, match="another request"):
        act("FR")
    act()
    authority.four_eyes.bring(())
    act()  # All are there: the repeat is what was approved.
    with pytest.raises(PolicyRefusal, match="needs 2"):
        authority.create_ca(NEW)


def test_no_ordinary_order_certifies_a_ca_meanwhile(desk: Desk) -> None:
    need(desk, "ca.sign-request")
    authority = desk.authority
    order = IssueOrder("t-root", "ocpp/cso-sub", csr=make_csr("Sub"), subject=SUBJECT)
    leaf = IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr("CS-1"))
    answers = authority.issue_many([order, leaf])
    assert isinstance(answers[0], PolicyRefusal) and "needs approvals here" in answers[0].what
    assert not isinstance(answers[1], Exception)
    # Nor does a program with an authority of its own (nothing that is queued may be a CA's at all).
    mine = make_authority(authority.inventory, keystore=authority.keystore)  # type: ignore[arg-type]  # a MemoryKeyStore
    with pytest.raises(PolicyRefusal, match="needs approvals here"):
        mine.issue(order)


def test_fewer_approvals_take_as_many_as_were_needed_and_more_take_people(desk: Desk) -> None:
    inventory, four_eyes = desk.authority.inventory, desk.authority.four_eyes

    def change(count: int, act: str = "ca.create") -> int:
        return change_rule(inventory, four_eyes, act, count, actor=ACTOR, now=NOW)

    with pytest.raises(PolicyRefusal, match="more than there are people"):
        change(3)
    assert change(2) == 0
    with pytest.raises(PolicyRefusal, match="needs 2"):
        change(0)
    approvals = desk.approve(desk.ask(lambda: change(0)), "alice", "bob")
    assert change(0) == 2 and recorded_rule(inventory, "ca.create") == 0
    four_eyes.bring(())
    assert change(2) == 0
    four_eyes.bring(approvals)
    with pytest.raises(PolicyRefusal, match="another request"):
        change(0)  # what was approved once is not approved for ever
    for act, count in (("nosuch", 1), ("ca.create", 11), ("ca.create", -1)):
        with pytest.raises(InputError):
            change(count, act)
    # The configuration asks for more, never for less.
    assert FourEyes(ApprovalSettings({"ca.create": 1})).needed(inventory, "ca.create") == 2
    assert FourEyes(ApprovalSettings({"ca.create": 3})).needed(inventory, "ca.create") == 3


def test_a_restore_is_approved_and_ends_what_was_approved_before(desk: Desk, tmp_path: Path) -> None:
    need(desk, "ca.create")
    early = desk.approve(desk.ask(lambda: desk.authority.create_ca(NEW)), "alice", "bob")
    world, settings = World(tmp_path), settings_of(tmp_path / "home")
    need(desk, "workspace.restore")
    path = world.back_up(settings)
    desk.authority.inventory.close()

    def put_back(four_eyes: FourEyes, hours: int) -> None:
        with path.open("rb") as stream:
            order = world.order(settings, replace=True, four_eyes=four_eyes, now=NOW + timedelta(hours=hours))
            restore(stream, order)

    with pytest.raises(PolicyRefusal, match=r"workspace.restore needs 2 approvals and has 0"):
        put_back(FourEyes(), 1)
    with pytest.raises(ApprovalAsked) as asked:
        put_back(FourEyes(is_asking=True), 1)
    request = asked.value.request
    approvals = tuple(sign_approval(request, name, PEOPLE[name], valid_until=NOW + DAY) for name in ("alice", "bob"))
    put_back(FourEyes(approvals=approvals), 1)
    with pytest.raises(PolicyRefusal, match="another request"):
        put_back(FourEyes(approvals=approvals), 2)
    with world.open(settings) as restored:
        assert len(restored.list_restorations()) == 1
        (entry,) = [each for each in restored.list_audit(limit=1000) if each.action == "workspace.restore"]
        assert isinstance(entry.details["approved"], dict) and entry.details["approved"]["request"] == request.to_json()
        authority = make_authority(restored, keystore=desk.authority.keystore)  # type: ignore[arg-type]  # a MemoryKeyStore
        authority.four_eyes.bring(early)
        with pytest.raises(PolicyRefusal, match="another request"):
            authority.create_ca(NEW)


def test_documents_that_are_none_are_refused() -> None:
    request = ApprovalRequest("ca.create", {"name": "x"}, "log")
    good = sign_approval(request, "alice", PEOPLE["alice"], valid_until=NOW)
    assert Approval.parse(json.dumps(good.to_json()).encode()) == good
    for data in (b"", b"{}", b"[1]", b"{" * 9999, json.dumps({**good.to_json(), "valid_until": "x"}).encode()):
        with pytest.raises(InputError):
            Approval.parse(data)
        with pytest.raises(InputError):
            ApprovalRequest.parse(data)


def test_a_certificate_state_is_not_changed_by_a_dry_run_that_needs_nobody(desk: Desk) -> None:
    need(desk, "ca.create")
    four_eyes = FourEyes(ApprovalSettings({"ca.create": 9}), is_rehearsal=True)
    before = desk.authority.inventory.audit_head()
    desk.authority.inventory.write(lambda tx: four_eyes.require(tx, "ca.create", {}, actor=ACTOR, now=NOW))
    assert desk.authority.inventory.audit_head() == before
