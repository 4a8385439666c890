"""The rules of the request policy that look beyond the request: at what is on record of its key and its station."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from chargepki.pki.keys import load_public_key
from chargepki.pki.policy import Outcome, RuleVerdict
from chargepki.pki.policy_settings import Mode, PolicySettings

if TYPE_CHECKING:
    from chargepki.pki.inventory.records import CertificateRecord

__all__ = ["Asking", "judge_key_list", "judge_rate", "judge_same_key", "judge_secrecy", "not_judged"]

_NEW_KEY: Final = "make a new key and a request for it"
_OWN_KEY: Final = "OCPP A02.FR.02: each request comes with a key pair of its own"
_LISTED: Final = "CVE-2008-0166 and the like: keys that others can compute"


_HELD: Final = "RFC 5280 5.3.1: whoever else has the key can act for its holder"
_COMPROMISE: Final = frozenset({"keyCompromise", "cACompromise", "aACompromise"})
_SECRECY_PASSED: Final = (
    RuleVerdict("compromised-key", Outcome.PASS, "the key is not known to be compromised", _HELD),
)


@dataclass(frozen=True, slots=True)
class Asking:
    """For whom a certificate is asked, and with which request."""

    station: str | None
    subject_der: bytes
    csr: bytes | None
    """DER; ``None`` when a public key came without a request."""


def judge_key_list(spki_der: bytes, settings: PolicySettings) -> tuple[RuleVerdict, ...]:
    """Judge the key against the list of weak keys.

    Args:
        spki_der: DER SubjectPublicKeyInfo.
    """
    from cryptography.hazmat.primitives.asymmetric import rsa

    if settings.mode_of("weak-key") is Mode.OFF:
        return ()
    if settings.weak_keys is None:
        return (not_judged("weak-key", "no list of weak keys is configured (lint.weak_keys)"),)
    key = load_public_key(spki_der)
    modulus = key.public_numbers().n if isinstance(key, rsa.RSAPublicKey) else None
    if settings.weak_keys.lists(spki_der, modulus):
        return (settings.found("weak-key", "the key is on the list of weak keys", _LISTED, _NEW_KEY),)
    return (RuleVerdict("weak-key", Outcome.PASS, "the key is not on the list of weak keys", _LISTED),)


def judge_rate(issued: int | None, settings: PolicySettings) -> tuple[RuleVerdict, ...]:
    """Judge how many certificates the station got within the window of the rate, this one not counted.

    Args:
        issued: ``None`` when the certificate belongs to no station.
    """
    clause = "the operator's rate (policy.rate)"
    if settings.mode_of("rate") is Mode.OFF:
        return ()
    if settings.rate is None or issued is None:
        why = "no rate is configured (policy.rate)" if settings.rate is None else "the certificate has no station"
        return (not_judged("rate", why),)
    if issued >= settings.rate.count:
        message = f"the station was given {issued} certificates already, {settings.rate} are allowed"
        return (settings.found("rate", message, clause, "find out why it asks so often, or wait"),)
    return (RuleVerdict("rate", Outcome.PASS, f"{issued} of {settings.rate}", clause),)


def judge_secrecy(others: Sequence[CertificateRecord]) -> tuple[RuleVerdict, ...]:
    """Judge whether somebody else is known to have the key; nothing configures that away.

    Args:
        others: certificates of the same key.
    """
    for other in others:
        if other.revocation_reason in _COMPROMISE:
            why = f"certificate {other.id} of the same key was revoked for {other.revocation_reason}; {_HELD}"
            message = "the key of the request is known to be compromised"
            return (RuleVerdict("compromised-key", Outcome.REFUSE, message, why, _NEW_KEY),)
    return _SECRECY_PASSED


def judge_same_key(
    asking: Asking, others: Sequence[CertificateRecord], settings: PolicySettings, *, now: datetime
) -> tuple[RuleVerdict, ...]:
    """Judge a request against what was issued for its key before.

    Args:
        others: the newest certificates of the same key; voided ones do not count.
    """
    found: dict[str, RuleVerdict] = {}

    def find(rule: str, message: str, clause: str, fix: str) -> None:
        if settings.mode_of(rule) is not Mode.OFF:
            found.setdefault(rule, settings.found(rule, message, clause, fix))

    for other in others:
        live = other.revoked_at is None and other.not_after >= now
        if _holder(other) != _holder(asking):
            message = f"the key is also that of {other.id} ({_named(other)})"
            find("key-reuse", message, "one key, one holder: whoever has it can act for both", _NEW_KEY)
        elif live:
            find("key-renewal", f"{other.id} has the same key", _OWN_KEY, _NEW_KEY)
        if other.revoked_at is not None and other.revocation_reason != "superseded":
            message = f"{other.id} of the same key was revoked for {other.revocation_reason}"
            find("key-revoked", message, "RFC 5280 5.3.1: what was revoked with the key may still hold", _NEW_KEY)
        if not live and asking.csr is not None and other.csr == asking.csr:
            message = f"this very request was answered by {other.id}, which is not valid any more"
            find("replay", message, "an old request proves nothing about today", _NEW_KEY)
    passed = _passed(settings.off)
    return tuple(found.get(rule.rule, rule) for rule in passed) if found else passed


@lru_cache(maxsize=64)
def _passed(off: frozenset[str]) -> tuple[RuleVerdict, ...]:
    passed = {
        "key-reuse": "nobody else has a certificate for the key",
        "key-renewal": "its holder has no other certificate for the key",
        "key-revoked": "no certificate of the key was revoked",
        "replay": "the request was not answered before",
    }
    return tuple(
        RuleVerdict(rule, Outcome.PASS, message, "the inventory") for rule, message in passed.items() if rule not in off
    )


def not_judged(rule: str, why: str) -> RuleVerdict:
    """Return that *rule* was not evaluated: never a pass."""
    return RuleVerdict(rule, Outcome.NOT_EVALUATED, why, "the operator's configuration")


def _holder(record: CertificateRecord | Asking) -> tuple[str, str | bytes]:
    """Return whose certificate it is: a station's, else that of whom the subject names."""
    return ("station", record.station) if record.station is not None else ("subject", record.subject_der)


def _named(record: CertificateRecord) -> str:
    return record.station or record.subject
