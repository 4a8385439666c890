"""How a configuration slot of a 2.x station is written: by SetNetworkProfile, or variable by variable (B09)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from chargepki.ocpp_security.operation_steps import Finish, PasswordChange, PasswordStep, SendAttempt, Snapshot, Step
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import printable
from chargepki.pki.inventory.records import AttemptRecord, OperationState

__all__ = ["BY_VARIABLES", "gives_slot_password", "read_slot_answer", "with_slot_password", "write_slot"]

BY_VARIABLES: Final = "SetVariables(slot)"
"""What an attempt to write a slot by its variables is recorded as."""
_MESSAGE_TIMEOUT_SECONDS: Final = 60
_INTERFACE: Final = "Wired0"
_OCPP_VERSION: Final = {OcppVersion.V201: "OCPP20", OcppVersion.V21: "OCPP21"}
"""The enumeration of 2.0.1 has no value for itself: OCPP20 is used (fact sheet 3.5)."""
_MAY_REFUSE: Final = frozenset({"ApnEnabled", "VpnEnabled", "OcppInterface", "OcppTransport", "MessageTimeout"})
"""What a station may keep as it is: it has neither APN nor VPN then (B09.FR.13), or one interface, say."""


def gives_slot_password(snapshot: Snapshot) -> bool:
    """Say whether the operation gives the new slot an identity and a password of its own (2.1, B09.FR.14)."""
    wanted = int(str(snapshot.operation.parameters["profile"]))
    return snapshot.version is OcppVersion.V21 and snapshot.secret is not None and wanted in (1, 2)


def write_slot(snapshot: Snapshot, attempts: Sequence[AttemptRecord], slot: int, url: str, profile: int) -> SendAttempt:
    """Return the message that writes the slot; what was written before is written again, in place of itself.

    A station of 2.1 that does not know SetNetworkProfile is told by the component NetworkConfiguration.

    Clause: B09.FR.01, FR.14; FR.29 and FR.30 (neither APN nor VPN is configured).
    """
    told = [item for item in attempts if item.action == "SetNetworkProfile" and item.answer is not None]
    error = (told[-1].answer or {}).get("error") if told else None
    by_variables = snapshot.version is OcppVersion.V21 and error is not None and is_unprocessed(str(error))
    own: dict[str, str] = {}
    change = None
    if snapshot.secret is not None and gives_slot_password(snapshot):
        # Accepted beside the one on record from before the station hears of it (A01.FR.04).
        own = {"identity": snapshot.station.id, "basicAuthPassword": snapshot.secret.password.decode()}
        change = PasswordChange(PasswordStep.PEND, snapshot.secret.password_hash)
    if by_variables:
        return SendAttempt("SetVariables", _by_variables(slot, url, profile, own), change, recorded=BY_VARIABLES)
    data = {
        "ocppVersion": _OCPP_VERSION[snapshot.version],
        "ocppTransport": "JSON",
        "ocppCsmsUrl": url,
        "messageTimeout": _MESSAGE_TIMEOUT_SECONDS,
        "securityProfile": profile,
        "ocppInterface": _INTERFACE,
        **own,
    }
    return SendAttempt("SetNetworkProfile", {"configurationSlot": slot, "connectionData": data}, change)


def _by_variables(slot: int, url: str, profile: int, own: Mapping[str, str]) -> dict[str, Any]:
    values = {
        "OcppCsmsUrl": url,
        "SecurityProfile": str(profile),
        "OcppInterface": _INTERFACE,
        "OcppTransport": "JSON",
        "MessageTimeout": str(_MESSAGE_TIMEOUT_SECONDS),
        "ApnEnabled": "false",
        "VpnEnabled": "false",
    }
    names = {"identity": "Identity", "basicAuthPassword": "BasicAuthPassword"}
    component = {"name": "NetworkConfiguration", "instance": str(slot)}
    return {
        "setVariableData": [
            {"component": component, "variable": {"name": name}, "attributeValue": value}
            for name, value in (values | {names[key]: value for key, value in own.items()}).items()
        ]
    }


def read_slot_answer(payload: Mapping[str, object]) -> dict[str, object]:
    """Return what to record of the answer to a slot's variables: the first refusal that matters, with its variable."""
    results = payload.get("setVariableResult")
    for item in results if isinstance(results, list) else ():
        status, name = str(item["attributeStatus"]), str(item["variable"]["name"])
        if status not in ("Accepted", "RebootRequired") and name not in _MAY_REFUSE:
            return {"status": f"{printable(status)[:40]} for {printable(name)[:40]}"}
    return {"status": "Accepted"}


def with_slot_password(step: Step, snapshot: Snapshot) -> Step:
    """Forget the slot's password where the operation ends and nothing came in with it; one that did is on record."""
    secret = snapshot.secret
    if secret is None or not isinstance(step, Finish) or not gives_slot_password(snapshot):
        return step
    if snapshot.station.password_hash == secret.password_hash or step.state is OperationState.EXPIRED:
        return step
    drop = PasswordChange(PasswordStep.DROP, secret.password_hash)
    outcome = dict(step.outcome)
    if step.state is OperationState.DONE:
        outcome["note"] = "the station came in with its old password, not with that of the slot"
    return replace(step, outcome=outcome, password=step.password or drop)
