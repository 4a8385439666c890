"""Read a certificate once into what path processing needs: strictly, lazily, several times faster than for lint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple, TypeVar

from chargepki.pki import der, keys, names, oids
from chargepki.pki.certificate_view import AttributeView, parse_time
from chargepki.pki.chain.extensions import (
    DistributionPoint,
    GeneralName,
    NameConstraints,
    PolicyConstraints,
    read_distribution_points,
    read_general_names,
    read_identifiers,
    read_name_constraints,
    read_policies,
    read_policy_constraints,
    read_policy_mappings,
)
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.keys import PublicKey

__all__ = ["UNDERSTOOD", "Extension", "PathCertificate"]

T = TypeVar("T")


class Extension(NamedTuple):
    """One extension as it stands in the bytes."""

    critical: bool
    value: bytes


@cache
def _content(dotted: str) -> bytes:
    return der.oid(dotted)[2:]


# Extensions are found by the content octets of their identifier, so that only unknown ones are ever decoded to text.
_BASIC_CONSTRAINTS: Final = _content(oids.BASIC_CONSTRAINTS)
_KEY_USAGE: Final = _content(oids.KEY_USAGE)
_P256: Final = der.oid(oids.SECP256R1)
_POLICY_RESTRICTIONS: Final = frozenset(
    map(_content, (oids.POLICY_CONSTRAINTS, oids.POLICY_MAPPINGS, oids.INHIBIT_ANY_POLICY))
)

# ISO 15118-20:2022 marks key identifiers, AIA, SIA and CRL pointers critical against RFC 5280: known, though critical.
UNDERSTOOD: Final = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.EXTENDED_KEY_USAGE,
        oids.SUBJECT_ALTERNATIVE_NAME,
        oids.NAME_CONSTRAINTS,
        oids.CERTIFICATE_POLICIES,
        oids.POLICY_MAPPINGS,
        oids.POLICY_CONSTRAINTS,
        oids.INHIBIT_ANY_POLICY,
        oids.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.AUTHORITY_INFORMATION_ACCESS,
        oids.SUBJECT_INFORMATION_ACCESS,
        oids.CRL_DISTRIBUTION_POINTS,
        oids.FRESHEST_CRL,
        oids.OCSP_NO_CHECK,
    }
)
"""Extensions that may be critical, dotted: path processing acts on each, or it restricts nothing that we do."""
_UNDERSTOOD: Final = frozenset(map(_content, UNDERSTOOD))


class PathCertificate:
    """One certificate of a pool. Nothing here has been verified; extensions are decoded when they are asked for."""

    __slots__ = (
        "_decoded",
        "_key",
        "_key_read",
        "_self_issued",
        "algorithm",
        "der",
        "duplicate",
        "extensions",
        "is_anchor",
        "is_ca",
        "issuer",
        "key_usage",
        "not_after",
        "not_before",
        "outer_algorithm",
        "path_length",
        "restricts_policies",
        "serial",
        "signature",
        "spki",
        "subject",
        "tbs",
        "unknown_critical",
        "version",
    )

    def __init__(self, data: bytes, *, is_anchor: bool = False) -> None:
        """Read *data* (DER).

        Raises:
            DerError: it is no certificate, or what path processing reads of it is not DER.
        """
        self.der: Final = data
        self.is_anchor: Final = is_anchor
        tag, content, end = _header(data, 0, len(data))
        if tag != 0x30 or end != len(data):
            raise DerError("not-a-certificate", 0, "not one SEQUENCE that fills the input")
        _, tbs_content, tbs_end = _expect(data, content, end, 0x30)
        self.tbs: Final = data[content:tbs_end]
        _, _, algorithm_end = _expect(data, tbs_end, end, 0x30)
        self.outer_algorithm: Final = data[tbs_end:algorithm_end]
        _, signature, signature_end = _expect(data, algorithm_end, end, 0x03)
        if signature_end != end or data[signature : signature + 1] != b"\0":
            raise DerError("not-a-certificate", algorithm_end, "the signature is not whole octets at the end")
        self.signature: Final = data[signature + 1 : signature_end]
        self._read_fields(data, tbs_content, tbs_end)
        self._decoded: dict[str, object] = {}
        self._key: PublicKey | None = None
        self._key_read = False
        self._self_issued: bool | None = None

    def _read_fields(self, data: bytes, at: int, end: int) -> None:
        tag, content, stop = _header(data, at, end)
        self.version = 0
        if tag == 0xA0:
            if data[content:stop] not in (b"\x02\x01\x01", b"\x02\x01\x02"):
                raise DerError("bad-version", at, "the version is not v2 or v3 in DER")
            self.version = data[stop - 1]
            at = stop
            tag, content, stop = _header(data, at, end)
        if tag != 0x02 or content == stop:
            raise DerError("unexpected-tag", at, "no serial number")
        if stop - content > 1 and data[content] in (0, 0xFF) and data[content] >> 7 == data[content + 1] >> 7:
            raise DerError("non-minimal-integer", at, "serial number with a superfluous leading octet")
        self.serial = int.from_bytes(data[content:stop], "big", signed=True)
        at = stop
        _, _, stop = _expect(data, at, end, 0x30)
        self.algorithm = data[at:stop]
        at = stop
        _, _, stop = _expect(data, at, end, 0x30)
        self.issuer = data[at:stop]
        _, content, after = _expect(data, stop, end, 0x30)
        self.not_before, middle = _time(data, content, after)
        self.not_after, done = _time(data, middle, after)
        if done != after:
            raise DerError("not-a-certificate", stop, "validity does not hold two times")
        _, _, stop = _expect(data, after, end, 0x30)
        # Roots say their name twice: one object, so that comparing is free.
        self.subject = data[after:stop]
        if self.subject == self.issuer:
            self.subject = self.issuer
        _, _, after = _expect(data, stop, end, 0x30)
        self.spki = data[stop:after]
        self._read_extensions(data, after, end)

    def _read_extensions(self, data: bytes, at: int, end: int) -> None:
        self.extensions: dict[bytes, Extension] = {}
        self.duplicate = self.unknown_critical = ""
        while at < end:
            tag, content, stop = _header(data, at, end)
            if tag == 0xA3:
                if stop != end:
                    raise DerError("unexpected-tag", stop, "something follows the extensions")
                _, inner, inner_end = _expect(data, content, stop, 0x30)
                if inner_end != stop:
                    raise DerError("trailing-bytes", inner_end, "something follows the list of extensions")
                self._read_list(data, inner, stop)
            elif tag not in (0x81, 0x82):
                raise DerError("unexpected-tag", at, "an unexpected field follows the public key")
            at = stop
        self.is_ca, self.path_length = False, None
        self.key_usage: int | None = None
        found = self.extensions.get(_BASIC_CONSTRAINTS)
        if found is not None:
            self.is_ca, self.path_length = _basic_constraints(found.value)
        found = self.extensions.get(_KEY_USAGE)
        if found is not None:
            self.key_usage = _key_usage(found.value)
        self.restricts_policies = not _POLICY_RESTRICTIONS.isdisjoint(self.extensions)

    def _read_list(self, data: bytes, at: int, end: int) -> None:
        extensions = self.extensions
        while at < end:
            oid, oid_end, stop = at + 4, at + 7, at + 2 + data[at + 1] if at + 9 <= end else 0
            # SEQUENCE { OBJECT IDENTIFIER of three octets, … } with short lengths is what nearly all are.
            if not (
                oid_end + 2 <= stop <= end
                and data[at + 1] < 0x80
                and data[at] == 0x30
                and data[at + 2 : oid] == b"\x06\x03"
            ):
                _, content, stop = _expect(data, at, end, 0x30)
                _, oid, oid_end = _expect(data, content, stop, 0x06)
            tag, value, value_end = _header(data, oid_end, stop)
            critical = False
            if tag == 0x01:
                # DER leaves the DEFAULT out, but FALSE is written so often that refusing it would help nobody.
                flag = data[value:value_end]
                if flag not in (b"\xff", b"\x00"):
                    raise DerError("bad-boolean", oid_end, "critical is neither 00 nor FF")
                critical = flag == b"\xff"
                tag, value, value_end = _header(data, value_end, stop)
            if tag != 0x04 or value_end != stop:
                raise DerError("unexpected-tag", at, "not an Extension")
            name = data[oid:oid_end]
            if name in extensions:
                self.duplicate = self.duplicate or _dotted(name)
            else:
                extensions[name] = Extension(critical, data[value:value_end])
                if critical and name not in _UNDERSTOOD:
                    self.unknown_critical = self.unknown_critical or _dotted(name)
            at = stop

    # ------------------------------------------------------------ what is derived

    @property
    def key(self) -> PublicKey | None:
        """The public key; ``None`` when it is of no algorithm that we accept."""
        if not self._key_read:
            self._key_read = True
            try:
                self._key = keys.load_public_key(self.spki)
            except InputError:
                self._key = None
        return self._key

    @property
    def is_self_issued(self) -> bool:
        """Whether subject and issuer are the same name (RFC 5280 6.1)."""
        if self._self_issued is None:
            self._self_issued = self.subject is self.issuer or same_name(self.subject, self.issuer)
        return self._self_issued

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Name and key: the same pair twice in a path is a loop, also across re-issued or cross-certificates."""
        return self.subject, self.spki

    @property
    def sha256(self) -> str:
        """SHA-256 of the certificate, hex."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def label(self) -> str:
        """Subject and serial number, for messages."""
        return f"{names.text(self.subject) or '(empty subject)'}, serial {self.serial:x}"

    @property
    def is_on_p256(self) -> bool:
        """Whether the key is on secp256r1, which ISO 15118-2 alone uses; the key itself is not decoded for this."""
        return _P256 in self.spki[:32]

    def may(self, bit: int) -> bool:
        """Whether KeyUsage is absent or has bit number *bit*."""
        return self.key_usage is None or bool(self.key_usage >> bit & 1)

    def extension(self, dotted: str) -> Extension | None:
        """Return the extension, or ``None``."""
        return self.extensions.get(_content(dotted))

    def _get(self, dotted: str, reader: Callable[[bytes], T]) -> T | None:
        """Return the decoded extension, once decoded for good. Raises `DerError`."""
        found = self.extension(dotted)
        if found is None:
            return None
        if dotted not in self._decoded:
            self._decoded[dotted] = reader(found.value)
        return self._decoded[dotted]  # type: ignore[return-value]  # put there two lines above, by the same reader

    @property
    def extended_key_usage(self) -> tuple[str, ...] | None:
        """ExtendedKeyUsage, dotted."""
        return self._get(oids.EXTENDED_KEY_USAGE, read_identifiers)

    @property
    def subject_names(self) -> tuple[GeneralName, ...]:
        """SubjectAltName; empty when absent."""
        return self._get(oids.SUBJECT_ALTERNATIVE_NAME, read_general_names) or ()

    @property
    def name_constraints(self) -> NameConstraints | None:
        """NameConstraints."""
        return self._get(oids.NAME_CONSTRAINTS, read_name_constraints)

    @property
    def policies(self) -> tuple[str, ...] | None:
        """CertificatePolicies, dotted, without qualifiers."""
        return self._get(oids.CERTIFICATE_POLICIES, read_policies)

    @property
    def policy_mappings(self) -> Mapping[str, frozenset[str]] | None:
        """PolicyMappings: issuer's policy to the subject's ones."""
        return self._get(oids.POLICY_MAPPINGS, read_policy_mappings)

    @property
    def policy_constraints(self) -> PolicyConstraints | None:
        """PolicyConstraints."""
        return self._get(oids.POLICY_CONSTRAINTS, read_policy_constraints)

    @property
    def inhibit_any_policy(self) -> int | None:
        """InhibitAnyPolicy."""
        return self._get(oids.INHIBIT_ANY_POLICY, _skip_certs)

    @property
    def distribution_points(self) -> tuple[DistributionPoint, ...]:
        """CRLDistributionPoints; empty when absent."""
        return self._get(oids.CRL_DISTRIBUTION_POINTS, read_distribution_points) or ()

    @property
    def subject_key_id(self) -> bytes | None:
        """SubjectKeyIdentifier."""
        return self._get(oids.SUBJECT_KEY_IDENTIFIER, lambda value: der.parse(value).as_octets())

    @property
    def authority_key_id(self) -> bytes | None:
        """The keyIdentifier of AuthorityKeyIdentifier."""
        return self._get(oids.AUTHORITY_KEY_IDENTIFIER, _key_id) or None

    def subject_values(self, dotted: str) -> list[str]:
        """Return the values of one subject attribute type, in order; none when the subject is no Name."""
        wanted = _content(dotted)
        data = self.subject
        try:
            return [
                AttributeView(dotted, data[value], data[content:end]).text
                for oid, value, content, end in _attributes(data)
                if oid == wanted
            ]
        except DerError:
            return []


def _attributes(data: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield the identifier of each attribute of a Name, and offset, content offset and end of its value."""
    _, at, end = _expect(data, 0, len(data), 0x30)
    while at < end:
        _, pair, rdn_end = _expect(data, at, end, 0x31)
        while pair < rdn_end:
            _, oid, pair_end = _expect(data, pair, rdn_end, 0x30)
            _, start, value = _expect(data, oid, pair_end, 0x06)
            _, content, stop = _header(data, value, pair_end)
            yield data[start:value], value, content, stop
            pair = pair_end
        at = rdn_end


