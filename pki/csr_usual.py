"""Read a certification request of the usual shape in one stride: a P-256 key, and every field where openssl puts it.

What has another shape is not refused here: `csr.parse_csr` then reads it with care, and finds the same or an error.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from chargepki.pki import der, oids

__all__ = ["UsualRequest", "read_usual"]


class UsualRequest(NamedTuple):
    """The fields of a request, each a slice of its octets with its header."""

    info: bytes
    subject: bytes
    subject_content: int
    """Where in `subject` the first RDN begins."""
    spki: bytes
    attributes: bytes
    algorithm: bytes
    signature: bytes
    """The value of the BIT STRING alone."""


_VERSION: Final = der.integer(0)
_SPKI_HEAD: Final = der.sequence(
    der.sequence(der.oid(oids.EC_PUBLIC_KEY), der.oid(oids.SECP256R1)), der.bit_string(bytes(65))
)[:-65]
_SPKI_BYTES: Final = len(_SPKI_HEAD) + 65
_ALGORITHM: Final = der.sequence(der.oid(oids.ECDSA_WITH_SHA256))


def read_usual(data: bytes) -> UsualRequest | None:
    """Return the fields of the request *data* (DER), or ``None`` when it is not exactly of the usual shape.

    Only the frame is judged. The names, the attributes and the key are for the caller to decode.
    """
    try:
        info, end = _enter(data, 0)
        if end != len(data):
            return None
        version, info_end = _enter(data, info)
        subject = version + 3
        if data[version:subject] != _VERSION:
            return None
        rdns, spki = _enter(data, subject)
        attributes = spki + _SPKI_BYTES
        if not data.startswith(_SPKI_HEAD, spki) or data[attributes] != 0xA0:
            return None
        length = data[attributes + 1]
        content = attributes + 2
        if length > 0x7F:
            if length != 0x81 or data[content] < 0x80:
                return None
            length, content = data[content], content + 1
        signature = info_end + len(_ALGORITHM)
        bits = data[signature + 1]
        # Within one octet of length a signature of two numbers of 32 octets has room; the first octet says that no
        # bit is unused.
        if (
            content + length != info_end
            or not data.startswith(_ALGORITHM, info_end)
            or data[signature] != 0x03
            or not 1 < bits < 0x80
            or data[signature + 2] != 0
            or signature + 2 + bits != end
        ):
            return None
    except IndexError:
        return None
    return UsualRequest(
        data[info:info_end],
        data[subject:spki],
        rdns - subject,
        data[spki:attributes],
        data[attributes:info_end],
        _ALGORITHM,
        data[signature + 3 : end],
    )


def _enter(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the SEQUENCE at *at* begins and ends.

    Raises:
        IndexError: it is none, or its length is not in DER or takes more than two octets.
    """
    if data[at] != 0x30:
        raise IndexError
    length = data[at + 1]
    if length < 0x80:
        return at + 2, at + 2 + length
    if length == 0x81 and data[at + 2] >= 0x80:
        return at + 3, at + 3 + data[at + 2]
    if length == 0x82 and data[at + 2]:
        return at + 4, at + 4 + (data[at + 2] << 8 | data[at + 3])
    raise IndexError
