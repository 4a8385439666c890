"""Certification by a CA that is not ours, behind an order like any other: asked, checked, recorded, then released.

The CA stands in the inventory with its certificate and a key URI ``est:NAME`` in place of a key; those above it have
``none:``. Nothing here opens a socket: what asks the CA is passed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki import names
from chargepki.pki.authority.issuance import chain_of, check_may_issue, finish
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder, content_digest, request_key_of
from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.chain import order_chain, verify_chain
from chargepki.pki.csr import CertificateRequest, check_possession, parse_csr
from chargepki.pki.errors import ChargePkiError, InputError, PolicyRefusal, StateError, UnavailableError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import (
    Actor,
    CaRecord,
    CaState,
    CertificateRecord,
    CertificateState,
    Delivery,
)
from chargepki.pki.keys import spki_sha256
from chargepki.pki.lint import lint_certificate
from chargepki.pki.policy import judge_request
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile

__all__ = [
    "EnrolOutside",
    "ExternalCas",
    "NotYet",
    "check_whose_to_revoke",
    "connect_ca",
    "enrol_outside",
    "is_external",
]

_DECISIVE: Final = ("possession", "key-algorithm", "ca-request")
"""Rules of the request policy that hold whoever signs; the subject is the other CA's to judge."""

EnrolOutside: TypeAlias = Callable[[bytes], tuple[bytes, ...] | None]
"""Takes a request (DER) and returns the certificates of the answer (DER), or ``None`` while it is undecided."""
ExternalCas: TypeAlias = Callable[[CaRecord], EnrolOutside]
"""Returns what asks a CA; raises a `ChargePkiError` when it is not configured."""


class NotYet(UnavailableError):
    """The other CA has not answered, or has not decided: the order stays, and is asked again later."""

    code = "not-yet"


def is_external(ca: CaRecord) -> bool:
    """Whether the key of *ca* is with somebody else: we neither sign certificates nor lists for it."""
    return ca.is_external


def check_whose_to_revoke(
    inventory: Inventory, certificate_id: str, verb: Literal["revoke", "release"], *, record_only: bool
) -> None:
    """Refuse to *verb* what only a CA of somebody else can, and merely to record what ours have to do.

    Raises:
        NotFound: there is no such certificate.
        PolicyRefusal: *record_only* does not fit the certificate's CA.
    """
    ca = inventory.get_ca(inventory.get_certificate(certificate_id).ca)
    if is_external(ca) and not record_only:
        raise PolicyRefusal(
            f"{certificate_id} was issued by {ca.name}, which is not ours: its operator has to {verb} it",
            why="whoever relies on it asks that CA's lists and OCSP responder, which we cannot change",
            fix=f"tell the operator of {ca.name}; when that is done, record it here (--record-only)",
        )
    if record_only and not is_external(ca):
        raise PolicyRefusal(
            f"{certificate_id} was issued by {ca.name}, which is ours: nobody else can {verb} it",
            why="--record-only is for certificates of a CA that was connected",
            fix="leave out --record-only",
        )


@dataclass(frozen=True, slots=True)
class _Outside:
    """One order on its way."""

    order: IssueOrder
    ca: CaRecord
    profile: Profile
    request: CertificateRequest
    digest: str
    request_key: str


