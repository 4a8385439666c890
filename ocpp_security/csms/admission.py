"""Decide about a connection before the upgrade: who it is, by which profile, and otherwise which answer it gets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus

from chargepki.ocpp_security.basic_auth import BadCredentials, identity_from_path, parse_authorization, same_identity
from chargepki.ocpp_security.csms.config import CsmsConfig
from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.csms.throttle import WindowCounter
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.identity import (
    check_certificate_record,
    check_fallback,
    check_station_certificate,
    check_station_known,
)
from chargepki.ocpp_security.passwords import PasswordVerifier, TooManyAttempts
from chargepki.ocpp_security.security_profile import (
    ProfileTooLow,
    SecurityProfile,
    check_profile_allowed,
    choose_profile,
)
from chargepki.ocpp_security.sign_certificate import opens_link
from chargepki.pki.errors import ChargePkiError, InputError, PolicyRefusal, RevocationError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery, StationRecord, StationState

__all__ = ["Admission", "Admitted", "Approach", "Denied"]


@dataclass(frozen=True, slots=True)
class Approach:
    """Everything about an upgrade request that the decision may look at."""

    path: str
    """Request target as received, percent-encoded."""
    authorization: tuple[str, ...]
    """Every Authorization header; more than one is as good as none."""
    certificate_der: bytes | None
    """Client certificate of the TLS connection; its chain was verified by the handshake."""
    tls: bool
    host: str
    """Address of the peer, for counting failed attempts."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The connection may be upgraded."""

    station: StationRecord
    profile: SecurityProfile
    certificate: CertificateRecord | None
    """The one that opened a profile-3 connection."""
    pending_password: bool = False
    """The password was the pending one: the station has taken the change."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The connection is answered with `status`; only `incident` knows more than the peer is told."""

    status: HTTPStatus
    incident: Incident | None
    claimed: str
    station: str | None = None
    """Registered station that the attempt was about; it need not have come from that station."""


_UNKNOWN_CURE = "register it: chargepki station add {}"
_UNAUTHORIZED_CURE = (
    "compare the station's identity and password with its record (`station show`); "
    "`station set-password --record-only` corrects the record"
)


