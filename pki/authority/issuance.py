"""The order of issuance: judge, build, lint, reserve, sign, record, release.

A certificate exists for the outside only after `finish` has committed it. Whatever crashes before that leaves a
reservation whose to-be-signed bytes are stored, and `pki.authority.recovery` completes or voids it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography import x509

from chargepki.pki import names
from chargepki.pki.authority.delivery_size import check_deliverable
from chargepki.pki.authority.final_names import check_final_names
from chargepki.pki.authority.order_judge import Asked, judge_order
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder, content_digest, request_key_of
from chargepki.pki.authority.repeats import find_answer
from chargepki.pki.authority.request_record import check_accepted, judge_on_record, stored_verdicts
from chargepki.pki.authority.shards import ShardChooser, claim_shard
from chargepki.pki.certificate_view import view_tbs
from chargepki.pki.errors import ProfileViolation, SignerError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import (
    Actor,
    CaRecord,
    CaState,
    CertificateRecord,
    CertificateState,
    CrlShardRecord,
    Delivery,
)
from chargepki.pki.keys import key_identifier, signature_algorithm, spki_sha256
from chargepki.pki.lint import lint_issuance
from chargepki.pki.pointers import Pointers, choose_pointers
from chargepki.pki.policy_record import Asking
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile
from chargepki.pki.profiles.common import adapt_to_issuer
from chargepki.pki.profiles.hierarchy import check_issuer
from chargepki.pki.signer import Signer
from chargepki.pki.template import (
    Criticality,
    IssuerInfo,
    assemble_certificate,
    build_tbs,
    fit_pointers,
    largest_certificate,
)
from chargepki.pki.validity import Window, choose_window

__all__ = [
    "Issuer",
    "Prepared",
    "chain_of",
    "check_may_issue",
    "check_stored",
    "choose_place",
    "complete",
    "finish",
    "issuer_info",
    "judged_on_record",
    "new_serial",
    "prepare",
    "put_together",
    "reserve",
    "reserve_details",
    "sign_reserved",
]

SERIAL_BITS = 159
"""RFC 5280 4.1.2.2 allows 20 octets; the top bit stays clear so that the INTEGER is positive."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA generation ready to sign: its record, its key and what certificates take over from it."""

    ca: CaRecord
    profile: Profile
    signer: Signer
    info: IssuerInfo
    chain: tuple[bytes, ...]
    """DER certificates from this CA upwards, without the root."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A judged and linted certificate that waits for its reservation."""

    order: IssueOrder
    issuer: Issuer
    record: CertificateRecord
    clamped: bool
    shard: CrlShardRecord | None = None
    """The shard of the CRL that it points to."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    """By which it is judged against what is on record, when it is reserved."""


def issuer_info(signer: Signer, subject_der: bytes, profile: Profile) -> IssuerInfo:
    """Return what certificates signed by *signer* take over from it."""
    identifier = key_identifier(signer.spki_der, 8 if profile.ski_bytes == 8 else 20)
    return IssuerInfo(name_der=subject_der, key_identifier=identifier, key_algorithm=signer.algorithm)


def new_serial() -> int:
    """Return a positive random serial of 159 bits (P1 of the field's incident list: 63 bits were too few)."""
    while True:
        serial = secrets.randbits(SERIAL_BITS)
        if serial:
            return serial


def prepare(
    order: IssueOrder,
    issuer: Issuer,
    inventory: Inventory,
    *,
    actor: Actor,
    now: datetime,
    shards: ShardChooser | None = None,
    policy: PolicySettings | None = None,
) -> Prepared:
    """Judge *order*, build its to-be-signed bytes and lint exactly these bytes; nothing is written.

    Args:
        shards: shared by the orders of a batch.
        policy: which rules warn and which refuse; the defaults when ``None``.

    Raises:
        InputError: the request cannot be decoded.
        PolicyRefusal: the request or the subject breaks policy (`ProfileViolation` carries the lint findings).
    """
    profile = get_profile(order.profile)
    check_issuer(issuer.profile, profile)
    profile = adapt_to_issuer(profile, issuer.profile, issuer.signer.algorithm)
    policy = policy or PolicySettings()
    asked = judge_order(order, profile, inventory, policy)
    request, subject_der = asked.request, asked.subject_der
    # The CA's generation is part of the content, so a rollover makes a repeated request a new one.
    digest = content_digest(order, ca_id=issuer.ca.id, csr_der=request.der if request else None)
    assert issuer.ca.not_before is not None and issuer.ca.not_after is not None
    window, clamped = choose_window(profile, now, Window(issuer.ca.not_before, issuer.ca.not_after), order.validity)
    serial, tbs, shard = _build_judged(order, issuer, profile, asked, window, shards or ShardChooser(inventory, now))
    record = CertificateRecord(
        id=f"{issuer.ca.id}:{serial:x}",
        ca=issuer.ca.id,
        serial=f"{serial:x}",
        profile=profile.id,
        state=CertificateState.RESERVED,
        subject=names.text(subject_der),
        subject_der=subject_der,
        spki_sha256=spki_sha256(asked.spki),
        not_before=window.not_before,
        not_after=window.not_after,
        request_key=request_key_of(order, digest),
        requester=order.requester or actor.name,
        reserved_at=now,
        tbs=tbs,
        station=asked.station.id if asked.station else None,
        csr=request.der if request else None,
        verdict=asked.verdicts(digest),
        delivery=Delivery.PENDING if order.must_deliver else None,
        shard=shard.number if shard else None,
    )
    return Prepared(order, issuer, record, clamped, shard, policy)


def _build_judged(
    order: IssueOrder, issuer: Issuer, profile: Profile, asked: Asked, window: Window, shards: ShardChooser
) -> tuple[int, bytes, CrlShardRecord | None]:
    """Return the serial, the to-be-signed bytes, which keep to *profile*, and the shard that they point to."""
    pointers, shard = choose_place(profile, issuer, asked.subject_der, asked.spki, asked.dns_names, shards.choose)
    serial = new_serial()
    tbs = build_tbs(
        profile,
        issuer=issuer.info,
        serial=serial,
        subject_der=asked.subject_der,
        spki_der=asked.spki,
        window=window,
        pointers=pointers,
        dns_names=asked.dns_names,
        criticality=order.criticality,
    )
    judge_tbs(tbs, profile, issuer_der=issuer.ca.certificate_der, signer=issuer.signer)
    if order.must_deliver:
        check_deliverable(len(tbs), issuer.signer.algorithm, issuer.chain)
    return serial, tbs, shard


def choose_place(
    profile: Profile,
    issuer: Issuer,
    subject_der: bytes,
    spki: bytes,
    dns_names: tuple[str, ...],
    choose_shard: Callable[[CaRecord], CrlShardRecord | None],
) -> tuple[Pointers, CrlShardRecord | None]:
    """Return the URLs that fit into the certificate, and the shard of the list that they name.

    Raises:
        PolicyRefusal: not even the ones that must be there fit.
    """
    # Only what points to a list needs a place in one.
    pointed = choose_pointers(profile, issuer.ca.public_url, issuer.ca.id).crl is not None
    shard = choose_shard(issuer.ca) if pointed else None
    pointers = fit_pointers(
        profile,
        choose_pointers(profile, issuer.ca.public_url, issuer.ca.id, crl_url=shard.url if shard else None),
        issuer=issuer.info,
        subject_der=subject_der,
        spki_der=spki,
        dns_names=dns_names,
    )
    return pointers, None if pointers.crl is None else shard


def override_details(criticality: Criticality) -> dict[str, str]:
    """Return what an audit entry says of an overridden extension criticality; nothing when the profile decided."""
    return {} if criticality == "profile" else {"extension_criticality": criticality}


def check_may_issue(reader: Inventory | Transaction, ca_id: str) -> None:
    """Refuse to reserve under a CA that was retired or revoked since it was opened; ask once a transaction.

    Raises:
        StateError: the CA is not active, or one above it is revoked: nothing that it signs would be believed.
    """
    ca = reader.get_ca(ca_id)
    if ca.state is not CaState.ACTIVE:
        raise StateError(f"CA {ca.id} is {ca.state.value}", why="it may not issue any more", fix="use another --ca")
    above = ca
    while above.issuer is not None:
        above = reader.get_ca(above.issuer)
        if above.state is CaState.REVOKED:
            raise StateError(
                f"CA {ca.id} stands below {above.id}, which is revoked",
                why="whoever knows of that revocation refuses every certificate below",
                fix="use a CA of another chain",
            )


def reserve(tx: Transaction, prepared: Prepared, *, actor: Actor, now: datetime) -> CertificateRecord:
    """Write the reservation, or return the certificate that already answers the same request.

    Runs inside the caller's transaction, after `check_may_issue`; writers are serialised there, so two processes
    cannot both reserve.

    Raises:
        Conflict: the request id was used for another request.
        PolicyRefusal: a certificate of the same key was revoked because somebody else has the key.
        ShardTaken: the shard that it was built for has no place any more; build it anew.
    """
    record = prepared.record
    earlier = find_answer(tx, prepared.order, prepared.issuer.ca, record, actor=actor, now=now)
    if earlier is not None:
        return earlier
    record = judged_on_record(tx, prepared, now=now)
    if prepared.shard is not None:
        claim_shard(tx, prepared.shard)
    tx.reserve_certificate(record)
    tx.audit(
        actor,
        "certificate.reserve",
        record.id,
        now=now,
        artefact_sha256=hashlib.sha256(record.tbs or b"").hexdigest(),
        details=reserve_details(prepared.order, record),
    )
    return record


def reserve_details(order: IssueOrder, record: CertificateRecord) -> dict[str, str]:
    """Return what the audit entry of a reservation says beside the digest of what will be signed."""
    return {
        "profile": record.profile,
        "subject": record.subject,
        "requester": record.requester,
        **override_details(order.criticality),
    }


def judged_on_record(reader: Inventory | Transaction, prepared: Prepared, *, now: datetime) -> CertificateRecord:
    """Return the record of *prepared* with the verdict of the rules that look at what was issued before.

    In the transaction of the reservation two requests that come at once cannot both be the only one.

    Raises:
        PolicyRefusal: a rule that is enforced found something.
    """
    record, policy = prepared.record, prepared.policy
    asking = Asking(record.station, record.subject_der, record.csr)
    rules = judge_on_record(reader, asking, record.spki_sha256, policy, now=now)
    check_accepted(rules)
    return replace(record, verdict={**record.verdict, "record": [*record.verdict["record"], *stored_verdicts(rules)]})


def check_stored(record: CertificateRecord, issuer: Issuer) -> None:
    """Judge a reservation that another run made before its bytes are signed: what is stored may have been changed.

    Raises:
        ProfileViolation: the bytes break the profile of the record.
        PolicyRefusal: *issuer* does not issue that profile.
        StateError: the bytes are not those of the record.
    """
    assert record.tbs is not None
    profile = get_profile(record.profile)
    check_issuer(issuer.profile, profile)
    profile = adapt_to_issuer(profile, issuer.profile, issuer.signer.algorithm)
    issuer_der = None if profile.is_root else issuer.ca.certificate_der
    judge_tbs(record.tbs, profile, issuer_der=issuer_der, signer=issuer.signer)
    view = view_tbs(record.tbs)
    stored = (view.serial, view.issuer, view.subject, view.not_before.value, view.not_after.value)
    wanted = (int(record.serial, 16), issuer.info.name_der, record.subject_der, record.not_before, record.not_after)
    if stored != wanted or spki_sha256(view.key.der) != record.spki_sha256:
        raise StateError(
            f"the stored bytes of {record.id} are not those that were reserved",
            why="the inventory was changed behind our back",
            fix="run: chargepki audit verify",
        )


def complete(record: CertificateRecord, issuer: Issuer) -> bytes:
    """Sign the reserved bytes and return the certificate as DER; the inventory is not touched.

    Raises:
        SignerError: the key is not the CA's, or what came back does not hold the reserved bytes.
    """
    if record.tbs is None:
        raise StateError(f"certificate {record.id} has no reserved bytes", fix="run: chargepki audit verify")
    return sign_reserved(record.id, record.tbs, issuer)


def sign_reserved(certificate_id: str, tbs: bytes, issuer: Issuer) -> bytes:
    """Sign the bytes of a reservation that is durable, and return the certificate as DER.

    Raises:
        SignerError: the key is not the CA's, or what came back does not hold the reserved bytes.
    """
    return put_together(certificate_id, tbs, issuer.signer.sign(tbs), issuer)


def put_together(certificate_id: str, tbs: bytes, signature: bytes, issuer: Issuer) -> bytes:
    """Return the certificate of the reserved bytes and the signature over them, as DER.

    Raises:
        SignerError: what came of it does not hold the reserved bytes.
    """
    der = assemble_certificate(tbs, signature_algorithm(issuer.signer.algorithm).der, signature)
    # Read it back with a parser that is not ours: what was signed must be, byte for byte, what was linted.
    if x509.load_der_x509_certificate(der).tbs_certificate_bytes != tbs:
        raise SignerError(
            f"the signed bytes of {certificate_id} differ from the reserved ones",
            why="the signer or the encoder changed them",
            fix="do not use this CA key until the cause is known; the reservation is kept",
        )
    return der


def finish(tx: Transaction, record: CertificateRecord, der: bytes, *, actor: Actor, now: datetime) -> CertificateRecord:
    """Record the signed certificate; when another process was first, return its certificate instead.

    ECDSA signatures differ each time, so two certificates over one reservation must never both leave: the first
    one recorded is the only one.
    """
    sha256 = hashlib.sha256(der).hexdigest()
    recorded = tx.issue_reserved(record.id, der, sha256, now)
    if recorded is None:
        current = tx.get_certificate(record.id)
        if current.state in (CertificateState.ISSUED, CertificateState.REVOKED):
            return current
        raise StateError(
            f"the reservation {record.id} was voided meanwhile",
            why="another process found it too old to complete",
            fix="send the request again",
        )
    # A CSMS that follows the log sees by the station whether this is for one of its own connections.
    details = {"station": record.station} if record.station is not None else None
    tx.audit(actor, "certificate.issue", record.id, now=now, artefact_sha256=sha256, details=details)
    return recorded


def released(record: CertificateRecord, issuer: Issuer, *, repeated: bool, clamped: bool = False) -> IssuedCertificate:
    """Return what the caller gets for a certificate that is durable."""
    assert record.der is not None
    return IssuedCertificate(record, record.der, (record.der, *issuer.chain), repeated=repeated, clamped=clamped)


def chain_of(inventory: Inventory, ca: CaRecord) -> tuple[bytes, ...]:
    """Return the certificates from *ca* upwards, DER, without the root."""
    chain: list[bytes] = []
    current: CaRecord | None = ca
    while current is not None and current.issuer is not None:
        if current.certificate_der is None:
            raise StateError(f"CA {current.id} has no certificate yet", fix=f"run: chargepki ca create {current.name}")
        chain.append(current.certificate_der)
        current = inventory.get_ca(current.issuer)
    return tuple(chain)


def judge_tbs(tbs: bytes, profile: Profile, *, issuer_der: bytes | None, signer: Signer) -> None:
    """Lint the exact to-be-signed bytes and the size that the certificate will have at most.

    Raises:
        ProfileViolation: with the findings of error level, or for a name that the policy does not grant.
    """
    check_final_names(tbs, profile)
    report = lint_issuance(tbs, profile=profile, issuer_der=issuer_der)
    if report.errors:
        first = report.errors[0]
        raise ProfileViolation(
            f"the certificate would break its profile {profile.id}: {first.message}",
            why=f"{first.clause} ({first.rule}); nothing was signed",
            fix=first.hint,
            findings=report.errors,
        )
    limit = profile.max_der_bytes
    if limit is None:
        return
    most = largest_certificate(len(tbs), signer.algorithm)
    if most > limit:
        raise ProfileViolation(
            f"the certificate could take {most} bytes, its profile {profile.id} allows {limit}",
            why=f"{profile.clause}: a longer certificate does not fit the field of the charging protocol",
            fix="shorten the subject or the public URL (35 characters or less are advised)",
        )
