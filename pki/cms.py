"""CMS for keys that a server made: SignedData around the key, EnvelopedData around that, for one recipient.

Clause: RFC 5652 5 and 6, RFC 5753 3.1 (elliptic-curve recipients), RFC 3560 (RSAES-OAEP), RFC 5958 4 (key packages).
`cryptography` writes EnvelopedData for RSA recipients only, and SignedData over plain data only.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, keywrap, padding
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.pki import der
from chargepki.pki.errors import InputError
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, algorithm_of, sign, signature_algorithm

__all__ = ["build_enveloped", "build_signed_key_package"]

_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"  # RFC 5652 5.1
_ENVELOPED_DATA: Final = "1.2.840.113549.1.7.3"  # RFC 5652 6.1
_KEY_PACKAGE: Final = "2.16.840.1.101.2.1.2.78.5"  # RFC 5958 2
_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"  # RFC 5652 11.1
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"  # RFC 5652 11.2
_SHA256: Final = "2.16.840.1.101.3.4.2.1"  # RFC 5754 2.2
_AES_256_CBC: Final = "2.16.840.1.101.3.4.1.42"  # RFC 3565 4.1
_AES_256_WRAP: Final = "2.16.840.1.101.3.4.1.45"  # RFC 3565 2.3.2
_ECDH_SHA256_KDF: Final = "1.3.132.1.11.1"  # RFC 5753 7.1.4, dhSinglePass-stdDH-sha256kdf-scheme
_RSAES_OAEP: Final = "1.2.840.113549.1.1.7"  # RFC 4055 4.1
_MGF1: Final = "1.2.840.113549.1.1.8"  # RFC 4055 2.2
_KEY_BYTES: Final = 32
# The digest of the attributes is that of the signature: verifiers take one for the other (RFC 5754 3, RFC 8419 3.1).
_DIGESTS: Final[dict[KeyAlgorithm, tuple[str, hashes.HashAlgorithm]]] = {
    KeyAlgorithm.SECP256R1: (_SHA256, hashes.SHA256()),
    KeyAlgorithm.SECP384R1: ("2.16.840.1.101.3.4.2.2", hashes.SHA384()),
    KeyAlgorithm.SECP521R1: ("2.16.840.1.101.3.4.2.3", hashes.SHA512()),
    KeyAlgorithm.ED25519: ("2.16.840.1.101.3.4.2.3", hashes.SHA512()),
    KeyAlgorithm.RSA2048: (_SHA256, hashes.SHA256()),
    KeyAlgorithm.RSA3072: (_SHA256, hashes.SHA256()),
    KeyAlgorithm.RSA4096: (_SHA256, hashes.SHA256()),
}


def build_signed_key_package(pkcs8_der: bytes, signer: PrivateKey, signer_certificate_der: bytes) -> bytes:
    """Return the DER SignedData (without ContentInfo) over a key package with one key (RFC 5958 2).

    Args:
        pkcs8_der: PrivateKeyInfo of the key.
        signer: whoever made the key; for RSA the signature is RSASSA-PSS.

    Raises:
        InputError: the signer's key is Ed448, whose CMS form needs SHAKE256 of 64 octets (RFC 8419 3.1).
    """
    package = der.sequence(pkcs8_der)
    known = _DIGESTS.get(algorithm_of(signer))
    if known is None:
        raise InputError("an Ed448 key signs no CMS message here", fix="give the server an EC or RSA certificate")
    digest_oid, hash_algorithm = known
    digest = hashes.Hash(hash_algorithm)
    digest.update(package)
    attributes = [
        der.sequence(der.oid(_CONTENT_TYPE), der.set_of(der.oid(_KEY_PACKAGE))),
        der.sequence(der.oid(_MESSAGE_DIGEST), der.set_of(der.octet_string(digest.finalize()))),
    ]
    signed = der.set_of(*attributes)
    digest_algorithm = der.sequence(der.oid(digest_oid))
    signer_info = der.sequence(
        der.integer(1),
        _issuer_and_serial(x509.load_der_x509_certificate(signer_certificate_der)),
        digest_algorithm,
        # Signed as a SET, sent under an implicit tag (RFC 5652 5.4).
        b"\xa0" + signed[1:],
        signature_algorithm(algorithm_of(signer)).der,
        der.octet_string(sign(signer, signed)),
    )
    return der.sequence(
        der.integer(3),
        der.set_of(digest_algorithm),
        der.sequence(der.oid(_KEY_PACKAGE), der.explicit(0, der.octet_string(package))),
        der.implicit(0, signer_certificate_der, constructed=True),
        der.set_of(signer_info),
    )


def build_enveloped(signed_data: bytes, recipient_certificate_der: bytes) -> bytes:
    """Return the DER ContentInfo of an EnvelopedData that only the recipient's private key opens.

    Args:
        signed_data: what `build_signed_key_package` made.

    Raises:
        InputError: the recipient's key can neither agree on keys nor decrypt (Ed25519, Ed448).
    """
    recipient = x509.load_der_x509_certificate(recipient_certificate_der)
    key, vector = secrets.token_bytes(_KEY_BYTES), secrets.token_bytes(16)
    public = recipient.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        version, info = 2, _agreed(public, recipient, key)
    elif isinstance(public, rsa.RSAPublicKey):
        version, info = 0, _transported(public, recipient, key)
    else:
        raise InputError(
            "the client certificate's key cannot receive an encrypted key",
            why="RFC 7030 4.4.2 needs key agreement or key transport; EdDSA keys only sign",
            fix="use a client certificate with an EC or RSA key",
        )
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    encrypted = encryptor.update(padder.update(signed_data) + padder.finalize()) + encryptor.finalize()
    content = der.sequence(
        der.oid(_SIGNED_DATA),
        der.sequence(der.oid(_AES_256_CBC), der.octet_string(vector)),
        der.implicit(0, encrypted, constructed=False),
    )
    enveloped = der.sequence(der.integer(version), der.set_of(info), content)
    return der.sequence(der.oid(_ENVELOPED_DATA), der.explicit(0, enveloped))


def _agreed(public: ec.EllipticCurvePublicKey, recipient: x509.Certificate, key: bytes) -> bytes:
    """Return the KeyAgreeRecipientInfo of ephemeral-static ECDH (RFC 5753 3.1.1)."""
    ephemeral = ec.generate_private_key(public.curve)
    wrap = der.sequence(der.oid(_AES_256_WRAP))
    shared_info = der.sequence(wrap, der.explicit(2, der.octet_string((_KEY_BYTES * 8).to_bytes(4, "big"))))
    secret = ephemeral.exchange(ec.ECDH(), public)
    wrapping = X963KDF(hashes.SHA256(), _KEY_BYTES, shared_info).derive(secret)
    wrapped = keywrap.aes_key_wrap(wrapping, key)
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    # The parameters of id-ecPublicKey are left out: they are those of the recipient's key (RFC 5753 3.1.1).
    originator = der.sequence(der.oid("1.2.840.10045.2.1")), der.bit_string(point)
    info = (
        der.integer(3)
        + der.explicit(0, der.implicit(1, b"".join(originator), constructed=True))
        + der.sequence(der.oid(_ECDH_SHA256_KDF), wrap)
        + der.sequence(der.sequence(_issuer_and_serial(recipient), der.octet_string(wrapped)))
    )
    return der.implicit(1, info, constructed=True)


def _transported(public: rsa.RSAPublicKey, recipient: x509.Certificate, key: bytes) -> bytes:
    """Return the KeyTransRecipientInfo under RSAES-OAEP with SHA-256 (RFC 3560)."""
    sha256 = der.sequence(der.oid(_SHA256), der.null())
    parameters = der.sequence(der.explicit(0, sha256), der.explicit(1, der.sequence(der.oid(_MGF1), sha256)))
    encrypted = public.encrypt(key, OAEP(MGF1(hashes.SHA256()), hashes.SHA256(), None))
    return der.sequence(
        der.integer(0),
        _issuer_and_serial(recipient),
        der.sequence(der.oid(_RSAES_OAEP), parameters),
        der.octet_string(encrypted),
    )


def _issuer_and_serial(certificate: x509.Certificate) -> bytes:
    return der.sequence(certificate.issuer.public_bytes(), der.integer(certificate.serial_number))
