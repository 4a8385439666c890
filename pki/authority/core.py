"""The certificate authority: the only place that orders judging, recording and signing."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from chargepki.pki.authority.issuance import (
    Issuer,
    Prepared,
    chain_of,
    check_may_issue,
    check_stored,
    complete,
    finish,
    issuer_info,
    prepare,
    released,
    reserve,
    with_public_url,
)
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder
from chargepki.pki.authority.shards import CrlSettings, ShardChooser, ShardTaken, configure_crls
from chargepki.pki.errors import ChargePkiError, SignerError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import (
    Actor,
    CaRecord,
    CaState,
    CertificateRecord,
    CertificateState,
    CrlDeltaRecord,
    CrlRecord,
    IssuanceRecord,
)
from chargepki.pki.keys import spki_sha256
from chargepki.pki.profiles import get_profile
from chargepki.pki.signer import KeyStore

# What issuing does not need is imported by the methods that do: a command that issues one certificate starts faster.
if TYPE_CHECKING:
    from chargepki.pki.authority.artefacts import PublishFolder
    from chargepki.pki.authority.creation import CaOrder
    from chargepki.pki.authority.external import ExternalCas
    from chargepki.pki.authority.publication import Published
    from chargepki.pki.crl_entry import ReasonCode

__all__ = ["Authority", "utc_now"]

_log = logging.getLogger(__name__)

_SHARD_ROUNDS = 5
"""How often a certificate is built anew because another process took the last place of its CRL shard."""


def utc_now() -> datetime:
    """Return the present second, aware UTC; certificates and CRLs know no fractions."""
    return datetime.now(UTC).replace(microsecond=0)


class Authority:
    """Issue and revoke certificates and sign CRLs, durably.

    Every method returns after the inventory has committed what it did. Methods may be called from several threads;
    concurrent calls share their commits.

    Example:
        authority = Authority(inventory, keystore, actor=actor)
        issued = authority.issue(IssueOrder(ca="t-cso-sub", profile="ocpp/charging-station", csr=pem))

    Args:
        clock: returns the present as aware UTC.
        public_url: base of the URLs written into certificates; ``None`` takes what each CA was created with.
        publish_folder: where CRLs and CA certificates are also written as files.
        external: how to ask CAs whose keys are with somebody else; ``None`` when there are none.
    """

    def __init__(
        self,
        inventory: Inventory,
        keystore: KeyStore,
        *,
        actor: Actor,
        clock: Callable[[], datetime] = utc_now,
        public_url: str | None = None,
        publish_folder: Path | None = None,
        external: ExternalCas | None = None,
    ) -> None:
        self.inventory = inventory
        self._external = external
        self._keystore = keystore
        self._actor = actor
        self._clock = clock
        self._public_url = public_url
        self._publish_folder = publish_folder
        self._published: PublishFolder | None = None
        self._issuers: dict[str, Issuer] = {}
        self._lock = threading.Lock()
        self._files = threading.Lock()

    @property
    def keystore(self) -> KeyStore:
        """Where the private keys are."""
        return self._keystore

    @property
    def actor(self) -> Actor:
        """Who acts, for the audit log."""
        return self._actor

    def now(self) -> datetime:
        """Return the present second of this authority's clock."""
        return self._clock()

    def create_ca(self, order: CaOrder) -> CaRecord:
        """Create a CA whose key we hold; continues where an interrupted run stopped.

        Raises:
            Conflict: the name is taken.
            PolicyRefusal: profile, issuer, subject or key algorithm do not fit together.
        """
        from chargepki.pki.authority.creation import create_ca

        created = create_ca(
            order,
            inventory=self.inventory,
            keystore=self._keystore,
            open_issuer=self.open_issuer,
            actor=self._actor,
            now=self._clock(),
            public_url=self._public_url,
        )
        if self._publish_folder is not None:
            # Certificates that it issues point there from the first one on.
            self.publish_files(created.id)
        return created

    def issue(self, order: IssueOrder) -> IssuedCertificate:
        """Issue one certificate, or return the one that already answers the same request.

        Raises:
            InputError: the CSR cannot be decoded.
            PolicyRefusal: request, subject or validity break policy or profile.
            NotFound: the CA or the station does not exist.
        """
        answer = self.issue_many([order])[0]
        if isinstance(answer, ChargePkiError):
            raise answer
        return answer

    def issue_many(self, orders: Sequence[IssueOrder]) -> list[IssuedCertificate | ChargePkiError]:
        """Answer *orders* in their order; a refused one is answered by its error and the rest go on.

        All reservations share one commit, and so do all records: the cost of durability is paid once a batch.
        """
        now = self._clock()
        answers: list[IssuedCertificate | ChargePkiError | None] = [None] * len(orders)
        reservations = self._reserve_orders(orders, answers, now)
        self._publish_new_shards({item.record.ca for _, item, _ in reservations if _is_new(item, now)})
        signed: list[tuple[int, Prepared, CertificateRecord, bytes]] = []
        for position, item, reserved in reservations:
            if reserved.state is not CertificateState.RESERVED:
                answers[position] = self._release(reserved, item)
            else:
                try:
                    if reserved.id != item.record.id:
                        check_stored(reserved, item.issuer)
                    signed.append((position, item, reserved, complete(reserved, item.issuer)))
                except ChargePkiError as error:
                    # The reservation stays: the next run with a working key completes it, or voids it.
                    answers[position] = error
        for (position, item, _, _), recorded in zip(signed, self._finish_all(signed, now), strict=True):
            answers[position] = recorded if isinstance(recorded, ChargePkiError) else self._release(recorded, item)
        return [answer for answer in answers if answer is not None]

    def revoke(
        self,
        certificate_id: str,
        reason: ReasonCode | str,
        *,
        revoked_at: datetime | None = None,
        invalidity_date: datetime | None = None,
        record_only: bool = False,
    ) -> CertificateRecord:
        """Revoke a certificate by its id ``CA:SERIAL``, or put it on hold; needs no CA key.

        When it returns, no responder denies it any more: each looks at the inventory before it answers, and those that
        would answer from memory if the database went away have taken note (`Inventory.wait_for_assent`).

        Args:
            revoked_at: when it counts as revoked; now when ``None``.
            invalidity_date: since when the key is known or suspected to have been compromised.
            record_only: its CA is not ours and has revoked it, which is to be on record here.

        Raises:
            Conflict: it is revoked for another reason that is not rewritten.
            NotFound: there is no such certificate.
            PolicyRefusal: it is for its CA to revoke, and *record_only* was not said; or the other way round.
            UnavailableError: the inventory went away; repeat it, since it may have been recorded.
        """
        from chargepki.pki.authority.external import check_whose_to_revoke
        from chargepki.pki.authority.revocation import parse_reason, revoke
        from chargepki.pki.crl_entry import ReasonCode

        code = reason if isinstance(reason, ReasonCode) else parse_reason(reason)
        check_whose_to_revoke(self.inventory, certificate_id, "revoke", record_only=record_only)
        record = revoke(
            self.inventory,
            certificate_id,
            code,
            actor=self._actor,
            now=self._clock(),
            revoked_at=revoked_at,
            invalidity_date=invalidity_date,
        )
        if not self.inventory.wait_for_assent():
            _log.warning("revoked %s, but a process that answers from memory has not taken note within 5 s", record.id)
        return record

    def release(self, certificate_id: str, *, record_only: bool = False) -> CertificateRecord:
        """Take a certificate off hold by its id ``CA:SERIAL``; needs no CA key.

        Args:
            record_only: its CA is not ours and has released it, which is to be on record here.

        Raises:
            Conflict: it is revoked for good.
            NotFound: there is no such certificate.
            PolicyRefusal: it is for its CA to release, and *record_only* was not said; or the other way round.
        """
        from chargepki.pki.authority.external import check_whose_to_revoke
        from chargepki.pki.authority.revocation import release

        check_whose_to_revoke(self.inventory, certificate_id, "release", record_only=record_only)
        return release(self.inventory, certificate_id, actor=self._actor, now=self._clock())

    def configure_crls(self, ca: str, settings: CrlSettings) -> CaRecord:
        """Change how the lists of *ca* (name or id) are cut; certificates keep the shard that they name.

        Raises:
            InputError: a size or a validity out of range.
            NotFound: there is no such CA.
        """
        return configure_crls(self.inventory, self._id_of(ca), settings, actor=self._actor, now=self._clock())

    def check_lists(self, ca: str) -> tuple[str, ...]:
        """Return what in the lists of *ca* (name or id), or in what they are made of, contradicts its certificates."""
        from chargepki.pki.authority.list_check import check_lists

        return check_lists(self.inventory, self._id_of(ca))

    def repair_entries(self, ca: str) -> int:
        """Make the stored entries of *ca* (name or id) anew from its certificates; return how many there are."""
        from chargepki.pki.authority.list_check import repair_entries

        return repair_entries(self.inventory, self._id_of(ca), actor=self._actor, now=self._clock())

    def publish_crl(self, ca: str) -> CrlRecord:
        """Sign, record and publish the next lists of *ca* (name or id), be it active, retired or revoked.

        Returns:
            The full list; the lists of shards and the delta list, where the CA has them, are published with it.

        Raises:
            SignerError: the CA's key cannot be opened.
            StateError: the CA has expired, or is not there yet.
        """
        full = self.publish_lists(ca).full
        assert full is not None
        return full

    def publish_lists(self, ca: str) -> Published:
        """Do as `publish_crl`, and return all lists that were published."""
        return self._publish(ca, only_due=False)

    def publish_due(self, ca: str) -> Published:
        """Sign, record and publish those lists of *ca* that are missing, miss a change, or are half over.

        Raises like `publish_crl`.
        """
        return self._publish(ca, only_due=True)

    def publish_files(self, ca: str, fresh: Sequence[CrlRecord | CrlDeltaRecord] = ()) -> None:
        """Bring the files of *ca* in the publish folder, if there is one, to what the inventory holds.

        Args:
            fresh: lists that were recorded just now, so that they need not be read again.

        Raises:
            UnavailableError: the folder cannot be written.
        """
        from chargepki.pki.authority.artefacts import PublishFolder

        if self._publish_folder is None:
            return
        with self._files:
            if self._published is None:
                self._published = PublishFolder(self._publish_folder)
            self._published.update(self.inventory, self._id_of(ca), self._clock(), fresh)

    def _publish(self, ca: str, *, only_due: bool) -> Published:
        from chargepki.pki.authority.publication import publish_lists

        issuer = self.open_issuer(ca, for_crl=True)
        published = publish_lists(self.inventory, issuer, actor=self._actor, now=self._clock(), only_due=only_due)
        self.publish_files(issuer.ca.id, published.lists)
        return published

    def refresh_crls(self) -> list[CrlRecord | CrlDeltaRecord]:
        """Publish those lists of every CA of `crl_issuers` that are missing, miss a change, or are half over.

        Files that lag behind the inventory are written too, and those of lists whose time is over removed.

        Raises:
            ChargePkiError: the first that went wrong, after all other lists were published.
        """
        from chargepki.pki.authority.publication import needs_crl

        now = self._clock()
        published: list[CrlRecord | CrlDeltaRecord] = []
        failure: ChargePkiError | None = None
        for ca in self.crl_issuers():
            try:
                if needs_crl(self.inventory, ca.id, now):
                    published += self.publish_due(ca.id).lists
                else:
                    self.publish_files(ca.id)
            except ChargePkiError as error:
                # One lost key file must not let the lists of all other CAs expire.
                failure = failure or error
        if failure is not None:
            raise failure
        return published

    def crl_issuers(self) -> list[CaRecord]:
        """Return the CAs whose lists are kept fresh: active and retired ones, whose certificates are still believed.

        Not a revoked CA, see `publication.publish_lists`, not an expired one, and none whose key is with somebody else.
        """
        now = self._clock()
        return [
            ca
            for ca in self.inventory.list_cas()
            if ca.state in (CaState.ACTIVE, CaState.RETIRED)
            and ca.not_after is not None
            and now < ca.not_after
            and not ca.key_uri.startswith(("est:", "none:"))
        ]

    def recover(self, ca: str | None = None) -> list[CertificateRecord]:
        """Complete or void what an interrupted run left reserved, for one CA or for all whose key opens.

        What a CA had reserved that may not issue any more is voided.

        Returns:
            The settled certificates.
        """
        from chargepki.pki.authority.recovery import recover_reservations, void_reservations

        now = self._clock()
        open_cas = {record.ca for record in self.inventory.list_reserved(None if ca is None else self._id_of(ca))}
        settled: list[CertificateRecord] = []
        for ca_id in sorted(open_cas):
            if self.inventory.get_ca(ca_id).state is CaState.PENDING:
                continue  # `ca create` itself continues the creation of a CA
            try:
                check_may_issue(self.inventory, ca_id)
            except StateError as error:
                settled += void_reservations(self.inventory, ca_id, actor=self._actor, now=now, reason=error.what)
                continue
            settled += recover_reservations(self.inventory, self.open_issuer(ca_id), actor=self._actor, now=now)
        return settled

    def queue(self, order: IssueOrder) -> IssuanceRecord:
        """Put *order* into the queue, durably; `serve_queue_once` answers it, here or in another process.

        Raises:
            InputError: the order holds no CSR.
            NotFound: there is no such CA.
        """
        from chargepki.pki.authority.queue import enqueue

        return enqueue(self.inventory, order, actor=self._actor, now=self._clock())

    def serve_queue_once(
        self,
        owner: str,
        *,
        limit: int = 64,
        answered: Callable[[IssuanceRecord, IssuedCertificate | ChargePkiError], None] | None = None,
    ) -> int:
        """Answer queued requests of other processes (interfaces, ``authority serve``); return how many.

        Args:
            answered: told of each request with its answer, once all of them are durable.
        """
        from chargepki.pki.authority.queue import serve_once

        return serve_once(
            self.inventory,
            self.issue_many,
            owner=owner,
            actor=self._actor,
            now=self._clock(),
            limit=limit,
            answered=answered,
        )

    def open_issuer(self, ca: str, *, for_crl: bool = False) -> Issuer:
        """Return the CA *ca* (name or id) with its key opened; cached while its record stays the same.

        Args:
            for_crl: to sign a list, which a retired or revoked CA may.

        Raises:
            StateError: the CA is not active.
            SignerError: its key cannot be opened, or is not the key of its certificate.
        """
        record = self.inventory.get_ca(ca)
        usable = (CaState.ACTIVE, CaState.RETIRED, CaState.REVOKED) if for_crl else (CaState.ACTIVE,)
        if record.state not in usable or record.certificate_der is None:
            raise StateError(
                f"CA {record.id} is {record.state.value}",
                why="it may not sign" if record.state is not CaState.PENDING else "its creation was interrupted",
                fix="use another CA" if record.state is not CaState.PENDING else "run the same `ca create` again",
            )
        with self._lock:
            cached = self._issuers.get(record.id)
            # How its lists are cut may be changed while it is open.
            if cached is not None and cached.ca == with_public_url(record, self._public_url):
                return cached
        if record.key_uri.startswith("est:"):
            raise _NotOurs(record)
        signer = self._keystore.open(record.key_uri)
        profile = get_profile(record.profile)
        issuer = Issuer(
            ca=with_public_url(record, self._public_url),
            profile=profile,
            signer=signer,
            info=issuer_info(signer, record.subject_der, profile),
            chain=chain_of(self.inventory, record),
        )
        _check_key(issuer)
        with self._lock:
            self._issuers[record.id] = issuer
        return issuer

    def _outside(self, order: IssueOrder, ca: CaRecord, now: datetime) -> IssuedCertificate | ChargePkiError:
        from chargepki.pki.authority.external import enrol_outside

        try:
            if self._external is None:
                raise StateError(f"nothing here can ask {ca.name}", fix=f"set [est.ca.{ca.name}] in chargepki.toml")
            ask = self._external(ca)
            return enrol_outside(order, ca, self.inventory, ask, actor=self._actor, now=now)
        except ChargePkiError as error:
            return error

    def _id_of(self, ca: str) -> str:
        return self.inventory.get_ca(ca).id

    def _reserve_orders(
        self, orders: Sequence[IssueOrder], answers: list[IssuedCertificate | ChargePkiError | None], now: datetime
    ) -> list[tuple[int, Prepared, CertificateRecord]]:
        """Judge and reserve each order; a refused one is answered in *answers*."""
        issuers: dict[str, Issuer] = {}
        reservations: list[tuple[int, Prepared, CertificateRecord]] = []
        positions: Sequence[int] = range(len(orders))
        for _ in range(_SHARD_ROUNDS):
            sound: list[tuple[int, Prepared]] = []
            shards = ShardChooser(self.inventory, now)
            for position in positions:
                order = orders[position]
                try:
                    # Looked up once a batch; `reserve` asks again, in the transaction, whether the CA may still issue.
                    issuer = issuers.get(order.ca) or issuers.setdefault(order.ca, self.open_issuer(order.ca))
                    item = prepare(order, issuer, self.inventory, actor=self._actor, now=now, shards=shards)
                    sound.append((position, item))
                except _NotOurs as outside:
                    answers[position] = self._outside(order, outside.ca, now)
                except ChargePkiError as error:
                    answers[position] = error
            taken: list[int] = []
            for (position, item), reserved in zip(sound, self._reserve_all(sound, now), strict=True):
                if isinstance(reserved, ChargePkiError):
                    answers[position] = reserved
                    taken += [position] if isinstance(reserved, ShardTaken) else []
                else:
                    reservations.append((position, item, reserved))
            positions = taken
            if not positions:
                break
        return reservations

    def _publish_new_shards(self, cas: set[str]) -> None:
        """Publish the first list of shards that were opened just now, before a certificate leaves that names one."""
        for ca in cas:
            # The certificate is reserved, so a folder that cannot be written must not stop it: whoever keeps the
            # lists fresh finds this one missing.
            with contextlib.suppress(ChargePkiError):
                self.publish_due(ca)

    def _reserve_all(
        self, sound: Sequence[tuple[int, Prepared]], now: datetime
    ) -> list[CertificateRecord | ChargePkiError]:
        if not sound:
            return []

        def one(tx: Transaction, item: Prepared, may_issue: set[str]) -> CertificateRecord | ChargePkiError:
            try:
                if item.record.ca not in may_issue:
                    check_may_issue(tx, item.record.ca)
                    may_issue.add(item.record.ca)
                return reserve(tx, item, actor=self._actor, now=now)
            except ChargePkiError as error:
                return error

        def work(tx: Transaction) -> list[CertificateRecord | ChargePkiError]:
            # Nobody else writes while this runs, so one look at a CA holds for all its reservations.
            may_issue: set[str] = set()
            return [one(tx, item, may_issue) for _, item in sound]

        return self.inventory.write(work)

    def _finish_all(
        self, signed: Sequence[tuple[int, Prepared, CertificateRecord, bytes]], now: datetime
    ) -> list[CertificateRecord | ChargePkiError]:
        if not signed:
            return []

        def one(tx: Transaction, record: CertificateRecord, der: bytes) -> CertificateRecord | ChargePkiError:
            try:
                return finish(tx, record, der, actor=self._actor, now=now)
            except StateError as error:
                return error

        return self.inventory.write(lambda tx: [one(tx, record, der) for _, _, record, der in signed])

    @staticmethod
    def _release(record: CertificateRecord, item: Prepared) -> IssuedCertificate:
        return released(record, item.issuer, repeated=record.id != item.record.id, clamped=item.clamped)


def _is_new(item: Prepared, now: datetime) -> bool:
    return item.shard is not None and item.shard.opened_at == now


class _NotOurs(SignerError):
    """The CA's key is with somebody else, whom `external` asks."""

    def __init__(self, ca: CaRecord) -> None:
        super().__init__(
            f"the key of {ca.id} is not here",
            why="that CA belongs to somebody else and is reached over EST",
            fix="certificates of it are ordered like any other; its lists are its own to publish",
        )
        self.ca = ca


def _check_key(issuer: Issuer) -> None:
    """Refuse a key that is not the CA's: a signature by it would verify nowhere."""
    if issuer.ca.spki_sha256 != spki_sha256(issuer.signer.spki_der):
        raise SignerError(
            f"the key {issuer.ca.key_uri} is not the key of {issuer.ca.id}",
            why="the certificate of the CA holds another public key",
            fix="put the right key file back from your backup",
        )
