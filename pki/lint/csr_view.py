"""Read a certification request tolerantly, so that rules judge and not exceptions."""

from __future__ import annotations

from dataclasses import dataclass

from chargepki.pki import oids
from chargepki.pki.certificate_view import AttributeView, KeyView, read_key, view_name
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import DerProblem, Node, decode_integer, decode_oid, read_element, read_tree
from chargepki.pki.extension_view import ExtensionView, KnownExtensions, read_extension

__all__ = ["CsrView", "view_csr"]

_REQUESTS = frozenset({oids.EXTENSION_REQUEST, oids.MICROSOFT_EXTENSION_REQUEST})
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class CsrView:
    """A PKCS#10 request (RFC 2986). Nothing here has been verified."""

    der: bytes
    info: bytes
    version: int
    subject: bytes
    subject_attributes: tuple[AttributeView, ...]
    key: KeyView
    extensions: tuple[ExtensionView, ...]
    known: KnownExtensions
    signature_algorithm: bytes
    signature_algorithm_oid: str
    signature: bytes
    problems: tuple[DerProblem, ...]

    def subject_values(self, oid: str) -> list[str]:
        """Return the values of every attribute *oid* of the subject."""
        return [attribute.text for attribute in self.subject_attributes if attribute.oid == oid]

    @property
    def common_name(self) -> str:
        """The only CN of the subject; the empty string when there is none or more than one."""
        values = self.subject_values(oids.COMMON_NAME)
        return values[0] if len(values) == 1 else ""


def view_csr(der: bytes) -> CsrView:
    """Read a CertificationRequest (DER).

    Raises:
        DerError: the structure is not that of a request; smaller faults are in `CsrView.problems`.
    """
    if len(der) > _MAX_BYTES:
        raise DerError("too-large", 0, f"{len(der)} bytes are too many for a certification request")
    problems: list[DerProblem] = []
    end = read_element(der, 0, len(der), []).end
    root = read_tree(der, 0, end, problems)
    if end < len(der):
        problems.append(DerProblem(end, "trailing-bytes", f"{len(der) - end} bytes follow the object"))
    if root.tag != 0x30 or [kid.tag for kid in root.kids] != [0x30, 0x30, 0x03]:
        raise DerError(
            "not-a-csr", 0, "not a CertificationRequest: expected SEQUENCE { SEQUENCE, SEQUENCE, BIT STRING }"
        )
    info, algorithm, signature = root.kids
    kids = info.kids
    if [kid.tag for kid in kids[:3]] != [0x02, 0x30, 0x30] or [kid.tag for kid in kids[3:]] not in ([], [0xA0]):
        raise DerError("not-a-csr", info.start, "not a CertificationRequestInfo: its fields have other tags")
    if not algorithm.kids or algorithm.kids[0].tag != 0x06:
        raise DerError("unexpected-tag", algorithm.start, "not an AlgorithmIdentifier")
    extensions = tuple(_requested(der, kids[3], problems)) if len(kids) == 4 else ()
    subject = der[kids[1].start : kids[1].end]
    oid = algorithm.kids[0]
    return CsrView(
        der=der,
        info=der[info.start : info.end],
        version=decode_integer(der[kids[0].content : kids[0].end]),
        subject=subject,
        subject_attributes=view_name(subject),
        key=read_key(der, kids[2]),
        extensions=extensions,
        known=KnownExtensions.read(der, extensions, problems),
        signature_algorithm=der[algorithm.start : algorithm.end],
        signature_algorithm_oid=decode_oid(der[oid.content : oid.end]),
        signature=der[signature.content + 1 : signature.end],
        problems=tuple(problems),
    )


def _requested(der: bytes, attributes: Node, problems: list[DerProblem]) -> list[ExtensionView]:
    """Return the extensions of every extensionRequest attribute."""
    found: list[ExtensionView] = []
    for attribute in attributes.kids:
        if attribute.tag != 0x30 or [kid.tag for kid in attribute.kids] != [0x06, 0x31]:
            raise DerError("unexpected-tag", attribute.start, "not an attribute of a request")
        kind, values = attribute.kids
        if decode_oid(der[kind.content : kind.end]) not in _REQUESTS:
            continue
        for listed in values.kids:
            found += [read_extension(der, each, problems) for each in listed.kids]
    return found
