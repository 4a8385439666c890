"""Keys in a token as cryptography key objects: the library's own builders take them, and the token signs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, Protocol, TypeAlias, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from chargepki.pki import der
from chargepki.pki.errors import InputError, SignerError
from chargepki.pki.keys import PublicKey
from chargepki.pki.pkcs11_uri import TokenKeyUri
from chargepki.pki.token_library import load_library

__all__ = ["TokenEcKey", "TokenObject", "TokenRsaKey", "adapter", "public_key"]

_T = TypeVar("_T")
TokenObject: TypeAlias = Any
"""A session, token or key of `pkcs11`, which gives its objects their methods at run time."""
_Octets: TypeAlias = bytes | bytearray | memoryview
_CURVES: Final[Mapping[bytes, ec.EllipticCurve]] = {
    der.oid("1.2.840.10045.3.1.7"): ec.SECP256R1(),
    der.oid("1.3.132.0.34"): ec.SECP384R1(),
    der.oid("1.3.132.0.35"): ec.SECP521R1(),
}
_BY_SIZE: Final[Mapping[int, hashes.HashAlgorithm]] = {
    found.digest_size: found for found in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}
# DigestInfo without the digest (RFC 8017 9.2, note 1).
_DIGEST_INFO: Final[Mapping[str, bytes]] = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class _Tokens(Protocol):
    """Does something with a key while its session lasts."""

    def use(self, wanted: TokenKeyUri, work: Callable[[TokenObject], _T]) -> _T:
        """Return what *work* makes of the key."""


def public_key(key: TokenObject, uri: str) -> PublicKey:
    """Return the public half of the private key *key* of a token, as the token shows it.

    Raises:
        SignerError: a kind of key that is not used here, or a token that does not show it.
    """
    p11 = load_library()
    attribute = p11.Attribute
    if key.key_type is p11.KeyType.RSA:
        numbers = (int.from_bytes(key[name]) for name in (attribute.PUBLIC_EXPONENT, attribute.MODULUS))
        return rsa.RSAPublicNumbers(*numbers).public_key()
    if key.key_type is not p11.KeyType.EC:
        raise SignerError(f"the key {uri} is of a kind that is not used here", fix="use RSA or a NIST curve")
    curve = _CURVES.get(bytes(key[attribute.EC_PARAMS]))
    if curve is None:
        raise SignerError(f"the curve of {uri} is not used here", fix="use secp256r1, secp384r1 or secp521r1")
    for holder in (*_companions(key), key):
        try:
            point = bytes(holder[attribute.EC_POINT])
        except p11.PKCS11Error:
            continue
        # The standard wraps the point into an OCTET STRING; some tokens do not.
        is_plain = len(point) == 1 + 2 * ((curve.key_size + 7) // 8)
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, point if is_plain else der.parse(point).content)
        except (ValueError, InputError):
            continue
    raise SignerError(
        f"the token does not tell the public half of {uri}",
        why="for a key on a curve it is kept in a public key object of its own",
        fix="import the public key under the same label and id with the token's own tool",
    )


def _companions(key: TokenObject) -> list[TokenObject]:
    p11 = load_library()
    by_id = {p11.Attribute.CLASS: p11.ObjectClass.PUBLIC_KEY, p11.Attribute.ID: key.id}
    by_label = {p11.Attribute.CLASS: p11.ObjectClass.PUBLIC_KEY, p11.Attribute.LABEL: key.label}
    wanted = ([by_id] if key.id else []) + ([by_label] if key.label else [])
    return [found for template in wanted for found in key.session.get_objects(template)]


def adapter(store: _Tokens, wanted: TokenKeyUri, public: PublicKey) -> TokenEcKey | TokenRsaKey:
    """Return the key object of a key whose public half is *public*."""
    if isinstance(public, rsa.RSAPublicKey):
        return TokenRsaKey(store, wanted, public)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return TokenEcKey(store, wanted, public)


def _digest(data: _Octets, algorithm: Any) -> tuple[bytes, hashes.HashAlgorithm]:
    """Return the digest of *data* and its hash; for ``Prehashed`` that is *data* itself."""
    if isinstance(algorithm, utils.Prehashed):
        return bytes(data), _BY_SIZE[algorithm.digest_size]
    state = hashes.Hash(algorithm)
    state.update(data)
    return state.finalize(), algorithm


class _Stays:
    """What a private key in a token does not do."""

    def private_numbers(self) -> NoReturn:
        """Refuse: the key does not leave its token."""
        raise UnsupportedAlgorithm("the key does not leave its token")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """Refuse: the key does not leave its token."""
        raise UnsupportedAlgorithm("the key does not leave its token")


class TokenEcKey(_Stays, ec.EllipticCurvePrivateKey):
    """A key on a NIST curve in a token."""

    def __init__(self, store: _Tokens, wanted: TokenKeyUri, public: ec.EllipticCurvePublicKey) -> None:
        self._store, self._wanted, self._public = store, wanted, public

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Bits."""
        return self._public.key_size

    def sign(
        self, data: bytes | bytearray | memoryview, signature_algorithm: ec.EllipticCurveSignatureAlgorithm
    ) -> bytes:
        """Return the DER of r and s; the digest is made here, and the token signs it."""
        p11 = load_library()
        digest, _ = _digest(data, signature_algorithm.algorithm)
        raw = self._store.use(self._wanted, lambda key: key.sign(digest, mechanism=p11.Mechanism.ECDSA))
        half = len(raw) // 2
        return utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Refuse: these keys sign."""
        raise UnsupportedAlgorithm("the key signs, and does nothing else")

    def __copy__(self) -> TokenEcKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> TokenEcKey:
        return self


class TokenRsaKey(_Stays, rsa.RSAPrivateKey):
    """An RSA key in a token."""

    def __init__(self, store: _Tokens, wanted: TokenKeyUri, public: rsa.RSAPublicKey) -> None:
        self._store, self._wanted, self._public = store, wanted, public

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public half."""
        return self._public

    @property
    def key_size(self) -> int:
        """Bits."""
        return self._public.key_size

    def sign(self, data: bytes, padding: padding.AsymmetricPadding, algorithm: Any) -> bytes:
        """Return the signature, as long as the modulus; the digest is made here, and the token pads and signs it."""
        digest, used = _digest(data, algorithm)
        return self._store.use(self._wanted, lambda key: _sign_rsa(key, digest, used, padding))

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> NoReturn:
        """Refuse: these keys sign."""
        raise UnsupportedAlgorithm("the key signs, and does nothing else")

    def __copy__(self) -> TokenRsaKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> TokenRsaKey:
        return self


def _sign_rsa(key: TokenObject, digest: bytes, used: hashes.HashAlgorithm, scheme: padding.AsymmetricPadding) -> bytes:
    p11 = load_library()
    if isinstance(scheme, padding.PSS):
        mechanism = getattr(p11.Mechanism, used.name.upper())
        mask = getattr(p11.MGF, used.name.upper())
        salt = scheme._salt_length  # the library tells it in no other way
        if not isinstance(salt, int):
            salt = used.digest_size
        return bytes(key.sign(digest, mechanism=p11.Mechanism.RSA_PKCS_PSS, mechanism_param=(mechanism, mask, salt)))
    if isinstance(scheme, padding.PKCS1v15):
        info = _DIGEST_INFO[used.name] + digest
        return bytes(key.sign(info, mechanism=p11.Mechanism.RSA_PKCS))
    raise SignerError("a token signs with RSA-PSS or PKCS #1 v1.5 alone")
