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


_TIMES = (0x17, 0x18)


def kind_of(der: bytes) -> ObjectKind | None:
    """Return what *der* most likely is; ``None`` when it is no SEQUENCE that begins like any of them.

    >>> kind_of(bytes.fromhex("30030a0106")).value
    'ocsp-response'
    """
    try:
        root = read_element(der, 0, len(der), [])
        parts = read_level(der, root.content, root.end, [])
    except DerError:
        # Cut off or worse: a first octet of a SEQUENCE is all that can be asked of it.
        return ObjectKind.CERTIFICATE if der[:1] == b"\x30" and len(der) > 1 else None
    tags = [part.tag for part in parts]
    if root.tag != 0x30 or not tags:
        return None
    if tags[0] == 0x0A:
        return ObjectKind.OCSP_RESPONSE
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
