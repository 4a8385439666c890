"""Keep what was admitted of a vehicle, and let go of it: provisioning and vehicle certificates alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from chargepki.pki.chain import VerifiedChain
from chargepki.pki.errors import InputError, NotFound
from chargepki.pki.identifiers import EvccId, Pcid
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.contract_records import (
    ProvisioningCertificateRecord,
    VehicleCertificateRecord,
    VehicleState,
)
from chargepki.pki.inventory.records import Actor

__all__ = ["Admission", "identify_vehicle", "remove_vehicle", "store_vehicle"]

_Record = TypeVar("_Record", ProvisioningCertificateRecord, VehicleCertificateRecord)


@dataclass(frozen=True, slots=True)
class Admission(Generic[_Record]):
    """A certificate that passed the checks; only `admit_vehicle` and `admit_vehicle_certificate` make it."""

    record: _Record
    chain: VerifiedChain
    notices: tuple[str, ...]


def identify_vehicle(text: str) -> Pcid | EvccId:
    """Return what a vehicle is called: the EVCCID of its vehicle certificate, or else its PCID.

    Raises:
        InputError: it is neither.
    """
    try:
        return EvccId.parse(text)
    except InputError:
        return Pcid.parse(text)


def store_vehicle(inventory: Inventory, admission: Admission[_Record], *, actor: Actor, now: datetime) -> _Record:
    """Keep an admitted certificate; doing it again changes nothing."""
    record = admission.record

    def work(tx: Transaction) -> _Record:
        known = _find(tx, record)
        if known is not None and known.state is VehicleState.ACTIVE:
            return known
        stored = _put(tx, record)
        details = {"certificate": record.id, **_standard(record)}
        tx.audit(actor, "vehicle.import", _holder(record), now=now, artefact_sha256=record.id, details=details)
        return stored

    return inventory.write(work)


def remove_vehicle(inventory: Inventory, name: str, *, actor: Actor, now: datetime) -> int:
    """Hold the certificates of a vehicle for current no more; by its PCID, withdraw what is offered to it as well.

    Args:
        name: PCID: nothing more is provisioned to it; EVCCID: its vehicle certificates go.

    Returns:
        How many certificates there were.

    Raises:
        InputError: it is neither.
        NotFound: there is no such vehicle.
    """
    found = identify_vehicle(name)
    vehicle, is_client = found.normalised, isinstance(found, EvccId)

    def work(tx: Transaction) -> int:
        known = tx.list_vehicle_certificates(vehicle) if is_client else tx.list_provisioning_certificates(vehicle)
        if not known:
            raise NotFound(f"there is no vehicle {vehicle}", fix="list them with: chargepki vehicle list")
        for each in known:
            (tx.remove_vehicle_certificate if is_client else tx.remove_provisioning_certificate)(each.id)
        for offer in () if is_client else tx.list_offers_to(vehicle):
            tx.withdraw_offer(offer.contract, vehicle)
        tx.audit(actor, "vehicle.remove", vehicle, now=now)
        return len(known)

    return inventory.write(work)


def _find(tx: Transaction, record: _Record) -> _Record | None:
    if isinstance(record, VehicleCertificateRecord):
        return tx.find_vehicle_certificate(record.id)
    return tx.find_provisioning_certificate(record.id)


def _put(tx: Transaction, record: _Record) -> _Record:
    if isinstance(record, VehicleCertificateRecord):
        return tx.put_vehicle_certificate(record)
    return tx.put_provisioning_certificate(record)


def _holder(record: ProvisioningCertificateRecord | VehicleCertificateRecord) -> str:
    return record.evccid if isinstance(record, VehicleCertificateRecord) else record.vehicle


def _standard(record: ProvisioningCertificateRecord | VehicleCertificateRecord) -> dict[str, str]:
    return {} if isinstance(record, VehicleCertificateRecord) else {"standard": record.standard}
