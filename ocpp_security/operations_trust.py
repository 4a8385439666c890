"""The step functions of ``install-root``, ``delete-root`` and ``list-roots``: plan, send, read back (M03 to M05)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.operation_steps import Finish, SendAttempt, Snapshot, Step, Wait
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.trust_messages import (
    HASH_FIELDS,
    PNC_USES,
    ListedCertificate,
    build_delete_certificate,
    build_install_certificate,
    build_list_certificates,
    build_read_settings,
    list_rounds,
    read_listing,
    read_settings,
)
from chargepki.ocpp_security.trust_store import is_signed_by
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse, WireCall, read_status
from chargepki.pki.errors import InputError, printable
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.hashdata_oracle import Diagnosis, KnownCertificate, Match, diagnose_hash_data
from chargepki.pki.inventory.records import AttemptRecord, OperationState
from chargepki.pki.pem import to_pem

__all__ = ["TrustFacts", "asked_uses", "check_trust_parameters", "listed_by", "read_trust_answer", "trust_step"]

_LIST, _INSTALL, _DELETE = "GetInstalledCertificateIds", "InstallCertificate", "DeleteCertificate"
_SETTINGS: Final = ("GetConfiguration", "GetVariables")
_MAX_ATTEMPTS: Final = 3
_ASK_AGAIN: Final = timedelta(seconds=30)
_PROTECTED: Final = (RootUse.CSMS, RootUse.MANUFACTURER)
_PARAMETERS: Final = {
    "install-root": frozenset({"use", "certificate"}),
    "delete-root": frozenset({"use", "certificate", "hash", "verbatim", "last"}),
    "list-roots": frozenset({"uses"}),
}


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """What the steps depend on beside the operation itself."""

    known: tuple[KnownCertificate, ...]
    """Everything that may be installed there; what a listing is compared with."""
    target: KnownCertificate | None = None
    """The certificate of the operation."""


def check_trust_parameters(kind: str, parameters: Mapping[str, object]) -> None:
    """Refuse parameters that *kind* does not take.

    Raises:
        InputError: says which.
    """
    unknown = sorted(set(parameters) - _PARAMETERS[kind])
    if unknown:
        raise InputError(f"{kind} takes no parameter {unknown[0]!r}")
    uses = parameters.get("uses", []) if kind == "list-roots" else [parameters.get("use")]
    if not isinstance(uses, list) or not all(use in [known.value for known in RootUse] for use in uses):
        raise InputError("unknown use of a root", fix=f"one of {', '.join(use.value for use in RootUse)}")
    if kind == "list-roots":
        return
    if uses == [RootUse.V2G_CHAIN.value] and kind == "install-root":
        raise InputError("a V2G chain is not installed with InstallCertificate", why="it comes with CertificateSigned")
    named, given = parameters.get("certificate"), parameters.get("hash")
    if kind == "install-root" and not isinstance(named, str):
        raise InputError("install-root needs a certificate")
    if kind == "delete-root":
        if (named is None) == (given is None):
            raise InputError("delete-root needs a certificate, or hash data")
        if given is not None and not (
            isinstance(given, Mapping) and all(isinstance(given.get(name), str) for name in HASH_FIELDS)
        ):
            raise InputError("delete-root: the hash data lack a field", fix=f"give {', '.join(HASH_FIELDS)}")


# --- answers, as they are recorded -----------------------------------------------------------------------------------


def read_trust_answer(label: str, payload: Mapping[str, Any]) -> dict[str, object]:
    """Return what to record of an answer to the attempt *label*."""
    action = label.partition("(")[0]
    if action in _SETTINGS:
        return {"settings": read_settings(payload)}
    inner: Mapping[str, Any] | None = payload
    if "data" in payload:  # of a DataTransfer
        inner = pnc_transfer.read_transfer_answer(action, payload)
    if inner is None or not read_status(inner):
        return {"error": "NotSupported", "status": printable(read_status(payload))[:40]}
    answer: dict[str, object] = {"status": printable(read_status(inner))[:40]}
    info = inner.get("statusInfo")
    if isinstance(info, Mapping) and isinstance(info.get("reasonCode"), str):
        answer["reason"] = printable(str(info["reasonCode"]))[:40]
    if action == _LIST:
        answer["entries"] = [entry.to_json() for entry in read_listing(inner, asked_uses(label))]
    return answer


def asked_uses(label: str) -> tuple[RootUse, ...]:
    """Return the uses that an attempt was about."""
    return tuple(RootUse(name) for name in label.partition("(")[2].removesuffix(")").split(",") if name)


def listed_by(attempt: AttemptRecord) -> tuple[ListedCertificate, ...] | None:
    """Return what an attempt listed; ``None`` when it is no listing, or was not answered with one."""
    answer = attempt.answer or {}
    if not attempt.action.startswith(_LIST) or answer.get("status") not in ("Accepted", "NotFound"):
        return None
    return tuple(map(ListedCertificate.from_json, answer.get("entries", ())))


# --- steps -----------------------------------------------------------------------------------------------------------


def trust_step(snapshot: Snapshot, now: datetime) -> Step:
    """Say what to do next; see `operations.next_step`."""
    steps = {"list-roots": _list_step, "install-root": _install_step, "delete-root": _delete_step}
    try:
        return steps[snapshot.operation.kind](snapshot, now)
    except InputError as error:  # the version of the connection has no such use, or the certificate does not fit
        return Finish(OperationState.FAILED, {"why": str(error)})


def _list_step(snapshot: Snapshot, now: datetime) -> Step:
    uses = [RootUse(use) for use in snapshot.operation.parameters.get("uses", ())]
    total = 0
    for each in list_rounds(snapshot.version, uses):
        label = _label(_LIST, each)
        tried = [attempt for attempt in snapshot.attempts if attempt.action == label]
        listed = next((found for found in map(listed_by, tried) if found is not None), None)
        if listed is None:
            step = _read(snapshot, now, each, tried)
            if step is None and not uses and snapshot.version is OcppVersion.V16 and each[0] in PNC_USES:
                break  # a station of 1.6 without the Plug & Charge extension has no more
            return step or Finish(OperationState.FAILED, _no_listing(tried[-1]))
        total += len(listed)
    return Finish(OperationState.DONE, {"listed": total})


def _no_listing(last: AttemptRecord) -> dict[str, object]:
    answer = last.answer or {}
    told = answer.get("error") or answer.get("status") or "nothing"
    return {"why": f"the station answered {told} to {_LIST}"}


def _read(snapshot: Snapshot, now: datetime, uses: tuple[RootUse, ...], tried: Sequence[AttemptRecord]) -> Step | None:
    """Ask for a listing, which is always safe; ``None`` when the station will not give one."""
    if tried:
        last = tried[-1]
        error = (last.answer or {}).get("error")
        if last.answer is not None and (error is None or is_unprocessed(str(error)) or len(tried) >= _MAX_ATTEMPTS):
            return None
        if last.answer is None and snapshot.sent_here and now < last.sent_at + _ASK_AGAIN:
            return Wait("no answer to the listing", last.sent_at + _ASK_AGAIN, OperationState.UNKNOWN)
        if last.answer is None and snapshot.sent_here and len(tried) >= 3 * _MAX_ATTEMPTS:
            return Wait("the station does not list", snapshot.operation.deadline, OperationState.UNKNOWN)
    return _send(build_list_certificates(snapshot.version, uses), _label(_LIST, uses))


def _install_step(snapshot: Snapshot, now: datetime) -> Step:
    facts, use = _facts(snapshot), RootUse(str(snapshot.operation.parameters["use"]))
    if facts.target is None:
        return Finish(OperationState.FAILED, {"why": "the certificate is not on record any more"})
    install = build_install_certificate(snapshot.version, use, to_pem("CERTIFICATE", facts.target.der))
    installs, listings = _of(snapshot, _INSTALL), _since(snapshot, _LIST, _INSTALL)
    listed = next((found for found in map(listed_by, reversed(listings)) if found is not None), None)
    refused = _refused(installs[-1]) if installs else None
    if refused is not None:
        return Finish(OperationState.FAILED, {"why": f"the station refused the certificate: {refused}"})
    if listed is None:
        reading = _read(snapshot, now, (use,), listings)
        if reading is not None:
            return reading
    shown = _meaning(listed or (), facts, facts.target)
    if shown is not None:
        entry, diagnosis = shown
        told: dict[str, object] = {"hash": dict(entry.hash_data), "defects": [each.value for each in diagnosis.defects]}
        return Finish(OperationState.DONE, told | ({} if installs else {"already": True}))
    if not installs:
        return _before_install(snapshot, facts, use, listed) or _send(install, _label(_INSTALL, (use,)))
    if _status(installs[-1]) == "Accepted":
        if listed is None:
            return Finish(OperationState.DONE, {"unverified": "the station cannot list its certificates"})
        odd = sum(_diagnose(entry, facts).match is Match.UNKNOWN for entry in listed)
        why = "the station says that it installed the certificate, and does not list it"
        return Finish(OperationState.FAILED, {"why": why, "unexplained_entries": odd})
    if len(installs) >= _MAX_ATTEMPTS:
        return Finish(OperationState.FAILED, {"why": f"no answer to {len(installs)} requests, and it is not listed"})
    return _send(install, _label(_INSTALL, (use,)))


def _before_install(
    snapshot: Snapshot, facts: TrustFacts, use: RootUse, listed: Sequence[ListedCertificate] | None
) -> Step | None:
    """Check what would make the station refuse, without sending the certificate (M05.FR.03, FR.06, FR.10, FR.11)."""
    asked = _of(snapshot, _SETTINGS)
    # 2.x tells its capacity in a report alone, so there the settings decide about CSMS roots only.
    if not asked and use is not RootUse.CSMS and snapshot.version is not OcppVersion.V16:
        return None
    if not asked:
        call = build_read_settings(snapshot.version)
        return _send(call, f"{call.action}(settings)")
    settings: Mapping[str, Any] = (asked[-1].answer or {}).get("settings", {})
    room = str(settings.get("CertificateStoreMaxLength", ""))
    if listed is not None and room.isascii() and room.isdigit() and len(listed) >= int(room):
        why = f"the station holds {len(listed)} of {room} certificates (CertificateStoreMaxLength, M05.FR.03)"
        return Finish(OperationState.FAILED, {"why": why})
    if use is not RootUse.CSMS or str(settings.get("AdditionalRootCertificateCheck", "")).lower() != "true":
        return None
    old = [_diagnose(entry, facts).certificate for entry in listed or ()]
    assert facts.target is not None
    target = facts.target
    if old and None not in old and not any(each is not None and is_signed_by(target.der, each.der) for each in old):
        why = (
            "the station takes a new CSMS root only if the old one signed it (AdditionalRootCertificateCheck, "
            "M05.FR.10), and this one is signed by none of those that it lists"
        )
        return Finish(OperationState.FAILED, {"why": why})
    return None


def _delete_step(snapshot: Snapshot, now: datetime) -> Step:
    facts, parameters = _facts(snapshot), snapshot.operation.parameters
    use = RootUse(str(parameters["use"]))
    deletes = _of(snapshot, _DELETE)
    if parameters.get("verbatim") and not deletes:
        return _send(build_delete_certificate(snapshot.version, use, parameters["hash"]), _label(_DELETE, (use,)))
    last_status = _status(deletes[-1]) if deletes else None
    if last_status == "Failed":
        why = "the station refuses to delete it: it is in use, or the last of its kind (M04.FR.03, M04.FR.06)"
        return Finish(OperationState.FAILED, {"why": why})
    if deletes and _refused(deletes[-1]) is not None and last_status != "NotFound":
        return Finish(OperationState.FAILED, {"why": f"the station answered {_refused(deletes[-1])}"})
    listings = _since(snapshot, _LIST, _DELETE)
    listed = next((found for found in map(listed_by, reversed(listings)) if found is not None), None)
    if listed is None:
        reading = _read(snapshot, now, (use,), listings)
        if reading is not None:
            return reading
        if last_status != "Accepted":
            return Finish(OperationState.FAILED, _no_listing(listings[-1]))
        return Finish(OperationState.DONE, {"unverified": "the station cannot list its certificates"})
    entry, diagnosis = _wanted(listed, facts, parameters)
    if entry is None:
        ambiguous = diagnosis is not None and diagnosis.match is Match.AMBIGUOUS
        if ambiguous and diagnosis is not None:
            return Finish(OperationState.FAILED, {"why": f"the listing is ambiguous: {diagnosis.explain()[0]}"})
        return Finish(OperationState.DONE, _deleted(deletes, snapshot))
    if last_status == "Accepted":
        return Finish(OperationState.FAILED, {"why": "the station says that it deleted it, and still lists it"})
    alone = use in _PROTECTED and sum(each.use is use for each in listed) == 1
    if alone and not parameters.get("last") and not deletes:
        what = "no server would be trusted any more" if use is RootUse.CSMS else "no signed firmware would be taken"
        return Finish(OperationState.FAILED, {"why": f"it is the last {use.value} root of the station: {what}"})
    return _send_delete(snapshot, use, entry, facts, deletes)


def _send_delete(
    snapshot: Snapshot, use: RootUse, entry: ListedCertificate, facts: TrustFacts, deletes: Sequence[AttemptRecord]
) -> Step:
    """Send the form that is next: what the station listed, then what would be right, for one that mixes them up."""
    forms = _forms(entry, facts)
    not_found = sum(_status(attempt) == "NotFound" for attempt in deletes)
    unanswered = sum(attempt.answer is None for attempt in deletes)
    if not_found >= len(forms) or (snapshot.operation.parameters.get("verbatim") and not_found):
        why = f"the station lists it and finds it in none of {max(len(forms), 1)} forms: it cannot be deleted"
        return Finish(OperationState.FAILED, {"why": why, "undeletable": dict(entry.hash_data)})
    if unanswered >= _MAX_ATTEMPTS:
        return Finish(OperationState.FAILED, {"why": f"no answer to {unanswered} requests, and it is still listed"})
    call = build_delete_certificate(snapshot.version, use, forms[not_found])
    return _send(call, _label(_DELETE, (use,)))


def _forms(entry: ListedCertificate, facts: TrustFacts) -> list[Mapping[str, str]]:
    """M04.FR.07 and ocpp-security 7: the station's own strings first; the right ones for a station that errs."""
    forms: list[Mapping[str, str]] = [entry.hash_data]
    meant = _diagnose(entry, facts).certificate
    if meant is not None and meant.issuer_der is not None:
        algorithm = entry.hash_data["hashAlgorithm"]
        right = CertificateHashData.of(meant.der, meant.issuer_der, algorithm).to_wire()
        upper = {name: text.upper() for name, text in right.items()}
        forms += [form for form in (right, upper) if form != dict(entry.hash_data)]
    return forms


