"""Read a certificate once into what path processing needs: strictly, lazily, several times faster than for lint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Final, TypeVar

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
from chargepki.pki.chain.reading import (
    content_of,
    end_of,
    read_basic_constraints,
    read_extension,
    read_frame,
    read_header,
    read_key_usage,
    read_validity,
)
from chargepki.pki.chain.strength import weakness
from chargepki.pki.chain.understood import (
    RESTRICTIONS,
    RESTRICTS_NAMES,
    RESTRICTS_POLICIES,
    UNDERSTOOD,
    content_of_oid,
)
from chargepki.pki.chain.usual import read_usual
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.key_usage import KeyUsageBit
from chargepki.pki.keys import PublicKey

__all__ = ["RESTRICTS_NAMES", "RESTRICTS_POLICIES", "UNDERSTOOD", "PathCertificate"]

T = TypeVar("T")


_identifier = cache(der.oid)

# Extensions are found by the content octets of their identifier, so that only unknown ones are ever decoded to text.
_BASIC_CONSTRAINTS: Final = content_of_oid(oids.BASIC_CONSTRAINTS)
_KEY_USAGE: Final = content_of_oid(oids.KEY_USAGE)
_P256: Final = der.oid(oids.SECP256R1)
_KEY_CERT_SIGN: Final = KeyUsageBit.KEY_CERT_SIGN.bit
_NO_CONSTRAINTS: Final = b"\x30\x00"


class PathCertificate:
    """One certificate of a pool. Nothing here has been verified; extensions are decoded when they are asked for."""

    __slots__ = (
        "_check",
        "_decoded",
        "_extensions",
        "_key",
        "_key_read",
        "_self_issued",
        "_serial",
        "algorithm",
        "der",
        "duplicate",
        "is_anchor",
        "is_ca",
        "is_faulty",
        "is_issuer",
        "issuer",
        "key_usage",
        "outer_algorithm",
        "path_length",
        "restricts",
        "signature",
        "spki",
        "subject",
        "tbs",
        "unknown_critical",
        "valid_from",
        "valid_until",
        "version",
    )

    def __init__(self, data: bytes, *, is_anchor: bool = False) -> None:
        """Read *data* (DER).

        Raises:
            DerError: it is no certificate, or what path processing reads of it is not DER.
        """
        self.der: Final = data
        self.is_anchor: Final = is_anchor
        self.version = 2
        self.duplicate = self.unknown_critical = ""
        self._extensions: dict[bytes, bytes | None]
        try:
            usual = read_usual(data)
        except (IndexError, KeyError):
            usual = None
        if usual is None:
            self._read_with_care(data)
        else:
            self.is_faulty = False
            (
                self.tbs,
                self._serial,
                self.algorithm,
                self.issuer,
                self.valid_from,
                self.valid_until,
                self.subject,
                self.spki,
                self.signature,
                self._extensions,
                (self.is_ca, self.path_length),
                self.key_usage,
                self.restricts,
            ) = usual
            self.outer_algorithm = self.algorithm
        self.is_issuer = (
            self.is_ca and self.version == 2 and (self.key_usage is None or self.key_usage >> _KEY_CERT_SIGN & 1 == 1)
        )
        """Whether it may sign certificates: v3, cA TRUE and, if there is a KeyUsage, keyCertSign."""
        self._decoded: dict[str, object] | None = None
        self._check: tuple[bytes, Callable[[bytes, bytes], None] | None] | None = None
        self._key: PublicKey | None = None
        self._key_read = False
        self._self_issued: bool | None = None

    def _read_with_care(self, data: bytes) -> None:
        try:
            end = len(data)
            start, at, tbs_end = read_frame(data, end)
            self.tbs = data[start:tbs_end]
            stop = end_of(data, tbs_end, end, 0x30)
            self.outer_algorithm = data[tbs_end:stop]
            content, last = content_of(data, stop, end, 0x03)
            if last != end:
                raise DerError("not-a-certificate", last, "something follows the signature")
            if data[content : content + 1] != b"\0":
                raise DerError("not-a-certificate", stop, "the signature is not whole octets")
            self.signature = data[content + 1 :]
            self._read_fields(data, at, tbs_end)
        except IndexError:
            raise DerError("truncated", len(data), "the input ends inside a header") from None

    def _read_fields(self, data: bytes, at: int, end: int) -> None:
        self.version = 0
        if data[at] == 0xA0:
            if data[at + 1 : at + 4] != b"\x03\x02\x01" or data[at + 4] not in (1, 2):
                raise DerError("bad-version", at, "the version is not v2 or v3 in DER")
            self.version = data[at + 4]
            at += 5
        start, stop = content_of(data, at, end, 0x02)
        self._serial = serial = data[start:stop]
        if not serial or (len(serial) > 1 and serial[0] in (0, 0xFF) and serial[0] >> 7 == serial[1] >> 7):
            raise DerError("non-minimal-integer", at, "serial number without octets, or with a superfluous one")
        at, stop = stop, end_of(data, stop, end, 0x30)
        self.algorithm = data[at:stop]
        at, stop = stop, end_of(data, stop, end, 0x30)
        self.issuer = data[at:stop]
        self.valid_from, self.valid_until, at = read_validity(data, stop, end)
        stop = end_of(data, at, end, 0x30)
        self.subject = data[at:stop]
        at, stop = stop, end_of(data, stop, end, 0x30)
        self.spki = data[at:stop]
        self._read_extensions(data, stop, end)

    def _read_extensions(self, data: bytes, at: int, end: int) -> None:
        self._extensions = {}
        self.restricts = 0
        """`RESTRICTS_POLICIES` and `RESTRICTS_NAMES`, each if it has an extension that does so."""
        while at < end:
            tag, content, stop = read_header(data, at, end)
            if tag == 0xA3:
                if stop != end:
                    raise DerError("unexpected-tag", stop, "something follows the extensions")
                content, last = content_of(data, content, stop, 0x30)
                if last != stop:
                    raise DerError("trailing-bytes", last, "something follows the list of extensions")
                self._read_list(data, content, stop)
            elif tag not in (0x81, 0x82):
                raise DerError("unexpected-tag", at, "an unexpected field follows the public key")
            at = stop
        if at != end:
            raise DerError("truncated", at, "a field of the TBSCertificate goes beyond its end")
        constraints = self._extensions.get(_BASIC_CONSTRAINTS)
        self.is_ca, self.path_length = (False, None) if constraints is None else read_basic_constraints(constraints)
        usage = self._extensions.get(_KEY_USAGE)
        self.key_usage = None if usage is None else read_key_usage(usage)
        self.is_faulty = bool(
            self.unknown_critical or self.duplicate or (self._extensions and self.version != 2) or weakness(self.spki)
        )
        """Whether it has what spoils any path: `unknown_critical`, `duplicate`, extensions below v3, or a weak key."""

    def _read_list(self, data: bytes, at: int, end: int) -> None:
        while at < end:
            name, critical, content, stop = read_extension(data, at, end)
            if name in self._extensions:
                self.duplicate = self.duplicate or _dotted(name)
            else:
                self._extensions[name] = data[content:stop]
                restricts = RESTRICTIONS.get(name)
                if restricts:
                    self.restricts |= restricts
                elif critical and restricts is None:
                    self.unknown_critical = self.unknown_critical or _dotted(name)
            at = stop
        if at != end:
            raise DerError("truncated", at, "an extension goes beyond the end of their list")

    # ------------------------------------------------------------ what is derived

    @property
    def not_before(self) -> datetime:
        """First instant of its validity, inclusive."""
        return _instant_of(self.valid_from)

    @property
    def not_after(self) -> datetime:
        """Last instant of its validity, inclusive."""
        return _instant_of(self.valid_until)

    @property
    def serial(self) -> int:
        """The serial number, whatever its sign."""
        return int.from_bytes(self._serial, "big", signed=True)

    def load_key(self) -> PublicKey | None:
        """Return the public key, decoded once; ``None`` when it is of no algorithm that we accept."""
        if not self._key_read:
            try:
                self._key = keys.load_public_key(self.spki)
            except InputError:
                self._key = None
            # Last, because another thread may be asking too.
            self._key_read = True
        return self._key

    def verification(self, algorithm: bytes) -> Callable[[bytes, bytes], None] | None:
        """Return `keys.verification` with this key; remembered, since a CA nearly always signs with one algorithm.

        ``None`` also when `load_key` is. Raises `InputError`.
        """
        known = self._check
        if known is not None and known[0] == algorithm:
            return known[1]
        key = self.load_key()
        check = None if key is None else keys.verification(key, algorithm)
        self._check = (algorithm, check)
        return check

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

    @property
    def extensions(self) -> dict[bytes, bytes]:
        """Content of extnValue, under the content octets of the identifier."""
        return {name: value for name, value in self._extensions.items() if value is not None}

    def extension(self, dotted: str) -> bytes | None:
        """Return the content of the extension's extnValue, or ``None``."""
        return self._extensions.get(content_of_oid(dotted))

    def _get(self, dotted: str, reader: Callable[[bytes], T]) -> T | None:
        """Return the decoded extension, once decoded for good. Raises `DerError`."""
        found = self.extension(dotted)
        if found is None:
            return None
        # A second thread may be here too: what it decodes is the same, and at worst it is decoded twice.
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = {}
        if dotted not in decoded:
            decoded[dotted] = reader(found)
        return decoded[dotted]  # type: ignore[return-value]  # put there two lines above, by the same reader

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
        try:
            return [view.text for view in _attributes(self.subject, dotted)]
        except (DerError, IndexError):
            return []


