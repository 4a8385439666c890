"""Keys in a token (PKCS #11): found by their URI, handed out as cryptography key objects; the token signs.

Needs the extra ``chargepki[pkcs11]``. The module (the token's driver) and the PIN come from the configuration, never
from an argument. One module is used by one thread at a time: it is initialised without the promise to take more.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from chargepki.pki import der, files, keys
from chargepki.pki.errors import InputError, SignerError
from chargepki.pki.keys import PublicKey
from chargepki.pki.pkcs11_uri import TokenKeyUri, parse_pkcs11_uri
from chargepki.pki.signer import Signer

__all__ = ["Pkcs11KeyStore", "TokenEcKey", "TokenRsaKey", "load_library"]

_T = TypeVar("_T")
TokenObject: TypeAlias = Any
"""A session, token or key of `pkcs11`, which gives its objects their methods at run time."""
_Octets: TypeAlias = bytes | bytearray | memoryview
PinSource = Callable[[str], bytes]
"""Gives the PIN of the token of that label, when its URI names no file."""

_CURVES: Final[Mapping[bytes, ec.EllipticCurve]] = {
    der.oid("1.2.840.10045.3.1.7"): ec.SECP256R1(),
    der.oid("1.3.132.0.34"): ec.SECP384R1(),
    der.oid("1.3.132.0.35"): ec.SECP521R1(),
}
_BY_SIZE: Final[Mapping[int, hashes.HashAlgorithm]] = {
    found.digest_size: found for found in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}
_MAX_PIN_BYTES: Final = 256
# DigestInfo without the digest (RFC 8017 9.2, note 1).
_DIGEST_INFO: Final[Mapping[str, bytes]] = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class _TokenAbsent(SignerError):
    """Worth another look: many modules see only the tokens that were there when they were initialised."""


class Pkcs11KeyStore:
    """The keys of all tokens that one module reaches."""

    def __init__(self, module: Path | None, pin: PinSource, *, pin_file: Path | None = None) -> None:
        """Set up; nothing is loaded before the first key is opened.

        Args:
            module: the driver, a shared library; ``None`` where none is configured.
            pin_file: holds the PIN of a token whose URI names no file; before *pin* is asked.
        """
        self._pin_file = pin_file
        self._module = module
        self._pin = pin
        self._lock = threading.RLock()
        self._opened: dict[str, Signer] = {}
        self._sessions: dict[bytes, TokenObject] = {}
        self._refused: set[bytes] = set()
        self._process = os.getpid()
        self._is_stale = False

    def __repr__(self) -> str:
        return f"Pkcs11KeyStore({str(self._module)!r})"

    def open(self, uri: str) -> Signer:
        """Return the signer of *uri*; it signs until the token is gone, and after a fork as well.

        Raises:
            InputError: no ``pkcs11:`` URI.
            PolicyRefusal: the URI carries a PIN, or names a module.
            SignerError: no module, no such token or key, wrong PIN, or a key that cannot sign here.
        """
        wanted = parse_pkcs11_uri(uri)
        with self._lock:
            signer = self._opened.get(uri)
            if signer is None:
                public = self.use(wanted, lambda key: _public_key(key, uri))
                signer = Signer.of(uri, _adapter(self, wanted, public))
                _prove(signer)
                self._opened[uri] = signer
        return signer

    def use(self, wanted: TokenKeyUri, work: Callable[[TokenObject], _T]) -> _T:
        """Do *work* with the key; a session that was lost is opened again, once.

        Raises:
            SignerError: the token or its key cannot be used.
        """
        return self._do(wanted, lambda: work(self._find(wanted)))

    def holds(self, wanted: TokenKeyUri) -> bool:
        """Return whether the token has the key.

        Raises:
            SignerError: the token cannot be used.
        """
        p11 = load_library()

        def look() -> bool:
            try:
                self._find(wanted)
            except p11.NoSuchKey:
                return False
            return True

        return self._do(wanted, look)

    def change(self, wanted: TokenKeyUri, work: Callable[[TokenObject], None]) -> None:
        """Do *work* in a session that may write; it is not repeated, because it may have been done.

        Raises:
            SignerError: the token cannot be used, or has no room.
        """

        def in_session() -> TokenObject:
            self._begin_anew_if_need_be()
            # The login of one session holds for all of a process.
            return self._session(wanted).token.open(rw=True)

        session = self._do(wanted, in_session)
        try:
            self._do(wanted, lambda: work(session), again=False)
        finally:
            session.close()

    def _do(self, wanted: TokenKeyUri, work: Callable[[], _T], *, again: bool = True) -> _T:
        p11 = load_library()
        lost = (_TokenAbsent, *(getattr(p11, name) for name in _LOST)) if again else ()
        with self._lock:
            try:
                try:
                    return work()
                except lost:
                    self._restart()
                    return work()
            except (p11.PKCS11Error, RuntimeError, NotImplementedError, OSError) as exc:
                # Not only what this key's session remembers: a token that was away is seen by a fresh module alone.
                self._is_stale = type(exc).__name__ not in _REASONS
                _fail(wanted, exc)

    def _find(self, wanted: TokenKeyUri) -> TokenObject:
        p11 = load_library()
        self._begin_anew_if_need_be()
        return self._session(wanted).get_key(object_class=p11.ObjectClass.PRIVATE_KEY, label=wanted.label, id=wanted.id)

    def _begin_anew_if_need_be(self) -> None:
        if self._is_stale or self._process != os.getpid():
            # What a parent process opened is its own: in a child the module begins anew (PKCS #11 v2.40, 5.4).
            self._restart()

    def _load(self) -> Any:
        if self._module is None:
            raise SignerError(
                "no PKCS #11 module is configured",
                why="it is the driver through which a token is reached",
                fix="set CHARGEPKI_PKCS11_MODULE, or pkcs11_module in chargepki.toml, to its path",
            )
        if not self._module.is_file():
            raise SignerError(f"there is no PKCS #11 module {self._module}", fix="check CHARGEPKI_PKCS11_MODULE")
        return load_library().lib(str(self._module))

    def _restart(self) -> None:
        """Initialise the module again: tokens that were taken out or put in are seen only then."""
        self._sessions.clear()
        self._process = os.getpid()
        self._load().reinitialize()
        self._is_stale = False

    def _session(self, wanted: TokenKeyUri) -> TokenObject:
        p11 = load_library()
        fits = [
            token
            for token in self._load().get_tokens(token_label=wanted.token)
            if wanted.serial in (None, token.serial.decode("utf-8", "replace").strip())
            and wanted.manufacturer in (None, token.manufacturer_id)
            and wanted.model in (None, token.model)
            and p11.TokenFlag.TOKEN_INITIALIZED in token.flags
        ]
        if len(fits) != 1:
            what = "no token" if not fits else f"{len(fits)} tokens"
            raise (SignerError if fits else _TokenAbsent)(
                f"{what} fits {wanted.text}",
                why="a key is taken from one token, which must be there",
                fix="check that it is plugged in and reachable; p11tool --list-tokens shows what there is"
                if not fits
                else "add serial= to the URI",
            )
        token = fits[0]
        name = bytes(token.serial) + token.label.encode()
        session = self._sessions.get(name)
        if session is None:
            session = self._log_in(token, name, wanted)
            self._sessions[name] = session
        return session

    def _log_in(self, token: TokenObject, name: bytes, wanted: TokenKeyUri) -> TokenObject:
        p11 = load_library()
        if name in self._refused:
            # A token locks itself after a few wrong PINs: one try is all that a process gets.
            raise SignerError(f"the token {token.label} refused the PIN before", fix="correct the PIN, and start again")
        pin_file = wanted.pin_file or self._pin_file
        pin = _read_pin(pin_file) if pin_file is not None else self._pin(token.label)
        try:
            return token.open(user_pin=pin.decode())
        except (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange):
            self._refused.add(name)
            raise
        except p11.UserAlreadyLoggedIn:
            # A login holds for all sessions of a process; another one of this store's has done it.
            return token.open()


def _read_pin(path: Path) -> bytes:
    pin = files.read_private(path).removesuffix(b"\n").removesuffix(b"\r")
    if not pin or len(pin) > _MAX_PIN_BYTES:
        raise SignerError(f"{path} holds no PIN", fix="write the PIN into it, and nothing else")
    return pin


def load_library() -> Any:
    """Return python-pkcs11.

    Raises:
        SignerError: it is not installed.
    """
    try:
        import pkcs11
    except ImportError as exc:
        raise SignerError(
            "keys in tokens cannot be used: python-pkcs11 is not installed",
            why="it is needed for pkcs11: keys alone",
            fix="pip install 'chargepki[pkcs11]'",
        ) from exc
    return pkcs11


# After these it is worth one more try with a fresh module; nothing was signed.
_LOST: Final = (
    "SessionHandleInvalid",
    "SessionClosed",
    "KeyHandleInvalid",
    "ObjectHandleInvalid",
    "OperationNotInitialized",
    "UserNotLoggedIn",
    "DeviceRemoved",
    "DeviceError",
    "TokenNotPresent",
    "GeneralError",
    "FunctionFailed",
)
_REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "NoSuchKey": ("the token has no private key of that name", "check object= and id=; p11tool --list-privkeys"),
    "MultipleObjectsReturned": ("several keys have that name", "add id= to the URI"),
    "PinIncorrect": ("the PIN is wrong", "correct it before the token locks itself; nothing was tried twice"),
    "PinInvalid": ("the PIN is wrong", "correct it before the token locks itself; nothing was tried twice"),
    "PinLenRange": ("the PIN is too short or too long", "correct it before the token locks itself"),
    "PinLocked": ("the token has locked itself after wrong PINs", "unlock it with its security officer's PIN"),
    "PinExpired": ("the PIN has expired", "set a new one with the token's own tool"),
    "UserPinNotInitialized": ("the token has no user PIN yet", "initialise it with the token's own tool"),
    "DeviceMemory": ("the token is full", "remove keys that nothing needs any more with the token's own tool"),
    "TokenWriteProtected": ("the token is write-protected", "allow writing with the token's own tool"),
    "MechanismInvalid": ("the token does not offer the signature algorithm", "use another key or token"),
}


def _fail(wanted: TokenKeyUri, exc: BaseException) -> NoReturn:
    why, fix = _REASONS.get(type(exc).__name__, ("", "check that the token is there, with its own tool"))
    why = why or f"the token says {type(exc).__name__}{f': {exc}' if str(exc) else ''}"
    raise SignerError(f"the key {wanted.text} cannot be used", why=why, fix=fix) from exc


# ---------------------------------------------------------------- public halves


def _public_key(key: TokenObject, uri: str) -> PublicKey:
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


def _prove(signer: Signer) -> None:
    """Sign once and verify: a public key object that belongs to another key must not become a certificate."""
    message = secrets.token_bytes(32)
    algorithm = keys.signature_algorithm(signer.algorithm)
    if not keys.verify(signer.public_key, signer.sign(message), message, algorithm.der):
        raise SignerError(
            f"the public half that the token shows is not that of {signer.uri}",
            why="a signature made with the key does not verify",
            fix="give both halves an id of their own with the token's own tool",
        )


# ---------------------------------------------------------------- private keys that stay where they are


def _adapter(store: Pkcs11KeyStore, wanted: TokenKeyUri, public: PublicKey) -> TokenEcKey | TokenRsaKey:
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

    def __init__(self, store: Pkcs11KeyStore, wanted: TokenKeyUri, public: ec.EllipticCurvePublicKey) -> None:
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

    def __init__(self, store: Pkcs11KeyStore, wanted: TokenKeyUri, public: rsa.RSAPublicKey) -> None:
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
