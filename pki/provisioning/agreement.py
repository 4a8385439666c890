"""The key of a provisioning certificate that a contract key is wrapped for, and the algorithm that contracts have then.

On a NIST curve it is the certificate's own. An Ed448 key cannot agree on a secret, so such a certificate has a second
key, for X448 (V2G20-2534); no source that was seen says in which extension. X.509's subjectAltPublicKeyInfo is read.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x448
from cryptography.hazmat.primitives.serialization import load_der_public_key

from chargepki.pki import oids
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.exi import MessageSet
from chargepki.pki.keys import KeyAlgorithm

__all__ = ["Recipient", "algorithm_of", "find_agreement_key", "recipient_of", "standard_of_key"]

Recipient = ec.EllipticCurvePublicKey | x448.X448PublicKey
_CURVES: Final = {
    "secp256r1": (KeyAlgorithm.SECP256R1, MessageSet.ISO15118_2),
    "secp521r1": (KeyAlgorithm.SECP521R1, MessageSet.ISO15118_20),
}


def algorithm_of(recipient: Recipient) -> KeyAlgorithm:
    """Return what contracts for this recipient have: the curve of its provisioning certificate (V2G20-2709).

    Raises:
        PolicyRefusal: a curve of no standard.
    """
    if isinstance(recipient, x448.X448PublicKey):
        return KeyAlgorithm.ED448
    if recipient.curve.name not in _CURVES:
        raise PolicyRefusal(f"no contract has a key on {recipient.curve.name}", why="V2G2-007; V2G20-2674, 2319")
    return _CURVES[recipient.curve.name][0]


def standard_of_key(algorithm: KeyAlgorithm) -> MessageSet | None:
    """Return the standard whose contracts have keys of *algorithm*, if any."""
    if algorithm is KeyAlgorithm.ED448:
        return MessageSet.ISO15118_20
    return next((each for known, each in _CURVES.values() if known is algorithm), None)


def find_agreement_key(leaf: bytes) -> x448.X448PublicKey | None:
    """Return the key for X448 in a certificate (DER), if there is one that can be read."""
    extension = view_certificate(leaf).extension(oids.SUBJECT_ALT_PUBLIC_KEY_INFO)
    if extension is None:
        return None
    try:
        key = load_der_public_key(extension.value)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, x448.X448PublicKey) else None


def recipient_of(leaf: bytes) -> Recipient:
    """Return what a contract key is wrapped for.

    Raises:
        PolicyRefusal: the certificate has no key that could agree on a secret.
    """
    key = x509.load_der_x509_certificate(leaf).public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key
    second = find_agreement_key(leaf) if isinstance(key, ed448.Ed448PublicKey) else None
    if second is None:
        raise PolicyRefusal(
            "no contract can be wrapped for a provisioning certificate with an Ed448 key alone",
            why="V2G20-2534: Ed448 signs; the key agreement needs a second key, for X448, and the certificate has none "
            f"in its extension {oids.SUBJECT_ALT_PUBLIC_KEY_INFO}",
            fix="ask with the provisioning certificate on secp521r1 (V2G20-2708)",
        )
    return second
