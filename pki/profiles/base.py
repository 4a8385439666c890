"""The vocabulary in which certificate profiles are written down as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from chargepki.pki.key_usage import KeyUsageBit
from chargepki.pki.keys import KeyAlgorithm

__all__ = [
    "AttributeRule",
    "BasicConstraintsRule",
    "Extension",
    "ExtensionRule",
    "KeyRule",
    "KeyUsageBit",
    "KeyUsageRule",
    "PointerRule",
    "Presence",
    "Profile",
    "RoleKind",
    "Standard",
    "SubjectRule",
    "Syntax",
    "ValidityRule",
]


class Standard(StrEnum):
    """The document a profile follows; the first half of a profile id."""

    ISO15118_2 = "iso15118-2"
    ISO15118_20 = "iso15118-20"
    ISO15118_20_A1 = "iso15118-20-a1"
    OCPP = "ocpp"
    COMMON = "common"


class RoleKind(StrEnum):
    """Position in a hierarchy; lint rules choose by it."""

    ROOT = "root"
    SUB1 = "sub1"
    SUB2 = "sub2"
    CROSS = "cross"
    LEAF = "leaf"


class Presence(StrEnum):
    """Whether a field is emitted by us and demanded by the linter."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"
    OPTIONAL = "optional"
    """Not emitted unless asked for; the linter says nothing."""
    DISCOURAGED = "discouraged"
    """Never emitted by us; worth a notice where others emit it (the standard says SHOULD NOT)."""
    FORBIDDEN = "forbidden"


class Syntax(StrEnum):
    """Grammar of a subject attribute's value."""

    TEXT = "text"
    EMAID = "emaid"
    PCID = "pcid"
    EVCCID = "evccid"
    SECC_ID = "secc-id"
    STATION_SERIAL = "station-serial"
    HOSTNAME = "hostname"
    COUNTRY = "country"


class Extension(StrEnum):
    """The extensions that profiles speak of."""

    BASIC_CONSTRAINTS = "basicConstraints"
    KEY_USAGE = "keyUsage"
    EXTENDED_KEY_USAGE = "extendedKeyUsage"
    SUBJECT_KEY_IDENTIFIER = "subjectKeyIdentifier"
    AUTHORITY_KEY_IDENTIFIER = "authorityKeyIdentifier"
    CRL_DISTRIBUTION_POINTS = "cRLDistributionPoints"
    AUTHORITY_INFORMATION_ACCESS = "authorityInfoAccess"
    SUBJECT_INFORMATION_ACCESS = "subjectInfoAccess"
    SUBJECT_ALTERNATIVE_NAME = "subjectAltName"
    CERTIFICATE_POLICIES = "certificatePolicies"
    OCSP_NO_CHECK = "ocspNoCheck"


@dataclass(frozen=True, slots=True)
class AttributeRule:
    """One attribute of the subject, by its short name (CN, O, OU, C, DC)."""

    attribute: str
    presence: Presence
    clause: str
    fixed: str | None = None
    """The value that the profile dictates; a request never changes it. An operator's explicit subject may, unless
    `presence` is REQUIRED: then only `also_accepted` is left, because the fact is verified."""
    also_accepted: tuple[str, ...] = ()
    """Other values that the linter lets pass with a notice."""
    syntax: Syntax = Syntax.TEXT


@dataclass(frozen=True, slots=True)
class SubjectRule:
    """The attributes in the order in which they are emitted."""

    attributes: tuple[AttributeRule, ...]
    closed: bool = True
    """No attribute outside `attributes` is taken from a request. An open subject is taken as it is, order included."""
    tolerated: tuple[str, ...] = ()
    """Attributes that we never emit and that the linter lets pass with a notice, because sources disagree."""

    def find(self, attribute: str) -> AttributeRule | None:
        """Return the rule for *attribute* (short name), or ``None``."""
        return next((rule for rule in self.attributes if rule.attribute == attribute), None)


@dataclass(frozen=True, slots=True)
class ValidityRule:
    """Durations count both bounds (RFC 5280 4.1.2.5), so notAfter = notBefore + duration - 1 s."""

    default: timedelta
    clause: str
    minimum: timedelta | None = None
    maximum: timedelta | None = None
    verified: bool = True
    """False where no public text confirms the limits. Breaking a limit is a lint warning in any case, never a refusal:
    field practice ignores them (one-year SECC leaves are common), and an operator who asks for it means it."""


@dataclass(frozen=True, slots=True)
class BasicConstraintsRule:
    """cA, pathLenConstraint and the criticality that the profile wants."""

    ca: bool
    path_length: int | None
    clause: str
    critical: bool = True


