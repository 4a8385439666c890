"""Open private keys only so far as to know which certificate each fits; nothing of a key leaves this module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki import keys, private_keys
from chargepki.pki.errors import InputError, SignerError
from chargepki.pki.keys import PrivateKey
from chargepki.pki.pem import PemBlock, to_pem

__all__ = ["KeyRing", "RingKey"]

_MOST_OPENED: Final = 32
"""Encrypted keys that are tried: each may cost a second by design."""
_MAX_KEY_BYTES: Final = 64 << 10
_CLOSED: Final = "no passphrase that was given opens it"


@dataclass(frozen=True, slots=True)
class RingKey:
    """A private key of the heap, without the key."""

    name: str
    algorithm: str
    spki: bytes | None
    """DER of its public key; ``None`` while it is closed."""
    is_encrypted: bool
    closed: str = ""
    """Why the public key is not known."""


@dataclass(slots=True)
class KeyRing:
    """The private keys of a heap."""

    passphrases: Callable[[], Sequence[bytes]]
    keys: list[RingKey] = field(default_factory=list)
    _opened: int = 0

    def add(self, name: str, der: bytes, block: PemBlock | None) -> None:
        """Note the key in *der*, or in *block* when it comes from PEM."""
        if len(der) > _MAX_KEY_BYTES:
            self.keys.append(RingKey(name, "", None, False, f"{len(der)} bytes are too many for a key"))
            return
        old = block is not None and any(key == "Proc-Type" and "ENCRYPTED" in value for key, value in block.headers)
        if old or (block is not None and block.label.startswith("ENCRYPTED")) or _looks_encrypted(der):
            self._add_encrypted(name, der, block if old else None)
            return
        self._load(name, der, is_encrypted=False)

    def add_opened(self, name: str, pkcs8: bytes | None, closed: str) -> None:
        """Note a key that its store has opened, or not."""
        if pkcs8 is None:
            self.keys.append(RingKey(name, "", None, True, closed))
        else:
            self._load(name, pkcs8, is_encrypted=True)

    def _add_encrypted(self, name: str, der: bytes, old: PemBlock | None) -> None:
        candidates = self.passphrases()
        if not candidates or self._opened >= _MOST_OPENED:
            why = "it is encrypted; pass --passphrase-file" if not candidates else "too many encrypted keys to try"
            self.keys.append(RingKey(name, "", None, True, why))
            return
        self._opened += 1
        pem = to_pem("ENCRYPTED PRIVATE KEY", der) if old is None else _with_headers(old)
        for passphrase in candidates:
            try:
                opened = private_keys.decrypt_private_key(pem.encode("latin-1"), passphrase)
            except (SignerError, InputError):
                continue
            self._put(name, opened, is_encrypted=True)
            return
        self.keys.append(RingKey(name, "", None, True, _CLOSED))

    def _load(self, name: str, der: bytes, *, is_encrypted: bool) -> None:
        try:
            self._put(name, private_keys.load_private_key(der), is_encrypted=is_encrypted)
        except (InputError, SignerError) as error:
            closed = f"{error.what}{f' ({error.why})' if error.why else ''}"
            self.keys.append(RingKey(name, "", None, is_encrypted, closed))

    def _put(self, name: str, key: PrivateKey, *, is_encrypted: bool) -> None:
        algorithm = str(keys.algorithm_of(key.public_key()))
        self.keys.append(RingKey(name, algorithm, keys.spki_der(key), is_encrypted))


def _looks_encrypted(der: bytes) -> bool:
    """EncryptedPrivateKeyInfo is a SEQUENCE and an OCTET STRING (RFC 5958 3)."""
    from chargepki.pki.der import DerError, parse

    try:
        return [part.tag for part in parse(der).children(0x30)] == [0x30, 0x04]
    except DerError:
        return False


def _with_headers(block: PemBlock) -> str:
    first, rest = to_pem(block.label, block.der).split("\n", 1)
    headers = "".join(f"{name}: {value}\n" for name, value in block.headers)
    return f"{first}\n{headers}\n{rest}"
