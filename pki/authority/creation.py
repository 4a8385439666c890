"""Create a certificate authority: reserve its name, make its key, sign its certificate, then activate it.

Each step is durable before the next begins, and running the same command again continues from wherever a crash
stopped it: the pending row names the key file, the reservation holds the to-be-signed bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509

from chargepki.pki import names
from chargepki.pki.authority.ca_order import CaOrder, adopt_key, check_label
from chargepki.pki.authority.issuance import (
    Issuer,
    check_may_issue,
    check_stored,
    complete,
    finish,
    issuer_info,
    judge_tbs,
    new_serial,
    override_details,
)
from chargepki.pki.authority.shards import check_crl_settings
from chargepki.pki.errors import Conflict, PolicyRefusal, SignerError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CaRecord, CaState, CertificateRecord, CertificateState
from chargepki.pki.keys import KeyAlgorithm, generate_private_key, spki_sha256
from chargepki.pki.pointers import choose_pointers
from chargepki.pki.policy import choose_subject
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile, RoleKind
from chargepki.pki.profiles.hierarchy import check_issuer
from chargepki.pki.signer import KeyStore, Signer
from chargepki.pki.template import build_tbs, fit_pointers
from chargepki.pki.validity import Window, choose_window

if TYPE_CHECKING:
    from chargepki.pki.authority.four_eyes import FourEyes

__all__ = ["BeforeActivation", "CaOrder", "adopt_key", "check_label", "create_ca", "preview_ca"]

IssuerOpener = Callable[[str], Issuer]
"""Finds an active CA by name and opens its key."""
BeforeActivation = Callable[[CaRecord, Signer], None]
"""Told of a CA whose key is there while it still is pending: it may be certified by others before anybody uses it."""


def create_ca(
    order: CaOrder,
    *,
    inventory: Inventory,
    keystore: KeyStore,
    open_issuer: IssuerOpener,
    actor: Actor,
    now: datetime,
    public_url: str | None,
    before_activation: BeforeActivation | None = None,
    four_eyes: FourEyes,
    act: tuple[str, Mapping[str, object]] | None = None,
) -> CaRecord:
    """Create the CA that *order* describes, or continue a creation that a crash interrupted.

    Args:
        act: what it is in the four-eyes rule, and what decides it; the creation of what *order* describes if ``None``.

    Raises:
        Conflict: a CA of that name exists, or the generation that it should follow is not the newest.
        PolicyRefusal: the profile is no CA profile, its issuer is missing or of the wrong kind, or it needs approvals.
        ProfileViolation: its certificate would break the profile; nothing was signed.
    """
    asked = act or ("ca.create", order.told())
    order = adopt_key(order, keystore)
    plan = _judge(order, inventory, open_issuer, now, public_url)
    if inventory.find_ca(plan.ca_id) is None:
        # Lint with a throw-away key first, so that a refusal leaves neither a pending CA nor a key behind.
        _preview(order, plan, now, public_url)

    def approved(tx: Transaction, *, resumes: bool) -> None:
        four_eyes.require(tx, *asked, actor=actor, now=now, resumes=resumes)

    ca = _reserve_row(order, plan, inventory, keystore, actor, now, public_url, approved)
    signer = _open_key(keystore, ca, plan.algorithm)
    draft = _draft(order, plan, ca, signer, now, public_url)
    record = _reserve_certificate(draft, inventory, actor)
    # What `recover` has completed meanwhile is not signed again.
    der = record.der or complete(record, draft.issuer)
    if before_activation is not None:
        certified = replace(
            ca, spki_sha256=record.spki_sha256, not_before=record.not_before, not_after=record.not_after
        )
        before_activation(certified, signer)

    return inventory.write(lambda tx: _activate(tx, plan, ca, record, der, actor, now))


def _activate(
    tx: Transaction, plan: _Plan, ca: CaRecord, record: CertificateRecord, der: bytes, actor: Actor, now: datetime
) -> CaRecord:
    """Record the certificate *der* of *ca*, and let it issue; the generation before it issues no more."""
    recorded = finish(tx, record, der, actor=actor, now=now)
    assert recorded.der is not None
    if recorded.state is not CertificateState.ISSUED:
        raise StateError(f"the certificate of {ca.id} is {recorded.state.value}", fix="run it again: it gets another")
    active = tx.update_ca(
        ca.id,
        state=CaState.ACTIVE,
        certificate_der=recorded.der,
        spki_sha256=recorded.spki_sha256,
        not_before=recorded.not_before,
        not_after=recorded.not_after,
    )
    details = {"profile": ca.profile, "subject": ca.subject, "key": ca.key_uri, "issuer": ca.issuer}
    if plan.predecessor is not None:
        _retire(tx, plan.predecessor.id)
        details["succeeds"] = plan.predecessor.id
    action = "ca.create" if plan.predecessor is None else "ca.rollover"
    tx.audit(actor, action, ca.id, now=now, artefact_sha256=recorded.sha256, details=details)
    return active


def _retire(tx: Transaction, ca_id: str) -> None:
    """Take issuing away from the generation that was followed: it signs lists and OCSP answers until its end."""
    if tx.get_ca(ca_id).state is CaState.ACTIVE:
        tx.update_ca(ca_id, state=CaState.RETIRED)


def preview_ca(
    order: CaOrder, *, inventory: Inventory | None, open_issuer: IssuerOpener, now: datetime, public_url: str | None
) -> bytes:
    """Judge and lint what `create_ca` would sign, for a key that is thrown away, and return the to-be-signed bytes.

    Nothing is written.

    Args:
        inventory: ``None`` when there is none yet; then only a root can be created.

    Raises:
        ChargePkiError: as `create_ca`.
    """
    return _preview(order, _judge(order, inventory, open_issuer, now, public_url), now, public_url)


def _preview(order: CaOrder, plan: _Plan, now: datetime, public_url: str | None) -> bytes:
    signer = Signer.of("preview:", generate_private_key(plan.algorithm))
    ca = _pending(order, plan, key_uri=signer.uri, now=now, public_url=public_url)
    return _build(_draft(order, plan, ca, signer, now, public_url)).tbs


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was decided before anything is written; `issuer` is ``None`` for a root."""

    name: str
    profile: Profile
    issuer: Issuer | None
    subject_der: bytes
    algorithm: KeyAlgorithm
    predecessor: CaRecord | None

    @property
    def generation(self) -> int:
        """1 for a new CA."""
        return 1 if self.predecessor is None else self.predecessor.generation + 1

    @property
    def ca_id(self) -> str:
        """What the generation is called."""
        return f"{self.name}@{self.generation}"


