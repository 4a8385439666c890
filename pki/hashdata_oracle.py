"""Recognise which certificate a station means by hash data that may be wrong, and say what it does wrong."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from chargepki.pki.errors import InputError
from chargepki.pki.hashdata_defects import MEANINGS, HashDefect, HashForms, forms_of

__all__ = ["Diagnosis", "KnownCertificate", "Match", "diagnose_hash_data"]

_FIELDS: Final = ("issuerNameHash", "issuerKeyHash", "serialNumber")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z", re.ASCII)
_BY_LENGTH: Final = {20: "sha1", 32: "sha256", 48: "sha384", 64: "sha512"}
_MAX_FIELD: Final = 200

Wrong = frozenset[HashDefect]


class Match(StrEnum):
    """How far a report is understood."""

    EXACT = "exact"
    """The value is right; it may be spelled otherwise than we spell it."""
    DEFECTIVE = "defective"
    """Wrong in a way that we know, and only one known certificate is meant."""
    AMBIGUOUS = "ambiguous"
    """More than one known certificate fits equally well."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KnownCertificate:
    """A certificate that a station may have."""

    label: str
    """For people and for the caller to know it by."""
    der: bytes
    issuer_der: bytes | None
    """Its issuer's certificate, itself for a root; ``None`` when we do not have it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a report means."""

    match: Match
    certificate: KnownCertificate | None = None
    """The one that is meant; ``None`` unless EXACT or DEFECTIVE."""
    defects: tuple[HashDefect, ...] = ()
    """In the order of `HashDefect`; with EXACT only spellings."""
    candidates: tuple[KnownCertificate, ...] = ()
    """With AMBIGUOUS, those that fit."""
    nearest: KnownCertificate | None = None
    """With UNKNOWN, a known certificate of which one or two fields are explained."""
    unexplained: tuple[str, ...] = ()
    """With `nearest`, the fields that nothing explains."""

    def explain(self) -> list[str]:
        """Return in words what is wrong, one sentence for each defect."""
        told = [MEANINGS[defect] for defect in self.defects]
        if self.match is Match.AMBIGUOUS:
            told.append("it fits " + " and ".join(each.label for each in self.candidates))
        if self.nearest is not None:
            told.append(f"nearest is {self.nearest.label}, but nothing explains {' and '.join(self.unexplained)}")
        return told


def diagnose_hash_data(reported: Mapping[str, object], known: Iterable[KnownCertificate]) -> Diagnosis:
    """Compare what a station reports with what it may have.

    Pure. Every defect has to explain its field exactly, by a hash over octets of the certificate, so that a wrong
    certificate is taken for the right one only where serial numbers under one issuer can be confused; then the report
    is ambiguous, unless one certificate fits with fewer defects.

    Args:
        reported: an OCPP CertificateHashDataType that passed the schema; values of any length and spelling.
        known: certificates; those whose octets cannot be read are passed over.

    Raises:
        InputError: a field is missing, not a text, or longer than any version of OCPP allows.
    """
    texts = _read(reported)
    best: list[tuple[KnownCertificate, Wrong]] = []
    nearest: tuple[int, KnownCertificate, tuple[str, ...]] | None = None
    seen: set[bytes] = set()
    for certificate in known:
        if certificate.der in seen:
            continue
        seen.add(certificate.der)
        try:
            forms = forms_of(certificate.der, certificate.issuer_der)
        except InputError:
            continue
        wrong, unexplained = _explain(texts, forms)
        if wrong is None:
            explained = len(_FIELDS) - len(unexplained)
            if explained and (nearest is None or explained > nearest[0]):
                nearest = explained, certificate, unexplained
            continue
        cost = _cost(wrong)
        if not best or cost < _cost(best[0][1]):
            best = [(certificate, wrong)]
        elif cost == _cost(best[0][1]):
            best.append((certificate, wrong))
    if not best:
        if nearest is None:
            return Diagnosis(Match.UNKNOWN)
        return Diagnosis(Match.UNKNOWN, nearest=nearest[1], unexplained=nearest[2])
    if len(best) > 1:
        return Diagnosis(Match.AMBIGUOUS, candidates=tuple(certificate for certificate, _ in best))
    certificate, wrong = best[0]
    defects = tuple(each for each in HashDefect if each in wrong)
    match = Match.EXACT if all(each.is_spelling for each in defects) else Match.DEFECTIVE
    return Diagnosis(match, certificate, defects)


