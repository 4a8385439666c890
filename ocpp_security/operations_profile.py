"""The step function of `set-profile`: change a station's security profile (A05, B09, B10); see also `profile_needs`.

What we expect of the station is raised when it has come in on the new profile, and not before: a station that cannot
use it may come back on its old one (A05.FR.08 of 1.6, B10.FR.07), and in 2.x its old order of slots is restored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from chargepki.ocpp_security.operation_steps import Finish, SendAttempt, Snapshot, Step, Wait
from chargepki.ocpp_security.profile_needs import (
    ASK_AGAIN_AFTER,
    MAX_ATTEMPTS,
    ask,
    fetch_first,
    read_need_answer,
    with_password_on_record,
)
from chargepki.ocpp_security.profile_slots import BY_VARIABLES, read_slot_answer, with_slot_password, write_slot
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError, printable
from chargepki.pki.inventory.records import AttemptRecord, OperationState

__all__ = ["check_profile_parameters", "profile_parameters", "profile_step", "read_profile_answer"]

_REBOOT: Final = timedelta(minutes=10)
"""How long a station that accepted a reset may take until it boots; a lost link meanwhile shows nothing."""
_MAX_URL: Final = 512
_SLOTS: Final = range(1, 100)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CHANGES: Final = frozenset({"ChangeConfiguration", "GetVariables", "SetNetworkProfile"})
"""With one of these the change itself has begun; attempts of what comes first carry labels of their own."""
_ALLOWED: Final = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "AllowSecurityProfileDowngrade"}}
_PRIORITY: Final = {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "NetworkConfigurationPriority"}}


def profile_parameters(
    profile: int, *, url: str | None = None, slot: int | None = None, root: str | None = None, downgrade: bool = False
) -> dict[str, object]:
    """Return the parameters of an operation that brings a station to *profile*.

    Args:
        url: 2.x: base URL of the endpoint that serves the profile, without the identity.
        slot: 2.x: configuration slot to write; the first one that is not in use by default.
        root: SHA-256 of the CSMS root that the station gets first, where it does not list it.
        downgrade: 2.x: from profile 3 to 2, which the errata allow a station that says so itself.

    Raises:
        InputError: a value that no station could use.
    """
    parameters: dict[str, object] = {"profile": profile}
    if url is not None:
        parameters["url"] = url.rstrip("/")
    if slot is not None:
        parameters["slot"] = slot
    if root is not None:
        parameters["root"] = root
    if downgrade:
        parameters["downgrade"] = True
    if profile == 3:
        parameters["use"] = CertificateUse.CHARGING_STATION.value
    check_profile_parameters(parameters)
    return parameters


def check_profile_parameters(parameters: Mapping[str, object]) -> None:
    """Refuse parameters that `set-profile` does not take.

    Raises:
        InputError: says which.
    """
    unknown = sorted(set(parameters) - {"profile", "url", "slot", "use", "root", "downgrade"})
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
    root, downgrade = parameters.get("root"), parameters.get("downgrade", False)
    if root is not None and not (isinstance(root, str) and _SHA256.fullmatch(root)):
        raise InputError("the root is named by its SHA-256, 64 lower-case hexadecimal digits")
    if not isinstance(downgrade, bool) or (downgrade and profile != 2):
        raise InputError("a station is lowered to profile 2 alone", why="A05.FR.08 and FR.09 allow nothing else")


def read_profile_answer(version: OcppVersion, label: str, payload: Mapping[str, object]) -> dict[str, object]:
    """Return what to record of an answer: the status, and the value of a variable that was read; never a secret.

    Args:
        label: what the attempt was recorded as, where that says more than its action.
    """
    need = read_need_answer(version, label, payload)
    if need is not None:
        return need
    if label == BY_VARIABLES:
        return read_slot_answer(payload)
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
    step = with_slot_password(with_password_on_record(_step(snapshot, now), snapshot), snapshot)
    if isinstance(step, Finish) and step.security_profile is None and snapshot.operation.parameters.get("downgrade"):
        # It was not lowered: what was opened for it with the reset is closed again.
        return replace(step, security_profile=snapshot.security_profile)
    return step


def _step(snapshot: Snapshot, now: datetime) -> Step:
    parameters = snapshot.operation.parameters
    wanted, downgrade = int(str(parameters["profile"])), bool(parameters.get("downgrade"))
    if snapshot.security_profile == wanted or (snapshot.security_profile > wanted and not downgrade):
        # Seen on a connection, whatever was answered: from now on nothing lower is let in (A05.FR.07, 1.6 A05.FR.09).
        outcome = {"profile": snapshot.security_profile, "shown_by": "connection"}
        return Finish(OperationState.DONE, outcome, security_profile=wanted)
    if not any(item.action in _CHANGES for item in snapshot.attempts):
        step = (_allowance(snapshot, now) if downgrade else None) or fetch_first(snapshot, wanted, now)
        if step is not None:
            return step
    return _step_16(snapshot, wanted, now) if snapshot.version is OcppVersion.V16 else _step_2x(snapshot, wanted, now)


def _allowance(snapshot: Snapshot, now: datetime) -> Step | None:
    """Ask the station whether it may be lowered from profile 3 to 2; ``None`` when it says so.

    Clause: A05.FR.08 to FR.10 with their errata; 1.6 A05.FR.01 knows no such exception.
    """
    if snapshot.version is OcppVersion.V16 or snapshot.security_profile != 3:
        why = "only a station of OCPP 2.x may be lowered, and only from profile 3 to 2 (A05.FR.08)"
        return Finish(OperationState.FAILED, {"profile": "unchanged", "why": why})
    label = "GetVariables(downgrade)"
    asked = _last(snapshot.attempts, label)
    if asked is None or _status(asked) is None:
        return ask(snapshot, SendAttempt("GetVariables", {"getVariableData": [_ALLOWED]}, recorded=label), asked, now)
    told = str((asked.answer or {}).get("value", "")).lower()
    if _status(asked) == "Accepted" and told == "true":
        return None
    why = "the station does not allow it: its AllowSecurityProfileDowngrade is not true (A05.FR.10)"
    fix = "set SecurityCtrlr.AllowSecurityProfileDowngrade first: chargepki station call ID SetVariables"
    return Finish(OperationState.FAILED, {"profile": "unchanged", "why": why, "fix": fix})


# --- 1.6: ChangeConfiguration ----------------------------------------------------------------------------------------


def _step_16(snapshot: Snapshot, wanted: int, now: datetime) -> Step:
    change = SendAttempt("ChangeConfiguration", {"key": "SecurityProfile", "value": str(wanted)})
    last = _last(snapshot.attempts, change.action)
    status = _status(last)
    if last is None or status is None:
        return ask(snapshot, change, last, now)
    if status not in ("Accepted", "RebootRequired"):
        return _refused(f"the station answered {status}", status)
    if status == "RebootRequired":
        reset = SendAttempt("Reset", {"type": "Soft"})
        asked = _last(snapshot.attempts, reset.action)
        if asked is None:
            return reset
        if _status(asked) not in (None, "Accepted"):
            return _refused(f"the station answered {_status(asked)} to the reset", str(_status(asked)))
        return _until_it_boots(snapshot, reset, asked, now) or _fell_back(snapshot)
    if not snapshot.sent_here:
        return _fell_back(snapshot)
    return Wait("the station reconnects with the new profile", snapshot.operation.deadline)


# --- 2.x: a slot, its place in the order, and a reset ----------------------------------------------------------------


def _step_2x(snapshot: Snapshot, wanted: int, now: datetime) -> Step:
    url, attempts = snapshot.operation.parameters.get("url"), snapshot.attempts
    if url is None:
        why = "a station of OCPP 2.x is told a URL with its profile"
        return Finish(OperationState.FAILED, {"why": why, "fix": "pass --url with the endpoint of the new profile"})
    read = SendAttempt("GetVariables", {"getVariableData": [_PRIORITY]})
    known = _last(attempts, read.action)
    if known is None or _status(known) is None:
        return ask(snapshot, read, known, now)
    before = _slots((known.answer or {}).get("value"))
    if _status(known) != "Accepted" or not before:
        return _refused("the station does not tell its order of configuration slots", str(_status(known)))
    slot = snapshot.operation.parameters.get("slot")
    slot = slot if isinstance(slot, int) else next(item for item in _SLOTS if item not in before)
    after = [slot, *(item for item in before if item != slot)]
    # Each of these may be repeated: the same slot, the same order, in place of themselves (B09.FR.01, B10.FR.01).
    for call, good in (
        (write_slot(snapshot, attempts, slot, str(url), wanted), {"Accepted"}),
        (_order_of(after), {"Accepted", "RebootRequired"}),
    ):
        done = _last(attempts, call.recorded or call.action, before="Reset")
        if done is None or _status(done) is None:
            return ask(snapshot, call, done, now)
        if _status(done) not in good:
            return _refused(f"the station answered {_status(done)} to {call.action}", str(_status(done)))
    lets_in = wanted if snapshot.operation.parameters.get("downgrade") else None
    reset = SendAttempt("Reset", {"type": "OnIdle"}, lets_in=lets_in)
    asked = _last(attempts, reset.action)
    if asked is None:
        return reset
    if _status(asked) not in (None, "Accepted", "Scheduled"):
        restored = _restore(snapshot, before, now)
        return restored or _refused(f"the station answered {_status(asked)} to the reset", str(_status(asked)))
    # What was sent last went out to restore the order: the station has come back before, and shown that it fell back.
    if attempts[-1].action == "Reset":
        waiting = _until_it_boots(snapshot, reset, asked, now)
        if waiting is not None:
            return waiting
    return _restore(snapshot, before, now) or _fell_back(snapshot)


def _until_it_boots(snapshot: Snapshot, reset: SendAttempt, asked: AttemptRecord, now: datetime) -> Step | None:
    """Wait until the station shows that it was reset, or reset it again; ``None``: it was, and is on its old profile.

    A connection on the old profile alone shows nothing: the link may have been lost before the station got the
    message, or before its last transaction ended. A station that was reset sends BootNotification (B01.FR.01,
    B10.FR.10); one that boots for another reason has tried the new order as well (B10.FR.04).
    """
    deadline = snapshot.operation.deadline
    if snapshot.sent_here:
        return Wait("the station resets and comes back on the new profile", deadline)
    if snapshot.booted_here:
        return None
    if _status(asked) == "Scheduled":
        # OnIdle: it may take as long as the last transaction.
        return Wait("the station resets when it is idle", deadline)
    if _status(asked) is None:
        again_at = asked.sent_at + ASK_AGAIN_AFTER
        if now < again_at:
            return Wait("nothing shows that the station got the reset", again_at, OperationState.UNKNOWN)
        if sum(item.action == reset.action for item in snapshot.attempts) < MAX_ATTEMPTS:
            return reset
    until = asked.sent_at + _REBOOT
    return Wait("the station has not booted yet", until) if now < until else None


def _order_of(slots: Sequence[int]) -> SendAttempt:
    value = ",".join(map(str, slots))
    return SendAttempt("SetVariables", {"setVariableData": [{**_PRIORITY, "attributeValue": value}]})


def _restore(snapshot: Snapshot, before: Sequence[int], now: datetime) -> Step | None:
    """Write the old order again, once the station has shown that it cannot use the new one; ``None`` when done."""
    since = max(number for number, item in enumerate(snapshot.attempts) if item.action == "Reset")
    call = _order_of(before)
    done = _last(snapshot.attempts[since + 1 :], call.action)
    return ask(snapshot, call, done, now) if done is None or _status(done) is None else None


# --- both ------------------------------------------------------------------------------------------------------------


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
    # A05.FR.02 and FR.03 (1.6: FR.02 to FR.04): the answer does not say which precondition is missing.
    fix = "see which precondition is missing: a CSMS root, a certificate, a password, or room for a slot"
    return Finish(OperationState.FAILED, {"profile": "unchanged", "status": status, "why": why, "fix": fix})


def _fell_back(snapshot: Snapshot) -> Finish:
    why = f"the station accepted the change and came back on profile {snapshot.security_profile}"
    # Where it was to be lowered, what was opened for it is closed again.
    again = snapshot.security_profile if snapshot.operation.parameters.get("downgrade") else None
    return Finish(
        OperationState.FAILED, {"profile": "unchanged", "fell_back": True, "why": why}, security_profile=again
    )
