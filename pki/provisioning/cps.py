"""The certificate provisioning service: whose signature vehicles believe (ISO 15118-2 V2G2-891; -20 V2G20-1077)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki import keys, names
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.chain import AnchorUse, Purpose, TrustAnchor, verify_chain
from chargepki.pki.errors import InputError, PolicyRefusal, StateError
from chargepki.pki.exi import MessageSet
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.role_roots import role_anchors

__all__ = ["CpsSigner", "CpsSource", "FixedCps", "IssuedCps", "standard_of"]

_ALGORITHMS: Final = {
    MessageSet.ISO15118_2: KeyAlgorithm.SECP256R1,
    MessageSet.ISO15118_20: KeyAlgorithm.SECP521R1,
}
_CURVES: Final = {"secp256r1": MessageSet.ISO15118_2, "secp521r1": MessageSet.ISO15118_20}


@dataclass(frozen=True, slots=True)
class CpsSigner:
    """A leaf of the provisioning service with its key.

    Attributes:
        chain: DER, leaf first, without the root.
        root: DER of the V2G root that it leads to.
    """

    message_set: MessageSet
    key: ec.EllipticCurvePrivateKey
    chain: tuple[bytes, ...]
    root: bytes


class CpsSource(Protocol):
    """Where the signer of the moment comes from."""

    @property
    def message_set(self) -> MessageSet:
        """The standard whose responses it signs."""
        ...

    def signer(self) -> CpsSigner:
        """Return the signer; valid now.

        Raises:
            ChargePkiError: there is none, or no vehicle would believe it.
        """
        ...


def standard_of(profile: str) -> MessageSet:
    """Return the message set that certificates of a profile belong to.

    Raises:
        PolicyRefusal: none; say an OCPP profile.
    """
    standard = profile.partition("/")[0].removesuffix("-a1")
    if standard not in (MessageSet.ISO15118_2.value, MessageSet.ISO15118_20.value):
        raise PolicyRefusal(
            f"{profile} is no profile of ISO 15118", fix="name a CA of the hierarchies iso15118-2 or iso15118-20"
        )
    return MessageSet(standard)


class FixedCps:
    """A leaf and its key that were made elsewhere, say by the operator of a V2G root.

    Raises:
        ChainError: it does not lead to a V2G root that is believed, or is none of a provisioning service (DC=CPS).
        InputError: key and certificate do not fit together, or are on no curve of ISO 15118.
    """

    def __init__(self, authority: Authority, chain: Sequence[bytes], key: keys.PrivateKey) -> None:
        self._authority, self._chain = authority, tuple(chain)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
            raise InputError(
                "the key of the provisioning service is on no curve of ISO 15118",
                fix="secp256r1 for -2, secp521r1 for -20",
            )
        public = x509.load_der_x509_certificate(self._chain[0]).public_key()
        if public != key.public_key():
            raise InputError("the key of the provisioning service is not that of its certificate")
        self._key, self._message_set = key, _CURVES[key.curve.name]
        self.signer()

    @property
    def message_set(self) -> MessageSet:
        """The standard whose responses it signs."""
        return self._message_set

    def signer(self) -> CpsSigner:
        """Return the signer, its chain verified now."""
        return _verified(self._authority, self._message_set, self._key, self._chain)


class IssuedCps:
    """A leaf of our own sub-CA; its key is made here, lives in memory alone, and is replaced long before its end.

    Args:
        ca: name of a CA of a profile ``…/cps-sub2``.
        name: CN of the leaf.

    Raises:
        PolicyRefusal: the CA is no sub-CA of a provisioning service.
    """

    def __init__(self, authority: Authority, ca: str, *, name: str = "chargepki CPS") -> None:
        self._authority, self._ca, self._name = authority, ca, name
        record = authority.inventory.get_ca(ca)
        if not record.profile.endswith("/cps-sub2"):
            raise PolicyRefusal(
                f"CA {ca} has the profile {record.profile}",
                why="vehicles believe provisioning services below a CPS sub-CA 2 alone (V2G2-891)",
                fix="name a CA of a profile …/cps-sub2",
            )
        self._profile = record.profile.removesuffix("-sub2")
        self._message_set = standard_of(record.profile)
        self._held: tuple[CpsSigner, str, datetime] | None = None
        self._lock = threading.Lock()

    @property
    def message_set(self) -> MessageSet:
        """The standard whose responses it signs."""
        return self._message_set

    def signer(self) -> CpsSigner:
        """Return the signer; a new one where there is none, two thirds of its life are over, or it is revoked."""
        with self._lock:
            now = self._authority.now()
            if self._held is not None:
                signer, certificate, renew_at = self._held
                record = self._authority.inventory.get_certificate(certificate)
                if now < renew_at and record.state is CertificateState.ISSUED:
                    return signer
            self._held = self._issue(now)
            return self._held[0]

    def _issue(self, now: datetime) -> tuple[CpsSigner, str, datetime]:
        key = keys.generate_private_key(_ALGORITHMS[self._message_set])
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        issuer = self._authority.inventory.get_ca(self._ca)
        organization = names.get(issuer.subject_der, "O")
        subject = [("CN", self._name), *([("O", organization)] if organization else [])]
        defaults = {"O": organization} if organization else {}
        issued = self._authority.issue(
            IssueOrder(
                self._ca, self._profile, spki=keys.spki_der(key), subject=subject, subject_defaults=defaults, again=True
            )
        )
        signer = _verified(self._authority, self._message_set, key, issued.chain)
        return signer, issued.record.id, now + (issued.record.not_after - now) * 2 / 3


def _verified(
    authority: Authority, message_set: MessageSet, key: ec.EllipticCurvePrivateKey, chain: tuple[bytes, ...]
) -> CpsSigner:
    """Return the signer once its chain leads to a V2G root, as vehicles demand."""
    anchors: list[TrustAnchor] = [
        each for each in role_anchors(authority.inventory) if each.uses is not None and AnchorUse.V2G in each.uses
    ]
    if not anchors:
        raise StateError(
            "there is no V2G root to which the provisioning service could chain",
            why="vehicles believe it below a V2G root alone (V2G2-891)",
            fix="create a hierarchy (chargepki ca create-hierarchy), or: chargepki vehicle add-root FILE --use v2g",
        )
    verified = verify_chain(chain[0], chain[1:], anchors, purpose=Purpose.CPS, at=authority.now())
    return CpsSigner(message_set, key, verified.certificates[:-1], verified.anchor)