@dataclass(frozen=True, slots=True)
class _Draft:
    """A CA whose key is there and whose certificate is not; a root issues to itself."""

    order: CaOrder
    profile: Profile
    ca: CaRecord
    signer: Signer
    issuer: Issuer
    now: datetime
    public_url: str | None


def _draft(order: CaOrder, plan: _Plan, ca: CaRecord, signer: Signer, now: datetime, public_url: str | None) -> _Draft:
    issuer = plan.issuer or _self_issuer(ca, plan.profile, signer)
    # A root's pointers lead to this installation, a sub-CA's to its issuer's.
    url = public_url if plan.issuer is None else issuer.ca.public_url
    return _Draft(order, plan.profile, ca, signer, issuer, now, url)


def _judge(
    order: CaOrder, inventory: Inventory | None, open_issuer: IssuerOpener, now: datetime, public_url: str | None
) -> _Plan:
    check_label(order.name, "CA name")
    check_crl_settings(order.crls)
    predecessor = _find_predecessor(order, inventory)
    existing = inventory.find_ca(order.name) if inventory is not None else None
    if existing is not None and existing.state is not CaState.PENDING and predecessor is None:
        raise _taken(existing)
    profile = get_profile(order.profile)
    issuer = _check_place(order, profile, open_issuer)
    # The next generation has its predecessor's subject octet by octet: names are compared in many ways.
    subject_der = predecessor.subject_der if predecessor else names.name_der(_subject(order, profile))
    algorithm = order.key_algorithm or _default_algorithm(profile, issuer)
    if algorithm not in profile.keys.algorithms:
        raise PolicyRefusal(
            f"key algorithm {algorithm.value} is not allowed in {profile.id}",
            why=profile.keys.clause,
            fix=f"use one of {', '.join(a.value for a in profile.keys.algorithms)}",
        )
    # Judge the times before anything is written, so that a refusal leaves no pending CA behind.
    choose_window(profile, now, _window_of(issuer), order.validity)
    url = issuer.ca.public_url if issuer else public_url
    plan = _Plan(order.name, profile, issuer, subject_der, algorithm, predecessor)
    choose_pointers(profile, url, issuer.ca.id if issuer else plan.ca_id)
    return plan


def _find_predecessor(order: CaOrder, inventory: Inventory | None) -> CaRecord | None:
    """Return the generation that *order* follows; ``None`` for a new CA.

    Raises:
        Conflict: it is not the newest that is there.
        NotFound: there is none.
    """
    if order.succeeds is None or inventory is None:
        return None
    predecessor = inventory.get_ca(order.succeeds)
    newest = inventory.get_ca(order.name)
    if newest.id != predecessor.id:
        raise Conflict(
            f"{predecessor.id} has been followed by {newest.id} already",
            fix=f"look at it with: chargepki ca show {newest.id}",
        )
    return predecessor