class Admission:
    """The checks before the upgrade, in the order of the fact sheet's CSMS checklist.

    Clause: A00.FR.002, A00.FR.203 to 207, A00.FR.302 to 324, A00.FR.401 to 408.
    """

    def __init__(self, config: CsmsConfig, inventory: Inventory, offload: Offload, verifier: PasswordVerifier) -> None:
        self._inventory, self._offload, self._verifier = inventory, offload, verifier
        self._profiles = {SecurityProfile(number) for number in config.security_profiles}
        # What issues certificates for the link here, and what `cert issue` makes for stations.
        planned = (plan.profile for use, plan in config.plans.items() if opens_link(use))
        self._certificate_profiles = frozenset({"ocpp/charging-station", *planned})
        self._failures = WindowCounter(config.limits.failed_window, config.limits.failed_attempts)

    async def judge(self, approach: Approach, now: datetime) -> Admitted | Denied:
        """Return who may come in, or the answer for who may not. Raises only when the database cannot be read."""
        try:
            identity = identity_from_path(approach.path)
        except InputError:
            return self._no_endpoint(approach)
        key = (approach.host, identity)
        if self._failures.reached(key, now):
            return Denied(HTTPStatus.TOO_MANY_REQUESTS, _too_many("too many failed attempts"), identity)
        profile = choose_profile(
            self._profiles, tls=approach.tls, client_certificate=approach.certificate_der is not None
        )
        if profile is SecurityProfile.TLS_CLIENT_CERTIFICATE and approach.certificate_der is not None:
            verdict = await self._judge_certificate(identity, approach.certificate_der, now)
        elif profile is not None:
            verdict = await self._judge_password(identity, approach, profile)
        else:
            verdict = Denied(HTTPStatus.FORBIDDEN, _NO_PROFILE, identity)
        if isinstance(verdict, Denied):
            if verdict.status is not HTTPStatus.TOO_MANY_REQUESTS:
                self._failures.add(key, now)
        else:
            self._failures.forget(key)
        return verdict

    def _no_endpoint(self, approach: Approach) -> Denied:
        # A path below /ocpp/ that holds no possible identity is an unknown identity: 401 or 403 like any other.
        claimed = approach.path.partition("?")[0]
        if claimed.startswith("/ocpp/") and claimed.count("/") == 2 and len(claimed) > len("/ocpp/"):
            if approach.certificate_der is not None:
                incident = Incident("impossible-identity", "the identity in the URL is none that OCPP allows")
                return Denied(HTTPStatus.FORBIDDEN, incident, claimed[6:])
            incident = Incident("impossible-identity", "the identity in the URL is none that OCPP allows")
            return Denied(HTTPStatus.UNAUTHORIZED, incident, claimed[6:])
        incident = Incident(
            "no-endpoint", f"there is no OCPP endpoint at {claimed[:80]}", "use the URL ws(s)://HOST:PORT/ocpp/IDENTITY"
        )
        return Denied(HTTPStatus.NOT_FOUND, incident, "")

    async def _judge_certificate(self, identity: str, der: bytes, now: datetime) -> Admitted | Denied:
        sha256 = hashlib.sha256(der).hexdigest()
        station, record, others = await self._offload.run(self._look_up, identity, sha256)
        try:
            known = check_station_known(station, identity)
            record = check_certificate_record(record, known, profiles=self._certificate_profiles)
            check_station_certificate(der, known, now)
            check_fallback(record, others)
        except RevocationError as exc:
            return self._refuse_certificate("certificate-revoked", exc, identity, station)
        except (PolicyRefusal, InputError) as exc:
            return self._refuse_certificate("certificate-refused", exc, identity, station)
        return Admitted(known, SecurityProfile.TLS_CLIENT_CERTIFICATE, record)

    def _look_up(
        self, identity: str, sha256: str
    ) -> tuple[StationRecord | None, CertificateRecord | None, tuple[CertificateRecord, ...]]:
        """Return the station, the certificate, and what else that station has had if the certificate is superseded."""
        inventory = self._inventory
        station, record = inventory.find_station(identity), inventory.find_certificate_by_sha256(sha256)
        others: tuple[CertificateRecord, ...] = ()
        if station is not None and record is not None and record.delivery is Delivery.SUPERSEDED:
            others = tuple(inventory.list_certificates(station=station.id, state=CertificateState.REVOKED))
        return station, record, others

    @staticmethod
    def _refuse_certificate(code: str, exc: ChargePkiError, identity: str, station: StationRecord | None) -> Denied:
        cause = f"{exc.what} ({exc.why})" if exc.why else exc.what
        incident = Incident(code, cause, exc.fix, SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE)
        known = station.id if station is not None else None
        return Denied(HTTPStatus.FORBIDDEN, incident, identity, known)

    async def _judge_password(self, identity: str, approach: Approach, profile: SecurityProfile) -> Admitted | Denied:
        if not approach.authorization:
            cause = "no credentials: neither a client certificate nor an Authorization header"
            return Denied(HTTPStatus.UNAUTHORIZED, _unauthorized("no-credentials", cause), identity)
        try:
            if len(approach.authorization) > 1:
                raise BadCredentials("more than one Authorization header")
            credentials = parse_authorization(approach.authorization[0])
        except BadCredentials as exc:
            return Denied(HTTPStatus.UNAUTHORIZED, _unauthorized("bad-credentials", exc.what), identity)
        station = await self._offload.run(self._inventory.find_station, identity)
        accepted: tuple[str | None, ...] = ()
        cause = "the identity is not registered"
        if station is not None and station.state is not StationState.ACTIVE:
            cause = "the station was removed"
        elif not same_identity(credentials.username, identity):
            cause = "the Basic username is not the identity in the URL (A00.FR.204, A00.FR.303)"
        elif station is not None:
            accepted = (station.password_hash, station.pending_password_hash)
            cause = "wrong password" if any(accepted) else "the station has no password on record"
        # Every refusal costs the same two hash verifications, so time tells nobody which identities exist.
        try:
            match = await self._verifier.verify(accepted, credentials.password)
        except TooManyAttempts as exc:
            return Denied(HTTPStatus.TOO_MANY_REQUESTS, _too_many(exc.what), identity)
        if match is None or station is None:
            known = station.id if station is not None else None
            incident = _unauthorized("wrong-credentials", cause)
            if known is None:
                incident = replace(incident, cure=_UNKNOWN_CURE.format(identity))
            return Denied(HTTPStatus.UNAUTHORIZED, incident, identity, known)
        try:
            check_profile_allowed(profile, station.security_profile)
        except ProfileTooLow as exc:
            incident = Incident("profile-too-low", f"{exc.what} ({exc.why})", exc.fix, "SecurityProfileTooLow")
            return Denied(HTTPStatus.FORBIDDEN, incident, identity, station.id)
        return Admitted(station, profile, None, pending_password=match.index == 1)


_NO_PROFILE = Incident(
    "no-profile",
    "the connection uses no security profile that this endpoint serves",
    "let the station use a profile of this endpoint, or start an endpoint for its profile",
    SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS,
)


def _unauthorized(code: str, cause: str) -> Incident:
    return Incident(code, cause, _UNAUTHORIZED_CURE, SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS)


def _too_many(cause: str) -> Incident:
    return replace(_unauthorized("too-many-attempts", cause), cure="wait a minute, and correct the credential first")
