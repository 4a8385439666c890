"""What a connection changes in the inventory when it comes and when it goes: presence, delivery, taken passwords."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from chargepki.ocpp_security.authentication import Restriction
from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.csms.services import Services, station_actor
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.identity import check_fallback, enrol_again
from chargepki.ocpp_security.password_record import promote_password
from chargepki.pki.errors import RevocationError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import (
    CertificateRecord,
    CertificateState,
    Delivery,
    StationState,
)

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection

__all__ = ["REPLACED_ACTION", "Arrival", "arrive", "depart", "find_loss", "is_still_allowed", "take_into_use"]

REPLACED_ACTION = "connection.replace"
"""Audit action by which the process that holds the older connection hears that it has to close it."""


class Arrival(StrEnum):
    """Whether a connection may stay; the value is what the station is told when not."""

    WELCOME = "welcome"
    CERTIFICATE_REVOKED = "certificate revoked"
    SUCCESSOR_REVOKED = "superseded certificate, and its successor is revoked"
    STATION_REMOVED = "station removed"
    EXCEPTION_ENDED = "the exception by which it came in has ended"

    def incident(self, station: str) -> Incident:
        """Return what the operator is told of *station*."""
        if self is Arrival.CERTIFICATE_REVOKED:
            return Incident(
                "revoked-while-connected",
                "the certificate of this connection was revoked, so the connection is closed",
                enrol_again(station),
                SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE,
            )
        if self is Arrival.SUCCESSOR_REVOKED:
            return Incident(
                "successor-revoked",
                "the certificate of this connection is superseded and a later one of the station was revoked, "
                "so the connection is closed",
                enrol_again(station),
                SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE,
            )
        if self is Arrival.EXCEPTION_ENDED:
            return Incident(
                "exception-ended",
                "the operator has ended the exception by which this station came in, so the connection is closed",
                "let it come in with a certificate of ours",
                SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE,
            )
        return Incident(
            "station-removed",
            "the station was removed from the inventory, so its connection is closed",
            f"if that was a mistake: chargepki station add {station}",
            "StationRemoved",
        )


def is_still_allowed(reads: Reads, connection: StationConnection) -> bool:
    """Say whether the exception by which *connection* came in is still on record; true for one without any."""
    if connection.restriction is None:
        return True
    terms = reads.find_station_terms(connection.station.id)
    if connection.restriction is Restriction.ONBOARDING:
        return terms.onboarding_ca is not None
    return terms.accept_expired


def arrive(tx: Transaction, services: Services, connection: StationConnection, now: datetime) -> Arrival:
    """Record that *connection* is the live one of its station, and take its certificate into use.

    Called after the connection entered the registry. What was checked before the upgrade is checked again here: a
    revocation that was committed in between has been announced already, and would otherwise never close it.
    """
    station = tx.find_station(connection.station.id)
    if station is None or station.state is not StationState.ACTIVE:
        return Arrival.STATION_REMOVED
    if not is_still_allowed(tx, connection):
        return Arrival.EXCEPTION_ENDED
    if connection.certificate is not None:
        record = tx.get_certificate(connection.certificate.id)
        if record.state is not CertificateState.ISSUED:
            return Arrival.CERTIFICATE_REVOKED
        if record.delivery is Delivery.SUPERSEDED:
            others = tuple(tx.list_certificates(station=station.id))
            try:
                check_fallback(record, others)
            except RevocationError:
                return Arrival.SUCCESSOR_REVOKED
            connection.is_fallback = any(_is_successor(other, record) for other in others)
        # A fallback stays superseded: taken into use again it would outlive the revocation of its successor.
        restricted = connection.restriction is not None
        if record.delivery is not Delivery.IN_USE and not connection.is_fallback and not restricted:
            take_into_use(tx, record, station.id, now)
            connection.took_into_use = True
        if not restricted:
            connection.was_onboarded = _end_onboarding(tx, station.id, record, now)
    # Only the very hash that was matched is promoted: the record may have changed since (A01.FR.03).
    if connection.pending_password and station.pending_password_hash == connection.station.pending_password_hash:
        promote_password(tx, station.id, station.pending_password_hash, now)
        details = {"shown_by": "connection"}
        tx.audit(station_actor(station.id), "station.password", station.id, now=now, details=details)
    before = tx.find_presence(station.id)
    if before is not None and before.connected and before.owner != services.config.owner:
        details = {"owner": before.owner, "connection": before.connection, "by": services.config.owner}
        tx.audit(station_actor(station.id), REPLACED_ACTION, station.id, now=now, details=details)
    tx.set_presence(connection.presence(now))
    # What is queued from here on is announced by its own commit.
    connection.is_awaited = any(True for _ in tx.list_operations(station=station.id, open_only=True))
    return Arrival.WELCOME


def _end_onboarding(tx: Transaction, station: str, record: CertificateRecord, now: datetime) -> bool:
    """Close the door for the manufacturer's certificate once ours is in use; return whether it was open."""
    terms = tx.find_station_terms(station)
    if terms.onboarding_ca is None:
        return False
    tx.change_station_terms(station, onboarding_ca=None, onboarding_anchors=None)
    details = {"onboarding_ca": terms.onboarding_ca, "certificate": record.id}
    tx.audit(station_actor(station), "station.onboard", station, now=now, details=details)
    return True


