"""The step function of `set-profile`: raise a station's security profile, with what that needs first (A05, B09, B10).

What we expect of the station is raised when it has come in on the new profile, and not before: a station that cannot
use it may come back on its old one (A05.FR.08 of 1.6, B10.FR.07), and in 2.x its old order of slots is restored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError, printable
from chargepki.pki.inventory.records import AttemptRecord, CertificateState, Delivery, OperationState

if TYPE_CHECKING:
    from chargepki.ocpp_security.operations import Finish, SendAttempt, Snapshot, Step

__all__ = ["check_profile_parameters", "profile_parameters", "profile_step", "read_profile_answer"]

_MAX_ATTEMPTS: Final = 3
_ASK_AGAIN_AFTER: Final = timedelta(seconds=60)
_MESSAGE_TIMEOUT_SECONDS: Final = 60
_MAX_URL: Final = 512
_SLOTS: Final = range(1, 100)
_TRIGGERS: Final = frozenset({"TriggerMessage", "ExtendedTriggerMessage"})
_OCPP_VERSION: Final = {OcppVersion.V201: "OCPP20", OcppVersion.V21: "OCPP21"}
"""The enumeration of 2.0.1 has no value for itself: OCPP20 is used (fact sheet 3.5)."""
_PRIORITY: Final = {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "NetworkConfigurationPriority"}}


def profile_parameters(profile: int, *, url: str | None = None, slot: int | None = None) -> dict[str, object]:
    """Return the parameters of an operation that raises a station to *profile*.

    Args:
        url: 2.x: base URL of the endpoint that serves the profile, without the identity.
        slot: 2.x: configuration slot to write; the first one that is not in use by default.

    Raises:
        InputError: a value that no station could use.
    """
    parameters: dict[str, object] = {"profile": profile}
    if url is not None:
        parameters["url"] = url.rstrip("/")
    if slot is not None:
        parameters["slot"] = slot
    if profile == 3:
        parameters["use"] = CertificateUse.CHARGING_STATION.value
    check_profile_parameters(parameters)
    return parameters


def check_profile_parameters(parameters: Mapping[str, object]) -> None:
    """Refuse parameters that `set-profile` does not take.

    Raises:
        InputError: says which.
    """
    unknown = sorted(set(parameters) - {"profile", "url", "slot", "use"})
    if unknown:
        raise InputError(f"set-profile takes no parameter {unknown[0]!r}")
    profile, url, slot = parameters.get("profile"), parameters.get("url"), parameters.get("slot")
    if not isinstance(profile, int) or profile not in (1, 2, 3):
        raise InputError("the security profile is 1, 2 or 3")
    scheme = "ws://" if profile == 1 else "wss://"
    if url is not None and not (isinstance(url, str) and url.startswith(scheme) and len(url) <= _MAX_URL):
        raise InputError(f"the URL of an endpoint with profile {profile} begins with {scheme}", why=f"not {url!r}")
    if slot is not None and (not isinstance(slot, int) or isinstance(slot, bool) or slot not in _SLOTS):
        raise InputError(f"a configuration slot is a number from {_SLOTS[0]} to {_SLOTS[-1]}")


def read_profile_answer(payload: Mapping[str, object]) -> dict[str, object]:
    """Return what to record of an answer: the status, and the value of a variable that was read."""
    for name, value in (("setVariableResult", None), ("getVariableResult", "attributeValue")):
        results = payload.get(name)
        if isinstance(results, list):
            first = results[0] if results and isinstance(results[0], dict) else {}
            answer: dict[str, object] = {"status": printable(str(first.get("attributeStatus", "")))[:60]}
            if value is not None and isinstance(first.get(value), str):
                answer["value"] = printable(str(first[value]))[:1000]
            return answer
    return {"status": printable(str(payload.get("status", "")))[:60]}


def profile_step(snapshot: Snapshot, now: datetime) -> Step:
    """Say what to do next; see `operations.next_step`."""
    from chargepki.ocpp_security.operations import Finish

    wanted = int(str(snapshot.operation.parameters["profile"]))
    if snapshot.security_profile >= wanted:
        # Seen on a connection, whatever was answered: from now on nothing lower is let in (A05.FR.07, 1.6 A05.FR.09).
        outcome = {"profile": snapshot.security_profile, "shown_by": "connection"}
        return Finish(OperationState.DONE, outcome, security_profile=wanted)
    if wanted == 3:
        step = _certificate_first(snapshot, now)
        if step is not None:
            return step
    return _step_16(snapshot, wanted, now) if snapshot.version is OcppVersion.V16 else _step_2x(snapshot, wanted, now)


def _certificate_first(snapshot: Snapshot, now: datetime) -> Step | None:
    """Have the station fetch the certificate that profile 3 needs (A05.FR.03, 1.6 A05.FR.04); ``None``: it has one."""
    from chargepki.ocpp_security.operations import Finish, renewal_step

    held = (Delivery.DELIVERED, Delivery.IN_USE)
    for item in snapshot.certificates:
        if item.state is CertificateState.ISSUED and item.delivery in held and item.not_before <= now < item.not_after:
            return None
    triggers = tuple(item for item in snapshot.attempts if item.action in _TRIGGERS)
    step = renewal_step(replace(snapshot, attempts=triggers), now)
    if isinstance(step, Finish):
        if step.state is OperationState.DONE:
            return None
        why = f"profile 3 needs a certificate first: {step.outcome.get('why')}"
        return Finish(step.state, {**step.outcome, "why": why})
    return step


# --- 1.6: ChangeConfiguration ----------------------------------------------------------------------------------------


def _step_16(snapshot: Snapshot, wanted: int, now: datetime) -> Step:
    from chargepki.ocpp_security.operations import SendAttempt, Wait

    change = SendAttempt("ChangeConfiguration", {"key": "SecurityProfile", "value": str(wanted)})
    last = _last(snapshot.attempts, change.action)
    status = _status(last)
    if last is None or status is None:
        return _ask(snapshot, change, last, now)
    if status not in ("Accepted", "RebootRequired"):
        return _refused(f"the station answered {status}", status)
    if status == "RebootRequired":
        reset = SendAttempt("Reset", {"type": "Soft"})
        asked = _last(snapshot.attempts, reset.action)
        if asked is None or _status(asked) is None:
            return _ask(snapshot, reset, asked, now)
        if _status(asked) != "Accepted":
            return _refused(f"the station answered {_status(asked)} to the reset", str(_status(asked)))
    if not snapshot.sent_here:
        return _fell_back(snapshot)
    return Wait("the station reconnects with the new profile", snapshot.operation.deadline)


# --- 2.x: a slot, its place in the order, and a reset ----------------------------------------------------------------


def _step_2x(snapshot: Snapshot, wanted: int, now: datetime) -> Step:
    from chargepki.ocpp_security.operations import Finish, SendAttempt, Wait

    url, attempts = snapshot.operation.parameters.get("url"), snapshot.attempts
    if url is None:
        why = "a station of OCPP 2.x is told a URL with its profile"
        return Finish(OperationState.FAILED, {"why": why, "fix": "pass --url with the endpoint of the new profile"})
    read = SendAttempt("GetVariables", {"getVariableData": [_PRIORITY]})
    known = _last(attempts, read.action)
    if known is None or _status(known) is None:
        return _ask(snapshot, read, known, now)
    before = _slots((known.answer or {}).get("value"))
    if _status(known) != "Accepted" or not before:
        return _refused("the station does not tell its order of configuration slots", str(_status(known)))
    slot = snapshot.operation.parameters.get("slot")
    slot = slot if isinstance(slot, int) else next(item for item in _SLOTS if item not in before)
    after = [slot, *(item for item in before if item != slot)]
    # Each of these may be repeated: the same slot, the same order, in place of themselves (B09.FR.01, B10.FR.01).
    for call, good in (
        (_network_profile(snapshot.version, slot, str(url), wanted), {"Accepted"}),
        (_order_of(after), {"Accepted", "RebootRequired"}),
    ):
        done = _last(attempts, call.action, before="Reset")
        if done is None or _status(done) is None:
            return _ask(snapshot, call, done, now)
        if _status(done) not in good:
            return _refused(f"the station answered {_status(done)} to {call.action}", str(_status(done)))
    reset = SendAttempt("Reset", {"type": "OnIdle"})
    asked = _last(attempts, reset.action)
    if asked is None:
        return reset
    if _status(asked) not in (None, "Accepted", "Scheduled"):
        restored = _restore(snapshot, before, now)
        return restored or _refused(f"the station answered {_status(asked)} to the reset", str(_status(asked)))
    # What was sent last went out to restore the order: the station has come back before, and shown that it fell back.
    has_fallen_back = attempts[-1].action != "Reset"
    if not has_fallen_back and (snapshot.sent_here or _status(asked) == "Scheduled"):
        # OnIdle: it may take as long as the last transaction, and a lost link meanwhile shows nothing.
        return Wait("the station resets and comes back on the new slot", snapshot.operation.deadline)
    return _restore(snapshot, before, now) or _fell_back(snapshot)


def _network_profile(version: OcppVersion, slot: int, url: str, profile: int) -> SendAttempt:
    from chargepki.ocpp_security.operations import SendAttempt

    data = {
        "ocppVersion": _OCPP_VERSION[version],
        "ocppTransport": "JSON",
        "ocppCsmsUrl": url,
        "messageTimeout": _MESSAGE_TIMEOUT_SECONDS,
        "securityProfile": profile,
        "ocppInterface": "Wired0",
    }
    return SendAttempt("SetNetworkProfile", {"configurationSlot": slot, "connectionData": data})


def _order_of(slots: Sequence[int]) -> SendAttempt:
    from chargepki.ocpp_security.operations import SendAttempt

    value = ",".join(map(str, slots))
    return SendAttempt("SetVariables", {"setVariableData": [{**_PRIORITY, "attributeValue": value}]})


def _restore(snapshot: Snapshot, before: Sequence[int], now: datetime) -> Step | None:
    """Write the old order again, once the station has shown that it cannot use the new one; ``None`` when done."""
    since = max(number for number, item in enumerate(snapshot.attempts) if item.action == "Reset")
    call = _order_of(before)
    done = _last(snapshot.attempts[since + 1 :], call.action)
    return _ask(snapshot, call, done, now) if done is None or _status(done) is None else None


# --- both ------------------------------------------------------------------------------------------------------------


def _ask(snapshot: Snapshot, call: SendAttempt, last: AttemptRecord | None, now: datetime) -> Step:
    """Send *call*, or wait for what an unanswered one has done."""
    from chargepki.ocpp_security.operations import Wait

    if last is None:
        return call
    again_at = last.sent_at + _ASK_AGAIN_AFTER
    if snapshot.sent_here and now < again_at:
        return Wait(f"no usable answer to {call.action}", again_at, OperationState.UNKNOWN)
    if sum(item.action == call.action for item in snapshot.attempts) >= _MAX_ATTEMPTS:
        why = f"{call.action} stayed unanswered several times"
        return Wait(why, snapshot.operation.deadline, OperationState.UNKNOWN)
    return call


def _last(attempts: Sequence[AttemptRecord], action: str, *, before: str | None = None) -> AttemptRecord | None:
    def considered() -> Iterator[AttemptRecord]:
        for item in attempts:
            if item.action == before:
                return
            yield item

    return next((item for item in reversed(list(considered())) if item.action == action), None)


def _status(attempt: AttemptRecord | None) -> str | None:
    """Return what the station answered; ``None`` when it may or may not have processed the message."""
    answer = (attempt.answer if attempt is not None else None) or {}
    status, error = answer.get("status"), answer.get("error")
    if status is not None:
        return str(status)
    return str(error) if error is not None and is_unprocessed(str(error)) else None


def _slots(value: object) -> list[int]:
    """Return the slots of a NetworkConfigurationPriority; some stations write it as a JSON list."""
    text = str(value or "").strip()
    if text.startswith("["):
        try:
            text = ",".join(str(item) for item in json.loads(text))
        except (ValueError, TypeError):
            return []
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(p.isascii() and p.isdigit() and len(p) <= 4 for p in parts) else []


def _refused(why: str, status: str) -> Finish:
    from chargepki.ocpp_security.operations import Finish

    # A05.FR.02 and FR.03 (1.6: FR.02 to FR.04): the answer does not say which precondition is missing.
    fix = "see which precondition is missing: a CSMS root, a certificate, a password, or room for a slot"
    return Finish(OperationState.FAILED, {"profile": "unchanged", "status": status, "why": why, "fix": fix})


def _fell_back(snapshot: Snapshot) -> Finish:
    from chargepki.ocpp_security.operations import Finish

    why = f"the station accepted the change and came back on profile {snapshot.security_profile}"
    return Finish(OperationState.FAILED, {"profile": "unchanged", "fell_back": True, "why": why})
