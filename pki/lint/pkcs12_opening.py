"""Open the encrypted parts of PKCS#12 files, within a budget of work: only to read certificates, never a key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from chargepki.pki import oids
from chargepki.pki.der import Tlv
from chargepki.pki.errors import printable_number
from chargepki.pki.lint.rc2 import decrypt_cbc as decrypt_rc2

__all__ = ["Budget", "CannotOpen", "check_mac", "decrypt"]

_MOST_ROUNDS: Final = 3_000_000
"""Of PBKDF2; about two seconds."""
_MAX_SCRYPT_BYTES: Final = 256 << 20
_MAX_SALT_BYTES: Final = 1024
_MAX_RC2_BYTES: Final = 256 << 10
_ARC: Final = "1.2.840.113549.1.12.1."
# Scheme of PKCS#12 (RFC 7292 C): cipher, octets of the key, bits of it that count.
_SCHEMES: Final = {
    f"{_ARC}3": ("3des", 24, 192),
    f"{_ARC}4": ("3des", 16, 128),
    f"{_ARC}5": ("rc2", 16, 128),
    f"{_ARC}6": ("rc2", 5, 40),
}
_HASHES: Final = {
    "1.3.14.3.2.26": "sha1",
    oids.SHA256: "sha256",
    oids.SHA384: "sha384",
    oids.SHA512: "sha512",
}
_PRFS: Final = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_CIPHERS: Final = {
    "2.16.840.1.101.3.4.1.2": ("aes", 16),
    "2.16.840.1.101.3.4.1.22": ("aes", 24),
    oids.AES256_CBC: ("aes", 32),
    "1.2.840.113549.3.7": ("3des", 24),
}
_PBMAC1: Final = "1.2.840.113549.1.5.14"
_WRONG: Final = "no passphrase that was given opens it"


class CannotOpen(Exception):
    """Why a part stays closed; the text is for the report."""


@dataclass(slots=True)
class Budget:
    """Rounds of hashing that a file may still cost, all its parts and all passphrases together."""

    rounds: int = _MOST_ROUNDS

    def spend(self, rounds: int) -> None:
        """Take *rounds*. Raises `CannotOpen` when so many are not left."""
        if rounds < 1:
            raise CannotOpen(f"it demands {printable_number(rounds)} rounds of hashing")
        if rounds > self.rounds:
            raise CannotOpen(f"it demands more rounds of hashing than are spent on a file ({_MOST_ROUNDS})")
        self.rounds -= rounds


def check_mac(mac: Tlv, content: bytes, candidates: Sequence[bytes | None], budget: Budget) -> bytes | None:
    """Return the first of *candidates* under which the integrity code over *content* verifies.

    Raises:
        CannotOpen: there is none, or the code is of an unknown kind or too costly.
        DerError: it is malformed.

    Clause: RFC 7292 4 and B.4; RFC 9579 (PBMAC1).
    """
    parts = mac.children(0x30)
    if len(parts) not in (2, 3):
        raise mac.fail("wrong-count", f"a MacData has two or three parts, this has {len(parts)}")
    digest_info = parts[0].children(0x30)
    if len(digest_info) != 2:
        raise parts[0].fail("wrong-count", "a DigestInfo has two parts")
    algorithm, wanted = digest_info[0].children(0x30), digest_info[1].as_octets()
    kind = algorithm[0].as_oid() if algorithm else ""
    rounds = parts[2].as_integer() if len(parts) == 3 else 1
    for candidate in candidates:
        if kind == _PBMAC1 and len(algorithm) == 2:
            function, scheme = _pair(algorithm[1])
            name = _PRFS.get(scheme.children(0x30)[0].as_oid() if scheme.children(0x30) else "")
            key = _pbes2_key(function, candidate, 32, budget)
        else:
            name = _HASHES.get(kind)
            if name is None:
                raise CannotOpen("its integrity code is of a kind that is not read")
            key = _pkcs12_key(name, candidate, parts[1].as_octets(), 3, rounds, hashlib.new(name).digest_size, budget)
        if name is None:
            raise CannotOpen("its integrity code is of a kind that is not read")
        if hmac.compare_digest(hmac.digest(key, content, name), wanted):
            return candidate
    raise CannotOpen(_WRONG)


def decrypt(algorithm: Tlv, sealed: bytes, passphrase: bytes | None, budget: Budget) -> bytes | None:
    """Return what *sealed* holds, or ``None`` when the passphrase is wrong as far as the padding tells.

    Raises:
        CannotOpen: the scheme is not read, or too costly.
        DerError: its parameters are malformed.
    """
    scheme, parameters = _pair(algorithm)
    name = scheme.as_oid()
    if name in _SCHEMES:
        cipher, size, bits = _SCHEMES[name]
        salt, rounds = _pair(parameters)
        arguments = (passphrase, salt.as_octets())
        key = _pkcs12_key("sha1", *arguments, 1, rounds.as_integer(), size, budget)
        vector = _pkcs12_key("sha1", *arguments, 2, rounds.as_integer(), 8, budget)
        return _decrypted(cipher, key + key[:8] if size == 16 and cipher == "3des" else key, vector, sealed, bits)
    if name != oids.PBES2:
        raise CannotOpen("it is encrypted in a way that is not read")
    derivation, encryption = _pair(parameters)
    fields = encryption.children(0x30)
    found = _CIPHERS.get(fields[0].as_oid()) if len(fields) == 2 else None
    if found is None:
        raise CannotOpen("it is encrypted with a cipher that is not read")
    cipher, size = found
    key = _pbes2_key(derivation, passphrase, size, budget)
    return _decrypted(cipher, key, fields[1].as_octets(), sealed, size * 8)


def _pair(element: Tlv) -> tuple[Tlv, Tlv]:
    parts = element.children(0x30)
    if len(parts) != 2:
        raise element.fail("wrong-count", f"{len(parts)} elements where two are expected")
    return parts[0], parts[1]


def _pbes2_key(derivation: Tlv, passphrase: bytes | None, size: int, budget: Budget) -> bytes:
    function, parameters = _pair(derivation)
    fields = parameters.children(0x30)
    name, secret = function.as_oid(), passphrase or b""
    if len(fields) < 2:
        raise parameters.fail("wrong-count", "a salt and a cost are expected")
    salt = _salt(fields[0])
    if name == oids.PBKDF2:
        prf = "sha1"
        if fields[-1].tag == 0x30:
            named = fields[-1].children(0x30)
            prf = _PRFS.get(named[0].as_oid() if named else "", "")
        if not prf:
            raise CannotOpen("its passphrase is hashed in a way that is not read")
        rounds = fields[1].as_integer()
        budget.spend(rounds * -(-size // hashlib.new(prf).digest_size))
        return hashlib.pbkdf2_hmac(prf, secret, salt, rounds, size)
    if name == oids.SCRYPT and len(fields) >= 4:
        n, r, p = (field.as_integer() for field in fields[1:4])
        if n < 2 or n & (n - 1) or r < 1 or p < 1 or 128 * n * r * p > _MAX_SCRYPT_BYTES:
            raise CannotOpen("it demands more memory than is spent on a file")
        budget.spend(n * r * p)
        return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=2 * _MAX_SCRYPT_BYTES, dklen=size)
    raise CannotOpen("its passphrase is hashed in a way that is not read")


def _salt(field: Tlv) -> bytes:
    salt = field.as_octets()
    if len(salt) > _MAX_SALT_BYTES:
        raise CannotOpen(f"its salt has {len(salt)} bytes")
    return salt


def _pkcs12_key(
    name: str, passphrase: bytes | None, salt: bytes, purpose: int, rounds: int, size: int, budget: Budget
) -> bytes:
    """Derive a key (purpose 1), a vector (2) or a key for the integrity code (3) as RFC 7292 B.2 does."""
    block = 128 if name in ("sha384", "sha512") else 64
    construct: Callable[[bytes], hashlib._Hash] = getattr(hashlib, name)
    if len(salt) > _MAX_SALT_BYTES:
        raise CannotOpen(f"its salt has {len(salt)} bytes")
    # No passphrase is no octet, and the empty one is its terminator alone; both occur in the field.
    secret = b"" if passphrase is None else passphrase.decode("utf-8", "replace").encode("utf-16-be") + b"\0\0"
    filled = _fill(salt, block) + _fill(secret, block)
    derived = b""
    while len(derived) < size:
        budget.spend(2 * rounds)  # each costs twice one of PBKDF2, which is not written in Python
        digest = construct(bytes((purpose,)) * block + filled).digest()
        for _ in range(rounds - 1):
            digest = construct(digest).digest()
        derived += digest
        added = int.from_bytes(_fill(digest, block), "big") + 1
        filled = b"".join(
            ((int.from_bytes(filled[at : at + block], "big") + added) % (1 << 8 * block)).to_bytes(block, "big")
            for at in range(0, len(filled), block)
        )
    return derived[:size]


def _fill(octets: bytes, block: int) -> bytes:
    """Repeat *octets* to a whole number of blocks."""
    if not octets:
        return b""
    size = -(-len(octets) // block) * block
    return (octets * (size // len(octets) + 1))[:size]


def _decrypted(cipher: str, key: bytes, vector: bytes, sealed: bytes, bits: int) -> bytes | None:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    block = 16 if cipher == "aes" else 8
    if not sealed or len(sealed) % block or len(vector) != block:
        raise CannotOpen("its encrypted part is cut off")
    if cipher == "rc2":
        if len(sealed) > _MAX_RC2_BYTES:
            raise CannotOpen(f"more than {_MAX_RC2_BYTES} bytes are encrypted with RC2")
        plain = decrypt_rc2(key, bits, vector, sealed)
    else:
        algorithm = algorithms.AES(key) if cipher == "aes" else TripleDES(key)
        decryptor = Cipher(algorithm, modes.CBC(vector)).decryptor()
        plain = decryptor.update(sealed) + decryptor.finalize()
    pad = plain[-1]
    return plain[:-pad] if 1 <= pad <= block and plain.endswith(bytes((pad,)) * pad) else None
