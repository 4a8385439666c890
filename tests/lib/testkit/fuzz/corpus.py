"""What is mutated: the objects that ship with `cryptography-vectors`, and the vectors of our own linter."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from chargepki.pki.errors import InputError
from chargepki.pki.pem import pem_blocks
from fixtures.lint.generate import vectors

__all__ = ["FuzzKind", "Sample", "corpus"]

_MAX_BYTES = 1 << 20


class FuzzKind(StrEnum):
    """What a sample was before it was mutated."""

    CERTIFICATE = "certificate"
    CSR = "csr"
    CRL = "crl"
    OCSP_RESPONSE = "ocsp-response"
    PKCS7 = "pkcs7"
    PKCS8 = "pkcs8"
    PKCS12 = "pkcs12"


@dataclass(frozen=True, slots=True)
class Sample:
    """One object: its octets as they are stored, and its DER when it can be unwrapped."""

    kind: FuzzKind
    name: str
    data: bytes = field(repr=False)
    der: bytes = field(repr=False)


_FOLDERS = (
    ("x509/ocsp", FuzzKind.OCSP_RESPONSE),
    ("x509/requests", FuzzKind.CSR),
    ("x509/PKITS_data/certs", FuzzKind.CERTIFICATE),
    ("x509/PKITS_data/crls", FuzzKind.CRL),
    ("x509/PKITS_data/pkcs12", FuzzKind.PKCS12),
    ("x509", FuzzKind.CERTIFICATE),
    ("x509/custom", FuzzKind.CERTIFICATE),
    ("x509/ed25519", FuzzKind.CERTIFICATE),
    ("x509/ed448", FuzzKind.CERTIFICATE),
    ("pkcs7", FuzzKind.PKCS7),
    ("pkcs12", FuzzKind.PKCS12),
    ("asymmetric/PKCS8", FuzzKind.PKCS8),
    ("asymmetric/DER_Serialization", FuzzKind.PKCS8),
    ("asymmetric/PEM_Serialization", FuzzKind.PKCS8),
    ("asymmetric/Traditional_OpenSSL_Serialization", FuzzKind.PKCS8),
    ("asymmetric/EC", FuzzKind.PKCS8),
    ("asymmetric/Ed25519", FuzzKind.PKCS8),
    ("asymmetric/Ed448", FuzzKind.PKCS8),
    ("asymmetric/X25519", FuzzKind.PKCS8),
    ("asymmetric/X448", FuzzKind.PKCS8),
    ("asymmetric/MLDSA", FuzzKind.PKCS8),
)
_SUFFIXES = (".pem", ".der", ".crt", ".crl", ".p12", ".p7b")
_OWN = {
    "certificate": FuzzKind.CERTIFICATE,
    "csr": FuzzKind.CSR,
    "crl": FuzzKind.CRL,
    "ocsp-response": FuzzKind.OCSP_RESPONSE,
    "pkcs7": FuzzKind.PKCS7,
    "pkcs12": FuzzKind.PKCS12,
    "private-key": FuzzKind.PKCS8,
}


@cache
def corpus() -> tuple[Sample, ...]:
    """Return every sample, in an order that does not depend on the file system."""
    found: dict[tuple[FuzzKind, bytes], Sample] = {}
    for folder, kind in _FOLDERS:
        for entry in sorted((files("cryptography_vectors") / folder).iterdir(), key=lambda each: each.name):
            if entry.is_file() and entry.name.endswith(_SUFFIXES):
                sample = _read(entry, f"{folder}/{entry.name}", kind)
                found.setdefault((sample.kind, sample.data), sample)
    for vector in vectors():
        if vector.judges in _OWN:
            sample = _sample(vector.data, f"lint/{vector.id}", _OWN[vector.judges])
            found.setdefault((sample.kind, sample.data), sample)
    return tuple(found.values())


def _read(entry: Traversable, name: str, kind: FuzzKind) -> Sample:
    if kind is FuzzKind.CERTIFICATE and "crl" in entry.name.lower() and "PKITS" not in name:
        kind = FuzzKind.CRL
    return _sample(entry.read_bytes(), name, kind)


def _sample(data: bytes, name: str, kind: FuzzKind) -> Sample:
    der = data
    if b"-----BEGIN " in data:
        with contextlib.suppress(InputError):  # broken armour is a sample as well: it is mutated as text
            der = next((block.der for block in pem_blocks(data, max_bytes=_MAX_BYTES)), data)
    return Sample(kind, name, data, der)
