"""Lay out a profile for a person: short facts first, then one table each for subject and extensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["profile_page"]


def profile_page(profile: Mapping[str, Any]) -> str:
    """Return the text of ``profile show`` for what `pki.profiles.describe` returns: each field with its clause."""
    facts = [
        ("profile", profile["id"], ""),
        ("title", profile["title"], ""),
        ("kind", f"{profile['kind']}{', self-signed' if profile['self_signed'] else ''}", profile["clause"]),
        ("issued by", _issuers(profile), ""),
        ("keys", _keys(profile["keys"]), profile["keys"]["clause"]),
        ("validity", _validity(profile["validity"]), profile["validity"]["clause"]),
        ("basic constraints", _constraints(profile["basic_constraints"]), profile["basic_constraints"]["clause"]),
        ("key usage", _key_usage(profile["key_usage"]), profile["key_usage"]["clause"]),
        ("extended key usage", ", ".join(profile["extended_key_usage"]) or "none", ""),
        ("key identifier", f"{profile['subject_key_identifier_bytes']} bytes", ""),
        ("dNSNames", profile["dns_names"], ""),
        ("pointers", _pointers(profile["pointers"]), profile["pointers"]["clause"]),
        ("size limit", _size(profile["max_der_bytes"]), ""),
    ]
    parts = [
        _aligned(["field", "rule", "clause"], facts),
        "",
        *_subject(profile["subject"]),
        "",
        _aligned(
            ["extension", "presence", "critical", "clause"],
            [
                (rule["extension"], rule["presence"], _yes(rule["critical"]), rule["clause"])
                for rule in profile["extensions"]
            ],
        ),
    ]
    if profile["notes"]:
        parts += ["", *(f"note: {note}" for note in profile["notes"])]
    return "\n".join(parts)


def _subject(subject: Mapping[str, Any]) -> list[str]:
    rows = []
    for rule in subject["attributes"]:
        value = (
            f"{rule['fixed']!r}{'' if not rule['changeable'] else ' by default'}" if rule["fixed"] else rule["syntax"]
        )
        if rule["also_accepted"]:
            value += f", also {', '.join(repr(item) for item in rule['also_accepted'])}"
        rows.append((rule["attribute"], rule["presence"], value, rule["clause"]))
    others = "refused" if subject["closed"] else "allowed"
    tolerated = f"; tolerated: {', '.join(subject['tolerated'])}" if subject["tolerated"] else ""
    return [
        _aligned(["subject", "presence", "value", "clause"], rows),
        f"other subject attributes: {others}{tolerated}",
    ]


def _issuers(profile: Mapping[str, Any]) -> str:
    if profile["self_signed"]:
        return "itself"
    return "any CA" if profile["any_issuer"] else ", ".join(profile["issuers"])


def _keys(keys: Mapping[str, Any]) -> str:
    others = [name for name in keys["algorithms"] if name != keys["default"]]
    return ", ".join([f"{keys['default']} by default", *others])


def _validity(rule: Mapping[str, Any]) -> str:
    limits = [f"at {word} {rule[name]}" for name, word in (("minimum", "least"), ("maximum", "most")) if rule[name]]
    doubt = [] if rule["verified"] else ["limits unverified"]
    return ", ".join([f"{rule['default']} by default", *limits, *doubt])


def _constraints(rule: Mapping[str, Any]) -> str:
    if not rule["ca"]:
        return "not a CA"
    depth = "" if rule["path_length"] is None else f", pathLen {rule['path_length']}"
    return f"CA{depth}{', critical' if rule['critical'] else ''}"


def _key_usage(rule: Mapping[str, Any]) -> str:
    text = ", ".join(rule["emitted"]) or "none"
    if rule["emitted_for_rsa"]:
        text += f"; with RSA also {', '.join(rule['emitted_for_rsa'])}"
    if rule["optional"]:
        text += f"; tolerated: {', '.join(rule['optional'])}"
    return text


def _pointers(rule: Mapping[str, Any]) -> str:
    text = ", ".join(f"{label} {rule[name]}" for name, label in _POINTERS)
    return f"{text}; at least one" if rule["at_least_one"] else text


_POINTERS = (("ocsp", "OCSP"), ("crl", "CRL"), ("ca_issuers", "CA issuers"))


def _size(limit: int | None) -> str:
    return "none" if limit is None else f"{limit} bytes of DER"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(heads), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
