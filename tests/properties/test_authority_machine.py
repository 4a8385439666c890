"""The authority under everything that happens to it: issue, renew, supersede, revoke, hold, release, roll over,
cross-sign, crash, restore; in any order, on either database.

What must hold all the time: a serial is recorded before it is signed; no key signs one serial twice, nor two lists of
one number, whatever was restored; the audit log verifies, and contradicts a checkpoint that a restore went back behind;
every certificate that left is on record; row, list and OCSP answer agree on state, time and reason of each; a
certificate is superseded only when its station has come in with a later one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

import pyrage
import pytest
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from chargepki.ocpp_security.csms.arrival import take_into_use
from chargepki.pki import keys
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.list_check import check_lists
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.authority.renewal import renewal_order
from chargepki.pki.authority.rollover import RolloverOrder, cross_sign_cas, roll_over
from chargepki.pki.backup import RestoreOrder, make_backup, parse_recipients, restore
from chargepki.pki.certificate_view import view_tbs
from chargepki.pki.crl import parse_crl
from chargepki.pki.der import DerError
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import AuditKey, Inventory, Transaction, verify_log
from chargepki.pki.inventory.audit import Checkpoint
from chargepki.pki.inventory.audit_chain import LogHead
from chargepki.pki.inventory.records import CaRecord, CertificateState, Delivery
from chargepki.pki.signer import Signer
from chargepki.pki.validity import Window
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, make_authority, make_csr, ocpp_authority, open_inventory
from testkit.backups import settings_of
from testkit.databases import create_database, fresh_database, server_uri
from testkit.effort import CAMPAIGN, examples
from testkit.inventories import add_station

STATION = "ocpp/charging-station"
STATIONS = ("CS-A", "CS-B")
REASONS = ("keyCompromise", "superseded", "certificateHold", "certificateHold", "cessationOfOperation")
MOST_GENERATIONS = 4


class Crash(BaseException):
    """The process ends here."""


@dataclass(frozen=True, slots=True)
class Watched(Signer):
    """Tells before and after each signature."""

    watch: Callable[[bytes, bytes, str], None] = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        self.watch(self.spki_der, data, "before")
        signature = keys.sign(self.private_key, data)
        self.watch(self.spki_der, data, "after")
        return signature


class WatchedKeys(MemoryKeyStore):
    """Keys that outlive every crash, and come back with a backup, as files do."""

    def __init__(self, watch: Callable[[bytes, bytes, str], None], signers: dict[str, Signer]) -> None:
        super().__init__()
        self.signers = dict(signers)
        self._watch = watch

    def open(self, uri: str) -> Signer:
        found = super().open(uri)
        return Watched(found.uri, found.private_key, found.public_key, found.algorithm, found.spki_der, self._watch)


@cache
def template(server: str | None) -> tuple[Path, str | None, dict[str, Signer]]:
    """Make a workspace with a root, a sub-CA and two stations once.

    Args:
        server: of PostgreSQL; the inventory is a file of the workspace without one.

    Returns:
        The folder, the name of the database on *server*, and the keys.
    """
    folder, keystore = Path(tempfile.mkdtemp(prefix="machine-")), MemoryKeyStore()
    database = None if server is None else f"machine_{os.getpid()}"
    url = (
        f"sqlite:///{folder / 'inventory.db'}"
        if server is None
        else create_database(server, str(database), "template0")
    )
    with open_inventory(url, folder) as inventory:
        ocpp_authority(inventory, keystore=keystore)
        for name in STATIONS:
            add_station(inventory, name)
    return folder, database, keystore.signers


@dataclass
class Known:
    """What the outside world has of one certificate."""

    der: bytes
    state: str = "issued"
    revoked_at: datetime | None = None
    station: str | None = None
    use: str = ""
    """``in use`` and ``superseded``, once its station has come in with it, or with a later one."""


class AuthorityMachine(RuleBasedStateMachine):
    """One workspace, its outside world, and a clock that only goes forward."""

    on_server: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        server = server_uri() if self.on_server else None
        made, database, signers = template(server)
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.home = self.folder / "home"
        shutil.copytree(made, self.home)
        self.database = contextlib.ExitStack()
        url = None
        if server is not None and database is not None:
            url = self.database.enter_context(fresh_database(server, template=database))
        self.settings = settings_of(self.home, url)
        self.now: datetime = NOW
        self.keystore = WatchedKeys(self.watch, signers)
        identity = pyrage.x25519.Identity.generate()
        self.identities, self.recipients = [identity], parse_recipients([str(identity.to_public())])
        self.crash_at = ""
        self.signed: dict[tuple[bytes, int], tuple[int, bytes]] = {}
        """Restores before it and bytes of every serial that a key was ever used for, by key and number."""
        self.numbers: dict[str, int] = {}
        """The last number of the lists of each key, whatever was restored since."""
        self.known: dict[str, Known] = {}
        self.backups: list[tuple[Path, dict[str, Known], LogHead, dict[str, Signer]]] = []
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

    def watch(self, key: bytes, data: bytes, when: str) -> None:
        """See every signature: a certificate's bytes are on record, committed, before the key is used."""
        try:
            view = view_tbs(data)
        except DerError:
            return  # a revocation list, an OCSP response, or a request
        if when == "before":
            with Inventory.open(self.settings.database, log_key=None, create=False) as other:
                found = [each.tbs for each in other.list_reserved() if each.serial == f"{view.serial:x}"]
            assert found == [data], "signed without a reservation"
            place = (key, view.serial)
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
            self.known.setdefault(certificate_id, Known(record.der, station=record.station))

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

    @rule(crash=st.sampled_from(("", "", "", "before", "after")), station=st.sampled_from((None, *STATIONS)))
    def issue(self, crash: str, station: str | None) -> None:
        self.count += 1
        self.crash_at = crash
        name = station or f"CS-{self.count}"
        order = IssueOrder("t-sub", STATION, csr=make_csr(name), station=station, must_deliver=station is not None)
        issued = self.act(lambda: self.authority.issue(order))
        self.crash_at = ""
        if issued is not None:
            self.keep(issued.record.id)
            again = self.authority.issue(order)
            assert again.certificate_der == issued.certificate_der, "a repeat gave another certificate"

    @rule(which=st.integers(0, 9), crash=st.sampled_from(("", "", "after")))
    def renew(self, which: int, crash: str) -> None:
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
            if old.station is None:
                self.revoke_one(chosen, "superseded")

    @rule(station=st.sampled_from(STATIONS), which=st.integers(0, 9))
    def come_in(self, station: str, which: int) -> None:
        """A station opens a connection with one of the certificates that it was given."""
        own = sorted(name for name, known in self.known.items() if known.station == station and known.state == "issued")
        own = [name for name in own if self.known[name].use != "superseded"]
        if not own:
            return
        chosen = own[which % len(own)]

        def work(tx: Transaction) -> None:
            record = tx.get_certificate(chosen)
            if record.delivery is not Delivery.IN_USE:
                take_into_use(tx, record, station, self.now)

        self.act(lambda: self.inventory.write(work))
        for name in own:
            if self.known[name].use == "in use":
                self.known[name].use = "superseded"
        self.known[chosen].use = "in use"

    @rule(which=st.integers(0, 9), reason=st.sampled_from(REASONS))
    def revoke(self, which: int, reason: str) -> None:
        chosen = self.pick(which)
        if chosen is not None:
            self.revoke_one(chosen, reason)

    def revoke_one(self, chosen: str, reason: str) -> None:
        known = self.known[chosen]
        record = self.act(lambda: self.authority.revoke(chosen, reason))
        if record is not None:
            if known.revoked_at is None:
                known.revoked_at = self.now
            known.state = str(record.revocation_reason)

    @rule(which=st.integers(0, 9))
    def release(self, which: int) -> None:
        held = sorted(name for name, known in self.known.items() if known.state == "certificateHold")
        chosen = held[which % len(held)] if held else self.pick(which)
        if chosen is not None and self.act(lambda: self.authority.release(chosen)) is not None:
            self.known[chosen].state, self.known[chosen].revoked_at = "issued", None

    @rule()
    def publish(self) -> None:
        for ca in list(self.inventory.list_cas()):
            published = self.act(lambda ca=ca: self.authority.publish_crl(ca.id))  # type: ignore[misc]  # the default binds it
            assert published is not None, f"the list of {ca.id} was refused"
            key = str(ca.spki_sha256)
            assert published.number > self.numbers.get(key, 0), "a number of a list was used before"
            self.numbers[key] = published.number
            entries = parse_crl(published.der).entries
            told = {f"{each.serial:x}": (str(each.reason or "unspecified"), each.revoked_at) for each in entries}
            # The list of each generation names the revocations of all of them.
            wanted = {
                name.partition(":")[2]: (known.state, known.revoked_at)
                for name, known in self.known.items()
                if known.state != "issued" and name.startswith(f"{ca.name}@")
            }
            assert told == wanted
            assert check_lists(self.inventory, ca.id) == ()
            for name in sorted(name for name in self.known if name.startswith(f"{ca.id}:"))[:2]:
                self.answer(ca, name)

    def answer(self, ca: CaRecord, name: str) -> None:
        """Have an OCSP answer signed about a certificate: it says what the list does."""
        subject = self.inventory.find_ocsp_subject(name)
        assert subject is not None
        made = self.act(lambda: OcspAuthority(self.authority).sign_batch(ca, [subject], "sha1", self.now))
        assert made is not None, f"no answer about {name}"
        known, found = self.known[name], ocsp.load_der_ocsp_response(made[0].der)
        if known.state == "issued":
            assert found.certificate_status is ocsp.OCSPCertStatus.GOOD
            return
        reason = found.revocation_reason
        told = (found.certificate_status, "unspecified" if reason is None else reason.value, found.revocation_time_utc)
        assert told == (ocsp.OCSPCertStatus.REVOKED, known.state, known.revoked_at), name

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
        copy = {name: replace(known) for name, known in self.known.items()}
        self.backups.append((path, copy, made.head, dict(self.keystore.signers)))

    @rule()
    def back_up_between_reservation_and_signature(self) -> None:
        """A process dies there, the nightly backup runs, and the next process completes what it finds."""
        self.issue("before", None)
        self.back_up()
        self.recover()

    @precondition(lambda self: self.backups and self.restores < 3)
    @rule(which=st.integers(0, 3))
    def restore(self, which: int) -> None:
        path, copy, head, signers = self.backups[which % len(self.backups)]
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
        self.known = {name: replace(known) for name, known in copy.items()}
        # Its keys are in the backup too: a generation that was made afterwards gets its name again, and another key.
        self.keystore.signers = dict(signers)

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
                assert (record.der, state, record.revoked_at) == (known.der, known.state, known.revoked_at), name
                use = {Delivery.IN_USE: "in use", Delivery.SUPERSEDED: "superseded"}
                assert use.get(record.delivery or Delivery.PENDING, "") == known.use, name
            # Voided ones too: their bytes were lost with the process that signed them.
            on_record = {record.serial for record in records.values()}
            signed = {f"{serial:x}" for (_, serial), (epoch, _) in self.signed.items() if epoch == self.restores}
            assert signed <= on_record, "a certificate was signed that is not on record"
            assert list(self.inventory.list_reserved()) == []
        finally:
            self.inventory.close()
            self.database.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class PostgresqlMachine(AuthorityMachine):
    """The same over a database of a server."""

    on_server = True


_EXAMPLES: Final = int(os.environ.get("CHARGEPKI_MACHINE_EXAMPLES", str(examples(5))))
TestAuthorityMachine = AuthorityMachine.TestCase
TestAuthorityMachine.settings = settings(
    max_examples=_EXAMPLES,
    stateful_step_count=40 if CAMPAIGN else 14,
    suppress_health_check=list(HealthCheck),
)
TestPostgresqlMachine = pytest.mark.campaign(PostgresqlMachine.TestCase)
TestPostgresqlMachine.settings = settings(TestAuthorityMachine.settings, max_examples=max(1, _EXAMPLES // 2))
