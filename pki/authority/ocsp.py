"""Sign OCSP responses: delegated signers that renew themselves, prepared responses, live answers (RFC 6960, RFC 5019).

Each active CA has a delegated signer with `id-pkix-ocsp-nocheck`, so that answering needs no CA key. A CA that may
issue no more, or whose profile leaves no room for one, signs with its own key.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chargepki.pki import keys, names
from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.issuance import check_may_issue
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.authority.revocation import parse_reason
from chargepki.pki.errors import ChargePkiError, PolicyRefusal, ProfileViolation, SignerError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.ocsp_records import OcspResponseRecord, OcspSubject
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CaRecord, CaState, CertificateRecord, CertificateState
from chargepki.pki.lint import lint_ocsp_response
from chargepki.pki.ocsp import (
    CertStatus,
    ResponseTemplate,
    SingleAnswer,
    assemble_response,
    build_cert_id,
    build_response_data,
    issuer_hashes,
    key_hash,
)
from chargepki.pki.profiles.base import Standard
from chargepki.pki.signer import KeyStore, Signer

__all__ = [
    "OCSP_PROFILE",
    "OCSP_VALIDITY",
    "PRESIGNED_HASHES",
    "RESPONDER_ACCEPTED",
    "OcspAuthority",
    "OcspSigner",
    "accepted_delegates",
    "cert_status",
    "delegate_label",
    "delegate_request_id",
    "delegate_subject",
    "find_delegate",
    "is_answered_for",
    "next_delegate",
    "ocsp_cas",
]

_log = logging.getLogger(__name__)

OCSP_VALIDITY: Final = timedelta(days=7)
"""thisUpdate to nextUpdate: the most that ISO 15118-20 allows [V2G20-1021]; replaced at half of it."""
PRESIGNED_HASHES: Final = ("sha1", "sha256")
"""CertIDs that responses are prepared for: nearly every client uses the first, charging stations the second."""
OCSP_PROFILE: Final = "common/ocsp-signer"
RESPONDER_ACCEPTED: Final = "ca.accept-responder"
"""The action on record by which running responders learn that they answer for another CA."""
_RENEW_BEFORE: Final = timedelta(days=10)
"""A third of a delegate's life. More than `OCSP_VALIDITY`, so that no response is cut short by its signer's end."""
_BATCH: Final = 250
_HOW_TO_DELEGATE: Final = (
    "chargepki ca request {ca} --profile common/ocsp-signer --out request.json, have it signed where the key is, "
    "then: chargepki ca accept answer.json"
)


@dataclass(frozen=True, slots=True)
class OcspSigner:
    """A key that answers for one CA."""

    ca: CaRecord
    certificate: str
    """Id of the delegated signer's certificate; empty when it is the CA itself."""
    signer: Signer
    key_hash: bytes
    certificates: tuple[bytes, ...]
    """DER, for the response: the delegate's, none for the CA itself."""
    not_after: datetime
    """Last second at which clients accept the signer's certificate."""

    def sign(self, answers: Sequence[SingleAnswer], *, produced_at: datetime, nonce: bytes | None = None) -> bytes:
        """Return a signed OCSPResponse (DER)."""
        data = build_response_data(self.key_hash, produced_at, answers, nonce=nonce)
        algorithm = keys.signature_algorithm(self.signer.algorithm).der
        return assemble_response(data, algorithm, self.signer.sign(data), self.certificates)

    def template(self, now: datetime) -> ResponseTemplate:
        """Return what all responses that are signed at *now* have in common."""
        algorithm = keys.signature_algorithm(self.signer.algorithm).der
        return ResponseTemplate(
            self.key_hash, algorithm, self.certificates, produced_at=now, next_update=self.until(now)
        )

    def until(self, now: datetime) -> datetime:
        """Return the nextUpdate of what is signed at *now*: never behind the end of the signer or of the CA."""
        return min(now + OCSP_VALIDITY, self.not_after)


