"""Rules about what carries certificates or keys: PKCS#7 bundles, PKCS#12 files, private keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chargepki.pki.lint.engine import NotEvaluated, Problem, Registry, Verdict
from chargepki.pki.lint.key_protection import KeyProtection
from chargepki.pki.lint.pkcs7_view import Pkcs7View
from chargepki.pki.lint.pkcs12_view import Pkcs12View

__all__ = ["PKCS7S", "PKCS12S", "PRIVATE_KEYS", "KeyContext"]


@dataclass(frozen=True, slots=True)
class KeyContext:
    """One private key as it is stored; the key itself is not looked at."""

    protection: KeyProtection
    mode: int | None = None
    """Permissions of its file; ``None`` where there is no file or the system has none."""


PKCS7S: Final[Registry[Pkcs7View]] = Registry("pkcs7")
PKCS12S: Final[Registry[Pkcs12View]] = Registry("pkcs12")
PRIVATE_KEYS: Final[Registry[KeyContext]] = Registry("private-key")

_STRICT_HINT: Final = "send nothing after it"
_BER_CLAUSE: Final = "RFC 5652 2; RFC 7292 3.1"
_BER_TITLE: Final = "a bundle is DER, although BER is allowed"
_BER_HINT: Final = "write it with definite lengths; EST clients and embedded readers often know DER only"
_KDF_UNVERIFIED: Final = "no standard of charging names a cost; 100,000 rounds or 16 MiB are our own floor"
_KDF_CLAUSE: Final = "NIST SP 800-132 5.2; RFC 8018 4.2"
_KDF_HINT: Final = "encrypt it anew: openssl pkcs8 -topk8 -scrypt, or openssl pkcs12 -export -iter 600000"


def container_strict(context: Pkcs7View | Pkcs12View) -> Verdict:
    """BER is allowed here, and ``n_container_ber``'s."""
    return [Problem(f"{each.what} (rule {each.rule})", f"offset {each.offset}") for each in context.problems]


def container_ber(context: Pkcs7View | Pkcs12View) -> Verdict:
    """Indefinite lengths and strings in pieces, as streaming writers make them."""
    return "it is written in BER" if context.is_ber else None


# Not as decorators: each would hand on a function of one kind only.
PKCS7S.rule("e_der_strict", "X.690; RFC 5652 3", "the bundle can be followed", hint=_STRICT_HINT)(container_strict)
PKCS7S.rule("n_container_ber", _BER_CLAUSE, _BER_TITLE, hint=_BER_HINT)(container_ber)
PKCS12S.rule("e_der_strict", "X.690; RFC 7292 4", "the file can be followed", hint=_STRICT_HINT)(container_strict)
PKCS12S.rule("n_container_ber", _BER_CLAUSE, _BER_TITLE, hint=_BER_HINT)(container_ber)


@PKCS7S.rule(
    "e_pkcs7_empty",
    "RFC 5652 5.1; RFC 7030 4.1.3",
    "a certificate bundle holds a certificate or a CRL",
    hint="export it with its certificates: openssl crl2pkcs7 -nocrl -certfile chain.pem",
)
def pkcs7_empty(context: Pkcs7View) -> Verdict:
    """An answer of an EST server without certificates enrols nobody."""
    return None if context.certificates or context.crls else "it holds neither a certificate nor a CRL"


@PKCS12S.rule(
    "w_pkcs12_mac",
    "RFC 7292 4 and 5.1",
    "an integrity code protects the contents, and verifies",
    hint="export it anew without -nomac",
    where="macData",
)
def pkcs12_mac(context: Pkcs12View) -> Verdict:
    """Whoever can write to the file could add a trust anchor unseen."""
    if not context.has_mac:
        return "there is no integrity code: nobody notices a change"
    return NotEvaluated(f"{context.closed}; pass --passphrase-file") if context.closed else None


@PKCS12S.rule(
    "e_private_key_in_bundle",
    "key management practice",
    "no unencrypted private key next to certificates",
    hint="export it with a passphrase; where this file spread, make a new key",
)
def pkcs12_key(context: Pkcs12View) -> Verdict:
    """A bag of an open key looks like any other to who mails the file."""
    open_keys = sum(not key.encrypted for key in context.keys)
    return "it holds an unencrypted private key" if open_keys and context.certificates else None


@PKCS12S.rule(
    "w_key_weak_encryption",
    _KDF_CLAUSE,
    "guessing the passphrase of a private key is costly",
    hint=_KDF_HINT,
    unverified=_KDF_UNVERIFIED,
)
def pkcs12_weak(context: Pkcs12View) -> Verdict:
    """Exporters default to what old readers understand."""
    return [Problem(f"a private key: {text}") for text in dict.fromkeys(key.weakness for key in context.keys) if text]


@PRIVATE_KEYS.rule(
    "e_der_strict", "X.690; RFC 5958 2", "the private key is DER", hint="restore it from its backup, unmodified"
)
def key_strict(context: KeyContext) -> Verdict:
    """A key that can be followed has no smaller faults that are told."""
    return None


@PRIVATE_KEYS.rule(
    "e_key_readable",
    "key management practice",
    "others cannot read the file of an unencrypted private key",
    hint="chmod 600; who could read it may have copied it, so make a new key where that matters",
)
def key_readable(context: KeyContext) -> Verdict:
    """Group and world; an encrypted key may lie open."""
    if context.protection.encrypted:
        return None
    if context.mode is None:
        return NotEvaluated("it does not come from a file with permissions")
    return f"its file has mode {context.mode & 0o777:04o}" if context.mode & 0o077 else None


@PRIVATE_KEYS.rule(
    "w_key_weak_encryption",
    _KDF_CLAUSE,
    "guessing the passphrase of a private key is costly",
    hint=_KDF_HINT,
    unverified=_KDF_UNVERIFIED,
)
def key_weak(context: KeyContext) -> Verdict:
    """Old schemes derive the key from the passphrase in next to no time."""
    return context.protection.weakness or None
