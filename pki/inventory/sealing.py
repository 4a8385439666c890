"""Seal secret parameters of operations, so that the database alone never reveals a station's new password."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chargepki.pki import files
from chargepki.pki.errors import Conflict, SignerError

__all__ = ["SealingKey"]

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"


class SealingKey:
    """An AES-256-GCM key of the workspace; its file (mode 0600) holds the 32 octets in hex."""

    __slots__ = ("_cipher", "_derivation")

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise SignerError("a sealing key has 32 octets")
        self._cipher = AESGCM(key)
        self._derivation = hmac.digest(key, b"chargepki derivation", "sha256")

    def __repr__(self) -> str:
        return "SealingKey(…)"

    @classmethod
    def load_or_create(cls, path: Path) -> SealingKey:
        """Read the key from its file, or make key and file if there is none; safe when two processes do it at once.

        Raises:
            SignerError: others may read the file, or it holds no key.
            UnavailableError: it cannot be read or written.
        """
        if not path.exists():
            made = secrets.token_bytes(_KEY_BYTES)
            try:
                files.write_new(path, made.hex().encode() + b"\n", mode=0o600)
            except Conflict:
                return cls._load(path)
            return cls(made)
        return cls._load(path)

    @classmethod
    def _load(cls, path: Path) -> SealingKey:
        try:
            return cls(bytes.fromhex(files.read_private(path).decode("ascii").strip()))
        except (ValueError, SignerError) as exc:
            if isinstance(exc, SignerError) and "32 octets" not in exc.what:
                raise
            raise SignerError(f"{path} holds no sealing key", fix="restore it from the backup") from exc

    def derive(self, context: str) -> bytes:
        """Return 32 octets that only holders of the key can compute, the same for the same *context*."""
        return hmac.digest(self._derivation, context.encode(), "sha256")

    def seal(self, secret: bytes, context: str) -> bytes:
        """Encrypt *secret* for *context* (the operation's id): it opens under the same context only."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, _VERSION + context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Decrypt what `seal` made.

        Raises:
            SignerError: another key, another context, or changed octets.
        """
        nonce, box = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return self._cipher.decrypt(nonce, box, _VERSION + context.encode())
        except (InvalidTag, ValueError) as exc:
            raise SignerError(
                "a sealed secret cannot be opened",
                why="it was sealed under another key or for something else, or it was changed",
                fix="run in the workspace that made the operation, copy its sealing.key, or create the operation again",
            ) from exc