def _read(reported: Mapping[str, object]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name in ("hashAlgorithm", *_FIELDS):
        value = reported.get(name)
        if not isinstance(value, str):
            raise InputError(f"certificate hash data: {name} is missing or not a text")
        if len(value) > _MAX_FIELD:
            raise InputError(f"certificate hash data: {name} is longer than {_MAX_FIELD} characters")
        texts[name] = value
    return texts


def _cost(wrong: Wrong) -> int:
    """Spellings count for nothing: they say nothing about the value."""
    return sum(not each.is_spelling for each in wrong)


def _explain(texts: Mapping[str, str], forms: HashForms) -> tuple[Wrong | None, tuple[str, ...]]:
    """Return what is wrong about a report that means this certificate, or the fields that nothing explains."""
    name_text, key_text = texts["issuerNameHash"], texts["issuerKeyHash"]
    label = texts["hashAlgorithm"].lower()
    serial = _serial(texts["serialNumber"], forms, _is_upper(name_text + key_text))
    name, key = _hashed(name_text, label, forms.names), _hashed(key_text, label, forms.keys)
    if (name is None or key is None) and serial is not None:
        swapped = _hashed(key_text, label, forms.names), _hashed(name_text, label, forms.keys)
        if swapped[0] is not None and swapped[1] is not None:
            return swapped[0] | swapped[1] | serial | {HashDefect.FIELDS_SWAPPED}, ()
    found = (name, key, serial)
    if name is None or key is None or serial is None:
        return None, tuple(field for field, wrong in zip(_FIELDS, found, strict=True) if wrong is None)
    return name | key | serial, ()


def _hashed(text: str, label: str, forms: Sequence[tuple[bytes, Wrong]]) -> Wrong | None:
    best: Wrong | None = None
    for digest, spelled in _octets(text):
        hash_name = _BY_LENGTH.get(len(digest))
        if hash_name is None:
            continue
        wrong = _digests(hash_name, tuple(forms)).get(digest)
        if wrong is None:
            continue
        told = wrong | spelled | (frozenset() if hash_name == label else {HashDefect.OTHER_HASH})
        if best is None or _cost(told) < _cost(best):
            best = told
    return best


@lru_cache(maxsize=1024)
def _digests(hash_name: str, forms: tuple[tuple[bytes, Wrong], ...]) -> Mapping[bytes, Wrong]:
    return {hashlib.new(hash_name, octets, usedforsecurity=False).digest(): wrong for octets, wrong in forms}


def _octets(text: str) -> list[tuple[bytes, Wrong]]:
    """Return what the text of a hash may stand for: hex, else base64 in either alphabet."""
    if _HEX.match(text):
        return [(bytes.fromhex(text), frozenset({HashDefect.UPPER_CASE}) if _is_upper(text) else frozenset())]
    padded = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        octets = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (ValueError, binascii.Error):
        return []
    return [(octets, frozenset({HashDefect.BASE64}))]


def _serial(text: str, forms: HashForms, hashes_upper: bool) -> Wrong | None:
    folded = text.strip().lower()
    spelled: set[HashDefect] = set()
    if _is_upper(text):
        spelled.add(HashDefect.UPPER_CASE)
    elif hashes_upper and any(char.isalpha() for char in text):
        spelled.add(HashDefect.SERIAL_LOWER_CASE)
    table = dict(forms.serials)
    best: Wrong | None = table.get(folded)
    prefix = "0x" if folded.startswith("0x") else ""
    stripped = prefix + (folded.removeprefix(prefix).lstrip("0") or "0")
    if stripped != folded and stripped in table and (best is None or _cost(table[stripped]) < _cost(best)):
        best = table[stripped] | {HashDefect.SERIAL_PADDED}
    return None if best is None else best | spelled


def _is_upper(text: str) -> bool:
    """Whether it has letters, and none in lower case."""
    return any(char.isalpha() for char in text) and text == text.upper()
