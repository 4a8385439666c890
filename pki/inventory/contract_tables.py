"""The tables of contracts, of the vehicles that they are for, and of what was provisioned."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index
from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Whole, Words, WordsKey, WordsOrNull

__all__ = [
    "ContractOfferRow",
    "ContractRow",
    "ProvisioningCertificateRow",
    "ProvisioningRow",
    "RoleRootRow",
    "VehicleCertificateRow",
]


class RoleRootRow(SQLModel, table=True):
    """One root of somebody else (`RoleRootRecord`)."""

    __tablename__ = "role_root"
    __table_args__ = (CheckConstraint("state IN ('trusted', 'withdrawn')", name="ck_role_root_state"),)

    id: WordsKey
    use: Words
    der: bytes
    subject: Words
    source: Words
    manufacturers: Words
    state: Words
    added_by: Words
    added_at: Words


class ProvisioningCertificateRow(SQLModel, table=True):
    """One provisioning certificate of a vehicle (`ProvisioningCertificateRecord`)."""

    __tablename__ = "provisioning_certificate"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'removed')", name="ck_provisioning_certificate_state"),
        Index("ix_provisioning_certificate_vehicle", "vehicle"),
    )

    id: WordsKey
    vehicle: Words
    standard: Words
    der: bytes
    sub_cas: bytes
    subject: Words
    not_after: Words
    state: Words
    added_by: Words
    added_at: Words


class VehicleCertificateRow(SQLModel, table=True):
    """One vehicle certificate of ISO 15118-20 (`VehicleCertificateRecord`)."""

    __tablename__ = "vehicle_certificate"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'removed')", name="ck_vehicle_certificate_state"),
        Index("ix_vehicle_certificate_evccid", "evccid"),
    )

    id: WordsKey
    evccid: Words
    der: bytes
    sub_cas: bytes
    subject: Words
    not_after: Words
    state: Words
    added_by: Words
    added_at: Words


class ContractRow(SQLModel, table=True):
    """One contract (`ContractRecord`)."""

    __tablename__ = "contract"
    __table_args__ = (CheckConstraint("state IN ('active', 'ended')", name="ck_contract_state"),)

    id: WordsKey
    emaid: Words
    state: Words
    ends_at: WordsOrNull
    created_by: Words
    created_at: Words
    ended_at: WordsOrNull
    ended_reason: WordsOrNull


class ContractOfferRow(SQLModel, table=True):
    """One contract for one vehicle (`ContractOfferRecord`)."""

    __tablename__ = "contract_offer"
    __table_args__ = (
        CheckConstraint("state IN ('offered', 'withdrawn')", name="ck_contract_offer_state"),
        ForeignKeyConstraint(["contract"], ["contract.id"], name="fk_contract_offer_contract"),
        Index("ix_contract_offer_vehicle", "vehicle"),
    )

    contract: WordsKey
    vehicle: WordsKey
    state: Words
    priority: Whole
    offered_by: Words
    offered_at: Words


class ProvisioningRow(SQLModel, table=True):
    """One answer to one request (`ProvisioningRecord`)."""

    __tablename__ = "provisioning"
    __table_args__ = (
        CheckConstraint("state IN ('begun', 'answered', 'void')", name="ck_provisioning_state"),
        ForeignKeyConstraint(["contract"], ["contract.id"], name="fk_provisioning_contract"),
        ForeignKeyConstraint(["certificate"], ["certificate.id"], name="fk_provisioning_certificate"),
        Index("ix_provisioning_request", "request"),
        Index("ix_provisioning_contract", "contract"),
        Index("ix_provisioning_certificate", "certificate"),
    )

    id: WordsKey
    request: Words
    kind: Words
    standard: Words
    contract: Words
    vehicle: WordsOrNull
    station: WordsOrNull
    state: Words
    began_at: Words
    told_at: WordsOrNull
    round: Whole
    certificate: WordsOrNull
    response: bytes | None
