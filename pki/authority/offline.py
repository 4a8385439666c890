"""CAs whose issuer's key is in another, offline workspace: ask, answer there, accept here.

Online a CA of somebody's offline key stands in the inventory with the key URI ``none:``: it issues and signs nothing
here, its certificate and its lists are published.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from chargepki.pki import files, keys, names
from chargepki.pki.authority.ca_order import CaOrder, adopt_key, check_label
from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.issuance import Issuer, Prepared, prepare
from chargepki.pki.authority.ocsp import OCSP_PROFILE
from chargepki.pki.authority.offline_files import CaAnswer, CaRequestFile, ChainEntry, load_request
from chargepki.pki.authority.offline_responder import record_of_answer, record_responder, take_answer
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.chain import verify_chain
from chargepki.pki.csr import build_csr, check_possession, parse_csr
from chargepki.pki.errors import Conflict, InputError, NotFound, PolicyRefusal, ProfileViolation
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import CaRecord, CaState, CertificateState
from chargepki.pki.lint import lint_certificate
from chargepki.pki.policy import choose_subject
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile, RoleKind, Standard

__all__ = ["accept_answer", "answer_request", "check_request", "judge_request_file", "request_ca"]

_GENERATION = re.compile(r"[1-9][0-9]{0,5}\Z", re.ASCII)

# -- online: ask ------------------------------------------------------------------------------------------------------


def request_ca(authority: Authority, folder: Path, order: CaOrder) -> CaRequestFile:
    """Make the key of a CA whose issuer is elsewhere, and the request for it; repeated, return the same request.

    Of a CA that is there already the next generation is asked for, with its subject and profile.

    Args:
        folder: where requests are kept until they are answered.

    Raises:
        Conflict: the name is taken by a CA of another kind.
        PolicyRefusal: the profile is no sub-CA's.
    """
    order = adopt_key(order, authority.keystore)
    known = check_request(authority.inventory, order)
    profile = get_profile(order.profile)
    generation = 1 if known is None else known.generation + 1
    algorithm = order.key_algorithm or profile.keys.default
    ca = _reserved(authority, order, known, f"{order.name}@{generation}", generation)
    path = folder / f"{ca.id}.json"
    if path.exists():
        return load_request(path)
    if ca.key_uri == authority.keystore.uri(ca.id) and not authority.keystore.exists(ca.id):
        authority.keystore.create(ca.id, algorithm)
    signer = authority.keystore.open(ca.key_uri)
    csr = build_csr(ca.subject_der, signer.spki_der, signer.algorithm, signer.sign)
    seconds = None if order.validity is None else int(order.validity.total_seconds())
    made = CaRequestFile(ca.id, profile.id, csr, seconds)
    files.make_private_folder(folder)
    files.write_durable(path, made.encoded, mode=0o600)
    return made


def check_request(inventory: Inventory, order: CaOrder) -> CaRecord | None:
    """Judge what can be judged before anything is written; return the generation that is there already, if any.

    Raises:
        Conflict: the name is taken by a CA of another kind.
        PolicyRefusal: the profile is no sub-CA's, or has no such key.
    """
    check_label(order.name, "CA name")
    profile = _sub_ca_profile(order.profile)
    algorithm = order.key_algorithm or profile.keys.default
    if algorithm not in profile.keys.algorithms:
        raise PolicyRefusal(
            f"key algorithm {algorithm.value} is not allowed in {profile.id}",
            why=profile.keys.clause,
            fix=f"use one of {', '.join(each.value for each in profile.keys.algorithms)}",
        )
    newest = inventory.find_ca(order.name)
    known = newest if newest is not None and newest.state is not CaState.PENDING else None
    if known is not None and known.profile != profile.id:
        raise Conflict(f"{known.id} has the profile {known.profile}", fix=f"pass --profile {known.profile}")
    return known


def _sub_ca_profile(profile_id: str) -> Profile:
    profile = get_profile(profile_id)
    if not profile.is_ca or profile.is_root or profile.kind is RoleKind.CROSS:
        raise PolicyRefusal(
            f"{profile.id} is no profile of a CA below a root",
            why="a root signs itself; it is created where its key is",
            fix="name a sub-CA's profile, see: chargepki profile list",
        )
    return profile


def _reserved(authority: Authority, order: CaOrder, known: CaRecord | None, ca_id: str, generation: int) -> CaRecord:
    profile = get_profile(order.profile)
    override = names.build_name(list(order.subject)) if order.subject else None
    chosen = names.name_der(choose_subject(profile, None, override=override, defaults={"CN": order.name}))
    subject_der = known.subject_der if known is not None else chosen
    now = authority.now()
    wanted = CaRecord(
        id=ca_id,
        name=order.name,
        generation=generation,
        profile=profile.id,
        issuer=None,
        subject=names.text(subject_der),
        subject_der=subject_der,
        key_uri=order.key_uri or authority.keystore.uri(ca_id),
        state=CaState.PENDING,
        public_url=authority.public_url or (known.public_url if known is not None else None),
        created_at=now,
        crl_shard_size=order.crls.shard_size if known is None else known.crl_shard_size,
        crl_delta_hours=order.crls.delta_hours if known is None else known.crl_delta_hours,
    )

    def work(tx: Transaction) -> CaRecord:
        existing = tx.find_ca(ca_id)
        if existing is not None:
            same = (existing.profile, existing.issuer, existing.key_uri) == (profile.id, None, wanted.key_uri)
            if existing.state is CaState.PENDING and same and (not order.subject or existing.subject_der == chosen):
                return existing
            raise Conflict(
                f"CA {ca_id} exists already ({existing.state.value})",
                why="a CA is never overwritten",
                fix=f"look at it with: chargepki ca show {ca_id}",
            )
        if order.key_uri is None and authority.keystore.exists(ca_id):
            raise Conflict(f"a key file for {ca_id} exists, but the inventory knows no such CA", fix="move it away")
        tx.reserve_ca(wanted)
        details = {"profile": wanted.profile, "key": wanted.key_uri, "subject": wanted.subject}
        tx.audit(authority.actor, "ca.request", ca_id, now=now, details=details)
        return wanted

    return authority.inventory.write(work)


# -- offline: answer --------------------------------------------------------------------------------------------------


def judge_request_file(
    authority: Authority, request: CaRequestFile, issuer: str, *, validity: timedelta | None = None
) -> Prepared:
    """Judge a request and lint what `answer_request` would sign; nothing is written.

    Raises:
        ChargePkiError: the request, its profile or its issuer is not acceptable.
    """
    opened = authority.open_issuer(issuer)
    if request.profile == OCSP_PROFILE:
        profile = _responder_profile(request, opened)
    else:
        profile = _sub_ca_profile(request.profile)
    csr = parse_csr(request.csr)
    check_possession(csr)
    order = _order(request, opened, validity)
    prepared = prepare(
        order, opened, authority.inventory, actor=authority.actor, now=authority.now(), policy=authority.policy
    )
    if prepared.record.subject_der != csr.subject_der:
        raise PolicyRefusal(
            f"{profile.id} would change the subject that {request.ca} asks for",
            why=f"it would be {prepared.record.subject}",
            fix="make the request with a subject that the profile takes as it is",
        )
    return prepared


def answer_request(
    authority: Authority, request: CaRequestFile, issuer: str, *, validity: timedelta | None = None
) -> CaAnswer:
    """Certify the CA of *request* by *issuer*, whose key is here, and sign the answer; repeated, return the same
    certificate.

    Raises:
        ChargePkiError: see `judge_request_file`; nothing was signed.
    """
    judge_request_file(authority, request, issuer, validity=validity)
    order = _order(request, authority.open_issuer(issuer), validity)
    earlier = authority.inventory.find_certificate_by_request_key(f"id:{order.request_id}")
    gone = earlier is not None and earlier.state in (CertificateState.REVOKED, CertificateState.VOIDED)
    told = {"request_sha256": request.sha256, "ca": request.ca, "profile": request.profile, "validity": order.validity}
    # An answer that was revoked is followed by another, which is another act.
    told |= {"issuer": order.ca, "after": earlier.id if earlier is not None and gone else None}
    covering = authority.four_eyes.covering(
        authority.inventory, "ca.sign-request", told, actor=authority.actor, now=authority.now()
    )
    with covering:
        issued = authority.issue(order)
    opened = authority.open_issuer(issued.record.ca)
    entries: list[ChainEntry] = []
    above: CaRecord | None = opened.ca
    while above is not None:
        assert above.certificate_der is not None
        entries.append(ChainEntry(above.id, above.profile, above.certificate_der))
        above = authority.inventory.get_ca(above.issuer) if above.issuer else None
    verdict = {name: issued.record.verdict.get(name) for name in ("request", "record")}
    answer = CaAnswer(request.sha256, issued.certificate_der, tuple(entries), verdict)
    return replace(answer, signature=opened.signer.sign(answer.signed_octets))


def _responder_profile(request: CaRequestFile, issuer: Issuer) -> Profile:
    if request.ca != issuer.ca.id:
        raise PolicyRefusal(
            f"a responder for {request.ca} is asked for, and {issuer.ca.id} would certify it",
            why="a CA alone says who answers for it (RFC 6960 4.2.2.2)",
            fix=f"pass --issuer {request.ca}",
        )
    return get_profile(request.profile)


def _order(request: CaRequestFile, issuer: Issuer, validity: timedelta | None) -> IssueOrder:
    asked = None if request.validity_seconds is None else timedelta(seconds=request.validity_seconds)
    # As for the responders of CAs whose keys are online, see `ocsp`.
    plain = request.profile == OCSP_PROFILE and issuer.profile.standard is Standard.ISO15118_20
    return IssueOrder(
        ca=issuer.ca.id,
        profile=request.profile,
        csr=request.csr,
        validity=validity or asked,
        criticality="rfc5280" if plain else "profile",
        request_id=f"ca-request:{issuer.ca.id}:{request.sha256}",
    )


# -- online: accept ---------------------------------------------------------------------------------------------------


def accept_answer(authority: Authority, folder: Path, answer: CaAnswer, *, root_sha256: str | None = None) -> CaRecord:
    """Verify *answer* and activate the CA that asked; repeated, return it. For a responder, return who it answers for.

    Everything is verified before anything is written: that it answers our request, for our key and our subject, that
    the issuer signed it, that its profile holds, and that it chains to a root that is on record or that *root_sha256*
    names.

    Args:
        folder: where `request_ca` keeps requests.
        root_sha256: SHA-256 of the root's DER (hex), as the people at the offline machine read it out.

    Raises:
        NotFound: no request of ours has that digest.
        PolicyRefusal: the root is not the expected one, or none was named and it is not on record.
        ChainError, InputError, ProfileViolation: the answer does not hold.
    """
    now = authority.now()
    path, request = _find_request(folder, answer.request_sha256)
    ca = authority.inventory.get_ca(request.ca)
    if request.profile == OCSP_PROFILE:
        leaf = _verified(authority, authority.keystore.uri(path.stem), request, answer, root_sha256, now)
        record_responder(authority, ca, path.stem, request, answer, leaf)
        return authority.inventory.get_ca(ca.id)
    leaf = _verified(authority, ca.key_uri, request, answer, root_sha256, now)
    actor, issuer = authority.actor, answer.chain[0].id
    record = record_of_answer(request, answer, leaf, request_key=f"ca:{ca.id}", requester=actor.name, now=now)

    def work(tx: Transaction) -> CaRecord:
        current = tx.get_ca(ca.id)
        if current.state is not CaState.PENDING:
            if current.certificate_der == answer.certificate:
                return current
            raise Conflict(f"{ca.id} has been answered already", why="with another certificate", fix="keep that one")
        told = {"ca": ca.id, "request_sha256": request.sha256, "issuer": issuer}
        told["certificate_sha256"] = hashlib.sha256(answer.certificate).hexdigest()
        told["root_sha256"] = hashlib.sha256(answer.chain[-1].certificate).hexdigest()
        authority.four_eyes.require(tx, "ca.accept", told, actor=actor, now=now)
        _put_issuers(tx, authority, answer.chain, now)
        recorded = take_answer(tx, record, answer, actor=actor, now=now)
        before = tx.find_ca(f"{ca.name}@{ca.generation - 1}") if ca.generation > 1 else None
        if before is not None and before.state is CaState.ACTIVE:
            tx.update_ca(before.id, state=CaState.RETIRED)
        active = tx.update_ca(
            ca.id,
            state=CaState.ACTIVE,
            issuer=issuer,
            certificate_der=answer.certificate,
            spki_sha256=recorded.spki_sha256,
            not_before=recorded.not_before,
            not_after=recorded.not_after,
        )
        details = {"issuer": issuer, "request_sha256": request.sha256, "verdict": dict(answer.verdict)}
        tx.audit(actor, "ca.accept", ca.id, now=now, artefact_sha256=recorded.sha256, details=details)
        return active

    accepted = authority.inventory.write(work)
    for each in (accepted.id, *(entry.id for entry in answer.chain)):
        authority.publish_files(each)
    return accepted


def _find_request(folder: Path, digest: str) -> tuple[Path, CaRequestFile]:
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        found = load_request(path)
        if found.sha256 == digest:
            return path, found
    raise NotFound(
        "this answers no request of this workspace",
        why=f"it is for the request with the digest {digest[:64]}",
        fix="accept it where `chargepki ca request` was run, or make a request",
    )


def _verified(
    authority: Authority,
    key_uri: str,
    request: CaRequestFile,
    answer: CaAnswer,
    root_sha256: str | None,
    now: datetime,
) -> CertificateView:
    """Return what the answer's certificate says, once everything about the answer holds."""
    leaf = view_certificate(answer.certificate)
    csr = parse_csr(request.csr)
    if leaf.key.der != csr.spki_der or authority.keystore.open(key_uri).spki_der != csr.spki_der:
        raise InputError("the certificate is not for the key of the request", fix="have the request answered anew")
    if leaf.subject != csr.subject_der:
        raise InputError(
            f"the certificate names {names.text(leaf.subject)}, the request {names.text(csr.subject_der)}",
            fix="have the request answered anew",
        )
    _check_root(authority, answer.chain[-1], root_sha256)
    above = [each.certificate for each in answer.chain]
    verify_chain(answer.certificate, above[:-1], [above[-1]], at=now)
    issuer = view_certificate(above[0])
    key = keys.load_public_key(issuer.key.der)
    algorithm = keys.signature_algorithm(keys.algorithm_of(key)).der
    if leaf.issuer != issuer.subject or not keys.verify(key, answer.signature, answer.signed_octets, algorithm):
        raise InputError(
            "the answer is not signed by the issuer that it names",
            why="it was changed on its way, or made by somebody else",
            fix="get the file anew from the offline machine",
        )
    profile = get_profile(request.profile)
    report = lint_certificate(answer.certificate, profile=profile, issuer_der=above[0], now=now)
    if report.errors:
        first = report.errors[0]
        raise ProfileViolation(
            f"the certificate breaks its profile {profile.id}: {first.message}",
            why=f"{first.clause} ({first.rule}); nothing was accepted",
            fix=first.hint,
            findings=report.errors,
        )
    return leaf