def _deleted(deletes: Sequence[AttemptRecord], snapshot: Snapshot) -> dict[str, object]:
    if not deletes:
        return {"already": True}
    told: dict[str, object] = {"attempts": len(deletes)}
    before = [found for found in map(listed_by, snapshot.attempts) if found]
    if before and not snapshot.operation.parameters.get("verbatim"):
        entry, diagnosis = _wanted(before[0], _facts(snapshot), snapshot.operation.parameters)
        if entry is not None and diagnosis is not None and any(not each.is_spelling for each in diagnosis.defects):
            told["workaround"] = [each.value for each in diagnosis.defects]
    return told


# --- parts -----------------------------------------------------------------------------------------------------------


def _wanted(
    listed: Sequence[ListedCertificate], facts: TrustFacts, parameters: Mapping[str, Any]
) -> tuple[ListedCertificate | None, Diagnosis | None]:
    """Return the entry that the operation is about, and what it means."""
    given = parameters.get("hash")
    ambiguous: Diagnosis | None = None
    for entry in listed:
        diagnosis = _diagnose(entry, facts)
        if given is not None:
            if _same(entry.hash_data, given):
                return entry, diagnosis
        elif facts.target is not None and diagnosis.certificate is not None:
            if diagnosis.certificate.der == facts.target.der:
                return entry, diagnosis
        elif facts.target is not None and any(each.der == facts.target.der for each in diagnosis.candidates):
            ambiguous = diagnosis
    return None, ambiguous