def enrol_outside(
    order: IssueOrder, ca: CaRecord, inventory: Inventory, ask: EnrolOutside, *, actor: Actor, now: datetime
) -> IssuedCertificate:
    """Have *ca* certify the request of *order*, and record the certificate before it is released.

    That the CA is asked is recorded first. A crash between its answer and our record loses the certificate to us (EST
    has no idempotency key); the repeat of the order then gets another one, and the log shows both questions.

    Raises:
        InputError: the request cannot be decoded, or the answer is not for its key or its name.
        PolicyRefusal: the request is refused here or there, or *order* asks for what only a CA of ours can do.
        NotYet: no decision yet, or no answer; ask again.
        StateError: the answer does not chain to the certificate that is recorded for *ca*.
    """
    outside = _judged(order, ca, inventory)
    earlier = None if order.again else inventory.find_certificate_by_request_key(outside.request_key)
    if earlier is not None and earlier.der is not None and _holds(earlier, now):
        return _released(inventory, ca, earlier, repeated=True)

    def intent(tx: Transaction) -> None:
        check_may_issue(tx, ca.id)
        tx.audit(
            actor,
            "certificate.ask",
            ca.id,
            now=now,
            artefact_sha256=hashlib.sha256(outside.request.der).hexdigest(),
            details={"profile": order.profile, "station": order.station, "requester": order.requester or actor.name},
        )

    inventory.write(intent)
    try:
        answer = ask(outside.request.der)
    except UnavailableError as error:
        raise NotYet(error.what, why=error.why, fix=error.fix) from error
    if answer is None:
        raise NotYet(f"{ca.name} has not decided yet", fix="the request is asked again later")
    leaf = _checked_answer(answer, outside, inventory, now)
    return _recorded(leaf, outside, inventory, actor=actor, now=now)


def _judged(order: IssueOrder, ca: CaRecord, inventory: Inventory) -> _Outside:
    if order.csr is None:
        raise PolicyRefusal(f"{ca.name} certifies requests only", why="it is reached over EST", fix="pass a CSR")
    if order.subject or order.validity is not None or order.dns_names:
        raise PolicyRefusal(
            "subject, validity and names cannot be chosen here",
            why=f"{ca.name} is not ours: it decides what it certifies",
            fix="leave these options out; put the subject into the request",
        )
    profile = get_profile(order.profile)
    if profile.is_ca:
        raise PolicyRefusal(f"{ca.name} issues no CA certificates to us", fix="use a leaf profile")
    request = parse_csr(order.csr)
    check_possession(request)
    verdict = judge_request(request, profile)
    refused = [rule for rule in verdict.refusals if rule.rule in _DECISIVE]
    if refused:
        raise PolicyRefusal(
            "the request is refused: " + "; ".join(rule.message for rule in refused),
            why="; ".join(f"{rule.rule} ({rule.clause})" for rule in refused),
            fix="; ".join(dict.fromkeys(rule.fix for rule in refused if rule.fix)),
        )
    if order.station is not None:
        inventory.get_station(order.station)
    digest = content_digest(order, ca_id=ca.id, csr_der=request.der)
    return _Outside(order, ca, profile, request, digest, request_key_of(order, digest))


def _checked_answer(answer: Sequence[bytes], outside: _Outside, inventory: Inventory, now: datetime) -> bytes:
    """Return the leaf of *answer*: for our key and name, and signed by the CA that we know."""
    leaf = None
    for encoded in answer:
        _, view = _load(encoded)
        if view.key.der == outside.request.spki_der:
            leaf = encoded
            subject = view.subject
    if leaf is None:
        raise InputError(
            f"the certificate from {outside.ca.name} is not for the key of the request",
            why="whoever has the other key could act in the station's name",
            fix="tell the operator of that CA; nothing was recorded",
        )
    wanted, got = (names.get(each, "CN") for each in (outside.request.subject_der, subject))
    if wanted is not None and wanted != got:
        raise InputError(
            f"the certificate from {outside.ca.name} has the common name {got!r}, the request {wanted!r}",
            fix="tell the operator of that CA; nothing was recorded",
        )
    *above, root = _known_chain(inventory, outside.ca)
    try:
        verify_chain(leaf, above, [root], at=now)
    except ChargePkiError as error:
        raise StateError(
            f"the certificate from {outside.ca.name} does not chain to what is recorded for it",
            why=error.what,
            fix=f"if that CA has a new certificate, run: chargepki ca connect {outside.ca.name}",
        ) from error
    return leaf


