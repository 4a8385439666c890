"""The responder of a CA whose key is offline: its key is made here, its certificate comes from where the CA's key is.

A root in a safe signs no OCSP answers, and ISO 15118-20 wants none that is older than a week [V2G20-1021]. So it
certifies a responder (RFC 6960 4.2.2.2) for as long as it stays in the safe, and whoever publishes its list answers for
it. What is answered is what is on record here: certificates that were accepted, revocations that its lists brought.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from chargepki.pki import files, keys, names
from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.issuance import finish
from chargepki.pki.authority.ocsp import (
    OCSP_PROFILE,
    delegate_label,
    delegate_request_id,
    delegate_subject,
    next_delegate,
)
from chargepki.pki.authority.offline_files import CaAnswer, CaRequestFile, load_request
from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.csr import build_csr
from chargepki.pki.errors import Conflict, InputError, PolicyRefusal, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CaRecord, CaState, CertificateRecord, CertificateState
from chargepki.pki.policy import choose_subject
from chargepki.pki.profiles import get_profile

__all__ = ["check_responder_request", "record_of_answer", "record_responder", "request_responder", "take_answer"]


def check_responder_request(inventory: Inventory, name: str, now: datetime) -> CaRecord:
    """Return the CA *name* when a responder can be asked for it.

    Raises:
        NotFound: it is not on record.
        PolicyRefusal: its key is here, or reached over EST.
        StateError: it is believed no more.
    """
    ca = inventory.get_ca(name)
    if not ca.key_uri.startswith("none:"):
        raise PolicyRefusal(
            f"the key of {ca.id} is not offline",
            why="the responder of a CA whose key is here is certified, and renewed, without being asked for"
            if not ca.is_external
            else "who operates that CA answers for it",
            fix="run: chargepki serve",
        )
    if ca.state not in (CaState.ACTIVE, CaState.RETIRED) or ca.not_after is None or now >= ca.not_after:
        raise StateError(
            f"{ca.id} is {ca.state.value}, or has expired",
            why="nobody is to believe what it has issued",
            fix="list the CAs with: chargepki ca list",
        )
    return ca


def request_responder(authority: Authority, folder: Path, name: str, *, validity: timedelta | None) -> CaRequestFile:
    """Make the key of a responder for the CA *name*, and the request for it; repeated, return the same request.

    Args:
        folder: where requests are kept until they are answered.

    Raises:
        ChargePkiError: as `check_responder_request`.
    """
    ca = check_responder_request(authority.inventory, name, authority.now())
    number = next_delegate(authority.inventory, ca)
    label, keystore = delegate_label(ca, str(number)), authority.keystore
    path = folder / f"{label}.json"
    if path.exists():
        return load_request(path)
    assert ca.certificate_der is not None
    # Relying parties of the chain know the algorithm of its keys.
    algorithm = keys.algorithm_of(keys.load_public_key(view_certificate(ca.certificate_der).key.der))
    uri = keystore.uri(label) if keystore.exists(label) else keystore.create(label, algorithm)
    signer = keystore.open(uri)
    wanted = names.build_name(list(delegate_subject(ca, number)))
    subject = names.name_der(choose_subject(get_profile(OCSP_PROFILE), None, override=wanted, defaults={}))
    csr = build_csr(subject, signer.spki_der, signer.algorithm, signer.sign)
    seconds = None if validity is None else int(validity.total_seconds())
    made = CaRequestFile(ca.id, OCSP_PROFILE, csr, seconds)
    files.make_private_folder(folder)
    files.write_durable(path, made.encoded, mode=0o600)
    return made


def record_of_answer(
    request: CaRequestFile,
    answer: CaAnswer,
    leaf: CertificateView,
    *,
    request_key: str,
    requester: str,
    now: datetime,
) -> CertificateRecord:
    """Return the row of a certificate that was brought as *answer*, and verified; nothing is written."""
    issuer, serial = answer.chain[0].id, f"{leaf.serial:x}"
    loaded = x509.load_der_x509_certificate(answer.certificate)
    return CertificateRecord(
        id=f"{issuer}:{serial}",
        ca=issuer,
        serial=serial,
        profile=request.profile,
        state=CertificateState.RESERVED,
        subject=names.text(leaf.subject),
        subject_der=leaf.subject,
        spki_sha256=keys.spki_sha256(leaf.key.der),
        not_before=loaded.not_valid_before_utc,
        not_after=loaded.not_valid_after_utc,
        request_key=request_key,
        requester=requester,
        reserved_at=now,
        tbs=loaded.tbs_certificate_bytes,
        csr=request.csr,
        verdict={"content": request.sha256, "offline": dict(answer.verdict)},
    )


def take_answer(
    tx: Transaction, record: CertificateRecord, answer: CaAnswer, *, actor: Actor, now: datetime
) -> CertificateRecord:
    """Reserve and finish *record* in one transaction: its certificate is there already."""
    tx.reserve_certificate(record)
    tx.audit(actor, "certificate.reserve", record.id, now=now, details={"profile": record.profile})
    return finish(tx, record, answer.certificate, actor=actor, now=now)


def record_responder(
    authority: Authority,
    ca: CaRecord,
    label: str,
    request: CaRequestFile,
    answer: CaAnswer,
    leaf: CertificateView,
) -> CertificateRecord:
    """Record a responder's certificate that was verified: from then on *ca* is answered for. Repeated, return it.

    Args:
        label: of its key, as `request_responder` made it.

    Raises:
        Conflict: the request was answered before, with another certificate.
        InputError: another CA than the one that was asked has answered.
    """
    if answer.chain[0].id != ca.id or answer.chain[0].certificate != ca.certificate_der:
        raise InputError(
            f"{answer.chain[0].id[:80]} has answered, not {ca.id}",
            why="a CA alone says who answers for it (RFC 6960 4.2.2.2)",
            fix=f"sign it with: chargepki ca sign-request request.json --issuer {ca.name}",
        )
    number, now = label.removeprefix(delegate_label(ca, "")), authority.now()
    key = f"id:{delegate_request_id(ca, number)}"
    record = record_of_answer(request, answer, leaf, request_key=key, requester=authority.actor.name, now=now)

    def work(tx: Transaction) -> CertificateRecord:
        known = tx.find_certificate_by_request_key(record.request_key)
        if known is not None:
            if known.der == answer.certificate:
                return known
            raise Conflict(
                f"the request for a responder of {ca.id} has been answered already",
                why="with another certificate",
                fix="keep that one; or ask for the next: chargepki ca request",
            )
        recorded = take_answer(tx, record, answer, actor=authority.actor, now=now)
        details = {"request_sha256": request.sha256, "certificate": recorded.id, "verdict": dict(answer.verdict)}
        tx.audit(
            authority.actor, "ca.accept-responder", ca.id, now=now, artefact_sha256=recorded.sha256, details=details
        )
        return recorded

    return authority.inventory.write(work)
