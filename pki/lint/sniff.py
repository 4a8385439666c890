"""Tell what a file or a DER object is, tolerantly: something broken still has a kind."""

from __future__ import annotations

from enum import StrEnum

from chargepki.pki.der import DerError
from chargepki.pki.der_tree import Node, read_element, read_level

__all__ = ["ObjectKind", "kind_of"]


class ObjectKind(StrEnum):
    """What the linter judges one by one."""

    CERTIFICATE = "certificate"
    TBS = "tbs-certificate"
    CRL = "crl"
    CSR = "csr"
    OCSP_RESPONSE = "ocsp-response"
    PKCS7 = "pkcs7"
    PKCS12 = "pkcs12"
    PRIVATE_KEY = "private-key"


_TIMES = (0x17, 0x18)
_PKCS7_ARC = bytes.fromhex("2a864886f70d0107")


def kind_of(der: bytes) -> ObjectKind | None:
    """Return what *der* most likely is; ``None`` when it is no SEQUENCE that begins like any of them.

    >>> kind_of(bytes.fromhex("30030a0106")).value
    'ocsp-response'
    """
    try:
        root = read_element(der, 0, len(der), [])
        parts = read_level(der, root.content, root.end, [])
    except DerError:
        return _kind_of_broken(der)
    tags = [part.tag for part in parts]
    if root.tag != 0x30 or not tags:
        return None
    if tags[0] == 0x0A:
        return ObjectKind.OCSP_RESPONSE
    if tags[:2] == [0x06, 0xA0] or (tags[0] == 0x06 and _kind_of_broken(der) is ObjectKind.PKCS7):
        return ObjectKind.PKCS7
    if tags in ([0x02, 0x30], [0x02, 0x30, 0x30]) and der[parts[0].content : parts[0].end] == b"\3":
        return ObjectKind.PKCS12
    if _is_private_key(tags):
        return ObjectKind.PRIVATE_KEY
    if tags[0] != 0x30:
        return _kind_of_tbs(der, parts)
    if len(tags) < 2 or tags[1] != 0x30:
        return None
    try:
        inner = read_level(der, parts[0].content, parts[0].end, [])
    except DerError:
        return ObjectKind.CERTIFICATE
    found = _kind_of_tbs(der, inner)
    if found is ObjectKind.TBS or found is None:
        return ObjectKind.CERTIFICATE
    return found


def _is_private_key(tags: list[int]) -> bool:
    """PKCS#8 (plain or encrypted), SEC 1, PKCS#1."""
    return (
        tags[:3] == [0x02, 0x30, 0x04]
        or tags == [0x30, 0x04]
        or (tags[:2] == [0x02, 0x04] and set(tags[2:]) <= {0xA0, 0xA1})
        or (len(tags) >= 9 and set(tags[:9]) == {0x02})
    )


def _kind_of_broken(der: bytes) -> ObjectKind | None:
    """Cut off, in BER, or worse: the first octets are all that can be asked."""
    if der[:1] != b"\x30" or len(der) < 2:
        return None
    head = der[2 + (der[1] & 0x7F if der[1] > 0x80 else 0) :][:40]
    if head[:1] == b"\x06" and head[2:10] == _PKCS7_ARC:
        return ObjectKind.PKCS7
    if head[:3] == b"\2\1\3" and _PKCS7_ARC in head:
        return ObjectKind.PKCS12
    if head[:4] in (b"\2\1\0\x30", b"\2\1\1\x30") and head[5:7] in (b"\x06\x07", b"\x06\x09", b"\x06\x03"):
        return ObjectKind.PRIVATE_KEY
    return ObjectKind.CERTIFICATE


def _kind_of_tbs(der: bytes, parts: list[Node]) -> ObjectKind | None:
    tags = [part.tag for part in parts]
    if tags[:1] == [0xA0] and tags[1:2] == [0x02]:
        return ObjectKind.TBS
    if any(tag in _TIMES for tag in tags[2:4]):
        return ObjectKind.CRL
    if tags[:3] == [0x02, 0x30, 0x30] and tags[3:] in ([], [0xA0]) and der[parts[0].content : parts[0].end] == b"\0":
        return ObjectKind.CSR
    if tags[:6] == [0x02, 0x30, 0x30, 0x30, 0x30, 0x30]:
        return ObjectKind.TBS  # version 1
    return None