def same_name(a: bytes, b: bytes) -> bool:
    """Whether two encoded names match (RFC 5280 7.1); what is no Name matches only itself."""
    if a == b:
        return True
    try:
        return names.same(a, b)
    except InputError:
        return False


def _dotted(content: bytes) -> str:
    return der.parse(der.tlv(0x06, content)).as_oid()


def _header(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return tag, content offset and end of the element at *at*."""
    if at + 2 > end:
        raise DerError("truncated", at, "the input ends inside a header")
    tag, length = data[at], data[at + 1]
    content = at + 2
    if length > 0x7F:
        if length == 0x81:
            length = data[content] if content < end else 0
            content += 1
            shortest = 0x80
        elif length == 0x82:
            length = int.from_bytes(data[content : content + 2], "big")
            content += 2
            shortest = 0x100
        else:
            raise DerError("too-large", at, "a length of more than two octets, or an indefinite one")
        if length < shortest:
            raise DerError("non-minimal-length", at, "length in more octets than needed")
    if content + length > end:
        raise DerError("truncated", at, f"{length} content octets announced, {end - content} present")
    return tag, content, content + length


def _expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int, int]:
    found = _header(data, at, end)
    if found[0] != tag:
        raise DerError("unexpected-tag", at, f"tag 0x{found[0]:02x}, expected 0x{tag:02x}")
    return found


def _time(data: bytes, at: int, end: int) -> tuple[datetime, int]:
    tag, content, stop = _header(data, at, end)
    value = parse_time(tag, data[content:stop]) if tag in (0x17, 0x18) else None
    if value is None:
        raise DerError("bad-time", at, "not a UTCTime or GeneralizedTime in whole seconds and Z (RFC 5280 4.1.2.5)")
    return value, stop


def _basic_constraints(value: bytes) -> tuple[bool, int | None]:
    # What nearly every certificate says is answered without parsing.
    if value == b"\x30\x03\x01\x01\xff":
        return True, None
    if value == b"\x30\x00":
        return False, None
    if len(value) == 8 and value.startswith(b"\x30\x06\x01\x01\xff\x02\x01") and value[7] < 0x80:
        return True, value[7]
    kids = list(der.parse(value).children(der.SEQUENCE))
    ca = kids.pop(0).as_boolean() if kids and kids[0].tag == 0x01 else False
    length = kids.pop(0).as_integer() if kids else None
    if kids or (length is not None and length < 0):
        raise DerError("unexpected-tag", 0, "basicConstraints does not have its ASN.1 type")
    return ca, length


def _key_usage(value: bytes) -> int:
    """Return the bits as a mask, bit n for KeyUsage bit n."""
    if len(value) not in (4, 5) or value[0] != 0x03 or value[1] != len(value) - 2 or value[2] > 7:
        bits = der.parse(value).as_bits()
        return sum(1 << bit for bit in bits)
    mask = _REVERSED[value[3]]
    return mask if len(value) == 4 else mask | _REVERSED[value[4]] << 8


_REVERSED: Final = tuple(int(f"{octet:08b}"[::-1], 2) for octet in range(256))


def _skip_certs(value: bytes) -> int:
    return max(der.parse(value).as_integer(), 0)


def _key_id(value: bytes) -> bytes:
    for kid in der.parse(value).children(der.SEQUENCE):
        if kid.tag == 0x80:
            return kid.content
    return b""
