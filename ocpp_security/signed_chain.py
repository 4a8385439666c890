"""The chain that a station gets with CertificateSigned: leaf first, no root, within its limit."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from chargepki.ocpp_security.sign_certificate import spki_of
from chargepki.ocpp_security.trust_store import is_signed_by
from chargepki.pki.errors import InputError
from chargepki.pki.pem import to_pem

__all__ = ["chain_to_send"]


def chain_to_send(chain: Sequence[bytes], spki_der: bytes, max_characters: int) -> str:
    """Return PEM text of *chain* (DER, leaf first) without its root.

    The root is the station's to have already. It is known by its signature: a sub-CA, or a new root that the old one
    signed, may have the name of its issuer.

    Args:
        spki_der: of the CSR; the leaf has to be for its key.
        max_characters: CertificateSignedMaxChainSize of 1.6, MaxCertificateChainSize of 2.x.

    Raises:
        InputError: it is for another key, or longer than the station takes.

    Clause: M03 to M06 remarks; A02.FR.16.
    """
    if not chain or spki_of(x509.load_der_x509_certificate(chain[0])) != spki_der:
        raise InputError("the certificate is not for the public key of the CSR")
    pem = "".join(to_pem("CERTIFICATE", der) for der in chain if not is_signed_by(der, der))
    if len(pem) > max_characters:
        raise InputError(f"the chain has {len(pem)} characters, the station takes {max_characters} (A02.FR.16)")
    return pem