def ocsp_cas(inventory: Inventory, now: datetime) -> Iterator[CaRecord]:
    """List the CAs that are answered for: active and retired ones that have not expired, with a key of ours.

    Not a revoked one: clients that have not heard of it shall stop believing what is below, as with its CRL. Of those
    whose key is offline, the ones that have delegated answering to us (`offline_responder`).
    """
    yield from (ca for ca in inventory.list_cas() if is_answered_for(inventory, ca, now))


def is_answered_for(reads: Reads, ca: CaRecord, now: datetime) -> bool:
    """Whether the status of what *ca* has issued is ours to tell."""
    if ca.state not in (CaState.ACTIVE, CaState.RETIRED) or ca.not_after is None or now >= ca.not_after:
        return False
    return not ca.is_external or any(each.not_before <= now < each.not_after for each in accepted_delegates(reads, ca))


def accepted_delegates(reads: Reads, ca: CaRecord) -> list[CertificateRecord]:
    """Return the delegates that a CA whose key is elsewhere certified for us and that are not revoked."""
    prefix = f"id:{delegate_request_id(ca, '')}"
    found = reads.list_certificates(ca=ca.id, profile=OCSP_PROFILE, state=CertificateState.ISSUED)
    return [each for each in found if each.request_key.startswith(prefix)]


def cert_status(subject: OcspSubject | None) -> CertStatus:
    """Return what is answered about a certificate: `good` only for what is recorded as issued.

    A reserved or voided serial is unknown, like one that never was.
    """
    if subject is None or not subject.status:
        return CertStatus(known=False)
    if subject.state is CertificateState.ISSUED:
        return CertStatus(known=True)
    reason = parse_reason(subject.revocation_reason) if subject.revocation_reason else None
    return CertStatus(known=True, revoked_at=subject.revoked_at, reason=reason)


def find_delegate(inventory: Inventory, keystore: KeyStore, ca: CaRecord, now: datetime) -> OcspSigner | None:
    """Return the delegated signer of *ca* that lasts longest and whose key opens; ``None`` when there is none.

    Raises:
        SignerError: there is one, and its key cannot be opened.
    """
    assert ca.not_after is not None
    failure: SignerError | None = None
    for record, uri in _delegates(inventory, keystore, ca):
        if not record.not_before <= now < record.not_after or record.der is None:
            continue
        try:
            signer = keystore.open(uri)
        except SignerError as error:
            failure = failure or error
            continue
        if keys.spki_sha256(signer.spki_der) == record.spki_sha256:
            hashed = key_hash(signer.spki_der)
            until = min(record.not_after, ca.not_after)
            return OcspSigner(ca, record.id, signer, hashed, (record.der,), until)
    if failure is not None:
        raise failure
    return None


def _delegates(inventory: Inventory, keystore: KeyStore, ca: CaRecord) -> list[tuple[CertificateRecord, str]]:
    """Return the issued delegates whose keys we made, with the URI of their keys, the longest-lived first."""
    found = []
    prefix = f"id:{delegate_request_id(ca, '')}"
    for record in inventory.list_certificates(ca=ca.id, profile=OCSP_PROFILE, state=CertificateState.ISSUED):
        number = record.request_key.removeprefix(prefix)
        if number != record.request_key and number.isdigit():
            found.append((record, keystore.uri(delegate_label(ca, number))))
    return sorted(found, key=lambda item: item[0].not_after, reverse=True)


def delegate_request_id(ca: CaRecord, number: str) -> str:
    """Return under which request id the delegate *number* of *ca* is on record."""
    return f"ocsp-signer:{ca.id}:{number}"


def delegate_label(ca: CaRecord, number: str) -> str:
    """Return the label of the key of the delegate *number* of *ca*."""
    return f"{ca.id}-ocsp-{number}"


def next_delegate(reads: Reads, ca: CaRecord) -> int:
    """Return the number after that of the newest delegate, or of the one whose issuance was interrupted."""
    number = 1
    while True:
        record = reads.find_certificate_by_request_key(f"id:{delegate_request_id(ca, str(number))}")
        if record is None or record.state is CertificateState.RESERVED:
            return number
        number += 1


