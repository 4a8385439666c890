"""Exact binding of a station's identity: username, certificate CN and O, serial number, inventory status."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from chargepki.ocpp_security.basic_auth import same_identity
from chargepki.ocpp_security.subject_names import COMMON_NAME, ORGANIZATION, usual_names
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import BootReceived
from chargepki.pki.errors import InputError, PolicyRefusal, RevocationError
from chargepki.pki.inventory.records import (
    CertificateRecord,
    CertificateState,
    Delivery,
    StationRecord,
    StationState,
)

__all__ = [
    "MAX_SERIAL_NUMBER_CHARACTERS",
    "CertificateIdentity",
    "IdentityMismatch",
    "certificate_identity",
    "check_boot_serial_number",
    "check_certificate_record",
    "check_fallback",
    "check_serial_number",
    "check_station_certificate",
    "check_station_known",
    "check_subject",
    "check_username",
    "check_validity",
    "enrol_again",
]

MAX_SERIAL_NUMBER_CHARACTERS = 25
"""BootNotification carries no more (chargingStation.serialNumber, 2.x; chargePointSerialNumber, 1.6)."""


def enrol_again(station: str) -> str:
    """Return how *station* gets a certificate again after its last one was revoked.

    Its password alone opens nothing while it is expected on profile 3 (A05.FR.07).
    """
    return (
        f"let it enrol again with its password; if it is recorded on profile 3, first: "
        f"chargepki station set-profile {station} 2 --record-only"
    )


class IdentityMismatch(PolicyRefusal):
    """A credential, certificate or message that belongs to another station than the one it is used for."""

    code = "identity-mismatch"

    def __init__(self, what: str, *, reason: str = "certificate-refused", why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.reason = reason
        """Stable short name of what is wrong (`authentication.Reason`)."""


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """What a station certificate says about its station."""

    common_name: str | None
    organization: str | None
    not_before: datetime
    not_after: datetime
    """Last valid second, inclusive; both aware UTC."""


_MAX_READ_LATELY = 16_384
_READ_LATELY: dict[bytes, CertificateIdentity] = {}


def certificate_identity(certificate_der: bytes) -> CertificateIdentity:
    """Read the identity of a station certificate.

    What was read lately is remembered by its digest: a station comes back with the certificate that it had.

    Raises:
        InputError: not a certificate, or its subject names CN or O twice (then neither is the identity).
    """
    digest = hashlib.sha256(certificate_der).digest()
    known = _READ_LATELY.get(digest)
    if known is None:
        known = _read_identity(certificate_der)
        if len(_READ_LATELY) >= _MAX_READ_LATELY:
            # The one that was read first, not the one unused for longest: to know that would cost every reader.
            _READ_LATELY.pop(next(iter(_READ_LATELY)), None)
        _READ_LATELY[digest] = known
    return known


def _read_identity(certificate_der: bytes) -> CertificateIdentity:
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        names = usual_names(certificate_der)
        subject = certificate.subject if names is None else None
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, x509.InvalidVersion) as error:
        raise InputError("the client certificate cannot be decoded", why=str(error)) from error
    if subject is None:
        common_name, organization = (names or {}).get(COMMON_NAME), (names or {}).get(ORGANIZATION)
    else:
        common_name = _only_value(subject, NameOID.COMMON_NAME)
        organization = _only_value(subject, NameOID.ORGANIZATION_NAME)
    return CertificateIdentity(common_name, organization, not_before, not_after)


def _only_value(subject: x509.Name, oid: x509.ObjectIdentifier) -> str | None:
    """Return the value of an attribute; to go over the decoded name costs a quarter of decoding it once more."""
    found = subject.get_attributes_for_oid(oid)
    if not found:
        return None
    value = found[0].value
    if len(found) > 1 or isinstance(value, bytes):
        short = "CN" if oid == NameOID.COMMON_NAME else "O"
        raise InputError(
            f"the certificate's subject holds {short} {len(found)} times" if len(found) > 1 else f"{short} is no text",
            fix=f"use a name with one {short}",
        )
    return value


def check_serial_number(serial_number: str) -> None:
    """Refuse a serial number that cannot be a station's: empty, over 25 characters, or like a URL or IP address.

    Raises:
        InputError: as above, or control characters.

    Clause: A00.FR.511; BootNotification schemas (maxLength 25).
    """
    if not 0 < len(serial_number) <= MAX_SERIAL_NUMBER_CHARACTERS:
        raise InputError(
            f"the serial number has {len(serial_number)} characters",
            why="BootNotification carries 1 to 25 of them",
            fix="use the number that the station reports",
        )
    if not serial_number.isprintable():
        raise InputError("the serial number holds control characters")
    if "://" in serial_number or _looks_like_address(serial_number):
        raise InputError(
            f"the serial number {serial_number!r} looks like a URL or an IP address",
            why="station and server certificates must not be confused (A00.FR.511)",
        )


def check_username(username: str, identity: str) -> None:
    """Refuse Basic credentials of another station than the one in the connection URL.

    Raises:
        IdentityMismatch: they differ.

    Clause: A00.FR.204, A00.FR.207, A00.FR.303, A00.FR.324.
    """
    if not same_identity(username, identity):
        raise IdentityMismatch(
            f"the credentials are of {username!r}, the connection is {identity!r}'s",
            reason="other-username",
            why="the username is the identity in the URL (A00.FR.204, A00.FR.303)",
        )


def check_station_known(station: StationRecord | None, identity: str) -> StationRecord:
    """Return *station* when it is registered and not removed.

    Raises:
        IdentityMismatch: unknown or removed.
    """
    if station is None or station.state is not StationState.ACTIVE:
        state = "unknown" if station is None else station.state.value
        raise IdentityMismatch(
            f"station {identity!r} is {state}",
            reason="unknown-station" if station is None else "station-removed",
            fix=f"register it with `chargepki station add {identity}`",
        )
    return station


def check_station_certificate(certificate_der: bytes, station: StationRecord, now: datetime) -> CertificateIdentity:
    """Refuse a client certificate whose CN and O are not this station's, or that is not valid now.

    Both are compared whole: the standard's "contains" (A00.FR.404, FR.405) would let serial number 1 pass for 10.

    Raises:
        InputError: not a certificate.
        IdentityMismatch: CN is not the registered serial number, or O not the registered organization.

    Clause: A00.FR.403 (validity), A00.FR.404, A00.FR.405, A00.FR.511.
    """
    _require_aware(now)
    identity = certificate_identity(certificate_der)
    check_subject(identity, station=station.id, serial_number=station.serial_number, organization=station.organization)
    check_validity(identity, now, station=station.id)
    return identity


def check_subject(
    certificate: CertificateIdentity, *, station: str, serial_number: str, organization: str | None
) -> None:
    """Refuse a certificate whose CN and O are not those of *station*.

    Raises:
        IdentityMismatch: CN is not *serial_number*, or O not *organization* (``None`` leaves O unchecked).

    Clause: A00.FR.404, A00.FR.405, A00.FR.509, A00.FR.511.
    """
    if certificate.common_name != serial_number:
        raise IdentityMismatch(
            f"the certificate's CN is {certificate.common_name!r}, the serial number of {station} is {serial_number!r}",
            reason="wrong-common-name",
            why="the CN of a station certificate is the station's serial number (A00.FR.405, A00.FR.511)",
            fix="use this station's own certificate, or correct its record",
        )
    if organization is not None and certificate.organization != organization:
        raise IdentityMismatch(
            f"the certificate's O is {certificate.organization!r}, the organization of {station} is {organization!r}",
            reason="wrong-organization",
            why="O names the operator (A00.FR.404, A00.FR.509)",
            fix="renew it with the operator's name in O, or correct the station's record",
        )


def check_validity(certificate: CertificateIdentity, now: datetime, *, station: str) -> None:
    """Refuse a certificate that is not valid at *now*; both bounds are inclusive.

    Raises:
        IdentityMismatch: expired, or not valid yet; `IdentityMismatch.reason` says which.

    Clause: A00.FR.403, A00.FR.407.
    """
    _require_aware(now)
    if certificate.not_before <= now <= certificate.not_after:
        return
    expired = now > certificate.not_after
    raise IdentityMismatch(
        f"the certificate of {station} is valid from {certificate.not_before:%Y-%m-%d %H:%M:%S} "
        f"to {certificate.not_after:%Y-%m-%d %H:%M:%S} UTC, not now",
        reason="certificate-expired" if expired else "certificate-not-yet-valid",
        why="A00.FR.403, A00.FR.407",
        fix=f"let it in, to renew and for nothing else: chargepki station set {station} --accept-expired"
        if expired
        else "wait, or set the clock that is wrong: ours or that of the CA",
    )


def check_certificate_record(
    record: CertificateRecord | None, station: StationRecord, *, profiles: Collection[str] | None = None
) -> CertificateRecord:
    """Return the inventory's record of a client certificate when it may open this station's connection.

    Args:
        record: looked up by the SHA-256 of the whole certificate, never by serial number alone.
        profiles: ids of the certificate profiles that may open a connection; ``None`` allows every one.

    Raises:
        IdentityMismatch: unknown to the inventory, another station's, not issued, or for another purpose.
        RevocationError: revoked.

    Clause: A00.FR.705 (1.6: FR.704), validity is checked with the CA; A00.FR.427, one certificate a device.
    """
    if record is None:
        raise IdentityMismatch(
            f"the certificate that came for {station.id} is not in the inventory",
            reason="certificate-unknown",
            why="only certificates that the inventory knows as active open a connection",
            fix="issue one for this station",
        )
    if record.station != station.id:
        raise IdentityMismatch(
            f"certificate {record.id} is linked to {record.station or 'no station'}, not to {station.id}",
            reason="certificate-of-another-station",
            why="one unique certificate a device (A00.FR.427)",
            fix="issue it again with `--station`",
        )
    if profiles is not None and record.profile not in profiles:
        raise IdentityMismatch(
            f"certificate {record.id} has the profile {record.profile}, which opens no connection",
            reason="certificate-of-another-purpose",
            why="only a charging station certificate authenticates a station (A00.FR.401)",
            fix="let the station use its charging station certificate",
        )
    if record.state is CertificateState.REVOKED:
        at = f" since {record.revoked_at:%Y-%m-%d %H:%M:%S} UTC" if record.revoked_at is not None else ""
        raise RevocationError(
            f"certificate {record.id} is revoked{at} ({record.revocation_reason or 'unspecified'})",
            status="revoked",
            why="A00.FR.407, A00.FR.705",
            fix=enrol_again(station.id),
        )
    if record.state is not CertificateState.ISSUED:
        raise IdentityMismatch(f"certificate {record.id} is {record.state.value}, not issued")
    if record.delivery is Delivery.UNDELIVERED:
        # The station answered that it discarded it; whoever presents it now is not the station as we know it.
        raise IdentityMismatch(
            f"certificate {record.id} was refused by its station and is not in use",
            reason="certificate-discarded",
            why="a certificate that the station discarded must not open a connection (A02.FR.07)",
        )
    return record


def check_fallback(record: CertificateRecord, certificates: Iterable[CertificateRecord]) -> None:
    """Refuse a superseded certificate when a later one of its station was revoked; any other certificate passes.

    A station keeps its old certificate in case the new one does not work (A02.FR.10). A revocation says that the
    station as a whole is not to be let in by certificate: an older key must not be the way round it.

    Args:
        certificates: those of the same station, in any order; other profiles are passed over.

    Raises:
        RevocationError: as above.

    Clause: A02.FR.10, A00.FR.407, A00.FR.705.
    """
    if record.delivery is not Delivery.SUPERSEDED:
        return
    for other in certificates:
        # What the station itself refused was never its certificate; that it was revoked then says nothing about it.
        if other.state is not CertificateState.REVOKED or other.delivery is Delivery.UNDELIVERED:
            continue
        # Within one second nobody can tell which came first: refuse.
        if other.profile == record.profile and other.reserved_at >= record.reserved_at:
            raise RevocationError(
                f"certificate {record.id} was superseded, and the later certificate {other.id} is revoked "
                f"({other.revocation_reason or 'unspecified'})",
                status="revoked",
                why="an older certificate is no way round a revocation (A02.FR.10, A00.FR.705)",
                fix=enrol_again(record.station or "ID"),
            )


def check_boot_serial_number(
    boot: BootReceived, common_name: str, version: OcppVersion, *, require_16: bool = False
) -> None:
    """Refuse a BootNotification, on a profile-3 connection, whose serial number is not the certificate's CN.

    The schemas make the number optional. In 2.x a missing one is a mismatch, because B01.FR.11 demands the
    comparison. 1.6 has no such rule, so there a number counts only when it is given, and the deprecated
    chargeBoxSerialNumber may hold it instead; *require_16* demands that one of the two does.

    Raises:
        IdentityMismatch: the WebSocket is to be closed.

    Clause: B01.FR.11, B01.FR.12.
    """
    reported = {boot.serial_number} if boot.serial_number is not None else set()
    if version is OcppVersion.V16 and (common_name in boot.other_serial_numbers or not (reported or require_16)):
        return
    if reported == {common_name}:
        return
    shown = f"serial number {boot.serial_number!r}" if reported else "no serial number"
    raise IdentityMismatch(
        f"BootNotification reports {shown}, the certificate's CN is {common_name!r}",
        why="B01.FR.11 demands the comparison, B01.FR.12 closing the connection",
        fix="correct the station's serial number, or issue a certificate for the one it reports",
    )


def _looks_like_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _require_aware(now: datetime) -> None:
    if now.tzinfo is None:
        raise TypeError("now must be timezone-aware")
