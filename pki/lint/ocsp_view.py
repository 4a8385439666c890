"""Read an OCSP response tolerantly, so that rules judge and not exceptions."""

from __future__ import annotations

from dataclasses import dataclass

from chargepki.pki.certificate_view import TimeView, parse_time
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import DerProblem, Node, decode_integer, decode_oid, read_element, read_tree

__all__ = ["OcspSingle", "OcspView", "view_ocsp_response"]

_BASIC = "1.3.6.1.5.5.7.48.1.1"  # RFC 6960 4.2.1
_MAX_BYTES = 1024 * 1024
_CERT_STATUS = {0x80: "good", 0xA1: "revoked", 0x82: "unknown"}


@dataclass(frozen=True, slots=True)
class OcspSingle:
    """The answer about one certificate."""

    hash_oid: str
    name_hash: bytes
    key_hash: bytes
    serial: int
    status: str
    """``good``, ``revoked`` or ``unknown``."""
    this_update: TimeView
    next_update: TimeView | None


@dataclass(frozen=True, slots=True)
class OcspView:
    """An OCSPResponse (RFC 6960 4.2.1). Nothing here has been verified."""

    der: bytes
    status: int
    """OCSPResponseStatus; 0 is successful, and only then is there anything else."""
    tbs: bytes = b""
    responder_name: bytes | None = None
    responder_key_hash: bytes | None = None
    produced_at: TimeView | None = None
    singles: tuple[OcspSingle, ...] = ()
    signature_algorithm: bytes = b""
    signature_algorithm_oid: str = ""
    signature: bytes = b""
    certificates: tuple[bytes, ...] = ()
    problems: tuple[DerProblem, ...] = ()


def view_ocsp_response(der: bytes) -> OcspView:
    """Read an OCSPResponse (DER).

    Raises:
        DerError: the structure is not that of a response; smaller faults are in `OcspView.problems`.
    """
    if len(der) > _MAX_BYTES:
        raise DerError("too-large", 0, f"{len(der)} bytes are too many for an OCSP response")
    problems: list[DerProblem] = []
    end = read_element(der, 0, len(der), []).end
    root = read_tree(der, 0, end, problems)
    if end < len(der):
        problems.append(DerProblem(end, "trailing-bytes", f"{len(der) - end} bytes follow the object"))
    tags = [kid.tag for kid in root.kids]
    if root.tag != 0x30 or tags not in ([0x0A], [0x0A, 0xA0]):
        raise DerError("not-an-ocsp-response", 0, "not an OCSPResponse: expected SEQUENCE { ENUMERATED, [0] }")
    status = decode_integer(der[root.kids[0].content : root.kids[0].end])
    if len(tags) == 1:
        return OcspView(der, status, problems=tuple(problems))
    holder = _only(root.kids[1])
    if [kid.tag for kid in holder.kids] != [0x06, 0x04] or decode_oid(_content(der, holder.kids[0])) != _BASIC:
        raise DerError("not-an-ocsp-response", holder.start, "the response is not of type id-pkix-ocsp-basic")
    value = holder.kids[1]
    return _basic(der, status, read_tree(der, value.content, value.end, problems), problems)


def _basic(der: bytes, status: int, basic: Node, problems: list[DerProblem]) -> OcspView:
    tags = [kid.tag for kid in basic.kids]
    if tags not in ([0x30, 0x30, 0x03], [0x30, 0x30, 0x03, 0xA0]):
        raise DerError("not-an-ocsp-response", basic.start, "not a BasicOCSPResponse")
    tbs, algorithm, signature = basic.kids[:3]
    fields = [kid for kid in tbs.kids if kid.tag != 0xA0]  # version v1 is the DEFAULT
    if len(fields) < 3 or fields[0].tag not in (0xA1, 0xA2) or fields[1].tag != 0x18 or fields[2].tag != 0x30:
        raise DerError("not-an-ocsp-response", tbs.start, "not a ResponseData: its fields have other tags")
    if not algorithm.kids or algorithm.kids[0].tag != 0x06:
        raise DerError("unexpected-tag", algorithm.start, "not an AlgorithmIdentifier")
    responder = _only(fields[0])
    by_name = fields[0].tag == 0xA1
    listed = _only(basic.kids[3]).kids if len(basic.kids) == 4 else ()
    return OcspView(
        der=der,
        status=status,
        tbs=der[tbs.start : tbs.end],
        responder_name=der[responder.start : responder.end] if by_name else None,
        responder_key_hash=None if by_name else _content(der, responder),
        produced_at=_time(der, fields[1]),
        singles=tuple(_single(der, each) for each in fields[2].kids),
        signature_algorithm=der[algorithm.start : algorithm.end],
        signature_algorithm_oid=decode_oid(_content(der, algorithm.kids[0])),
        signature=der[signature.content + 1 : signature.end],
        certificates=tuple(der[each.start : each.end] for each in listed),
        problems=tuple(problems),
    )


def _single(der: bytes, node: Node) -> OcspSingle:
    kids = node.kids
    if len(kids) < 3 or kids[0].tag != 0x30 or kids[1].tag not in _CERT_STATUS or kids[2].tag != 0x18:
        raise DerError("unexpected-tag", node.start, "not a SingleResponse")
    named = kids[0].kids
    if [kid.tag for kid in named] != [0x30, 0x04, 0x04, 0x02] or not named[0].kids:
        raise DerError("unexpected-tag", kids[0].start, "not a CertID")
    following = next((kid for kid in kids[3:] if kid.tag == 0xA0), None)
    return OcspSingle(
        hash_oid=decode_oid(_content(der, named[0].kids[0])),
        name_hash=_content(der, named[1]),
        key_hash=_content(der, named[2]),
        serial=decode_integer(_content(der, named[3])),
        status=_CERT_STATUS[kids[1].tag],
        this_update=_time(der, kids[2]),
        next_update=None if following is None else _time(der, _only(following)),
    )


def _only(node: Node) -> Node:
    """Return what an EXPLICIT tag wraps."""
    if len(node.kids) != 1:
        raise DerError("unexpected-tag", node.start, "an explicit tag wraps exactly one element")
    return node.kids[0]


def _content(der: bytes, node: Node) -> bytes:
    return der[node.content : node.end]


def _time(der: bytes, node: Node) -> TimeView:
    text = _content(der, node)
    return TimeView(node.tag, text, parse_time(node.tag, text))