@dataclass(frozen=True, slots=True)
class KeyUsageRule:
    """`emitted` bits are set by us; the linter demands `required` and tolerates `optional`."""

    emitted: frozenset[KeyUsageBit]
    required: frozenset[KeyUsageBit]
    clause: str
    optional: frozenset[KeyUsageBit] = frozenset()
    critical: bool = True
    rsa_extra: frozenset[KeyUsageBit] = frozenset()
    """Bits set in addition when the subject key is RSA (TLS_RSA suites encrypt to the server's key)."""

    def emitted_for(self, algorithm: KeyAlgorithm) -> frozenset[KeyUsageBit]:
        """Return the bits we set for a subject key of *algorithm*.

        An Edwards-curve key only signs: it never asserts key agreement or encipherment (RFC 8410 5, RFC 9295 3).
        """
        return self._fit(self.emitted, algorithm) | (self.rsa_extra if _is_rsa(algorithm) else frozenset())

    def required_for(self, algorithm: KeyAlgorithm) -> frozenset[KeyUsageBit]:
        """Return the bits that the linter demands of a subject key of *algorithm*."""
        return self._fit(self.required, algorithm)

    @staticmethod
    def _fit(bits: frozenset[KeyUsageBit], algorithm: KeyAlgorithm) -> frozenset[KeyUsageBit]:
        return bits - _NOT_FOR_EDWARDS if algorithm in (KeyAlgorithm.ED25519, KeyAlgorithm.ED448) else bits


_NOT_FOR_EDWARDS = frozenset(
    {
        KeyUsageBit.KEY_ENCIPHERMENT,
        KeyUsageBit.DATA_ENCIPHERMENT,
        KeyUsageBit.KEY_AGREEMENT,
        KeyUsageBit.ENCIPHER_ONLY,
        KeyUsageBit.DECIPHER_ONLY,
    }
)


def _is_rsa(algorithm: KeyAlgorithm) -> bool:
    return algorithm in (KeyAlgorithm.RSA2048, KeyAlgorithm.RSA3072, KeyAlgorithm.RSA4096)


@dataclass(frozen=True, slots=True)
class ExtensionRule:
    """Presence and criticality of one extension."""

    extension: Extension
    presence: Presence
    critical: bool
    clause: str


@dataclass(frozen=True, slots=True)
class PointerRule:
    """Which revocation pointers are written when a public URL is known."""

    ocsp: Presence
    crl: Presence
    ca_issuers: Presence
    clause: str
    at_least_one: bool = False
    """True where the standard demands a CRL or an OCSP pointer but leaves the choice (V2G20-2590 and its siblings)."""


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Key algorithms that a subject key may have; the first is the default."""

    algorithms: tuple[KeyAlgorithm, ...]
    clause: str

    @property
    def default(self) -> KeyAlgorithm:
        """The algorithm used when nobody names one."""
        return self.algorithms[0]


@dataclass(frozen=True, slots=True)
class Profile:
    """One certificate profile, ``STANDARD/ROLE``; pure data."""

    standard: Standard
    role: str
    kind: RoleKind
    title: str
    subject: SubjectRule
    keys: KeyRule
    validity: ValidityRule
    basic_constraints: BasicConstraintsRule
    key_usage: KeyUsageRule
    pointers: PointerRule
    issuers: tuple[str, ...]
    """Roles of the same standard that may issue it, the usual one first; a full ``STANDARD/ROLE`` where a CA of another
    standard may; its own role for a self-signed root; empty for any CA (`common`). `hierarchy.may_issue` decides."""
    clause: str
    extended_key_usage: tuple[str, ...] = ()
    """Dotted OIDs that are emitted; empty means the extension is left out."""
    extensions: tuple[ExtensionRule, ...] = ()
    """Criticality and presence of every extension that the profile speaks of."""
    max_der_bytes: int | None = None
    ski_bytes: int = 20
    """20: SHA-1 of the key bits; 8: the 64-bit form of RFC 5280 4.2.1.2 (2), which ISO 15118-20's AAD presumes."""
    dns_names: Presence = Presence.FORBIDDEN
    """dNSName SANs; OCPP allows them in a CSMS server certificate only."""
    notes: tuple[str, ...] = field(default=())

    def __hash__(self) -> int:
        """Hash the id alone: profiles are keys of caches in the hot path, and the whole tree is large."""
        return hash((self.standard, self.role))

    @property
    def id(self) -> str:
        """``STANDARD/ROLE``, the name users type."""
        return f"{self.standard.value}/{self.role}"

    @property
    def is_ca(self) -> bool:
        """Whether certificates of this profile sign others."""
        return self.basic_constraints.ca

    @property
    def is_root(self) -> bool:
        """Whether certificates of this profile are self-signed anchors."""
        return self.kind is RoleKind.ROOT

    def extension_rule(self, extension: Extension) -> ExtensionRule | None:
        """Return what the profile says of *extension*, or ``None`` when it is silent."""
        return next((rule for rule in self.extensions if rule.extension is extension), None)
