"""The authority under everything that happens to it, in any order: issue, renew, revoke, roll over, crash, restore.

What must hold all the time (style, "A CSR's journey"): a serial is recorded before it is signed; no serial is signed
twice, and no list's number is used twice, whatever was restored; the audit log verifies, and contradicts a checkpoint
that a restore went back behind; every certificate that left is on record; a list names what is revoked, no more.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyrage
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from chargepki.pki import keys
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.list_check import check_lists
from chargepki.pki.authority.renewal import renewal_order
from chargepki.pki.authority.rollover import RolloverOrder, cross_sign_cas, roll_over
from chargepki.pki.backup import RestoreOrder, make_backup, parse_recipients, restore
from chargepki.pki.certificate_view import view_tbs
from chargepki.pki.crl import parse_crl
from chargepki.pki.der import DerError
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.audit import Checkpoint
from chargepki.pki.inventory.audit_chain import LogHead
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.signer import Signer
from chargepki.pki.validity import Window
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, make_authority, make_csr, ocpp_authority, open_inventory
from testkit.backups import settings_of
from testkit.effort import CAMPAIGN, examples

STATION = "ocpp/charging-station"
REASONS = ("keyCompromise", "superseded", "certificateHold", "certificateHold", "cessationOfOperation")
MOST_GENERATIONS = 4


class Crash(BaseException):
    """The process ends here."""


@dataclass(frozen=True, slots=True)
class Watched(Signer):
    """Tells before and after each signature."""

    watch: Callable[[bytes, str], None] = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        self.watch(data, "before")
        signature = keys.sign(self.private_key, data)
        self.watch(data, "after")
        return signature


class WatchedKeys(MemoryKeyStore):
    """Keys that outlive every crash and restore, as those in a token do."""

    def __init__(self, watch: Callable[[bytes, str], None], signers: dict[str, Signer]) -> None:
        super().__init__()
        self.signers = dict(signers)
        self._watch = watch

    def open(self, uri: str) -> Signer:
        found = super().open(uri)
        return Watched(found.uri, found.private_key, found.public_key, found.algorithm, found.spki_der, self._watch)


@cache
def template() -> tuple[Path, dict[str, Signer]]:
    """Make a workspace with a root, another root and a sub-CA once, and return it with its keys."""
    folder, keystore = Path(tempfile.mkdtemp(prefix="machine-")), MemoryKeyStore()
    with open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder) as inventory:
        ocpp_authority(inventory, keystore=keystore)
    return folder, keystore.signers


@dataclass
class Known:
    """What the outside world has of one certificate."""

    der: bytes
    state: str = "issued"


class AuthorityMachine(RuleBasedStateMachine):
    """One workspace, its outside world, and a clock that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        made, signers = template()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.home = self.folder / "home"
        shutil.copytree(made, self.home)
        self.settings = settings_of(self.home)
        self.now: datetime = NOW
        self.keystore = WatchedKeys(self.watch, signers)
        identity = pyrage.x25519.Identity.generate()
        self.identities, self.recipients = [identity], parse_recipients([str(identity.to_public())])
        self.crash_at = ""
        self.signed: dict[tuple[bytes, int], tuple[int, bytes]] = {}
        """Restores before it and bytes of every serial that a key was ever used for, by issuer and number."""
        self.numbers: dict[str, int] = {}
        self.known: dict[str, Known] = {}
        self.backups: list[tuple[Path, dict[str, Known], LogHead]] = []
        self.restores = 0
        self.seal: Checkpoint | None = None
        self.seal_is_good = True
        self.count = 0
        self.open()

    # -- the process ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.inventory: Inventory = open_inventory(self.settings.database, self.home)
        self.authority: Authority = make_authority(self.inventory, keystore=self.keystore, clock=lambda: self.now)

    def reopen(self) -> None:
        self.inventory.close()
        self.open()

    def watch(self, data: bytes, when: str) -> None:
        """See every signature: a certificate's bytes are on record, committed, before the key is used."""
        try:
            view = view_tbs(data)
        except DerError:
            return  # a revocation list, or a request
        if when == "before":
            with Inventory.open(self.settings.database, log_key=None, create=False) as other, other.snapshot() as rows:
                found = rows.execute("SELECT state, tbs FROM certificate WHERE serial = ?", (f"{view.serial:x}",))  # type: ignore[arg-type]  # positional
            assert [tuple(row) for row in found] == [("reserved", data)], "signed without a reservation"
            place = (view.issuer, view.serial)
            earlier = self.signed.setdefault(place, (self.restores, data))
            assert earlier == (self.restores, data), "one serial was signed twice"
        if self.crash_at == when:
            self.crash_at = ""
            raise Crash

    def act(self, work: Callable[[], Any]) -> Any:
        """Do something that may be refused, or that a crash ends; what that leaves is settled by whoever comes next."""
        self.now += timedelta(minutes=1)
        try:
            return work()
        except ChargePkiError:
            return None
        except Crash:
            self.reopen()
            return None

    def keep(self, certificate_id: str) -> None:
        record = self.inventory.get_certificate(certificate_id)
        if record.state is CertificateState.ISSUED and record.der is not None:
            self.known.setdefault(certificate_id, Known(record.der))

    def keep_cas(self) -> None:
        for record in self.inventory.list_certificates(state=CertificateState.ISSUED):
            if record.profile != STATION:
                self.keep(record.id)

    def pick(self, number: int) -> str | None:
        ids = sorted(name for name, known in self.known.items() if self.profile_of(name) == STATION)
        return ids[number % len(ids)] if ids else None

    def profile_of(self, certificate_id: str) -> str:
        return self.inventory.get_certificate(certificate_id).profile

    # -- what happens ---------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.keep_cas()

    @rule(crash=st.sampled_from(("", "", "", "before", "after")))
    def issue(self, crash: str) -> None:
        self.count += 1
        self.crash_at = crash
        order = IssueOrder("t-sub", STATION, csr=make_csr(f"CS-{self.count}"))
        issued = self.act(lambda: self.authority.issue(order))
        self.crash_at = ""
        if issued is not None:
            self.keep(issued.record.id)
            again = self.authority.issue(order)
            assert again.certificate_der == issued.certificate_der, "a repeat gave another certificate"

    @rule(which=st.integers(0, 9), crash=st.sampled_from(("", "", "after")))
    def renew_and_supersede(self, which: int, crash: str) -> None:
        chosen = self.pick(which)
        if chosen is None:
            return
        old = self.inventory.get_certificate(chosen)
        ca = self.inventory.get_ca("t-sub")
        assert ca.not_before is not None and ca.not_after is not None
        window = Window(ca.not_before, ca.not_after)
        self.crash_at = crash

        def order() -> IssueOrder:
            return renewal_order(old, ca="t-sub", ca_window=window, now=self.now)

        issued = self.act(lambda: self.authority.issue(order()))
        self.crash_at = ""
        if issued is not None and issued.record.id != chosen:
            self.keep(issued.record.id)
            self.revoke_one(chosen, "superseded")

    @rule(which=st.integers(0, 9), reason=st.sampled_from(REASONS))
    def revoke(self, which: int, reason: str) -> None:
        chosen = self.pick(which)
        if chosen is not None:
            self.revoke_one(chosen, reason)

    def revoke_one(self, chosen: str, reason: str) -> None:
        record = self.act(lambda: self.authority.revoke(chosen, reason))
        if record is not None:
            self.known[chosen].state = str(record.revocation_reason)

    @rule(which=st.integers(0, 9))
    def release(self, which: int) -> None:
        held = sorted(name for name, known in self.known.items() if known.state == "certificateHold")
        chosen = held[which % len(held)] if held else self.pick(which)
        if chosen is not None and self.act(lambda: self.authority.release(chosen)) is not None:
            self.known[chosen].state = "issued"

    @rule()
    def publish(self) -> None:
        for ca in list(self.inventory.list_cas()):
            published = self.act(lambda ca=ca: self.authority.publish_crl(ca.id))  # type: ignore[misc]  # the default binds it
            assert published is not None, f"the list of {ca.id} was refused"
            assert published.number > self.numbers.get(ca.id, 0), "a number of a list was used before"
            self.numbers[ca.id] = published.number
            listed = {f"{ca.id}:{entry.serial:x}" for entry in parse_crl(published.der).entries}
            revoked = {
                name for name, known in self.known.items() if known.state != "issued" and name.startswith(f"{ca.id}:")
            }
            assert listed == revoked
            assert check_lists(self.inventory, ca.id) == ()

    @precondition(lambda self: len(list(self.inventory.list_cas())) < MOST_GENERATIONS + 2)
    @rule(name=st.sampled_from(("t-sub", "t-root")), crash=st.sampled_from(("", "", "before", "after")))
    def roll_over(self, name: str, crash: str) -> None:
        self.crash_at = crash
        self.act(lambda: roll_over(self.authority, RolloverOrder(name)))
        self.crash_at = ""
        self.act(lambda: roll_over(self.authority, RolloverOrder(name)))  # whatever stopped the first completes here
        self.keep_cas()

    @rule()
    def cross_sign(self) -> None:
        roots = [ca for ca in self.inventory.list_cas() if ca.name == "t-root"]
        if len(roots) > 1:
            self.act(lambda: cross_sign_cas(self.authority, roots[-1].id, roots[0].id))
            self.keep_cas()

    @rule()
    def crash(self) -> None:
        self.reopen()

    @rule()
    def recover(self) -> None:
        self.act(self.authority.recover)

    @rule()
    def back_up(self) -> None:
        self.now += timedelta(minutes=1)
        path = self.folder / f"{len(self.backups)}.age"
        with path.open("wb") as stream:
            made = make_backup(self.inventory, self.settings, self.recipients, stream.write, actor=ACTOR, now=self.now)
        copy = {name: Known(known.der, known.state) for name, known in self.known.items()}
        self.backups.append((path, copy, made.head))

    @rule()
    def back_up_between_reservation_and_signature(self) -> None:
        """A process dies there, the nightly backup runs, and the next process completes what it finds."""
        self.issue("before")
        self.back_up()
        self.recover()

    @precondition(lambda self: self.backups and self.restores < 3)
    @rule(which=st.integers(0, 3))
    def restore(self, which: int) -> None:
        path, copy, head = self.backups[which % len(self.backups)]
        self.now += timedelta(minutes=1)
        before = self.inventory.audit_head()
        self.inventory.close()
        order = RestoreOrder(
            settings=self.settings, identities=self.identities, actor=ACTOR, now=self.now, replace=True
        )
        with path.open("rb") as stream:
            restore(stream, order)
        self.restores += 1
        self.open()
        assert before is not None
        # Nothing is lost by a restore of what was the state just now.
        self.seal, self.seal_is_good = Checkpoint(before), before == head
        self.known = {name: Known(known.der, known.state) for name, known in copy.items()}
        # A CA of a generation that is not there any more would get its name again; its key is another one then.
        there = {ca.id for ca in self.inventory.list_cas()}
        self.numbers = {ca: number for ca, number in self.numbers.items() if ca in there}
        for uri in [uri for uri in self.keystore.signers if uri.removeprefix("memory:") not in there]:
            del self.keystore.signers[uri]

    @rule()
    def verify(self) -> None:
        key = AuditKey.load(self.home / "audit.key").public
        report = verify_log(self.inventory, checkpoint=self.seal, pinned_keys=[key])
        codes = {str(finding.code) for finding in report.findings}
        assert all(code.startswith("checkpoint-") for code in codes), report.findings
        assert bool(codes) is not self.seal_is_good, "a checkpoint from before a restore agrees with the log"
        self.seal, self.seal_is_good = Checkpoint.of(self.inventory), True

    # -- what must hold at the end --------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.act(self.authority.recover)
            self.publish()
            self.verify()
            self.verify()
            records = {record.id: record for record in self.inventory.list_certificates()}
            for name, known in self.known.items():
                record = records[name]
                state = "issued" if record.state is CertificateState.ISSUED else record.revocation_reason
                assert (record.der, state) == (known.der, known.state), name
            # Voided ones too: their bytes were lost with the process that signed them.
            on_record = {record.serial for record in records.values()}
            signed = {f"{serial:x}" for (_, serial), (epoch, _) in self.signed.items() if epoch == self.restores}
            assert signed <= on_record, "a certificate was signed that is not on record"
            assert list(self.inventory.list_reserved()) == []
        finally:
            self.inventory.close()
            shutil.rmtree(self.folder, ignore_errors=True)


TestAuthorityMachine = AuthorityMachine.TestCase
TestAuthorityMachine.settings = settings(
    max_examples=examples(5),
    stateful_step_count=40 if CAMPAIGN else 14,
    suppress_health_check=list(HealthCheck),
)