def _is_successor(other: CertificateRecord, record: CertificateRecord) -> bool:
    """Say whether *other* is in use and later than *record*, which then is no more than a fallback."""
    return (
        other.id != record.id
        and other.profile == record.profile
        and other.delivery is Delivery.IN_USE
        and other.state is CertificateState.ISSUED
        and other.reserved_at >= record.reserved_at
    )


def take_into_use(tx: Transaction, record: CertificateRecord, station: str, now: datetime) -> None:
    """Mark *record* in use, and what the station used or was given before it superseded (A02.FR.10)."""
    superseded = []
    for other in tx.list_certificates(station=station):
        if other.id == record.id or other.profile != record.profile or other.state is not CertificateState.ISSUED:
            continue
        is_older = other.delivery is Delivery.DELIVERED and other.reserved_at <= record.reserved_at
        if other.delivery is Delivery.IN_USE or is_older:
            superseded.append(other.id)
    actor = station_actor(station)
    for certificate_id in superseded:
        tx.set_delivery(certificate_id, Delivery.SUPERSEDED)
        tx.audit(actor, "certificate.supersede", certificate_id, now=now, details={"by": record.id})
    tx.set_delivery(record.id, Delivery.IN_USE)
    tx.audit(actor, "certificate.take-into-use", record.id, now=now, artefact_sha256=record.sha256)


def find_loss(inventory: Inventory, station: str, certificate: str | None) -> Arrival | None:
    """Return why a live connection of *station* has to be closed, or ``None`` while it may stay. Blocks.

    Args:
        certificate: id of the certificate that opened the connection, if one did.
    """
    if certificate is not None:
        record = inventory.find_certificate(certificate)
        if record is None or record.state is not CertificateState.ISSUED:
            return Arrival.CERTIFICATE_REVOKED
        if record.delivery is Delivery.SUPERSEDED and record.station is not None:
            try:
                check_fallback(
                    record, inventory.list_certificates(station=record.station, state=CertificateState.REVOKED)
                )
            except RevocationError:
                return Arrival.SUCCESSOR_REVOKED
    known = inventory.find_station(station)
    return None if known is not None and known.state is StationState.ACTIVE else Arrival.STATION_REMOVED


def depart(tx: Transaction, connection: StationConnection, now: datetime) -> None:
    """Record that *connection* has ended, unless another one has taken its place."""
    tx.clear_presence(connection.station.id, connection.id, now=now)
