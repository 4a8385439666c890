"""Rules about files of PEM blocks, and about OCPP's certificate hash data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chargepki.pki.lint.engine import Problem, Registry, Verdict
from chargepki.pki.pem import PemBlock

__all__ = ["FILES", "HASH_DATA", "FileContext", "HashDataContext"]

_CERTIFICATES: Final = frozenset({"CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"})


@dataclass(frozen=True, slots=True)
class FileContext:
    """The PEM blocks of one file."""

    blocks: Sequence[PemBlock]


FILES: Final[Registry[FileContext]] = Registry("file")


@FILES.rule(
    "e_private_key_in_bundle",
    "key management practice",
    "no unencrypted private key next to certificates",
    hint="move the key to a file that only its owner can read; where this file spread, make a new key",
)
def private_key_in_bundle(context: FileContext) -> Verdict:
    """Such a file is what people mail when they are asked for the chain."""
    if not any(block.label in _CERTIFICATES for block in context.blocks):
        return None
    return [
        Problem("an unencrypted private key lies next to certificates", f"PEM block {number} ({block.label})")
        for number, block in enumerate(context.blocks, start=1)
        if block.label.endswith("PRIVATE KEY") and not _is_encrypted(block)
    ]


def _is_encrypted(block: PemBlock) -> bool:
    """PKCS#8 says so in its label, the older forms in a header."""
    return block.label.startswith("ENCRYPTED") or any(
        name == "Proc-Type" and "ENCRYPTED" in value for name, value in block.headers
    )


@dataclass(frozen=True, slots=True)
class HashDataContext:
    """One CertificateHashDataType or OCSPRequestDataType as it is written."""

    value: Mapping[str, object]


HASH_DATA: Final[Registry[HashDataContext]] = Registry("hash-data")

_DIGITS: Final = {"SHA256": 64, "SHA384": 96, "SHA512": 128}
_HEX: Final = re.compile(r"[0-9A-Fa-f]+\Z", re.ASCII)


@HASH_DATA.rule(
    "e_ocpp_hash_format",
    "OCPP 2.0.1 CertificateHashDataType; field reports (P-12)",
    "hash data is hex: SHA-2 hashes, and a serial number without leading zeros",
    hint="write hex, not base64, and the serial number in hex, not decimal",
)
def hash_format(context: HashDataContext) -> Verdict:
    """Stations compare the texts; base64 and decimal serial numbers were seen in the field."""
    value = context.value
    problems = []
    algorithm = value.get("hashAlgorithm")
    if not isinstance(algorithm, str) or algorithm not in _DIGITS:
        problems.append(Problem(f"hashAlgorithm is {str(algorithm)[:40]!r}", "hashAlgorithm"))
    digits = _DIGITS.get(str(algorithm))
    for name in ("issuerNameHash", "issuerKeyHash"):
        text = value.get(name)
        if not isinstance(text, str) or not _HEX.match(text):
            problems.append(Problem(f"{name} is not hex", name))
        elif digits is not None and len(text) != digits:
            problems.append(Problem(f"{name} has {len(text)} hex digits, {algorithm} has {digits}", name))
    serial = value.get("serialNumber")
    if not isinstance(serial, str) or not _HEX.match(serial):
        problems.append(Problem("serialNumber is not hex", "serialNumber"))
    elif serial.startswith("0"):
        problems.append(Problem(f"serialNumber {serial[:60]} has leading zeros", "serialNumber"))
    elif len(serial) > 40:
        problems.append(Problem(f"serialNumber has {len(serial)} digits, the field holds 40", "serialNumber"))
    return problems
