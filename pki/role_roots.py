"""The roots that are believed, by role: CAs of ours, and roots of others that somebody confirmed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chargepki.pki.chain import AnchorUse, ChainVerifier, TrustAnchor
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import RoleRootState
from chargepki.pki.inventory.records import CaState

__all__ = ["Believed", "Roots", "manufacturers_of", "role_anchors"]

_ROLES: Final = {
    "oem-root": AnchorUse.OEM,
    "v2g-root": AnchorUse.V2G,
    "mo-root": AnchorUse.MO,
    "emsp-root": AnchorUse.MO,
}
_CONTRACT_SUB_CAS: Final = frozenset({"mo-sub1", "mo-sub2", "emsp-sub1", "emsp-sub2"})
_OUR_STATES: Final = frozenset({CaState.ACTIVE, CaState.RETIRED})


def role_anchors(inventory: Inventory) -> tuple[TrustAnchor, ...]:
    """Return the roots that are believed, each with its role: ours, and those of others that somebody confirmed."""
    own = [
        TrustAnchor(ca.certificate_der, frozenset({_ROLES[role]}))
        for ca in inventory.list_cas()
        if ca.issuer is None
        and ca.certificate_der is not None
        and ca.state in _OUR_STATES
        and (role := ca.profile.rpartition("/")[2]) in _ROLES
    ]
    others = [
        TrustAnchor(root.der, frozenset({AnchorUse(root.use)}))
        for root in inventory.list_role_roots()
        if root.state is RoleRootState.TRUSTED
    ]
    return (*own, *others)


def manufacturers_of(inventory: Inventory, anchor: bytes) -> frozenset[str]:
    """Return whose vehicles a root may certify, by world manufacturer identifier; empty: anybody's."""
    found = inventory.find_role_root(hashlib.sha256(anchor).hexdigest())
    return frozenset(found.manufacturers.split()) if found is not None else frozenset()


def _contract_sub_cas(inventory: Inventory) -> tuple[bytes, ...]:
    return tuple(
        ca.certificate_der
        for ca in inventory.list_cas()
        if ca.certificate_der is not None
        and ca.state in _OUR_STATES
        and ca.profile.rpartition("/")[2] in _CONTRACT_SUB_CAS
    )


@dataclass(frozen=True, slots=True)
class Believed:
    """What is believed at one moment."""

    anchors: tuple[TrustAnchor, ...]
    sub_cas: tuple[bytes, ...]
    """DER of sub-CAs that are known beside what a peer sends; believed no more than their issuers are."""
    verifier: ChainVerifier


class Roots:
    """The believed roots as a verifier, made anew only when they have changed; for one thread at a time or many.

    Args:
        inventory: whose roots are believed.
        uses: of the inventory's roots, those that are for one of these; ``None``: all.
        anchors: believed beside those of the inventory.
        sub_cas: DER of sub-CAs that peers may leave out.
        with_contract_sub_cas: know our own sub-CAs of mobility operators as well.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        uses: frozenset[AnchorUse] | None = None,
        anchors: Sequence[TrustAnchor] = (),
        sub_cas: Sequence[bytes] = (),
        with_contract_sub_cas: bool = False,
    ) -> None:
        self._inventory, self._uses = inventory, uses
        self._anchors, self._sub_cas = tuple(anchors), tuple(sub_cas)
        self._with_sub_cas = with_contract_sub_cas
        self._known: Believed | None = None

    def now(self) -> Believed:
        """Return what is believed now."""
        found = role_anchors(self._inventory)
        if self._uses is not None:
            found = tuple(each for each in found if each.uses is not None and each.uses & self._uses)
        anchors = (*self._anchors, *found)
        sub_cas = (*self._sub_cas, *(_contract_sub_cas(self._inventory) if self._with_sub_cas else ()))
        known = self._known
        if known is None or (known.anchors, known.sub_cas) != (anchors, sub_cas):
            known = self._known = Believed(anchors, sub_cas, ChainVerifier(anchors, sub_cas))
        return known

    def verifier(self) -> ChainVerifier:
        """Return the verifier for the roots of now."""
        return self.now().verifier
