"""Lists of keys that are known to be weak, in a documented text format (CVE-2008-0166 and the like)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki.errors import InputError

__all__ = ["WeakKeys", "modulus_digest"]

_MODULUS_DIGITS: Final = 20
_KEY_DIGITS: Final = 64
_LINE: Final = re.compile(r"[0-9a-f]+\Z")


@dataclass(frozen=True, slots=True)
class WeakKeys:
    """Fingerprints of weak keys.

    The format is text, a fingerprint a line; ``#`` begins a comment. A line of 20 hex digits is an entry of Debian's
    openssl-blacklist, made from an RSA modulus; a line of 64 is SHA-256 over the whole SubjectPublicKeyInfo (DER),
    which names a key of any kind.
    """

    moduli: frozenset[str] = field(repr=False)
    keys: frozenset[str] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes, name: str = "the list of weak keys") -> WeakKeys:
        """Read a list.

        Raises:
            InputError: a line is no fingerprint, or there is none at all; a list that is not read must not pass.
        """
        moduli: set[str] = set()
        found: set[str] = set()
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
            text = line.partition("#")[0].strip().lower()
            if not text:
                continue
            if not _LINE.match(text) or len(text) not in (_MODULUS_DIGITS, _KEY_DIGITS):
                raise InputError(
                    f"{name}, line {number}: {text[:80]!r} is no fingerprint",
                    why="a line is 20 hex digits (Debian's openssl-blacklist) or 64 (SHA-256 of the public key's DER)",
                    fix="correct the line, or begin a comment with #",
                )
            (moduli if len(text) == _MODULUS_DIGITS else found).add(text)
        if not moduli and not found:
            raise InputError(f"{name} holds no fingerprint", fix="configure another file, or none")
        return cls(frozenset(moduli), frozenset(found))

    def lists(self, spki_der: bytes, modulus: int | None) -> bool:
        """Whether the key is listed; *modulus* is that of an RSA key."""
        if modulus is not None and modulus_digest(modulus) in self.moduli:
            return True
        return hashlib.sha256(spki_der).hexdigest() in self.keys


def modulus_digest(modulus: int) -> str:
    """Return the entry of Debian's openssl-blacklist for *modulus*.

    It is the last 80 bits of SHA-1 over what ``openssl rsa -noout -modulus`` prints.

    >>> modulus_digest(0xC0FFEE)
    '6149ed99475722f13e18'
    """
    line = f"Modulus={modulus:X}\n".encode("ascii")
    return hashlib.sha1(line, usedforsecurity=False).hexdigest()[-_MODULUS_DIGITS:]
