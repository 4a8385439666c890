"""CertificateHashData, the name OCPP gives a certificate: compute it, read it, compare it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chargepki.pki import der, keys
from chargepki.pki.errors import InputError

__all__ = ["HASH_ALGORITHMS", "CertificateHashData", "hashed_parts"]

HASH_ALGORITHMS: Final = ("SHA256", "SHA384", "SHA512")
"""The values of OCPP's HashAlgorithmEnumType; the first is the one we use."""

_HEX_DIGITS: Final = {"SHA256": 64, "SHA384": 96, "SHA512": 128}
_HEX: Final = re.compile(r"[0-9A-Fa-f]+\Z", re.ASCII)
_MAX_SERIAL_DIGITS: Final = 128  # 40 on the wire; more is read so that padded or overlong serials can be told apart
_FIELDS: Final = ("hashAlgorithm", "issuerNameHash", "issuerKeyHash", "serialNumber")


@dataclass(frozen=True, slots=True, eq=False)
class CertificateHashData:
    """One certificate by its issuer's name and key hashes and its serial number (OCSP CertID semantics).

    The texts are kept as they came, because a station's own strings are to be echoed verbatim; two values are equal
    when they name the same certificate with the same hash, whatever the case or leading zeros.

    Clause: RFC 6960 4.1.1; OCPP 2.0.1 CertificateHashDataType.
    """

    hash_algorithm: str
    """``SHA256``, ``SHA384`` or ``SHA512``."""
    issuer_name_hash: str
    """Hex of the hash over the issuer's Name in DER, tag and length included."""
    issuer_key_hash: str
    """Hex of the hash over the value of the issuer's subjectPublicKey, without the octet of unused bits."""
    serial_number: str
    """Hex; ours is lower case without leading zeros, so possibly of odd length."""

    @classmethod
    def of(cls, certificate_der: bytes, issuer_der: bytes, algorithm: str = "SHA256") -> CertificateHashData:
        """Return the hash data of a certificate, from the octets found in it and in its issuer (itself for a root).

        Raises:
            InputError: not certificates, not SHA256, SHA384 or SHA512, a serial number that is not positive, or an
                issuer whose subject is not the certificate's issuer.
        """
        if algorithm not in HASH_ALGORITHMS:
            raise InputError(f"hash {algorithm!r} is not one of OCPP", fix=f"use one of {', '.join(HASH_ALGORITHMS)}")
        serial, issuer_name, _, _ = hashed_parts(certificate_der)
        _, _, issuer_subject, issuer_spki = hashed_parts(issuer_der)
        if issuer_subject != issuer_name:
            # Hashing over the wrong issuer gives a plausible value that no station will ever find.
            from chargepki.pki import names  # needed only when the octets differ

            if not names.same(issuer_subject, issuer_name):
                raise InputError(
                    "the issuer's subject is not the issuer of the certificate",
                    why=f"{names.text(issuer_subject)} is not {names.text(issuer_name)}",
                    fix="pass the certificate of the direct issuer",
                )
        if serial <= 0:
            raise InputError("the serial number is not positive", why="RFC 5280 4.1.2.2")
        return cls(
            hash_algorithm=algorithm,
            issuer_name_hash=hashlib.new(algorithm, issuer_name).hexdigest(),
            issuer_key_hash=hashlib.new(algorithm, keys.public_key_bits(issuer_spki)).hexdigest(),
            serial_number=f"{serial:x}",
        )

    @classmethod
    def from_wire(cls, mapping: Mapping[str, object]) -> CertificateHashData:
        """Return the value of an OCPP object with the four camelCase fields (others are passed over); texts are kept.

        Hex of any case is accepted, and serial numbers with leading zeros or odd length.

        Raises:
            InputError: a field is missing or not a text, or not hex of the length that the hash has.
        """
        if not set(_FIELDS) <= mapping.keys():
            missing = ", ".join(name for name in _FIELDS if name not in mapping)
            raise InputError(f"certificate hash data lacks {missing}")
        texts: dict[str, str] = {}
        for name in _FIELDS:
            value = mapping[name]
            if not isinstance(value, str):
                raise InputError(f"{name} is not a text")
            texts[name] = value
        algorithm = texts["hashAlgorithm"]
        if algorithm not in HASH_ALGORITHMS:
            raise InputError(f"hashAlgorithm {algorithm[:40]!r} is not one of {', '.join(HASH_ALGORITHMS)}")
        for name in ("issuerNameHash", "issuerKeyHash"):
            if len(texts[name]) != _HEX_DIGITS[algorithm] or not _HEX.match(texts[name]):
                raise InputError(
                    f"{name} is not {_HEX_DIGITS[algorithm]} hex digits", why=f"it is a hash by {algorithm}"
                )
        serial = texts["serialNumber"]
        if not _HEX.match(serial) or len(serial) > _MAX_SERIAL_DIGITS:
            raise InputError("serialNumber is not a hex number", why="expected digits 0-9 and a-f, without 0x")
        return cls(algorithm, texts["issuerNameHash"], texts["issuerKeyHash"], serial)

    def to_wire(self) -> dict[str, str]:
        """Return the OCPP object; values read by `from_wire` come back verbatim."""
        texts = (self.hash_algorithm, self.issuer_name_hash, self.issuer_key_hash, self.serial_number)
        return dict(zip(_FIELDS, texts, strict=True))

    @property
    def serial(self) -> int:
        """The serial number as a number."""
        return int(self.serial_number, 16)

    def normalised(self) -> CertificateHashData:
        """Return the same name as we would write it: lower case, serial number without leading zeros."""
        return CertificateHashData(*self._key())

    def matches(self, other: CertificateHashData) -> bool:
        """Return whether both name the same certificate by the same hash, whatever their spelling."""
        return self._key() == other._key()

    def _key(self) -> tuple[str, str, str, str]:
        return self.hash_algorithm, self.issuer_name_hash.lower(), self.issuer_key_hash.lower(), f"{self.serial:x}"

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, CertificateHashData) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


def hashed_parts(certificate_der: bytes) -> tuple[int, bytes, bytes, bytes]:
    """Return serial number, issuer, subject and SubjectPublicKeyInfo of a certificate, the latter three as found.

    Raises:
        InputError: the octets are no certificate.
    """
    outer = der.parse(certificate_der).children(der.SEQUENCE)
    fields = outer[0].children(der.SEQUENCE) if outer else ()
    if fields and fields[0].is_context(0):
        fields = fields[1:]
    if len(outer) != 3 or len(fields) < 6:
        raise InputError("not a certificate", why="the structure of RFC 5280 4.1 is missing")
    return fields[0].as_integer(), fields[2].raw, fields[4].raw, fields[5].raw