def _recorded(
    leaf: bytes, outside: _Outside, inventory: Inventory, *, actor: Actor, now: datetime
) -> IssuedCertificate:
    loaded, _ = _load(leaf)
    serial = f"{loaded.serial_number:x}"
    subject_der = loaded.subject.public_bytes()
    report = lint_certificate(leaf, profile=outside.profile, now=now)
    order = outside.order
    record = CertificateRecord(
        id=f"{outside.ca.id}:{serial}",
        ca=outside.ca.id,
        serial=serial,
        profile=outside.profile.id,
        state=CertificateState.RESERVED,
        subject=names.text(subject_der),
        subject_der=subject_der,
        spki_sha256=spki_sha256(outside.request.spki_der),
        not_before=loaded.not_valid_before_utc,
        not_after=loaded.not_valid_after_utc,
        request_key=outside.request_key,
        requester=order.requester or actor.name,
        reserved_at=now,
        tbs=loaded.tbs_certificate_bytes,
        station=order.station,
        csr=outside.request.der,
        verdict={
            "content": outside.digest,
            "external": {"findings": [f"{each.rule}: {each.message}" for each in report.errors][:32]},
            **({"delivery": dict(order.delivery)} if order.delivery else {}),
        },
        delivery=Delivery.PENDING if order.must_deliver else None,
    )

    def work(tx: Transaction) -> CertificateRecord:
        known = tx.find_certificate(record.id)
        if known is not None:
            if known.der != leaf:
                raise StateError(
                    f"{outside.ca.name} used the serial {serial} twice", fix="tell the operator of that CA"
                )
            return known
        tx.reserve_certificate(record)
        tx.audit(
            actor,
            "certificate.reserve",
            record.id,
            now=now,
            artefact_sha256=hashlib.sha256(record.tbs or b"").hexdigest(),
            details={"profile": record.profile, "subject": record.subject, "requester": record.requester},
        )
        return finish(tx, record, leaf, actor=actor, now=now)

    return _released(inventory, outside.ca, inventory.write(work), repeated=False)


def _released(inventory: Inventory, ca: CaRecord, record: CertificateRecord, *, repeated: bool) -> IssuedCertificate:
    assert record.der is not None
    return IssuedCertificate(record, record.der, (record.der, *chain_of(inventory, ca)), repeated=repeated)


def _holds(record: CertificateRecord, now: datetime) -> bool:
    return record.state is CertificateState.ISSUED and record.not_after >= now


def _known_chain(inventory: Inventory, ca: CaRecord) -> list[bytes]:
    """Return the recorded certificates from *ca* to its root, DER."""
    found = []
    record: CaRecord | None = ca
    while record is not None:
        assert record.certificate_der is not None  # an external CA enters the inventory with its certificate
        found.append(record.certificate_der)
        record = inventory.get_ca(record.issuer) if record.issuer else None
    return found


def _load(encoded: bytes) -> tuple[x509.Certificate, CertificateView]:
    try:
        return x509.load_der_x509_certificate(encoded), view_certificate(encoded)
    except (ValueError, ChargePkiError) as error:
        raise InputError("the answer holds what is no certificate", why=str(error)) from error


# -- the CA itself ----------------------------------------------------------------------------------------------------


def connect_ca(
    inventory: Inventory, name: str, profile_id: str, certificates: Sequence[bytes], *, actor: Actor, now: datetime
) -> CaRecord:
    """Record the CA that an EST server speaks for, and those above it; the same certificates again change nothing.

    Args:
        name: of the CA here; orders name it, and ``[est.ca.NAME]`` says how it is reached.
        profile_id: profile of the issuing CA.
        certificates: what its ``cacerts`` returned (DER), in any order, with its root.

    Raises:
        InputError: they make no chain, or two.
        ChainError: the chain does not hold.
        Conflict: a CA of ours has this name.
    """
    profile = get_profile(profile_id)
    if not profile.is_ca:
        raise InputError(f"{profile.id} is no profile of a CA", fix="see: chargepki profile list")
    chain = _chain_of_answer(certificates)
    verify_chain(chain[0], chain[1:-1], [chain[-1]], at=now)
    profiles = _profiles_above(profile, len(chain))

    def work(tx: Transaction) -> CaRecord:
        known = {ca.certificate_der: ca for ca in tx.list_cas() if ca.state is CaState.ACTIVE}
        newest = tx.find_ca(name)
        if newest is not None and not newest.key_uri.startswith("est:"):
            raise StateError(f"the CA {name} is ours", why="its key is here", fix="choose another name")
        issuer: CaRecord | None = None
        # The root first: each row names the one above it.
        for position in range(len(chain) - 1, -1, -1):
            found = known.get(chain[position])
            if found is None:
                own = name if position == 0 else f"{name}-above-{position}"
                key_uri = "none:" if position else f"est:{name}"
                found = _record_of(tx, own, profiles[position], chain[position], issuer, key_uri, now)
                tx.reserve_ca(found)
                tx.audit(
                    actor,
                    "ca.connect",
                    found.id,
                    now=now,
                    artefact_sha256=hashlib.sha256(chain[position]).hexdigest(),
                    details={"profile": found.profile, "subject": found.subject, "key": found.key_uri},
                )
            issuer = found
        assert issuer is not None
        return issuer

    return inventory.write(work)


