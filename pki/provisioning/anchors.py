"""The chains that a vehicle can verify, by the V2G roots that its request names, over cross-certificates too.

A vehicle discards a response whose provisioning service does not chain to a V2G root that it has (ISO 15118-2 V2G2-891,
-20 V2G20-1077); so what it could not believe is refused before anything is issued. Contract certificates are believed
by charging stations, whose roots nobody knows here: their chain leads to a root of the list where one can, and is the
usual one otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from cryptography import x509

from chargepki.pki import names
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import AnchorUse, PathRefusal, Purpose, verify_chain
from chargepki.pki.errors import NotFound
from chargepki.pki.exi import MessageSet
from chargepki.pki.inventory import Inventory
from chargepki.pki.provisioning.cps import CpsSigner
from chargepki.pki.provisioning.request import RootName
from chargepki.pki.questions import AuthorityCertificate, list_authorities
from chargepki.pki.questions.authorities import Provenance
from chargepki.pki.questions.paths import PathFinder
from chargepki.pki.role_roots import role_anchors

__all__ = ["NoCommonRoot", "choose_signer", "contract_paths", "roots_held"]

_LONGEST: Final = {MessageSet.ISO15118_2: 3, MessageSet.ISO15118_20: 4}
"""Certificates below the root: V2G2-009; V2G20-1003 and 1005, one of the four a cross-certificate."""
_SHOWN: Final = 5


class NoCommonRoot(NotFound):
    """A vehicle that has none of the V2G roots to which the provisioning service leads."""

    code = "no-common-root"


def roots_held(inventory: Inventory, listed: Sequence[RootName]) -> tuple[bytes, ...]:
    """Return the V2G roots (DER) that are believed here and that the vehicle names.

    The serial number decides, since a name is written in many ways; where two of our roots have the same, the one whose
    names the vehicle's text contains.
    """
    believed = [each.der for each in role_anchors(inventory) if each.uses is not None and AnchorUse.V2G in each.uses]
    numbered = [(der, x509.load_der_x509_certificate(der)) for der in dict.fromkeys(believed)]
    held: dict[bytes, None] = {}
    for name in listed:
        same = [(der, root) for der, root in numbered if root.serial_number == name.serial_number]
        named = [der for der, root in same if _is_named(root, name.issuer)]
        held |= dict.fromkeys(named or [der for der, _ in same])
    return tuple(held)


def _is_named(root: x509.Certificate, text: str) -> bool:
    return all(str(each.value) in text for each in root.issuer)


def choose_signer(
    inventory: Inventory,
    signers: Sequence[CpsSigner],
    listed: Sequence[RootName],
    held: Sequence[bytes],
    now: datetime,
) -> CpsSigner:
    """Return the signer that the vehicle believes, with the chain by which it does.

    Args:
        signers: of the vehicle's standard, at least one.
        held: of `roots_held`.

    Raises:
        NoCommonRoot: it would believe none of them.
    """
    for signer in signers:
        if signer.root in held:
            return signer
    for signer in signers:
        for path in _finder(inventory, signer.chain[1:]).paths_above(signer.chain[1], held, now):
            chain = (signer.chain[0], *path.certificates)
            if len(chain) <= _LONGEST[signer.message_set] and _is_cps(chain, path.anchor, now):
                return replace(signer, chain=chain, root=path.anchor)
    ours = "; ".join(dict.fromkeys(names.text(view_certificate(each.root).subject) for each in signers))
    theirs = "; ".join(f"{each.issuer[:80]} ({each.serial_number:x})" for each in listed[:_SHOWN])
    raise NoCommonRoot(
        "the vehicle has none of the V2G roots to which the provisioning service leads",
        why=f"it names {theirs or 'none'}; the service stands below {ours}, and a vehicle discards what it cannot "
        "verify (V2G2-891, V2G20-1077)",
        fix="use a provisioning service below one of its roots (--cps-cert), or have one of those roots certify ours: "
        "chargepki ca cross-sign; a root of somebody else is made known by: chargepki vehicle add-root FILE --use v2g",
    )


def contract_paths(
    inventory: Inventory, usual: tuple[bytes, ...], message_set: MessageSet, held: Sequence[bytes], now: datetime
) -> list[tuple[bytes, ...]]:
    """Return the chains above a contract certificate (DER, its CA first, without root), the best first.

    Args:
        usual: the one by issuers, which is always the last.
    """
    paths = _finder(inventory, usual).paths_above(usual[0], held, now) if held else ()
    found = [path.certificates for path in paths if len(path.certificates) < _LONGEST[message_set]]
    return [*dict.fromkeys((*found, usual))]


def _is_cps(chain: Sequence[bytes], anchor: bytes, now: datetime) -> bool:
    try:
        verify_chain(chain[0], chain[1:], [anchor], purpose=Purpose.CPS, at=now)
    except PathRefusal:
        return False
    return True


def _finder(inventory: Inventory, chain: Sequence[bytes]) -> PathFinder:
    """Return what finds paths among the CAs on record and those of *chain*, which may be somebody else's."""
    known = list_authorities(inventory)
    seen = {each.sha256 for each in known}
    others = [
        AuthorityCertificate(digest, Provenance.IMPORTED, der, digest, None, view_certificate(der))
        for der in chain
        if (digest := hashlib.sha256(der).hexdigest()) not in seen
    ]
    return PathFinder((*known, *others))
