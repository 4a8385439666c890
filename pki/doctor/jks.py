"""Take certificates, chains and encrypted keys out of a Java key store (JKS, JCEKS), which no kept library reads.

The formats are the JDK's own (``sun.security.provider.JavaKeyStore``, ``com.sun.crypto.provider.JceKeyStore``):
certificates lie open in them; a digest over the whole with the passphrase in front guards against accidents. JCEKS has
secret keys too, as serialised Java objects, which are stepped over.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki.der import DerError, Tlv, parse
from chargepki.pki.doctor.java_objects import skip_object
from chargepki.pki.errors import InputError

__all__ = ["JksKey", "JksStore", "is_java_key_store", "read_jks"]

_JKS: Final = 0xFEEDFEED
_JCEKS: Final = 0xCECECECE
_MOST_ENTRIES: Final = 10_000
_SUN_PROTECTION: Final = "1.3.6.1.4.1.42.2.17.1.1"
_DIGEST: Final = 20
_MAX_SEALED: Final = 64 << 10
_MOST_OPENED: Final = 100
"""Keys of a store that are tried; of the others only the chains are read."""


@dataclass(frozen=True, slots=True)
class JksKey:
    """A private key of the store and its chain."""

    alias: str
    chain: tuple[bytes, ...]
    """Certificates (DER) as the store has them, leaf first as a rule."""
    pkcs8: bytes | None = field(default=None, repr=False)
    """DER, when a passphrase opened it."""


@dataclass(frozen=True, slots=True)
class JksStore:
    """What lies in the store."""

    keys: tuple[JksKey, ...]
    trusted: tuple[tuple[str, bytes], ...]
    """Alias and certificate (DER)."""
    closed: str
    """Why a key that is not opened is not."""

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """Every certificate (DER), chains first."""
        return (*(der for key in self.keys for der in key.chain), *(der for _, der in self.trusted))


def is_java_key_store(data: bytes) -> bool:
    """Whether *data* begins like a JKS or JCEKS file (a modern store of Java's is PKCS#12)."""
    return len(data) >= 12 and int.from_bytes(data[:4], "big") in (_JKS, _JCEKS)


def read_jks(data: bytes, passphrases: Sequence[bytes] = ()) -> JksStore:
    """Read a JKS or JCEKS file; keys are opened with *passphrases* (UTF-8).

    Those of JCEKS stay closed: they lie under a cipher of Java's own (PBEWithMD5AndTripleDES).

    Raises:
        InputError: it is cut off, or of an unknown version.
    """
    reader = _Reader(data)
    has_secrets = reader.number(4) == _JCEKS
    version, count = reader.number(4), reader.number(4)
    if version not in (1, 2) or count > _MOST_ENTRIES:
        raise InputError(f"not a JKS file: version {version}, {count} entries", fix="check that the file is whole")
    keys: list[JksKey] = []
    trusted: list[tuple[str, bytes]] = []
    for _ in range(count):
        tag, alias = reader.number(4), reader.text()
        reader.take(8)  # when it was made
        if tag == 1:
            sealed = reader.take(reader.number(4))
            length = reader.number(4)
            if length > _MOST_ENTRIES:
                raise InputError(f"not a JKS file: a chain of {length}", fix="check that the file is whole")
            chain = tuple([reader.certificate(version) for _ in range(length)])
            tried = passphrases if len(keys) < _MOST_OPENED else ()
            keys.append(JksKey(alias, chain, None if has_secrets else _open(sealed, tried)))
        elif tag == 2:
            trusted.append((alias, reader.certificate(version)))
        elif tag == 3 and has_secrets:
            skip_object(reader.take)
        else:
            raise InputError(f"not a JKS file: an entry of kind {tag}", fix="check that the file is whole")
    closed = (
        "JCEKS seals keys with a cipher of Java's own: keytool -importkeystore -deststoretype pkcs12 opens it"
        if has_secrets
        else "no passphrase that was given opens it"
    )
    return JksStore(tuple(keys), tuple(trusted), closed)


class _Reader:
    """Takes fields from the front; never beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next *size* octets."""
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise InputError("the Java key store is cut off", fix="fetch it again, whole")
        self._at += size
        return piece

    def number(self, octets: int) -> int:
        """Return a whole number, most significant octet first."""
        return int.from_bytes(self.take(octets), "big")

    def text(self) -> str:
        """Return a string with its length in front."""
        return self.take(self.number(2)).decode("utf-8", "backslashreplace")

    def certificate(self, version: int) -> bytes:
        """Return a certificate (DER), whose type stands before it since version 2."""
        if version == 2:
            self.text()
        return self.take(self.number(4))


def _open(sealed: bytes, passphrases: Sequence[bytes]) -> bytes | None:
    """Return the PKCS#8 (DER) under Java's own key protection, or ``None`` when no passphrase opens it."""
    try:
        parts = parse(sealed).children(0x30)
        if len(parts) != 2 or not _is_sun(parts[0]):
            return None
        content = parts[1].as_octets()
    except DerError:
        return None
    if not 2 * _DIGEST < len(content) < _MAX_SEALED:
        return None
    salt, body, check = content[:_DIGEST], content[_DIGEST:-_DIGEST], content[-_DIGEST:]
    for passphrase in passphrases:
        secret = passphrase.decode("utf-8", "replace").encode("utf-16-be")
        stream, block = bytearray(), salt
        while len(stream) < len(body):
            block = hashlib.sha1(secret + block, usedforsecurity=False).digest()
            stream += block
        plain = bytes(one ^ other for one, other in zip(body, stream, strict=False))
        if hmac.compare_digest(hashlib.sha1(secret + plain, usedforsecurity=False).digest(), check):
            return plain
    return None


def _is_sun(algorithm: Tlv) -> bool:
    parts = algorithm.children(0x30)
    return bool(parts) and parts[0].as_oid() == _SUN_PROTECTION
