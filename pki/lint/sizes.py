"""How large a certificate is, or will be once it is signed."""

from __future__ import annotations

from typing import Final

from chargepki.pki import oids
from chargepki.pki.lint.view import CertificateView
from chargepki.pki.pem import pem_characters
from chargepki.pki.post_quantum import ML_DSA_SIGNATURE_BYTES

__all__ = ["expected_pem_size", "expected_size"]

# Largest DER form of an ECDSA signature: two INTEGERs with a sign octet each, inside a SEQUENCE.
_LARGEST_SIGNATURE: Final = {
    oids.ECDSA_WITH_SHA256: 72,
    oids.ECDSA_WITH_SHA384: 104,
    oids.ECDSA_WITH_SHA512: 139,
    oids.ED25519: 64,
    oids.ED448: 114,
    **ML_DSA_SIGNATURE_BYTES,
}
_RSA_4096: Final = 512


def expected_size(view: CertificateView) -> int:
    """Return the length of the DER in bytes; for to-be-signed bytes the length with the largest possible signature.

    ECDSA signatures vary by a few bytes, so a limit must hold for the longest one before the key signs.
    """
    if view.der is not None:
        return len(view.der)
    signature = _LARGEST_SIGNATURE.get(view.signature_algorithm_oid, _RSA_4096)
    content = len(view.tbs) + len(view.signature_algorithm) + _element(signature + 1)
    return _element(content)


def _element(content: int) -> int:
    """Length of an element with *content* octets."""
    return content + (2 if content < 0x80 else 3 if content < 0x100 else 4)


def expected_pem_size(view: CertificateView) -> int:
    """Return the length in characters of the PEM of what `expected_size` measures."""
    return pem_characters(expected_size(view))
