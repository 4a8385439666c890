"""Changes of certificates and roots over connections without TLS: refused, unless an operator has allowed them.

No requirement forbids them, and many stations refuse them. The way up from profile 1 may need one: then the operator
allows it, for an operation, a campaign, or named stations of an endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.operation_steps import Finish, SendAttempt, Snapshot, Step
from chargepki.ocpp_security.pnc_transfer import is_plug_and_charge
from chargepki.ocpp_security.security_profile import DEMANDS, SecurityProfile
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import find_trigger_use
from chargepki.pki.errors import InputError, StateError
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import OperationState

__all__ = [
    "ALLOW",
    "CURE",
    "WHY",
    "UnsecuredLinks",
    "allowance",
    "check_allowance",
    "find_change",
    "guard_step",
    "has_consent",
    "is_secured",
    "refuse_call",
    "refuse_request",
]

ALLOW: Final = "allow_unsecured"
"""The parameter of an operation with which an operator allows it."""
WHY: Final = "without TLS anybody on the way could put a key or a root of their own in place of the right one"
CURE: Final = (
    "let the station come in with TLS; on a line that is protected otherwise allow it with --allow-unsecured, "
    "of the operation or, for named stations, of `chargepki csms serve`"
)
_CHANGES: Final = frozenset({"CertificateSigned", "DeleteCertificate", "InstallCertificate"})
_RENEWALS: Final = frozenset({"trigger-renewal", "set-profile"})


class UnsecuredLinks:
    """The stations with which certificates and roots may be changed without TLS, by an endpoint's configuration."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(patterns)
        """Shell patterns of identities; may be replaced at any time."""

    def allows(self, station: str) -> bool:
        """Say whether the configuration allows it for *station*."""
        return any(fnmatchcase(station, pattern) for pattern in self.patterns)


def is_secured(profile: int) -> bool:
    """Say whether a connection on *profile* has TLS, ours or that of the proxy in front."""
    return DEMANDS[SecurityProfile(profile)].tls


def find_change(version: OcppVersion, action: str, payload: Mapping[str, object]) -> str | None:
    """Return which change of certificates or roots a CALL makes at a station; ``None`` for every other CALL.

    >>> find_change(OcppVersion.V201, "InstallCertificate", {})
    'InstallCertificate'
    >>> find_change(OcppVersion.V201, "GetInstalledCertificateIds", {}) is None
    True
    """
    if action in _CHANGES:
        return action
    if version is OcppVersion.V16 and action == "DataTransfer" and is_plug_and_charge(payload):
        # By its name alone: what we cannot read the station may.
        name = payload.get("messageId")
        return name if isinstance(name, str) and name in _CHANGES else None
    return None


def refuse_call(station: str, change: str) -> StateError:
    """Return why *change* is not sent to *station*."""
    return StateError(f"{change} is not sent to {station} over a connection without TLS", why=WHY, fix=CURE)


def refuse_request(station: str) -> OcppRefusal:
    """Return the refusal of a CSR that came over a connection without TLS.

    Clause: A02.FR.12 (Rejected).
    """
    return OcppRefusal(
        f"the CSR of {station} came over a connection without TLS",
        answer=StatusAnswer("Rejected", "UnsupportedRequest", "certificates are not issued over a link without TLS"),
        why=WHY,
        fix=CURE,
    )


def allowance(*, allow: bool) -> dict[str, object]:
    """Return what the parameters of an operation get: the allowance, or nothing."""
    return {ALLOW: True} if allow else {}


def check_allowance(parameters: Mapping[str, object]) -> None:
    """Refuse an allowance among the parameters of an operation that is neither true nor left out.

    Raises:
        InputError: it is something else.
    """
    if parameters.get(ALLOW, True) is not True:
        raise InputError(f"{ALLOW} is true or left out")


def has_consent(reads: Reads, station: str) -> bool:
    """Say whether an open operation allows that *station* gets a certificate without TLS."""
    return any(
        operation.kind in _RENEWALS and operation.parameters.get(ALLOW) is True
        for operation in reads.list_operations(station=station, open_only=True)
    )


def guard_step(step: Step, snapshot: Snapshot) -> Step:
    """Let *step* pass, or fail the operation in place of a change over a connection without TLS.

    A trigger counts as a change: the CSR that it brings would be refused.
    """
    operation = snapshot.operation
    if isinstance(step, Finish) and operation.parameters.get(ALLOW):
        return replace(step, outcome={**step.outcome, "deviation": "it was allowed without TLS"})
    if not isinstance(step, SendAttempt) or is_secured(snapshot.security_profile):
        return step
    change = find_change(snapshot.version, step.action, step.payload)
    if change is None and find_trigger_use(snapshot.version, step.action, step.payload) is not None:
        change = step.action
    if change is None:
        return step
    if snapshot.allowed_unsecured or operation.parameters.get(ALLOW) is True:
        return replace(step, unsecured=True)
    refusal = refuse_call(operation.station, change)
    outcome: dict[str, object] = {"why": f"{refusal.what}: {refusal.why}", "fix": refusal.fix, "unsecured": True}
    if operation.kind == "set-profile":
        outcome["profile"] = "unchanged"
    # A password that the station has taken meanwhile goes on record all the same.
    return Finish(OperationState.FAILED, outcome, password=step.password)