def _same(listed: Mapping[str, str], given: Mapping[str, Any]) -> bool:
    if all(listed[name] == given[name] for name in HASH_FIELDS):
        return True
    try:
        return CertificateHashData.from_wire(listed) == CertificateHashData.from_wire(given)
    except InputError:
        return False


def _meaning(
    listed: Sequence[ListedCertificate], facts: TrustFacts, target: KnownCertificate
) -> tuple[ListedCertificate, Diagnosis] | None:
    for entry in listed:
        diagnosis = _diagnose(entry, facts)
        # Where hash data fit several certificates that we know, the one just installed is the likely one.
        meant = (diagnosis.certificate, *diagnosis.candidates)
        if any(each is not None and each.der == target.der for each in meant):
            return entry, diagnosis
    return None


def _diagnose(entry: ListedCertificate, facts: TrustFacts) -> Diagnosis:
    return diagnose_hash_data(entry.hash_data, facts.known)


def _facts(snapshot: Snapshot) -> TrustFacts:
    assert snapshot.trust is not None
    return snapshot.trust


def _label(action: str, uses: tuple[RootUse, ...]) -> str:
    return f"{action}({','.join(use.value for use in uses)})"


def _send(call: WireCall, label: str) -> Step:
    # Serial numbers in decimal are longer than the schema allows, for one.
    lenient = label.startswith((_LIST, _DELETE))
    return SendAttempt(call.action, call.payload, recorded=label, unchecked=lenient)


def _of(snapshot: Snapshot, action: str | tuple[str, ...]) -> list[AttemptRecord]:
    return [attempt for attempt in snapshot.attempts if attempt.action.startswith(action)]


def _since(snapshot: Snapshot, action: str, mark: str) -> list[AttemptRecord]:
    """Return the attempts of *action* after the last one of *mark*."""
    marks = _of(snapshot, mark)
    after = marks[-1].number if marks else 0
    return [attempt for attempt in _of(snapshot, action) if attempt.number > after]


def _status(attempt: AttemptRecord) -> str | None:
    status = (attempt.answer or {}).get("status")
    return str(status) if status is not None and "error" not in (attempt.answer or {}) else None


def _refused(attempt: AttemptRecord) -> str | None:
    """Return why the station certainly did not act, or ``None`` when it did or may have."""
    answer = attempt.answer or {}
    if "error" in answer:
        return str(answer["error"]) if is_unprocessed(str(answer["error"])) else None
    status = _status(attempt)
    if status is None or status == "Accepted":
        return None
    return f"{status} ({answer['reason']})" if "reason" in answer else status


def sha256_of(der: bytes) -> str:
    """Return the id of a certificate among the roots."""
    return hashlib.sha256(der).hexdigest()