def _instant_of(text: bytes) -> datetime:
    found = parse_time(0x18, text + b"Z")
    assert found is not None  # it was held against the calendar when it was read
    return found


def _attributes(data: bytes, dotted: str) -> list[AttributeView]:
    """Return the attributes of one type in an encoded Name, in order; others are not looked into."""
    found: list[AttributeView] = []
    identifier = _identifier(dotted)
    size = len(identifier)
    end = len(data)
    at = 2
    if data[1] > 0x7F or data[1] + 2 != end or data[0] != 0x30:
        at, end = content_of(data, 0, end, 0x30)
    while at < end:
        length = data[at + 1]
        stop = at + 2 + length
        # A SET of one attribute, all lengths short, is what nearly every RDN is.
        if data[at] == 0x31 and length < 0x80 and data[at + 2] == 0x30 and data[at + 3] == length - 2 and stop <= end:
            value = at + 4 + size
            if data[at + 4 : value] == identifier:
                found.append(_read_attribute(data, value, stop, dotted))
        else:
            pair, stop = content_of(data, at, end, 0x31)
            while pair < stop:
                start, after = content_of(data, pair, stop, 0x30)
                if data[start : start + size] == identifier:
                    found.append(_read_attribute(data, start + size, after, dotted))
                pair = after
        at = stop
    return found


def _read_attribute(data: bytes, at: int, end: int, dotted: str) -> AttributeView:
    tag, content, stop = read_header(data, at, end)
    return AttributeView(dotted, tag, data[content:stop])


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


def _skip_certs(value: bytes) -> int:
    return max(der.parse(value).as_integer(), 0)


def _key_id(value: bytes) -> bytes:
    for kid in der.parse(value).children(der.SEQUENCE):
        if kid.tag == 0x80:
            return kid.content
    return b""
