"""Campaigns on certificates: renewal with proof of use, and replacement of what a leaked key or a CA made worthless.

A certificate is retired when its successor is proven: the station came back with it. Until then the old one is kept
and stays valid, and a station that never comes back with the new one is reported as failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from chargepki.ocpp_security import wire
from chargepki.ocpp_security.campaign_types import CampaignKind, Objection, Order, Subject, settle_by_operation
from chargepki.ocpp_security.campaigns import Settlement
from chargepki.ocpp_security.deliveries import received_at
from chargepki.ocpp_security.issue_plans import parse_plan, plan_text
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.sign_certificate import opens_link
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.authority.revocation import parse_reason, revoke_within
from chargepki.pki.errors import InputError, StateError
from chargepki.pki.inventory import SealingKey, Transaction
from chargepki.pki.inventory.campaign_records import CampaignStationState
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import (
    Actor,
    CaState,
    CertificateRecord,
    CertificateState,
    Delivery,
    OperationRecord,
)

__all__ = ["REPLACE", "affected_certificates", "judge_renewal", "replacement_parameters", "settle_renewal"]

_TLS_CLIENT: Final = 3


def judge_renewal(subject: Subject) -> Objection | None:
    """Refuse a station whose version knows no such certificate; one that has never connected may come yet."""
    version, presence = subject.version, subject.presence
    if version is None or presence is None:
        return Objection("the station has not connected yet", is_final=False)
    try:
        wire.build_trigger(version, CertificateUse(str(subject.parameters["use"])))
    except InputError as error:
        return Objection(str(error))
    return None


def settle_renewal(
    reads: Reads, parameters: Mapping[str, Any], operation: OperationRecord, now: datetime
) -> Settlement | None:
    """Judge a renewal by the proof of use, where there can be one: the station came in with the new certificate.

    A certificate that opens no connection (V2G), and that of a station on profile 1 or 2, shows no use: its delivery
    is all there is. The deadline of the operation is that of the proof, too.

    Clause: A02.FR.08 (the station reconnects with the new certificate), A02.FR.10.
    """
    settled = settle_by_operation(reads, parameters, operation, now)
    if settled is None or settled.state is not CampaignStationState.DONE:
        return settled
    record = reads.find_certificate(str(settled.outcome.get("certificate")))
    if record is None:
        return settled
    if record.state is not CertificateState.ISSUED:
        why = f"the new certificate is {record.state.value}"
        return Settlement(CampaignStationState.FAILED, {**settled.outcome, "why": why})
    proof = _proof(reads, record)
    if proof is not None:
        return Settlement(CampaignStationState.DONE, {**settled.outcome, "certificate": proof.id, "proven": True})
    if not _shows_use(reads, operation):
        return Settlement(CampaignStationState.DONE, {**settled.outcome, "proven": False})
    if now < operation.deadline:
        return None
    why = "it took the new certificate and has not come in with it; the old one is kept"
    return Settlement(CampaignStationState.FAILED, {**settled.outcome, "proven": False, "why": why})


def _proof(reads: Reads, record: CertificateRecord) -> CertificateRecord | None:
    """Return the certificate that the station came in with: *record*, or one that it was given after it.

    That *record* is superseded proves nothing: the station may have asked for another one before it had this.
    """
    if record.delivery is Delivery.SUPERSEDED and record.station is not None:
        later = reads.list_certificates(
            station=record.station, profile=record.profile, state=CertificateState.ISSUED, delivery=Delivery.IN_USE
        )
        return next((item for item in later if received_at(item) > received_at(record)), None)
    return record if record.delivery is Delivery.IN_USE else None


def _shows_use(reads: Reads, operation: OperationRecord) -> bool:
    if not opens_link(CertificateUse(str(operation.parameters["use"]))):
        return False
    station, presence = reads.get_station(operation.station), reads.find_presence(operation.station)
    live = presence.security_profile if presence is not None else 0
    return max(station.security_profile, live) >= _TLS_CLIENT


# --- replace-certificate ---------------------------------------------------------------------------------------------


def replacement_parameters(
    use: CertificateUse,
    *,
    reason: str,
    cas: Sequence[str] = (),
    certificates: Sequence[str] = (),
    by: str | None = None,
) -> dict[str, object]:
    """Return the parameters of a campaign that replaces certificates and revokes each when its successor is proven.

    Args:
        reason: RFC 5280 name of the reason that they are revoked for.
        cas: ids of CA generations all of whose certificates are replaced.
        certificates: ids of certificates that are replaced.
        by: ``CA`` or ``CA:PROFILE`` that signs for these stations from now on; otherwise whoever does so at present.

    Raises:
        InputError: unknown reason, or nothing to replace.
    """
    if not cas and not certificates:
        raise InputError("nothing is to be replaced", fix="name a CA or certificates")
    parameters: dict[str, object] = {
        "use": use.value,
        "reason": parse_reason(reason).value,
        "cas": list(cas),
        "certificates": list(certificates),
    }
    if by is not None:
        parameters["by"] = plan_text(parse_plan(f"{use.value}={by}")[1])
    return parameters


def affected_certificates(
    reads: Reads, parameters: Mapping[str, Any], station: str | None, now: datetime
) -> tuple[CertificateRecord, ...]:
    """Return the valid certificates that are to be replaced: those of *station*, or all."""
    cas, named = set(parameters["cas"]), set(parameters["certificates"])
    if station is None:
        found = [item for ca in sorted(cas) for item in reads.list_certificates(ca=ca, state=CertificateState.ISSUED)]
        single = (reads.find_certificate(each) for each in sorted(named))
        found += [item for item in single if item is not None and item.ca not in cas]
    else:
        listed = reads.list_certificates(station=station, state=CertificateState.ISSUED)
        found = [item for item in listed if item.ca in cas or item.id in named]
    return tuple(item for item in found if item.state is CertificateState.ISSUED and item.not_after > now)


def _check_replacement(reads: Reads, parameters: Mapping[str, object], now: datetime) -> None:
    by = parameters.get("by")
    if by is None:
        return
    ca = reads.get_ca(str(by).partition(":")[0])
    if ca.state is not CaState.ACTIVE or ca.id in list(parameters["cas"]):  # type: ignore[call-overload]  # a list
        raise StateError(
            f"CA {ca.id} cannot replace what is revoked",
            why="it is among what is replaced" if ca.state is CaState.ACTIVE else f"it is {ca.state.value}",
            fix="create another one: chargepki ca create",
        )


def _judge_replacement(subject: Subject) -> Objection | None:
    if not affected_certificates(subject.reads, subject.parameters, subject.station.id, subject.now):
        return Objection("no valid certificate of it is affected any more")
    return judge_renewal(subject)


def _order_replacement(subject: Subject, _sealing: SealingKey) -> Order:
    use, by = str(subject.parameters["use"]), subject.parameters.get("by")

    def within(tx: Transaction, operation: OperationRecord) -> None:
        if by is not None:
            before = tx.find_station_terms(operation.station).issue or {}
            tx.change_station_terms(operation.station, issue={**before, use: by})

    return Order({"use": use}, within=within)


def _settle_replacement(
    reads: Reads, parameters: Mapping[str, Any], operation: OperationRecord, now: datetime
) -> Settlement | None:
    settled = settle_renewal(reads, parameters, operation, now)
    if settled is None or settled.state is not CampaignStationState.DONE:
        return settled
    record = reads.find_certificate(str(settled.outcome.get("certificate")))
    if record is None or record.ca in parameters["cas"] or record.id in parameters["certificates"]:
        why = "it was given a certificate that is to be replaced as well"
        return Settlement(CampaignStationState.FAILED, {**settled.outcome, "why": why})
    return settled


def _revoke_replaced(tx: Transaction, parameters: Mapping[str, Any], station: str, actor: Actor, now: datetime) -> None:
    for item in affected_certificates(tx, parameters, station, now):
        revoke_within(tx, item.id, parse_reason(str(parameters["reason"])), actor=actor, now=now, revoked_at=now)


def _made_elsewhere(_given: Mapping[str, str]) -> dict[str, object]:
    raise InputError(
        "a campaign of this kind finds its stations by itself", fix="run: chargepki campaign replace NAME --help"
    )


REPLACE: Final = CampaignKind(
    operation=OperationKind.TRIGGER_RENEWAL,
    settings={"": "made with `chargepki campaign replace`"},
    parse=_made_elsewhere,
    judge=_judge_replacement,
    order=_order_replacement,
    settle=_settle_replacement,
    retire=_revoke_replaced,
    check=_check_replacement,
)