class OcspAuthority:
    """Renews delegated signers and prepares responses, over an `Authority` whose keys can be opened.

    Methods may be called from several threads; several processes may do the same work, which then is done twice.
    """

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._inventory = authority.inventory
        self._lock = threading.Lock()

    def signer(self, ca: CaRecord) -> OcspSigner:
        """Return who signs for *ca*: its delegate, renewed when it is due, or else the CA itself.

        Raises:
            SignerError: no key opens.
            StateError: the CA is not answered for.
        """
        now = self._authority.now()
        with self._lock:
            try:
                delegate = find_delegate(self._inventory, self._authority.keystore, ca, now)
            except SignerError as error:
                _log.warning("the OCSP signer of %s cannot be used: %s; it gets another", ca.id, error)
                delegate = None
            assert ca.not_after is not None
            if delegate is not None and delegate.not_after >= min(now + _RENEW_BEFORE, ca.not_after):
                return delegate
            if ca.is_external:
                return _until_it_ends(delegate, ca)
            try:
                return self._issue_delegate(ca, now)
            except (PolicyRefusal, StateError) as error:
                if delegate is not None:
                    return delegate
                _log.info("CA %s signs OCSP responses itself: %s", ca.id, error)
        return self._itself(ca)

    def _itself(self, ca: CaRecord) -> OcspSigner:
        issuer = self._authority.open_issuer(ca.id, for_crl=True)
        assert ca.not_after is not None
        return OcspSigner(ca, "", issuer.signer, key_hash(issuer.signer.spki_der), (), ca.not_after)

    def _issue_delegate(self, ca: CaRecord, now: datetime) -> OcspSigner:
        """Make a key, then its certificate; a run that was interrupted between the two is taken up again."""
        check_may_issue(self._inventory, ca.id)
        keystore = self._authority.keystore
        issuer = self._authority.open_issuer(ca.id)
        number = next_delegate(self._inventory, ca)
        label = delegate_label(ca, str(number))
        uri = keystore.uri(label) if keystore.exists(label) else keystore.create(label, issuer.signer.algorithm)
        signer = keystore.open(uri)
        subject = delegate_subject(ca, number)
        issued = self._authority.issue(
            IssueOrder(
                ca=ca.id,
                profile=OCSP_PROFILE,
                spki=signer.spki_der,
                subject=subject,
                # The 2022 text of ISO 15118-20 marks key identifiers critical, and OpenSSL and Java refuse to look at
                # such a signer, also where it answers for certificates that they accept.
                criticality="rfc5280" if issuer.profile.standard is Standard.ISO15118_20 else "profile",
                request_id=delegate_request_id(ca, str(number)),
                requester="ocsp",
            )
        )
        _log.info("issued OCSP signer %s, valid until %s", issued.record.id, issued.record.not_after.isoformat())
        assert ca.not_after is not None
        until = min(issued.record.not_after, ca.not_after)
        return OcspSigner(ca, issued.record.id, signer, key_hash(signer.spki_der), (issued.certificate_der,), until)

    def renew_signers(self) -> list[ChargePkiError]:
        """Renew the delegated signer of every CA that needs it; return what went wrong, CA by CA."""
        failures: list[ChargePkiError] = []
        now = self._authority.now()
        for ca in ocsp_cas(self._inventory, now):
            try:
                self.signer(ca)
            except ChargePkiError as error:
                failures.append(error)
        failures += _ending_delegates(self._inventory, now)
        return failures

    def presign(self, ca: CaRecord, *, leadership: tuple[str, int] | None = None, limit: int | None = None) -> int:
        """Prepare responses for the certificates of *ca* that have no fresh ones; return how many were stored.

        Args:
            leadership: role and fencing number that must still be held when they are stored.
            limit: about so many at most.

        Raises:
            Conflict: the leadership was lost.
            SignerError: no key of the CA opens.
        """
        stored = 0
        for hash_name in PRESIGNED_HASHES:
            while limit is None or stored < limit:
                now = self._authority.now()
                due = self._inventory.list_ocsp_due(ca.id, hash_name, now=now, limit=_BATCH)
                if not due:
                    break
                records = self.sign_batch(ca, due, hash_name, now)
                done = self._inventory.write(lambda tx, records=records: _store(tx, records, leadership))  # type: ignore[misc]  # a default binds the loop's value
                stored += done
                if not done:
                    break  # every one of them changed meanwhile; the next round finds out
        return stored

    def sign_batch(
        self, ca: CaRecord, subjects: Sequence[OcspSubject], hash_name: str, now: datetime
    ) -> list[OcspResponseRecord]:
        """Sign one response for each of *subjects*, which *ca* has issued; nothing is stored.

        Raises:
            ProfileViolation: the linter finds an error in the first of them, so that none is used.
        """
        signer = self.signer(ca)
        assert ca.certificate_der is not None
        hashes = issuer_hashes(hash_name, ca.subject_der, _spki(ca))
        until = signer.until(now)
        records = []
        for subject in subjects:
            cert_id = build_cert_id(hash_name, *hashes, int(subject.serial, 16))
            answer = SingleAnswer(cert_id, cert_status(subject), now, until)
            records.append(
                OcspResponseRecord(
                    certificate=subject.id,
                    hash=hash_name,
                    ca=ca.id,
                    status=subject.status,
                    signer=signer.certificate,
                    this_update=now,
                    next_update=until,
                    refresh_at=now + (until - now) / 2,
                    der=signer.sign([answer], produced_at=now),
                )
            )
        if records:
            _lint(records[0], ca, now)
        return records


