"""The log key: it signs the heads of the audit log, and lives outside the database, in a file or in a token.

Its file `audit.key` (mode 0600) holds either the private key itself (PKCS #8, Ed25519), or the `pkcs11:` URI of a key
in a token and its public half, by which the log is verified where the token is not at hand.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from chargepki.pki import files
from chargepki.pki.errors import Conflict, InputError, SignerError, UnavailableError

__all__ = ["AuditKey", "AuditPublicKey", "LogSigner", "LogTokens", "TokenAuditKey", "next_key_path"]

_ED25519_BYTES: Final = 32
_SCHEME: Final = b"pkcs11:"


class LogSigner(Protocol):
    """A key in a token, opened."""

    @property
    def spki_der(self) -> bytes:
        """The DER of its SubjectPublicKeyInfo."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature over *data*: ECDSA with SHA-256 for a key on P-256."""


class LogTokens(Protocol):
    """Reaches keys in tokens."""

    def open(self, uri: str) -> LogSigner:
        """Return the key of a ``pkcs11:`` URI; SignerError when it cannot be used."""


@dataclass(frozen=True, slots=True)
class AuditPublicKey:
    """The public half of a log key; verification trusts the ones it is given, never one found in the database."""

    raw: bytes
    """32 octets (RFC 8032), or the DER of the SubjectPublicKeyInfo of a key on P-256."""

    @property
    def key_id(self) -> str:
        """SHA-256 of `raw`, lower-case hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @classmethod
    def parse(cls, pem: str | bytes) -> AuditPublicKey:
        """Read a PEM ``PUBLIC KEY``.

        Raises:
            InputError: anything else, or a key of another algorithm.
        """
        try:
            key = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
        except (ValueError, TypeError) as exc:
            raise InputError("the public log key is not a PEM public key") from exc
        if isinstance(key, Ed25519PublicKey):
            return cls(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InputError("the public log key is neither an Ed25519 key nor one on P-256")
        return cls(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @classmethod
    def from_base64(cls, text: str) -> AuditPublicKey:
        """Read what `to_base64` wrote.

        Raises:
            InputError: as `parse`.
        """
        return cls.parse(f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n".encode("utf-8", "replace"))

    def to_base64(self) -> str:
        """Return the DER of the SubjectPublicKeyInfo in base64, on one line."""
        return base64.b64encode(self._key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()

    def to_pem(self) -> str:
        """Return the key as a PEM ``PUBLIC KEY``."""
        return self._key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether *signature* over *message* was made with this key."""
        key = self._key()
        try:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, message)
            else:
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def _key(self) -> Ed25519PublicKey | ec.EllipticCurvePublicKey:
        if len(self.raw) == _ED25519_BYTES:
            return Ed25519PublicKey.from_public_bytes(self.raw)
        key = load_der_public_key(self.raw)
        assert isinstance(key, ec.EllipticCurvePublicKey), "`parse` and a token's key know no other"
        return key


