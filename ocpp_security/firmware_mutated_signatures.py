"""Signatures for the mutation pack: in encodings that a station must refuse, and odd ones that it must take."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

from chargepki.ocpp_security.firmware_lab import Lab
from chargepki.pki.keys import PrivateKey

__all__ = ["Digests", "bad_signatures", "good_signatures"]

_SHA256: Final = hashes.SHA256()
_MD5: Final = hashes.MD5()  # noqa: S303 - made for stations to refuse
_SHA1: Final = hashes.SHA1()  # noqa: S303 - made for stations to refuse
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ATTEMPTS: Final = 20_000
"""Chance that a signature with a leading zero octet is not found: (255/256)^20000."""


class Digests:
    """Digests of one image by several hashes, each made once; and signatures over them."""

    def __init__(self, image: Path | None, known: dict[str, bytes] | None = None) -> None:
        self._image, self._known = image, known or {}

    @classmethod
    def of(cls, sha256: bytes) -> Digests:
        """Return those of an image of which only this one is known."""
        return cls(None, {"sha256": sha256})

    def get(self, algorithm: hashes.HashAlgorithm) -> bytes:
        """Return the digest by *algorithm*."""
        if algorithm.name not in self._known:
            assert self._image is not None
            with self._image.open("rb") as stream:
                state = hashlib.new(algorithm.name, usedforsecurity=False)
                while chunk := stream.read(1 << 20):
                    state.update(chunk)
            self._known[algorithm.name] = state.digest()
        return self._known[algorithm.name]

    def sign(self, key: PrivateKey) -> bytes:
        """Sign as the standard asks, with a key of any kind."""
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return self.sign_ecdsa(key)
        if isinstance(key, rsa.RSAPrivateKey):
            return self.sign_pss(key)
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        return key.sign(self.get(_SHA256))

    def sign_ecdsa(self, key: ec.EllipticCurvePrivateKey, algorithm: hashes.HashAlgorithm = _SHA256) -> bytes:
        """Sign with ECDSA; DER."""
        return key.sign(self.get(algorithm), ec.ECDSA(utils.Prehashed(algorithm)))

    def sign_pss(
        self,
        key: rsa.RSAPrivateKey,
        *,
        salt: int = 32,
        algorithm: hashes.HashAlgorithm = _SHA256,
        mask: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """Sign with RSA-PSS."""
        pss = padding.PSS(padding.MGF1(mask or algorithm), salt)
        return key.sign(self.get(algorithm), pss, utils.Prehashed(algorithm))

    def sign_pkcs1(self, key: rsa.RSAPrivateKey, algorithm: hashes.HashAlgorithm = _SHA256) -> bytes:
        """Sign with RSASSA-PKCS1-v1_5."""
        return key.sign(self.get(algorithm), padding.PKCS1v15(), utils.Prehashed(algorithm))


def good_signatures(lab: Lab, digests: Digests) -> dict[str, tuple[bytes, str, str]]:
    """Return by case: a good signature, the certificate (PEM), and what careless verifiers stumble over."""
    r, s = decode_dss_signature(digests.sign_ecdsa(lab.ec_key))
    curve = ec.generate_private_key(ec.SECP384R1())
    leaf, rsa_leaf = lab.ecdsa.pem, lab.rsa.pem
    signed = digests.sign_ecdsa(lab.ec_key)
    longest = lab.rsa_key.key_size // 8 - 32 - 2
    return {
        "good-rsa-pss": (digests.sign_pss(lab.rsa_key), rsa_leaf, "RSA-PSS with the usual salt of 32 octets"),
        "good-high-s": (
            encode_dss_signature(r, max(s, _ORDER - s)), leaf,
            "s is above half the order: about half of all signatures are, and only Bitcoin minds",
        ),
        "good-low-s": (encode_dss_signature(r, min(s, _ORDER - s)), leaf, "s is below half the order"),
        "good-short-r": (
            _find(lambda: digests.sign_ecdsa(lab.ec_key), lambda found: decode_dss_signature(found)[0] < 1 << 247),
            leaf, "r has 31 octets, so that the DER is shorter than usual",
        ),
        "good-no-salt": (digests.sign_pss(lab.rsa_key, salt=0), rsa_leaf, "RSA-PSS without a salt"),
        "good-salt-20": (digests.sign_pss(lab.rsa_key, salt=20), rsa_leaf, "RSA-PSS with a salt of 20 octets"),
        "good-longest-salt": (
            digests.sign_pss(lab.rsa_key, salt=longest), rsa_leaf,
            f"RSA-PSS with a salt of {longest} octets, which is what openssl makes unless it is told otherwise",
        ),
        "good-p384": (
            digests.sign_ecdsa(curve), lab.leaf(curve).pem, "the key is on P-384, the hash is SHA-256 all the same",
        ),
        "good-code-signing": (
            signed, lab.leaf(lab.ec_key, usages=(ExtendedKeyUsageOID.CODE_SIGNING,)).pem,
            "the certificate has an ExtendedKeyUsage, which allows code signing",
        ),
        "good-crlf": (signed, leaf.replace("\n", "\r\n"), "the lines of the certificate end with CR LF"),
        "good-no-final-newline": (signed, leaf.rstrip("\n"), "the certificate's PEM does not end with a newline"),
    }  # fmt: skip


def _find(make: Callable[[], bytes], wanted: Callable[[bytes], bool]) -> bytes:
    for _ in range(_ATTEMPTS):
        found = make()
        if wanted(found):
            return found
    raise AssertionError("no such signature in 20,000")


def _signed(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, signed=True)


def _integer(content: bytes) -> bytes:
    return b"\x02" + bytes([len(content)]) + content


def _pair(first: bytes, second: bytes) -> bytes:
    return b"\x30" + bytes([len(first) + len(second)]) + first + second


def bad_signatures(lab: Lab, digests: Digests) -> dict[str, tuple[str, str, str, str]]:
    """Return by case: the text of the signature, the certificate (PEM), the rule broken, and why."""
    leaf, rsa_leaf = lab.ecdsa.pem, lab.rsa.pem
    mismatch = "signature-mismatch"
    ecdsa = {name: (made, leaf, rule, why) for name, (made, rule, why) in _bad_ecdsa(lab, digests).items()}
    good, pss = digests.sign_ecdsa(lab.ec_key), digests.sign_pss(lab.rsa_key)
    other = Digests.of(hashlib.sha256(b"another image").digest())
    modulus = lab.rsa_key.public_key().public_numbers().n
    found: dict[str, tuple[bytes, str, str, str]] = {
        **ecdsa,
        "signature-of-another-image": (other.sign_ecdsa(lab.ec_key), leaf, mismatch, "it signs another image"),
        "other-key-of-the-same-name": (
            digests.sign_ecdsa(lab.other_key), leaf, mismatch, "another key of the same name made it",
        ),
        "swapped-signature": (pss, leaf, "ecdsa-not-der", "the RSA signature was sent with the EC certificate"),
        "swapped-certificate": (good, rsa_leaf, "rsa-length", "the EC signature was sent with the RSA certificate"),
        "rsa-pkcs1-v15": (digests.sign_pkcs1(lab.rsa_key), rsa_leaf, "rsa-pkcs1-v15", "PKCS #1 v1.5, not PSS"),
        "rsa-pkcs1-md5": (
            digests.sign_pkcs1(lab.rsa_key, _MD5), rsa_leaf, "rsa-pkcs1-v15", "PKCS #1 v1.5 with MD5",
        ),
        "rsa-pkcs1-sha1": (
            digests.sign_pkcs1(lab.rsa_key, _SHA1), rsa_leaf, "rsa-pkcs1-v15", "PKCS #1 v1.5 with SHA-1",
        ),
        "rsa-pss-sha1": (
            digests.sign_pss(lab.rsa_key, algorithm=_SHA1, salt=20), rsa_leaf, mismatch, "PSS with SHA-1",
        ),
        "rsa-pss-mask-sha1": (
            digests.sign_pss(lab.rsa_key, mask=_SHA1), rsa_leaf, mismatch, "PSS with SHA-1 in its mask",
        ),
        "rsa-bit-flipped": (
            bytes([*pss[:100], pss[100] ^ 4, *pss[101:]]), rsa_leaf, mismatch, "one bit is changed",
        ),
        "rsa-shortened": (pss[:-1], rsa_leaf, "rsa-length", "its last octet is missing"),
        "rsa-padded": (b"\0" + pss, rsa_leaf, "rsa-length", "a zero octet was put before it"),
        "rsa-zero": (bytes(len(pss)), rsa_leaf, mismatch, "it is zero"),
        "rsa-one": (bytes(len(pss) - 1) + b"\1", rsa_leaf, mismatch, "it is one, which signs itself"),
        "rsa-modulus": (modulus.to_bytes(len(pss)), rsa_leaf, "rsa-range", "it is the modulus"),
    }  # fmt: skip
    texts = {name: (base64.b64encode(made).decode(), *rest) for name, (made, *rest) in found.items()}
    cases = {name: (text, pem, rule, why) for name, (text, pem, rule, why) in texts.items()}
    cases["signature-missing"] = ("", leaf, "signature-missing", "there is no signature")
    cases["signature-not-base64"] = (good.hex(":"), leaf, "signature-not-base64", "it is hex, not base64")
    return cases


def _bad_ecdsa(lab: Lab, digests: Digests) -> dict[str, tuple[bytes, str, str]]:
    good = digests.sign_ecdsa(lab.ec_key)
    r, s = decode_dss_signature(good)
    mismatch, der, out_of_range = "signature-mismatch", "ecdsa-not-der", "ecdsa-range"
    twice = Digests.of(hashlib.sha256(digests.get(_SHA256)).digest())
    return {
        "ecdsa-raw": (r.to_bytes(32) + s.to_bytes(32), "ecdsa-raw", "r and s stand there without DER"),
        "ecdsa-r-zero": (encode_dss_signature(0, s), out_of_range, "r is zero"),
        "ecdsa-s-zero": (encode_dss_signature(r, 0), out_of_range, "s is zero"),
        "ecdsa-all-zero": (encode_dss_signature(0, 0), out_of_range, "r and s are zero (CVE-2022-21449)"),
        "ecdsa-r-order": (encode_dss_signature(_ORDER, s), out_of_range, "r is the order of the curve"),
        "ecdsa-s-order": (encode_dss_signature(r, _ORDER), out_of_range, "s is the order of the curve"),
        "ecdsa-s-too-large": (encode_dss_signature(r, s + _ORDER), out_of_range, "the order was added to s"),
        "ecdsa-s-negative": (
            _pair(_integer(_signed(r)), _integer(_signed(-s))), out_of_range, "s is negative",
        ),
        "ecdsa-swapped": (encode_dss_signature(s, r), mismatch, "r and s are exchanged"),
        "ecdsa-padded": (_pair(_integer(b"\0" + _signed(r)), _integer(_signed(s))), der, "r has a superfluous zero"),
        "ecdsa-trailing": (good + b"\0", der, "a zero octet follows the DER"),
        "ecdsa-long-length": (b"\x30\x81" + good[1:], der, "the length is written in the long form"),
        "ecdsa-indefinite": (b"\x30\x80" + good[2:] + b"\0\0", der, "BER: the length is indefinite"),
        "ecdsa-truncated": (good[:-1], der, "its last octet is missing"),
        "ecdsa-bit-flipped": (encode_dss_signature(r, s ^ 2), mismatch, "one bit of s is changed"),
        "ecdsa-sha1": (digests.sign_ecdsa(lab.ec_key, _SHA1), mismatch, "the hash is SHA-1"),
        "ecdsa-sha384": (digests.sign_ecdsa(lab.ec_key, hashes.SHA384()), mismatch, "the hash is SHA-384"),
        "ecdsa-sha512": (digests.sign_ecdsa(lab.ec_key, hashes.SHA512()), mismatch, "the hash is SHA-512"),
        "ecdsa-hashed-twice": (twice.sign_ecdsa(lab.ec_key), mismatch, "the digest was hashed once more"),
    }  # fmt: skip