def _chain_of_answer(certificates: Sequence[bytes]) -> list[bytes]:
    """Return the certificates from the issuing CA to the root.

    A root that was rolled over comes with its earlier generations and with what they certified of each other: a client
    must be able to handle them (RFC 7030 4.1.3). None of them is part of the chain.
    """
    loaded = [_load(each)[0] for each in dict.fromkeys(certificates)]
    roots = [each for each in loaded if each.subject == each.issuer and _signed(each, each)]
    keys_of_roots = {_key_of(each) for each in roots}
    below = [each for each in loaded if _key_of(each) not in keys_of_roots]
    issuers = {each.issuer.public_bytes() for each in below}
    lowest = [each for each in below if each.subject.public_bytes() not in issuers]
    if not roots or len(lowest) > 1 or (len(roots) > 1 and not lowest):
        raise InputError(
            f"the answer holds {len(roots)} roots and {len(lowest)} issuing CAs",
            why="a CA stands for one chain",
            fix="ask the operator of that CA for the URL of one label",
        )
    if not lowest:
        return [roots[0].public_bytes(Encoding.DER)]
    bag = [each.public_bytes(Encoding.DER) for each in below]
    chain = order_chain(lowest[0].public_bytes(Encoding.DER), bag)
    last = x509.load_der_x509_certificate(chain[-1])
    root = next((each for each in roots if _signed(last, each)), None)
    if root is None:
        raise InputError(
            "none of the roots of the answer signed its issuing CA",
            why="a CA stands for one chain",
            fix="ask the operator of that CA for the URL of one label",
        )
    return [*chain, root.public_bytes(Encoding.DER)]


def _key_of(certificate: x509.Certificate) -> tuple[bytes, bytes]:
    view = view_certificate(certificate.public_bytes(Encoding.DER))
    return view.subject, view.key.der


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _profiles_above(profile: Profile, length: int) -> list[Profile]:
    """Return the profiles of a chain of *length* certificates whose first has *profile*; the last is the root's."""
    found = [profile]
    while not found[-1].is_root:
        role = found[-1].issuers[0]
        found.append(get_profile(role if "/" in role else f"{profile.standard.value}/{role}"))
    root = found[-1]
    return [*(found[: length - 1] + [root] * length)[: length - 1], root] if length > 1 else [root]


def _record_of(
    tx: Transaction, name: str, profile: Profile, encoded: bytes, issuer: CaRecord | None, key_uri: str, now: datetime
) -> CaRecord:
    loaded, view = _load(encoded)
    generation = tx.next_generation(name)
    return CaRecord(
        id=f"{name}@{generation}",
        name=name,
        generation=generation,
        profile=profile.id,
        issuer=None if issuer is None else issuer.id,
        subject=names.text(view.subject),
        subject_der=view.subject,
        key_uri=key_uri,
        state=CaState.ACTIVE,
        public_url=None,
        created_at=now,
        spki_sha256=spki_sha256(view.key.der),
        certificate_der=encoded,
        not_before=loaded.not_valid_before_utc,
        not_after=loaded.not_valid_after_utc,
    )
