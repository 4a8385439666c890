"""The tables of firmware: releases, approvers, approvals, and what stations run."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint
from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Whole, WholeKey, Words, WordsKey, WordsOrNull

__all__ = [
    "FirmwareApprovalRow",
    "FirmwareApproverRow",
    "FirmwareReleaseRow",
    "FirmwareStatusRow",
    "StationFirmwareRow",
]


class FirmwareReleaseRow(SQLModel, table=True):
    """One release (`FirmwareReleaseRecord`)."""

    __tablename__ = "firmware_release"
    __table_args__ = (
        CheckConstraint("state IN ('proposed', 'approved', 'withdrawn')", name="ck_firmware_release_state"),
    )

    id: WordsKey
    vendor: Words
    model: Words
    hardware: Words
    version: Words
    size: Whole
    sha256: Words
    signature: Words
    certificate_pem: Words
    root_der: bytes
    quirks: Words
    location: WordsOrNull
    notes: Words
    state: Words
    added_by: Words
    added_at: Words
    withdrawn_at: WordsOrNull
    withdrawn_reason: WordsOrNull


class FirmwareApproverRow(SQLModel, table=True):
    """One approver (`FirmwareApproverRecord`)."""

    __tablename__ = "firmware_approver"

    id: WordsKey
    spki: bytes
    spki_sha256: Words
    active: bool
    registered_by: Words
    registered_at: Words


class FirmwareApprovalRow(SQLModel, table=True):
    """One approval (`FirmwareApprovalRecord`)."""

    __tablename__ = "firmware_approval"
    __table_args__ = (
        ForeignKeyConstraint(["release"], ["firmware_release.id"], name="fk_firmware_approval_release"),
        ForeignKeyConstraint(["approver"], ["firmware_approver.id"], name="fk_firmware_approval_approver"),
    )

    release: WordsKey
    approver: WordsKey
    digest: Words
    signature: bytes
    at: Words


class StationFirmwareRow(SQLModel, table=True):
    """What a station runs (`StationFirmwareRecord`)."""

    __tablename__ = "station_firmware"
    __table_args__ = (ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_firmware_station"),)

    station: WordsKey
    vendor: Words
    model: Words
    version: Words
    reported_at: Words


class FirmwareStatusRow(SQLModel, table=True):
    """One reported status (`FirmwareStatusRecord`)."""

    __tablename__ = "firmware_status"
    __table_args__ = (ForeignKeyConstraint(["operation"], ["operation.id"], name="fk_firmware_status_operation"),)

    operation: WordsKey
    number: WholeKey
    status: Words
    at: Words
