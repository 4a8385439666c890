"""The bits of KeyUsage, for profiles and for paths: whoever judges a path needs nothing else of a profile."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["KeyUsageBit"]


class KeyUsageBit(StrEnum):
    """RFC 5280 4.2.1.3 names; `bit` is the position in the BIT STRING."""

    DIGITAL_SIGNATURE = "digitalSignature"
    NON_REPUDIATION = "nonRepudiation"
    KEY_ENCIPHERMENT = "keyEncipherment"
    DATA_ENCIPHERMENT = "dataEncipherment"
    KEY_AGREEMENT = "keyAgreement"
    KEY_CERT_SIGN = "keyCertSign"
    CRL_SIGN = "cRLSign"
    ENCIPHER_ONLY = "encipherOnly"
    DECIPHER_ONLY = "decipherOnly"

    @property
    def bit(self) -> int:
        """Position in the KeyUsage BIT STRING, 0 for digitalSignature."""
        return list(type(self)).index(self)