def _check_root(authority: Authority, root: ChainEntry, root_sha256: str | None) -> None:
    digest = hashlib.sha256(root.certificate).hexdigest()
    if root_sha256 is not None:
        if root_sha256.replace(":", "").lower() == digest:
            return
        raise PolicyRefusal(
            "the root of the answer is not the one that was named",
            why=f"its SHA-256 is {digest}",
            fix="compare it with what the people at the offline machine read out",
        )
    if any(each.certificate_der == root.certificate for each in authority.inventory.list_cas()):
        return
    raise PolicyRefusal(
        f"the root {root.id} is not on record here",
        why=f"whoever brings the file could bring a root of their own; its SHA-256 is {digest}",
        fix="compare it with what the offline machine prints, then pass --root-sha256",
    )


def _put_issuers(tx: Transaction, authority: Authority, chain: tuple[ChainEntry, ...], now: datetime) -> None:
    """Record the CAs above, the root first: their keys are elsewhere."""
    below: str | None = None
    for entry in reversed(chain):
        existing = tx.find_ca(entry.id)
        if existing is not None and existing.certificate_der != entry.certificate:
            raise Conflict(
                f"{entry.id} is another CA here",
                why="URLs in certificates name CAs by it",
                fix="give the CA of the offline workspace another name",
            )
        if existing is None:
            tx.reserve_ca(_elsewhere(entry, below, now))
            digest = hashlib.sha256(entry.certificate).hexdigest()
            tx.audit(authority.actor, "ca.record", entry.id, now=now, artefact_sha256=digest)
        below = entry.id


def _elsewhere(entry: ChainEntry, issuer: str | None, now: datetime) -> CaRecord:
    name, _, number = entry.id.rpartition("@")
    if not _GENERATION.match(number):
        raise InputError(f"{entry.id[:80]!r} is no name of a CA's generation", fix="get the file anew")
    check_label(name, "CA name")
    profile = get_profile(entry.profile)
    view = view_certificate(entry.certificate)
    loaded = x509.load_der_x509_certificate(entry.certificate)
    if not profile.is_ca or profile.is_root is not (issuer is None):
        raise InputError(f"{entry.id} cannot have the profile {profile.id} in this chain", fix="get the file anew")
    return CaRecord(
        id=entry.id,
        name=name,
        generation=int(number),
        profile=profile.id,
        issuer=issuer,
        subject=names.text(view.subject),
        subject_der=view.subject,
        key_uri="none:offline",
        state=CaState.ACTIVE,
        public_url=None,
        created_at=now,
        spki_sha256=keys.spki_sha256(view.key.der),
        certificate_der=entry.certificate,
        not_before=loaded.not_valid_before_utc,
        not_after=loaded.not_valid_after_utc,
    )
