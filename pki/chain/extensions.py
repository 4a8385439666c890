"""Decode the extension values that restrict a path or scope a revocation list; strict, one function for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from chargepki.pki import der
from chargepki.pki.der import DerError, Tlv

__all__ = [
    "DistributionPoint",
    "GeneralName",
    "IssuingPoint",
    "NameConstraints",
    "PolicyConstraints",
    "Subtree",
    "read_distribution_points",
    "read_general_names",
    "read_identifiers",
    "read_issuing_point",
    "read_name_constraints",
    "read_policies",
    "read_policy_constraints",
    "read_policy_mappings",
]


class GeneralName(NamedTuple):
    """One GeneralName (RFC 5280 4.2.1.6)."""

    tag: int
    """Context number: 1 rfc822Name, 2 dNSName, 4 directoryName, 6 URI, 7 iPAddress."""
    value: bytes
    """Content octets; of a directoryName the whole encoded Name."""


class Subtree(NamedTuple):
    """One GeneralSubtree."""

    base: GeneralName
    has_distance: bool
    """minimum or maximum is there, which RFC 5280 does not use."""


class NameConstraints(NamedTuple):
    """RFC 5280 4.2.1.10."""

    permitted: tuple[Subtree, ...]
    excluded: tuple[Subtree, ...]


class PolicyConstraints(NamedTuple):
    """RFC 5280 4.2.1.11; ``None`` where the field is absent."""

    require_explicit: int | None
    inhibit_mapping: int | None


class DistributionPoint(NamedTuple):
    """One entry of CRLDistributionPoints (RFC 5280 4.2.1.13)."""

    names: tuple[GeneralName, ...]
    relative: bytes | None
    """DER of the RDN of nameRelativeToCRLIssuer."""
    reasons: frozenset[int] | None
    """Bits of ReasonFlags; ``None`` for all."""
    crl_issuers: tuple[GeneralName, ...]


class IssuingPoint(NamedTuple):
    """IssuingDistributionPoint of a CRL (RFC 5280 5.2.5)."""

    names: tuple[GeneralName, ...]
    relative: bytes | None
    only_users: bool
    only_cas: bool
    only_attributes: bool
    reasons: frozenset[int] | None
    indirect: bool


def read_identifiers(value: bytes) -> tuple[str, ...]:
    """Return the identifiers of ExtendedKeyUsage."""
    return tuple(kid.as_oid() for kid in _list(value))


def read_general_names(value: bytes) -> tuple[GeneralName, ...]:
    """Return a GeneralNames."""
    return tuple(_general_name(kid) for kid in _list(value))


def read_policies(value: bytes) -> tuple[str, ...]:
    """Return the identifiers of CertificatePolicies. Raises `DerError` when one appears twice (RFC 5280 4.2.1.4)."""
    found = tuple(_policy(kid) for kid in _list(value))
    if len(set(found)) != len(found):
        raise DerError("repeated-policy", 0, "a policy appears twice in certificatePolicies")
    return found


def _policy(information: Tlv) -> str:
    parts = information.children(der.SEQUENCE)
    if not parts:
        raise information.fail("wrong-count", "a PolicyInformation names a policy")
    return parts[0].as_oid()


def read_policy_mappings(value: bytes) -> Mapping[str, frozenset[str]]:
    """Return which of the subject's policies each of the issuer's ones is mapped to."""
    found: dict[str, set[str]] = {}
    for kid in _list(value):
        parts = kid.children(der.SEQUENCE)
        if len(parts) != 2:
            raise kid.fail("wrong-count", "a mapping is a pair of policies")
        found.setdefault(parts[0].as_oid(), set()).add(parts[1].as_oid())
    return {issuer: frozenset(subjects) for issuer, subjects in found.items()}


def read_policy_constraints(value: bytes) -> PolicyConstraints:
    """Return the two numbers."""
    numbers: dict[int, int] = {}
    for kid in der.parse(value).children(der.SEQUENCE):
        if kid.tag not in (0x80, 0x81) or kid.number in numbers:
            raise kid.fail("unexpected-tag", "not PolicyConstraints")
        numbers[kid.number] = max(kid.as_integer(kid.tag), 0)
    return PolicyConstraints(numbers.get(0), numbers.get(1))


def read_name_constraints(value: bytes) -> NameConstraints:
    """Return the two lists of subtrees."""
    lists: dict[int, tuple[Subtree, ...]] = {}
    for kid in der.parse(value).children(der.SEQUENCE):
        if kid.tag not in (0xA0, 0xA1) or kid.number in lists:
            raise kid.fail("unexpected-tag", "not NameConstraints")
        lists[kid.number] = tuple(_subtree(each) for each in kid.children())
    if not lists:
        raise DerError("wrong-count", 0, "nameConstraints without subtrees (RFC 5280 4.2.1.10)")
    return NameConstraints(lists.get(0, ()), lists.get(1, ()))


def _subtree(element: Tlv) -> Subtree:
    parts = element.children(der.SEQUENCE)
    if not parts:
        raise element.fail("wrong-count", "a subtree without base")
    # minimum 0 is the DEFAULT: some write it, and it says nothing.
    extra = [part for part in parts[1:] if part.tag != 0x80 or part.content != b"\0"]
    return Subtree(_general_name(parts[0]), bool(extra))


def read_distribution_points(value: bytes) -> tuple[DistributionPoint, ...]:
    """Return every point, in order."""
    found: list[DistributionPoint] = []
    for point in _list(value):
        names: tuple[GeneralName, ...] = ()
        relative = reasons = None
        issuers: tuple[GeneralName, ...] = ()
        for part in point.children(der.SEQUENCE):
            if part.tag == 0xA0:
                names, relative = _point_name(part)
            elif part.tag == 0x81:
                reasons = part.as_bits(0x81)
            elif part.tag == 0xA2:
                issuers = tuple(_general_name(kid) for kid in part.children())
            else:
                raise part.fail("unexpected-tag", "not a DistributionPoint")
        found.append(DistributionPoint(names, relative, reasons, issuers))
    return tuple(found)


def read_issuing_point(value: bytes) -> IssuingPoint:
    """Return the scope of a CRL."""
    names: tuple[GeneralName, ...] = ()
    relative = reasons = None
    flags = {0x81: False, 0x82: False, 0x84: False, 0x85: False}
    for part in der.parse(value).children(der.SEQUENCE):
        if part.tag == 0xA0:
            names, relative = _point_name(part)
        elif part.tag == 0x83:
            reasons = part.as_bits(0x83)
        elif part.tag in flags:
            flags[part.tag] = part.as_boolean(part.tag)
        else:
            raise part.fail("unexpected-tag", "not an IssuingDistributionPoint")
    return IssuingPoint(names, relative, flags[0x81], flags[0x82], flags[0x85], reasons, flags[0x84])


def _point_name(holder: Tlv) -> tuple[tuple[GeneralName, ...], bytes | None]:
    choice = holder.child()
    if choice.tag == 0xA0:
        return tuple(_general_name(kid) for kid in choice.children()), None
    if choice.tag == 0xA1:
        return (), der.tlv(der.SET, choice.content)
    raise choice.fail("unexpected-tag", "not a DistributionPointName")


def _general_name(element: Tlv) -> GeneralName:
    if element.tag & 0xC0 != 0x80 or element.number > 8:
        raise element.fail("unexpected-tag", "not a GeneralName")
    # directoryName is explicitly tagged, since Name is a CHOICE (X.680 31.2.7).
    return GeneralName(element.number, element.child().raw if element.number == 4 else element.content)


def _list(value: bytes) -> tuple[Tlv, ...]:
    kids = der.parse(value).children(der.SEQUENCE)
    if not kids:
        raise DerError("wrong-count", 0, "an empty list where RFC 5280 wants one entry at least")
    return kids