def _until_it_ends(delegate: OcspSigner | None, ca: CaRecord) -> OcspSigner:
    """Return the delegate of a CA whose key is elsewhere: nobody here renews it."""
    if delegate is not None:
        return delegate
    raise SignerError(
        f"nobody here may answer for {ca.id}",
        why="its key is offline, and the certificate of its responder is missing, over, or without its key",
        fix=_HOW_TO_DELEGATE.format(ca=ca.name),
    )


def _ending_delegates(inventory: Inventory, now: datetime) -> Iterator[ChargePkiError]:
    """Yield a complaint for each CA whose key is elsewhere and whose delegate ends soon, or has ended."""
    for ca in inventory.list_cas():
        if not ca.is_external or ca.state not in (CaState.ACTIVE, CaState.RETIRED):
            continue
        if ca.not_after is None or now >= ca.not_after:
            continue
        ends = [each.not_after for each in accepted_delegates(inventory, ca)]
        if ends and max(ends) < min(now + _RENEW_BEFORE, ca.not_after):
            yield StateError(
                f"the responder's certificate for {ca.id} ends on {max(ends):%Y-%m-%d %H:%M} UTC",
                why="its issuer's key is offline: nobody here renews it, and then there are no answers any more",
                fix=_HOW_TO_DELEGATE.format(ca=ca.name),
            )


def _store(tx: Transaction, records: Sequence[OcspResponseRecord], leadership: tuple[str, int] | None) -> int:
    if leadership is not None:
        tx.check_leadership(*leadership)
    return tx.put_ocsp_responses(records)


def _spki(ca: CaRecord) -> bytes:
    from chargepki.pki.certificate_view import view_certificate

    assert ca.certificate_der is not None
    return view_certificate(ca.certificate_der).key.der


def delegate_subject(ca: CaRecord, number: int) -> tuple[tuple[str, str], ...]:
    """Return the delegate's subject: the operator's country and organisation, and a name that tells whose it is."""
    found = [(short, value) for short in ("C", "O") if (value := names.get(ca.subject_der, short))]
    if not any(short == "O" for short, _ in found):
        found.append(("O", ca.name[:64]))
    ending = f" OCSP {number}"
    return (("CN", ca.name[: 64 - len(ending)] + ending), *found)


def _lint(record: OcspResponseRecord, ca: CaRecord, now: datetime) -> None:
    # The batch differs in serial numbers and times alone, so its first response stands for all.
    report = lint_ocsp_response(record.der, issuer_der=ca.certificate_der, now=now)
    if report.errors:
        first = report.errors[0]
        raise ProfileViolation(
            f"the OCSP response about {record.certificate} would be malformed: {first.message}",
            why=f"{first.clause} ({first.rule}); nothing of the batch is used",
            fix=first.hint,
            findings=report.errors,
        )
