"""The checks that let a certificate of a vehicle in, of whichever kind: VDE-AR-E 2802-100-1, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from chargepki.pki import names
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import Purpose, Revocation, Status, TrustAnchor, VerifiedChain, verify_chain
from chargepki.pki.errors import PolicyRefusal, RevocationError, StateError
from chargepki.pki.identifiers import EvccId, Pcid
from chargepki.pki.inventory import Inventory
from chargepki.pki.provisioning.trust import open_questions
from chargepki.pki.role_roots import manufacturers_of, role_anchors

__all__ = ["verify_admission"]


def verify_admission(
    inventory: Inventory,
    chain: Sequence[bytes],
    holder: Pcid | EvccId,
    *,
    purpose: Purpose,
    evidence: Revocation,
    now: datetime,
) -> VerifiedChain:
    """Return the path of a vehicle's certificate: manufacturer, validity of every certificate, chain, revocation.

    Args:
        chain: DER, leaf first, then sub-CAs; a root at the end is ignored.
        holder: the name in the leaf.

    Raises:
        PolicyRefusal: the manufacturer is nobody's or another's, or a certificate has expired.
        RevocationError: a certificate is revoked, or names where its status is to be had and there is no evidence.
        ChainError: it leads to no root that is believed for *purpose*.
        StateError: no root of a manufacturer is believed.
    """
    anchors = role_anchors(inventory)
    _check_manufacturer(inventory, holder, anchors)
    for view in map(view_certificate, chain):
        if view.not_after.value is None or view.not_after.value < now:
            raise PolicyRefusal(
                f"the certificate {names.text(view.subject)} has expired",
                why="VDE-AR-E 2802-100-1: every certificate of the chain is valid (shell model)",
                fix="ask the manufacturer for the current chain",
            )
    verified = verify_chain(chain[0], chain[1:], anchors, purpose=purpose, at=now, revocation=evidence)
    _check_status(inventory, verified)
    allowed = manufacturers_of(inventory, verified.anchor)
    if allowed and holder.manufacturer not in allowed:
        theirs = " ".join(sorted(allowed))
        raise PolicyRefusal(
            f"vehicle {holder.normalised} leads to a root that may certify vehicles of {theirs} alone",
            why="one manufacturer must not be able to speak for another's vehicles",
            fix="get the certificate from the vehicle's own manufacturer",
        )
    return verified


def _check_manufacturer(inventory: Inventory, holder: Pcid | EvccId, anchors: Sequence[TrustAnchor]) -> None:
    if not anchors:
        raise StateError(
            "no root of a manufacturer is believed",
            fix="add one: chargepki vehicle add-root FILE --use oem --fingerprint SHA256 --source TEXT",
        )
    for anchor in anchors:
        allowed = manufacturers_of(inventory, anchor.der)
        if not allowed or holder.manufacturer in allowed:
            return
    raise PolicyRefusal(
        f"nobody may certify vehicles of the manufacturer {holder.manufacturer}",
        why="VDE-AR-E 2802-100-1: the manufacturer's identifier has to be authorised",
        fix="name it when its root is added: chargepki vehicle add-root FILE --manufacturer WMI",
    )


def _check_status(inventory: Inventory, verified: VerifiedChain) -> None:
    """Refuse certificates of others whose status could be had and is not known to be good."""
    asked = {question.certificate for question in open_questions(inventory, verified.certificates)}
    for certificate, status in zip(verified.certificates, verified.statuses, strict=False):
        if certificate in asked and status.status is not Status.GOOD:
            raise RevocationError(
                f"nothing says that {status.certificate} is not revoked",
                status=status.status.value,
                why="it names where its status is to be had, and the given evidence does not cover it",
                fix="give current evidence: --crl F or --ocsp-response F",
            )
