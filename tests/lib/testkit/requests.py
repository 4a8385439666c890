"""Certification requests and keys made with `cryptography` alone, so that our own reader is not its own witness."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki.keys import KeyAlgorithm, PrivateKey, generate_private_key
from chargepki.pki.post_quantum import ML_DSA_PRIVATE_TYPES

_HASH_THEMSELVES = (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey, *ML_DSA_PRIVATE_TYPES)
__all__ = ["EVEREST_EXTENSIONS", "key_of", "make_csr", "usage"]


@cache
def key_of(algorithm: KeyAlgorithm, nth: int = 0) -> PrivateKey:
    """Return the *nth* key of *algorithm* of this test run; RSA keys take seconds to make."""
    return generate_private_key(algorithm)


def usage(*bits: str) -> x509.KeyUsage:
    """Return a KeyUsage with the given bits (cryptography's names) set."""
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in bits for name in names})


EVEREST_EXTENSIONS: tuple[tuple[x509.ExtensionType, bool], ...] = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (usage("digital_signature", "key_agreement"), False),
)
"""What EVerest's CSR generator puts into every request, DC=CPO in the subject aside."""


def make_csr(
    subject: x509.Name,
    key: PrivateKey | None = None,
    *,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """Return a signed request (DER) for *subject*; P-256 unless *key* is given."""
    key = key or key_of(KeyAlgorithm.SECP256R1)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    algorithm = None if isinstance(key, _HASH_THEMSELVES) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)
