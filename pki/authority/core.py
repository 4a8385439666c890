"""The certificate authority: the only place that orders judging, recording and signing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from chargepki.pki.authority.batch import Batch
from chargepki.pki.authority.generations import CrlGenerations
from chargepki.pki.authority.issuance import Issuer, check_may_issue
from chargepki.pki.authority.issuers import IssuerCache
from chargepki.pki.authority.lane import Lane
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder
from chargepki.pki.authority.shards import CrlSettings, configure_crls
from chargepki.pki.errors import ChargePkiError, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import (
    Actor,
    CaRecord,
    CaState,
    CertificateRecord,
    CrlDeltaRecord,
    CrlRecord,
    IssuanceRecord,
)
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.signer import KeyStore

# What issuing does not need is imported by the methods that do: a command that issues one certificate starts faster.
if TYPE_CHECKING:
    from chargepki.pki.authority.artefacts import PublishFolder
    from chargepki.pki.authority.creation import CaOrder
    from chargepki.pki.authority.external import ExternalCas
    from chargepki.pki.authority.four_eyes import FourEyes
    from chargepki.pki.authority.publication import Published
    from chargepki.pki.crl_entry import ReasonCode

__all__ = ["Authority", "utc_now"]

_log = logging.getLogger(__name__)


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
        crl_generations: whose revocations the full list of a CA that was rolled over names.
        policy: which rules of the request policy warn and which refuse; the defaults when ``None``.
        four_eyes: returns which acts need approvals, and what was brought; the inventory's own rule when ``None``.
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
        policy: PolicySettings | None = None,
        crl_generations: CrlGenerations = CrlGenerations.ALL,
        four_eyes: Callable[[], FourEyes] | None = None,
    ) -> None:
        self.inventory = inventory
        self._find_four_eyes = four_eyes
        self._four_eyes: FourEyes | None = None
        self._external = external
        self.policy = policy or PolicySettings()
        self._crl_generations = crl_generations
        self._keystore = keystore
        self._actor = actor
        self._clock = clock
        self._public_url = public_url
        self._publish_folder = publish_folder
        self._published: PublishFolder | None = None
        self._issuers = IssuerCache(inventory, keystore, public_url)
        self._lane = Lane()
        self._files = threading.Lock()

    @property
    def keystore(self) -> KeyStore:
        """Where the private keys are."""
        return self._keystore

    @property
    def actor(self) -> Actor:
        """Who acts, for the audit log."""
        return self._actor

    @property
    def public_url(self) -> str | None:
        """Base of the URLs written into certificates; ``None`` takes what each CA was created with."""
        return self._public_url

    @property
    def four_eyes(self) -> FourEyes:
        """Which acts need approvals, and what was brought."""
        if self._four_eyes is None:
            from chargepki.pki.authority.four_eyes import FourEyes

            self._four_eyes = FourEyes() if self._find_four_eyes is None else self._find_four_eyes()
        return self._four_eyes

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
            four_eyes=self.four_eyes,
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
        return Batch(
            orders,
            inventory=self.inventory,
            issuers=self._issuers,
            lane=self._lane,
            publish_due=self.publish_due,
            external=self._external,
            policy=self.policy,
            check_ca_profile=self.check_ca_profile,
            actor=self._actor,
            now=self._clock(),
        ).run()

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
            four_eyes=self.four_eyes,
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
        return release(self.inventory, certificate_id, actor=self._actor, now=self._clock(), four_eyes=self.four_eyes)

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

    def publish_lists(self, ca: str, *, validity: timedelta | None = None) -> Published:
        """Do as `publish_crl`, and return all lists that were published.

        Args:
            validity: of the lists, for a CA whose key is rarely at hand; a week when ``None``.
        """
        return self._publish(ca, only_due=False, validity=validity)

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

    def _publish(self, ca: str, *, only_due: bool, validity: timedelta | None = None) -> Published:
        from chargepki.pki.authority.publication import CRL_VALIDITY, publish_lists

        issuer = self.open_issuer(ca, for_crl=True)
        published = publish_lists(
            self.inventory,
            issuer,
            actor=self._actor,
            now=self._clock(),
            only_due=only_due,
            validity=validity or CRL_VALIDITY,
            generations=self._crl_generations,
        )
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
                if needs_crl(self.inventory, ca.id, now, self._crl_generations):
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
            and not ca.is_external
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
        return self._issuers.open(ca, for_crl=for_crl)

    def check_ca_profile(self, profile: str) -> None:
        """Refuse to certify a CA by an ordinary order where that needs approvals, which orders do not carry.

        Raises:
            PolicyRefusal: certifying CAs needs approvals here.
        """
        self.four_eyes.check_covered(
            self.inventory,
            ("ca.sign-request", "ca.cross-sign"),
            f"certificates of {profile} are for CAs",
            "use chargepki ca sign-request, or ca cross-sign",
        )

    def _id_of(self, ca: str) -> str:
        return self.inventory.get_ca(ca).id