def _check_place(order: CaOrder, profile: Profile, open_issuer: IssuerOpener) -> Issuer | None:
    if not profile.is_ca:
        raise PolicyRefusal(
            f"{profile.id} is not a CA profile",
            why=f"{profile.clause}: its certificates sign nothing",
            fix="issue such a certificate with: chargepki cert issue",
        )
    if profile.kind is RoleKind.CROSS:
        raise PolicyRefusal(
            f"{profile.id} certifies a CA that exists already; nothing is created",
            why=profile.clause,
            fix="pass the other CA's request to: chargepki cert issue --profile " + profile.id,
        )
    if profile.is_root:
        if order.issuer is not None:
            raise PolicyRefusal(
                f"{profile.id} is self-signed and takes no issuer", why=profile.clause, fix="leave out --issuer"
            )
        return None
    if order.issuer is None:
        roles = ", ".join(f"{profile.standard.value}/{role}" for role in profile.issuers)
        raise PolicyRefusal(
            f"{profile.id} needs an issuer",
            why="there is no implicit issuer",
            fix=f"pass --issuer NAME of a CA with profile {roles}",
        )
    issuer = open_issuer(order.issuer)
    check_issuer(issuer.profile, profile)
    return issuer


def _subject(order: CaOrder, profile: Profile) -> x509.Name:
    override = names.build_name(list(order.subject)) if order.subject else None
    return choose_subject(profile, None, override=override, defaults={"CN": order.name})


def _default_algorithm(profile: Profile, issuer: Issuer | None) -> KeyAlgorithm:
    # A chain uses one algorithm set (e_mixed_curves), so a sub-CA follows its issuer unless told otherwise.
    if issuer is not None and issuer.signer.algorithm in profile.keys.algorithms:
        return issuer.signer.algorithm
    return profile.keys.default


def _window_of(issuer: Issuer | None) -> Window | None:
    if issuer is None:
        return None
    assert issuer.ca.not_before is not None and issuer.ca.not_after is not None
    return Window(issuer.ca.not_before, issuer.ca.not_after)


def _self_issuer(ca: CaRecord, profile: Profile, signer: Signer) -> Issuer:
    ca = replace(ca, spki_sha256=spki_sha256(signer.spki_der))
    return Issuer(ca, profile, signer, issuer_info(signer, ca.subject_der, profile), chain=())


def _pending(order: CaOrder, plan: _Plan, *, key_uri: str, now: datetime, public_url: str | None) -> CaRecord:
    return CaRecord(
        id=plan.ca_id,
        name=order.name,
        generation=plan.generation,
        profile=plan.profile.id,
        issuer=plan.issuer.ca.id if plan.issuer else None,
        subject=names.text(names.name_from_der(plan.subject_der)),
        subject_der=plan.subject_der,
        key_uri=key_uri,
        state=CaState.PENDING,
        public_url=public_url,
        created_at=now,
        crl_shard_size=order.crls.shard_size,
        crl_delta_hours=order.crls.delta_hours,
    )


def _reserve_row(
    order: CaOrder,
    plan: _Plan,
    inventory: Inventory,
    keystore: KeyStore,
    actor: Actor,
    now: datetime,
    public_url: str | None,
    approved: Callable[..., None],
) -> CaRecord:
    ca_id = plan.ca_id
    key_uri = order.key_uri or keystore.uri(ca_id)
    wanted = _pending(order, plan, key_uri=key_uri, now=now, public_url=public_url)

    def work(tx: Transaction) -> CaRecord:
        existing = tx.find_ca(ca_id)
        if existing is None:
            if order.key_uri is not None:
                _check_unused(tx, keystore.open(order.key_uri))
            elif keystore.exists(ca_id):
                raise Conflict(
                    f"a key for {ca_id} exists, but the inventory knows no such CA",
                    why="a key is never overwritten, and adopting an unknown one would hide where it comes from",
                    fix="move the file away if it is not needed, or choose another name",
                )
            approved(tx, resumes=False)
            tx.reserve_ca(wanted)
            tx.audit(actor, "ca.reserve", ca_id, now=now, details={"profile": wanted.profile, "key": wanted.key_uri})
            return wanted
        same = (existing.profile, existing.issuer, existing.subject_der, existing.key_uri) == (
            wanted.profile,
            wanted.issuer,
            wanted.subject_der,
            wanted.key_uri,
        )
        if existing.state is CaState.PENDING and same:
            approved(tx, resumes=True)
            return existing
        raise _taken(existing)

    return inventory.write(work)


