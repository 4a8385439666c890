"""Take the certificates out of a PKCS#12 file; private keys in it are never opened here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki.der import DerError, Tlv
from chargepki.pki.der_tree import DerProblem
from chargepki.pki.lint.key_protection import KeyProtection, protection_of
from chargepki.pki.lint.pkcs7_view import read_container
from chargepki.pki.lint.pkcs12_opening import Budget, CannotOpen, check_mac, decrypt

__all__ = ["Pkcs12View", "view_pkcs12"]

_DATA: Final = "1.2.840.113549.1.7.1"
_ENCRYPTED_DATA: Final = "1.2.840.113549.1.7.6"
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_BAGS: Final = "1.2.840.113549.1.12.10.1."
_KEY, _SHROUDED_KEY, _CERTIFICATE, _CRL, _SECRET, _NESTED = (f"{_BAGS}{number}" for number in range(1, 7))
_X509_CERTIFICATE: Final = "1.2.840.113549.1.9.22.1"
_X509_CRL: Final = "1.2.840.113549.1.9.23.1"
_MOST_BAGS: Final = 2000
_MAX_NESTING: Final = 4


@dataclass(frozen=True, slots=True)
class Pkcs12View:
    """A PFX (RFC 7292 4) as a carrier of certificates."""

    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    keys: tuple[KeyProtection, ...]
    has_mac: bool
    closed: str
    """Why the contents, or a part of them, could not be read; empty when all could."""
    is_ber: bool
    problems: tuple[DerProblem, ...]
    sealed_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The private keys of `keys` as they lie there (DER): PKCS#8, encrypted or not."""


@dataclass(slots=True)
class _Contents:
    certificates: list[bytes] = field(default_factory=list)
    crls: list[bytes] = field(default_factory=list)
    keys: list[KeyProtection] = field(default_factory=list)
    sealed_keys: list[bytes] = field(default_factory=list)
    bags: int = 0


def view_pkcs12(data: bytes, passphrases: Sequence[bytes] = ()) -> Pkcs12View:
    """Read a PFX; encrypted parts are tried with *passphrases* (UTF-8), none, and the empty one.

    Raises:
        DerError: it is none, or a part that could be opened is none; offsets in such a part count from its start.
    """
    root, is_ber, problems = read_container(data)
    parts = root.children(0x30)
    if len(parts) not in (2, 3) or parts[0].as_integer() != 3:
        raise root.fail("not-a-pfx", "not a PFX: expected version 3, contents, and an integrity code")
    kind, content = _info(parts[1])
    if kind == _SIGNED_DATA:
        closed = "its integrity is protected by a signature instead of a passphrase, which is not read"
        return Pkcs12View((), (), (), True, closed, is_ber, problems)
    if kind != _DATA:
        raise parts[1].fail("unexpected-tag", "the contents of a PFX are data")
    safe = content.as_octets()
    budget = Budget()
    candidates: list[bytes | None] = [*passphrases, None, b""]  # the likeliest first: the work is bounded
    closed = ""
    if len(parts) == 3:
        try:
            candidates = [check_mac(parts[2], safe, candidates, budget)]
        except CannotOpen as error:
            closed = str(error)
    found = _Contents()
    closed = _safe(safe, candidates, budget, found) or closed
    return Pkcs12View(
        tuple(found.certificates),
        tuple(found.crls),
        tuple(found.keys),
        len(parts) == 3,
        closed,
        is_ber,
        problems,
        tuple(found.sealed_keys),
    )


def _safe(safe: bytes, candidates: Sequence[bytes | None], budget: Budget, found: _Contents) -> str:
    """Read an AuthenticatedSafe; return why a part stayed closed."""
    closed = ""
    for info in _tree(safe).children(0x30):
        kind, content = _info(info)
        if kind == _DATA:
            _bags(_tree(content.as_octets()), found, 0)
        elif kind == _ENCRYPTED_DATA:
            try:
                opened = _open(content, candidates, budget)
            except CannotOpen as error:
                closed = str(error)
                continue
            _bags(opened, found, 0)
        else:
            closed = "a part of it is encrypted with a public key"
    return closed


def _open(content: Tlv, candidates: Sequence[bytes | None], budget: Budget) -> Tlv:
    fields = content.children(0x30)
    parts = fields[1].children(0x30) if len(fields) > 1 else ()
    if len(parts) != 3:
        raise content.fail("wrong-count", "an EncryptedContentInfo has three parts")
    if parts[2].tag == 0xA0:
        sealed = b"".join(each.as_octets() for each in parts[2].iterate())
    else:
        sealed = parts[2].expect(0x80, "encryptedContent").content
    for candidate in candidates:
        plain = decrypt(parts[1], sealed, candidate, budget)
        if plain is None:
            continue
        try:
            return _tree(plain)  # the padding of one wrong passphrase in 256 looks right
        except DerError:
            continue
    raise CannotOpen("no passphrase that was given opens it")


def _tree(data: bytes) -> Tlv:
    return read_container(data)[0].expect(0x30, "contents")


def _bags(contents: Tlv, found: _Contents, depth: int) -> None:
    for bag in contents.iterate():
        found.bags += 1
        if found.bags > _MOST_BAGS or depth > _MAX_NESTING:
            raise bag.fail("too-many", f"more than {_MOST_BAGS} bags, or nested more than {_MAX_NESTING} levels")
        parts = bag.children(0x30)
        if len(parts) not in (2, 3):
            raise bag.fail("wrong-count", f"a SafeBag has two or three parts, this has {len(parts)}")
        kind, value = parts[0].as_oid(), parts[1].expect(0xA0, "bagValue").child()
        if kind == _KEY:
            found.keys.append(KeyProtection(encrypted=False))
            found.sealed_keys.append(value.raw)
        elif kind == _SHROUDED_KEY:
            inside = value.children(0x30)
            if len(inside) != 2:
                raise value.fail("wrong-count", "an EncryptedPrivateKeyInfo has two parts")
            found.keys.append(protection_of(inside[0]))
            found.sealed_keys.append(value.raw)
        elif kind in (_CERTIFICATE, _CRL):
            _member(value, found.certificates if kind == _CERTIFICATE else found.crls)
        elif kind == _NESTED:
            _bags(value, found, depth + 1)


def _member(value: Tlv, into: list[bytes]) -> None:
    parts = value.children(0x30)
    if len(parts) != 2:
        raise value.fail("wrong-count", "a bag of a certificate has two parts")
    if parts[0].as_oid() in (_X509_CERTIFICATE, _X509_CRL):
        into.append(parts[1].expect(0xA0, "certValue").child().as_octets())


def _info(info: Tlv) -> tuple[str, Tlv]:
    parts = info.children(0x30)
    if len(parts) != 2:
        raise info.fail("wrong-count", f"a ContentInfo has two parts, this has {len(parts)}")
    return parts[0].as_oid(), parts[1].expect(0xA0, "content").child()
