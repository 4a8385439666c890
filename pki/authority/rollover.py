"""Roll a CA over: the next generation, with a key of its own, under the same name and subject (RFC 9810 4.4).

The generation before keeps its key, for CRLs and OCSP answers about what it has issued, until its certificate ends.
A root's two generations certify each other's keys, so that whoever trusts one of them believes what is below both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.creation import CaOrder, create_ca, preview_ca
from chargepki.pki.authority.cross import CROSS_PROFILES, CrossOrder, cross_request_id, cross_sign, prepare_cross
from chargepki.pki.authority.shards import CrlSettings
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.errors import PolicyRefusal, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CaRecord, CaState, CertificateRecord, CertificateState
from chargepki.pki.keys import KeyAlgorithm, algorithm_of, load_public_key
from chargepki.pki.profiles import get_profile
from chargepki.pki.signer import Signer
from chargepki.pki.template import Criticality

__all__ = ["Rollover", "RolloverOrder", "cross_sign_cas", "preview_cross", "preview_rollover", "roll_over"]

_DECISIVE = ("issuer", "validity", "key_algorithm", "key_uri", "criticality", "cross", "cross_validity", "again")
_OWN_USE = frozenset({*CROSS_PROFILES, "common/ocsp-signer"})
"""What a generation issues before it is used: to other generations, and to its own responder."""


@dataclass(frozen=True, slots=True)
class RolloverOrder:
    """A CA to roll over."""

    name: str
    issuer: str | None = None
    """CA that signs the new generation; the newest generation of the present issuer when ``None``."""
    validity: timedelta | None = None
    key_algorithm: KeyAlgorithm | None = None
    """``None`` keeps the algorithm, or follows the issuer where the present one does."""
    key_uri: str | None = None
    criticality: Criticality = "profile"
    cross: bool = True
    """Whether the two generations of a root certify each other."""
    cross_validity: timedelta | None = None
    again: bool = False
    """Make another generation although the newest one has not been used yet."""


@dataclass(frozen=True, slots=True)
class Rollover:
    """What a rollover made."""

    ca: CaRecord
    """The new generation."""
    before: CaRecord
    """The generation that it follows, as it is now."""
    new_with_old: CertificateRecord | None
    """The new key, certified by the generation before; ``None`` for a CA below a root."""
    old_with_new: CertificateRecord | None
    """The key of the generation before, certified by the new one."""
    repeated: bool
    """True when an earlier run had made the generation."""


def roll_over(authority: Authority, order: RolloverOrder) -> Rollover:
    """Make the next generation of a CA and move issuing to it, or complete what an interrupted run began.

    A generation that has certified nothing yet is not followed by another one: the call that is repeated returns it
    (unless *order* says ``again``).

    Raises:
        NotFound: there is no such CA.
        PolicyRefusal: its key is with somebody else, or what *order* asks for breaks the profile.
        StateError: its own creation was interrupted.
    """
    now = authority.now()
    newest = _rollable(authority.inventory, order.name)
    before = _unused_successor(authority.inventory, newest, order)
    if before is not None:
        return _completed(authority, newest, before, order, now, repeated=True)
    act = _act(order, newest)

    def certify_new(ca: CaRecord, signer: Signer) -> None:
        # While it may still issue, the old generation vouches for the new one.
        if _crosses(newest, order, now):
            issuer = authority.open_issuer(newest.id)
            cross = CrossOrder(ca, signer, order.cross_validity, order.criticality)
            cross_sign(
                cross, issuer, authority.inventory, actor=authority.actor, now=now, approved=_approved(authority, act)
            )

    created = create_ca(
        _ca_order(authority.inventory, newest, order),
        inventory=authority.inventory,
        keystore=authority.keystore,
        open_issuer=authority.open_issuer,
        actor=authority.actor,
        now=now,
        public_url=authority.public_url or newest.public_url,
        before_activation=certify_new,
        four_eyes=authority.four_eyes,
        act=act,
    )
    return _completed(authority, created, newest, order, now, repeated=False)


def preview_rollover(authority: Authority, order: RolloverOrder) -> bytes:
    """Judge and lint what `roll_over` would sign, for a key that is thrown away; return the to-be-signed bytes.

    Raises:
        ChargePkiError: as `roll_over`.
    """
    newest = _rollable(authority.inventory, order.name)
    return preview_ca(
        _ca_order(authority.inventory, newest, order),
        inventory=authority.inventory,
        open_issuer=authority.open_issuer,
        now=authority.now(),
        public_url=authority.public_url or newest.public_url,
    )


def cross_sign_cas(
    authority: Authority,
    subject: str,
    issuer: str,
    *,
    validity: timedelta | None = None,
    criticality: Criticality = "profile",
) -> CertificateRecord:
    """Have the root *issuer* certify the key of the root *subject* (names or ids); repeated, return the same.

    Raises:
        PolicyRefusal: one of them is no root, they are the same, or the validity exceeds either.
        SignerError: one of the keys does not open.
    """
    order = _cross_order(authority, subject, validity, criticality)
    issuing = authority.open_issuer(issuer)
    earlier = authority.inventory.find_certificate_by_request_key(f"id:{cross_request_id(order.subject, issuing.ca)}")
    told = {"subject": order.subject.id, "issuer": issuing.ca.id, "validity": validity, "criticality": criticality}
    # One that has ended or was revoked is followed by another, which is another act.
    told["after"] = None if earlier is None else earlier.id

    def approved(tx: Transaction) -> None:
        authority.four_eyes.require(tx, "ca.cross-sign", told, actor=authority.actor, now=authority.now())

    return cross_sign(
        order, issuing, authority.inventory, actor=authority.actor, now=authority.now(), approved=approved
    )


def preview_cross(
    authority: Authority,
    subject: str,
    issuer: str,
    *,
    validity: timedelta | None = None,
    criticality: Criticality = "profile",
) -> tuple[bytes, str]:
    """Judge and lint what `cross_sign_cas` would sign; return the to-be-signed bytes and the id of their profile."""
    order = _cross_order(authority, subject, validity, criticality)
    issuing = authority.open_issuer(issuer)
    prepared = prepare_cross(order, issuing, authority.inventory, actor=authority.actor, now=authority.now())
    assert prepared.record.tbs is not None
    return prepared.record.tbs, prepared.record.profile


def _cross_order(
    authority: Authority, subject: str, validity: timedelta | None, criticality: Criticality
) -> CrossOrder:
    certified = authority.inventory.get_ca(subject)
    _check_ours(certified)
    return CrossOrder(certified, authority.open_issuer(certified.id, for_crl=True).signer, validity, criticality)


def _rollable(inventory: Inventory, name: str) -> CaRecord:
    """Return the generation that is followed: the newest that is there."""
    newest = inventory.get_ca(name)
    current = inventory.get_ca(newest.name)
    if current.id != newest.id:
        raise StateError(
            f"{newest.id} is not the newest generation of {newest.name}",
            why=f"it was followed by {current.id}",
            fix=f"run: chargepki ca rollover {newest.name}",
        )
    if newest.state is CaState.PENDING:
        raise StateError(
            f"the creation of {newest.id} was interrupted", fix="run the same `ca create` again; then roll it over"
        )
    _check_ours(newest)
    return newest


def _check_ours(ca: CaRecord) -> None:
    if ca.is_external:
        raise PolicyRefusal(
            f"the key of {ca.id} is with somebody else",
            why="only who has the key rolls it over or proves that it is held",
            fix=f"ask the operator of {ca.name}; then run: chargepki ca connect {ca.name}",
        )


def _unused_successor(inventory: Inventory, newest: CaRecord, order: RolloverOrder) -> CaRecord | None:
    """Return the generation before *newest* when *newest* followed it and has not been used; ``None`` otherwise."""
    if newest.generation == 1 or order.again or newest.state is not CaState.ACTIVE:
        return None
    before = inventory.find_ca(f"{newest.name}@{newest.generation - 1}")
    if before is None or before.is_external or _is_used(inventory, newest):
        return None
    return before


def _is_used(reads: Reads, ca: CaRecord) -> bool:
    return any(
        record.profile not in _OWN_USE and record.spki_sha256 != ca.spki_sha256
        for record in reads.list_certificates(ca=ca.id)
        if record.state is not CertificateState.VOIDED
    )


def _ca_order(inventory: Inventory, newest: CaRecord, order: RolloverOrder) -> CaOrder:
    pending = inventory.find_ca(f"{newest.name}@{newest.generation + 1}")
    issuer = order.issuer
    if pending is not None:
        # The interrupted run chose; its issuer may have been rolled over since.
        issuer = pending.issuer
    elif issuer is None and newest.issuer is not None:
        issuer = inventory.get_ca(newest.issuer).name
    return CaOrder(
        name=newest.name,
        profile=newest.profile,
        issuer=issuer,
        validity=order.validity,
        key_algorithm=order.key_algorithm or (None if order.key_uri else _algorithm(inventory, newest)),
        criticality=order.criticality,
        crls=CrlSettings(newest.crl_shard_size, newest.crl_delta_hours),
        key_uri=order.key_uri,
        succeeds=newest.id,
    )


def _algorithm(inventory: Inventory, ca: CaRecord) -> KeyAlgorithm | None:
    """Return the algorithm of the present key; ``None`` where it is that of the issuer, which may have a new one."""
    own = _algorithm_of(ca)
    issuer = inventory.get_ca(ca.issuer) if ca.issuer is not None else None
    return None if issuer is not None and _algorithm_of(issuer) is own else own


def _algorithm_of(ca: CaRecord) -> KeyAlgorithm:
    assert ca.certificate_der is not None
    return algorithm_of(load_public_key(view_certificate(ca.certificate_der).key.der))


def _crosses(before: CaRecord, order: RolloverOrder, now: datetime) -> bool:
    """Whether the generation before can vouch for a new one and be vouched for: a root that is believed."""
    if not order.cross or not get_profile(before.profile).is_root or before.not_after is None:
        return False
    return before.state is not CaState.REVOKED and now < before.not_after


def _completed(
    authority: Authority, ca: CaRecord, before: CaRecord, order: RolloverOrder, now: datetime, *, repeated: bool
) -> Rollover:
    """Certify the old key by the new one if that is missing, and put the certificates where they are fetched."""
    inventory = authority.inventory
    old_with_new = None
    if _crosses(before, order, now):
        signer = authority.open_issuer(before.id, for_crl=True).signer
        cross = CrossOrder(before, signer, order.cross_validity, order.criticality)
        issuer = authority.open_issuer(ca.id)
        old_with_new = cross_sign(
            cross,
            issuer,
            inventory,
            actor=authority.actor,
            now=now,
            approved=_approved(authority, _act(order, before)),
        )
    new_with_old = _find_cross(inventory, ca, before)
    authority.publish_files(ca.id)
    return Rollover(
        ca=ca,
        before=inventory.get_ca(before.id),
        new_with_old=new_with_old,
        old_with_new=old_with_new,
        repeated=repeated,
    )


def _act(order: RolloverOrder, before: CaRecord) -> tuple[str, dict[str, object]]:
    """Return what a rollover of *before* is in the four-eyes rule, and what decides it."""
    told = {name: getattr(order, name) for name in _DECISIVE}
    return "ca.rollover", {"succeeds": before.id, **told}


def _approved(authority: Authority, act: tuple[str, dict[str, object]]) -> Callable[[Transaction], None]:
    """Return what asks for the approvals of a rollover once more: the very same one was approved when it began."""

    def approved(tx: Transaction) -> None:
        authority.four_eyes.require(tx, *act, actor=authority.actor, now=authority.now(), resumes=True)

    return approved


def _find_cross(inventory: Inventory, subject: CaRecord, issuer: CaRecord) -> CertificateRecord | None:
    found = inventory.find_certificate_by_request_key(f"id:{cross_request_id(subject, issuer)}")
    return found if found is not None and found.state is CertificateState.ISSUED else None