class AuditKey:
    """The private log key in its file, apart from the database whose log it signs."""

    __slots__ = ("_home", "_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._home: tuple[Path, LogTokens | None] | None = None
        self._private = private
        self.public = AuditPublicKey(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key_id[:16]})"

    @property
    def key_id(self) -> str:
        """The id of the public key."""
        return self.public.key_id

    @property
    def uri(self) -> str | None:
        """Where the private key is, if that is a token."""
        return None

    @classmethod
    def generate(cls) -> AuditKey:
        """Make a new key."""
        return AuditKey(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, tokens: LogTokens | None = None) -> AuditKey:
        """Read the key from its file.

        Args:
            tokens: reaches a key in a token, which is opened when something is to be signed; who only verifies needs
                none.

        Raises:
            SignerError: others may read the file, or it holds no log key.
            UnavailableError: it cannot be read.
        """
        found = cls._of_file(path, files.read_private(path), tokens)
        found._home = (path, tokens)
        return found

    @classmethod
    def _of_file(cls, path: Path, data: bytes, tokens: LogTokens | None) -> AuditKey:
        if data.startswith(_SCHEME):
            uri, _, pem = data.partition(b"\n")
            try:
                return TokenAuditKey(uri.decode(), AuditPublicKey.parse(pem), tokens)
            except (InputError, UnicodeDecodeError) as exc:
                raise _damaged(path) from exc
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as exc:
            raise _damaged(path) from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise SignerError(f"{path} does not hold an Ed25519 key", fix="restore the log key from the backup")
        return AuditKey(key)

    def find_successor(self, key_id: str) -> AuditKey | None:
        """Return the key of that id that has taken this one's place in its file since, or is about to.

        So a process that runs on while the log key is changed goes on with the new one.
        """
        if self._home is None:
            return None
        path, tokens = self._home
        for each in (path, next_key_path(path)):
            # A file that cannot be read has no successor in it; what is wrong with it is told to whoever opens it.
            with contextlib.suppress(SignerError, UnavailableError):
                found = AuditKey.load(each, tokens)
                if found.key_id == key_id:
                    found._home = self._home
                    return found
        return None

    @classmethod
    def load_or_create(cls, path: Path, tokens: LogTokens | None = None) -> AuditKey:
        """Read the key from its file, or make key and file (mode 0600) if there is none; safe when two do it at once.

        Raises:
            SignerError: others may read the file, or it holds no log key.
            UnavailableError: it cannot be read or written.
        """
        if not path.exists():
            made = cls.generate()
            try:
                made.store(path)
            except Conflict:
                return cls.load(path, tokens)
            return made
        return cls.load(path, tokens)

    def store(self, path: Path) -> None:
        """Write the file of this key, durably.

        Raises:
            Conflict: there is such a file already.
            UnavailableError: it cannot be written.
        """
        files.write_new(path, self._to_file(), mode=0o600)

    def take_place(self, path: Path) -> None:
        """Put this key, which waits beside it, in the place of the one in the file *path*; may be interrupted.

        Raises:
            UnavailableError: it cannot be written.
        """
        files.write_durable(path, self._to_file(), mode=0o600)
        files.remove_durable(next_key_path(path))

    def _to_file(self) -> bytes:
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def prepare(self) -> None:
        """Make sure that the key can sign, before anybody waits for it.

        Raises:
            SignerError: it is in a token that cannot be used, or is not the key that it was.
        """

    def sign(self, message: bytes) -> bytes:
        """Return the signature: Ed25519 (64 octets), or the DER of ECDSA with SHA-256.

        Raises:
            SignerError: as `prepare`.
        """
        return self._private.sign(message)


class TokenAuditKey(AuditKey):
    """A log key in a token; opened when it is first used."""

    __slots__ = ("_signer", "_tokens", "_uri")

    def __init__(self, uri: str, public: AuditPublicKey, tokens: LogTokens | None) -> None:
        self._home = None
        self._uri = uri
        self.public = public
        self._tokens = tokens
        self._signer: LogSigner | None = None

    @property
    def uri(self) -> str:
        """The ``pkcs11:`` URI of the key."""
        return self._uri

    def _to_file(self) -> bytes:
        return f"{self._uri}\n{self.public.to_pem()}".encode()

    def prepare(self) -> None:
        """Open the key, and see that it is the one that signed the log so far.

        Raises:
            SignerError: its token cannot be used, or has another key under that name.
        """
        if self._signer is None:
            if self._tokens is None:
                raise SignerError(f"the log key is in a token: {self._uri}", why="no token is reached from here")
            found = self._tokens.open(self._uri)
            if found.spki_der != self.public.raw:
                raise SignerError(
                    f"{self._uri} is not the log key",
                    why="the token has another key of that name than the one that signed the log",
                    fix="plug in the right token, or restore its key from the token's own backup",
                )
            self._signer = found

    def sign(self, message: bytes) -> bytes:
        """Return the DER of the ECDSA signature, made in the token.

        Raises:
            SignerError: as `prepare`, or the token was lost since.
        """
        self.prepare()
        assert self._signer is not None, "it was prepared"
        return self._signer.sign(message)


def next_key_path(path: Path) -> Path:
    """Return the file in which a new log key waits until the log names it."""
    return path.with_name(f"{path.name}.next")


def _damaged(path: Path) -> SignerError:
    return SignerError(f"{path} holds no private log key", fix="restore it from the backup")
