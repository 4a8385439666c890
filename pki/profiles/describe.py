"""A profile as plain data, with every field, its limits and its clause: what ``profile show`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TypeAlias

from chargepki.pki.profiles.base import (
    AttributeRule,
    ExtensionRule,
    KeyUsageBit,
    KeyUsageRule,
    Presence,
    Profile,
    ValidityRule,
)
from chargepki.pki.profiles.hierarchy import issuer_ids

__all__ = ["Json", "describe", "duration_text"]

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
"""What the standard library's json module can write."""

_UNITS = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def describe(profile: Profile) -> dict[str, Json]:
    """Return *profile* as JSON-able data; the keys are documented in the reference and stay stable."""
    return {
        "id": profile.id,
        "title": profile.title,
        "standard": profile.standard.value,
        "role": profile.role,
        "kind": profile.kind.value,
        "clause": profile.clause,
        "issuers": list[Json](issuer_ids(profile)),
        "any_issuer": not profile.issuers,
        "self_signed": profile.is_root,
        "subject": {
            "attributes": [_attribute(rule) for rule in profile.subject.attributes],
            "closed": profile.subject.closed,
            "tolerated": list[Json](profile.subject.tolerated),
        },
        "keys": {
            "default": profile.keys.default.value,
            "algorithms": [algorithm.value for algorithm in profile.keys.algorithms],
            "clause": profile.keys.clause,
        },
        "validity": _validity(profile.validity),
        "basic_constraints": {
            "ca": profile.basic_constraints.ca,
            "path_length": profile.basic_constraints.path_length,
            "critical": profile.basic_constraints.critical,
            "clause": profile.basic_constraints.clause,
        },
        "key_usage": _key_usage(profile.key_usage),
        "extended_key_usage": list[Json](profile.extended_key_usage),
        "subject_key_identifier_bytes": profile.ski_bytes,
        "dns_names": profile.dns_names.value,
        "pointers": {
            "ocsp": profile.pointers.ocsp.value,
            "crl": profile.pointers.crl.value,
            "ca_issuers": profile.pointers.ca_issuers.value,
            "at_least_one": profile.pointers.at_least_one,
            "clause": profile.pointers.clause,
        },
        "extensions": [_extension(rule) for rule in profile.extensions],
        "max_der_bytes": profile.max_der_bytes,
        "notes": list[Json](profile.notes),
    }


def duration_text(duration: timedelta) -> str:
    """Return *duration* as users type it, in the largest unit that divides it; a year is 365 days.

    >>> duration_text(timedelta(days=1460)), duration_text(timedelta(days=60)), duration_text(timedelta(hours=23))
    ('4y', '60d', '23h')
    """
    seconds = int(duration.total_seconds())
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _attribute(rule: AttributeRule) -> Json:
    return {
        "attribute": rule.attribute,
        "presence": rule.presence.value,
        "fixed": rule.fixed,
        "changeable": rule.fixed is None or rule.presence is not Presence.REQUIRED,
        "also_accepted": list[Json](rule.also_accepted),
        "syntax": rule.syntax.value,
        "clause": rule.clause,
    }


def _validity(rule: ValidityRule) -> Json:
    return {
        "default": duration_text(rule.default),
        "minimum": None if rule.minimum is None else duration_text(rule.minimum),
        "maximum": None if rule.maximum is None else duration_text(rule.maximum),
        "verified": rule.verified,
        "clause": rule.clause,
    }


def _key_usage(rule: KeyUsageRule) -> Json:
    return {
        "emitted": _bits(rule.emitted),
        "emitted_for_rsa": _bits(rule.rsa_extra),
        "required": _bits(rule.required),
        "optional": _bits(rule.optional),
        "critical": rule.critical,
        "clause": rule.clause,
    }


def _bits(bits: Iterable[KeyUsageBit]) -> list[Json]:
    return [bit.value for bit in sorted(bits, key=lambda bit: bit.bit)]


def _extension(rule: ExtensionRule) -> Json:
    return {
        "extension": rule.extension.value,
        "presence": rule.presence.value,
        "critical": rule.critical,
        "clause": rule.clause,
    }