def _check_unused(tx: Transaction, signer: Signer) -> None:
    spki = spki_sha256(signer.spki_der)
    for other in tx.list_cas():
        if other.spki_sha256 == spki or other.key_uri == signer.uri:
            raise Conflict(
                f"{other.id} has the key {signer.uri} already",
                why="two CAs with one key cannot be revoked apart",
                fix="make another key in the token",
            )


def _taken(existing: CaRecord) -> Conflict:
    return Conflict(
        f"CA {existing.name} exists already ({existing.id}, {existing.state.value})",
        why="a CA is never overwritten",
        fix=f"choose another name, or look at it with: chargepki ca show {existing.name}",
    )


def _open_key(keystore: KeyStore, ca: CaRecord, algorithm: KeyAlgorithm) -> Signer:
    if ca.key_uri == keystore.uri(ca.id) and not keystore.exists(ca.id):
        keystore.create(ca.id, algorithm)
    signer = keystore.open(ca.key_uri)
    if signer.algorithm is not algorithm:
        raise SignerError(
            f"the key of the interrupted creation of {ca.id} is {signer.algorithm.value}, not {algorithm.value}",
            why="the first run was started with another --key",
            fix=f"run it again with --key {signer.algorithm.value}",
        )
    return signer


def _reserve_certificate(draft: _Draft, inventory: Inventory, actor: Actor) -> CertificateRecord:
    ca = draft.ca
    request_key = f"ca:{ca.id}"
    spki = spki_sha256(draft.signer.spki_der)
    earlier = inventory.find_certificate_by_request_key(request_key)
    if earlier is not None and earlier.state in (CertificateState.RESERVED, CertificateState.ISSUED):
        if earlier.spki_sha256 != spki:
            raise SignerError(
                f"the key file of {ca.id} is not the key its reservation was made for",
                why="the file was replaced between two runs",
                fix="put the right file back; the reservation is kept",
            )
        if earlier.state is CertificateState.RESERVED:
            check_stored(earlier, draft.issuer)
        return earlier
    built = _build(draft)
    record = CertificateRecord(
        id=f"{draft.issuer.ca.id}:{built.serial:x}",
        ca=draft.issuer.ca.id,
        serial=f"{built.serial:x}",
        profile=ca.profile,
        state=CertificateState.RESERVED,
        subject=ca.subject,
        subject_der=ca.subject_der,
        spki_sha256=spki,
        not_before=built.window.not_before,
        not_after=built.window.not_after,
        request_key=request_key,
        requester=actor.name,
        reserved_at=draft.now,
        tbs=built.tbs,
    )

    def work(tx: Transaction) -> CertificateRecord:
        # Another process may have run the same command at the same time; the first reservation counts.
        meanwhile = tx.find_certificate_by_request_key(request_key)
        if meanwhile is not None and meanwhile.state is not CertificateState.REVOKED:
            return meanwhile
        if draft.issuer.ca.id != ca.id:
            check_may_issue(tx, draft.issuer.ca.id)
        tx.reserve_certificate(record)
        tx.audit(
            actor,
            "certificate.reserve",
            record.id,
            now=draft.now,
            artefact_sha256=hashlib.sha256(built.tbs).hexdigest(),
            details={
                "profile": ca.profile,
                "subject": ca.subject,
                "requester": actor.name,
                **override_details(draft.order.criticality),
            },
        )
        return record

    return inventory.write(work)


@dataclass(frozen=True, slots=True)
class _Built:
    serial: int
    window: Window
    tbs: bytes


def _build(draft: _Draft) -> _Built:
    """Build and lint the to-be-signed bytes of the CA's certificate."""
    profile, issuer = draft.profile, draft.issuer
    above = None if profile.is_root else issuer
    window, _ = choose_window(profile, draft.now, _window_of(above), draft.order.validity)
    pointers = fit_pointers(
        profile,
        choose_pointers(profile, draft.public_url, issuer.ca.id),
        issuer=issuer.info,
        subject_der=draft.ca.subject_der,
        spki_der=draft.signer.spki_der,
    )
    serial = new_serial()
    tbs = build_tbs(
        profile,
        issuer=issuer.info,
        serial=serial,
        subject_der=draft.ca.subject_der,
        spki_der=draft.signer.spki_der,
        window=window,
        pointers=pointers,
        criticality=draft.order.criticality,
    )
    judge_tbs(tbs, profile, issuer_der=above.ca.certificate_der if above else None, signer=issuer.signer)
    return _Built(serial, window, tbs)
