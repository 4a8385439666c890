"""Who opens an OCPP connection, by which security profile, or why not: decided before the WebSocket upgrade.

This works in front of any server. It is handed what the server knows of the request and a table of stations; it
neither opens a socket nor writes anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Generic

from chargepki.ocpp_security.admission_values import (
    AuthenticatedStation,
    Reason,
    RefusedConnection,
    Restriction,
    UpgradeRequest,
    Verdict,
)
from chargepki.ocpp_security.attempts import AuthenticationGuard, Standing
from chargepki.ocpp_security.basic_auth import (
    BadCredentials,
    Credentials,
    check_identity,
    identity_from_path,
    parse_authorization,
    same_identity,
)
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.identity import (
    CertificateIdentity,
    IdentityMismatch,
    certificate_identity,
    check_subject,
    check_validity,
)
from chargepki.ocpp_security.passwords import TooManyAttempts
from chargepki.ocpp_security.security_profile import (
    ProfileTooLow,
    SecurityProfile,
    check_profile_allowed,
    choose_profile,
)
from chargepki.ocpp_security.station_source import EntryT, EvidenceT, StationEntry, StationSource
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.chain import Purpose, Revocation, RevocationMode, verify_chain
from chargepki.pki.errors import ChainError, ChargePkiError, InputError, PolicyRefusal, RevocationError

__all__ = [
    "AuthenticatedStation",
    "Reason",
    "RefusedConnection",
    "Restriction",
    "UpgradeRequest",
    "Verdict",
    "authenticate",
]


async def authenticate(
    request: UpgradeRequest,
    stations: StationSource[EntryT, EvidenceT],
    *,
    now: datetime,
    guard: AuthenticationGuard,
    profiles: Collection[int] = (2, 3),
    trust: Sequence[bytes] = (),
    crls: Sequence[bytes] = (),
    path_prefix: str = "/ocpp/",
) -> Verdict[EntryT, EvidenceT]:
    """Return who opens a connection, or the answer for a peer that may not.

    The order is path, identity, station, profile, credentials. On profiles 1 and 2 an unknown identity, a missing
    and a wrong password are answered alike, and take the same time.

    Args:
        stations: `InventoryStations`, or a table of one's own.
        now: the instant of the verdict; timezone-aware.
        guard: counts failures and bounds the cost of passwords; keep one for as long as the endpoint lives.
        profiles: security profiles that the endpoint serves: 1, 2, 3, or 2 and 3; 0, or 0 and 1, where stations of
            1.6 without any profile have to be let in.
        trust: DER of the CA certificates that client certificates must chain to. Only for a server whose TLS
            handshake did not validate the path (`server_context` does).
        crls: DER of revocation lists, looked at where *trust* or a manufacturer's CA is: a certificate that one of them
            revokes is refused, and so is one whose only list is out of date; without a list the table decides alone.
        path_prefix: what stands before the identity in the request's path.

    Raises:
        ChargePkiError: *stations* cannot be read; answer 503.

    Clause: A00.FR.002, A00.FR.203 to 207, A00.FR.302 to 324, A00.FR.401 to 408, A00.FR.429.
    """
    if now.tzinfo is None:
        raise TypeError("now must be timezone-aware")
    try:
        identity = _identity_of(request, path_prefix)
    except InputError:
        return _no_identity(request, path_prefix)
    standing = guard.standing(request.host, identity, now)
    judge = _Judge(request, stations, guard, standing, identity, now, trust, crls)
    offered = _offered(frozenset(profiles))
    profile = choose_profile(
        offered,
        tls=request.tls,
        client_certificate=bool(request.chain_der),
        credentials=bool(request.authorization),
    )
    verdict = await judge.by_profile(profile, offered)
    if isinstance(verdict, AuthenticatedStation):
        guard.succeeded(request.host, identity)
    elif verdict.status is not HTTPStatus.TOO_MANY_REQUESTS:
        guard.failed(request.host, identity, now)
    return verdict


@functools.lru_cache(maxsize=16)
def _offered(profiles: frozenset[int]) -> frozenset[SecurityProfile]:
    return frozenset(SecurityProfile(number) for number in profiles)


def _identity_of(request: UpgradeRequest, prefix: str) -> str:
    if request.identity is None:
        return identity_from_path(request.path, prefix)
    check_identity(request.identity)
    return request.identity


def _no_identity(request: UpgradeRequest, prefix: str) -> RefusedConnection:
    """A path that holds no possible identity is an unknown identity: 401 or 403 like any other."""
    target = request.path.partition("?")[0]
    claimed = request.identity if request.identity is not None else target.removeprefix(prefix)
    if request.identity is None and (claimed == target or not claimed or "/" in claimed):
        return RefusedConnection(
            status=HTTPStatus.NOT_FOUND,
            reason=Reason.NO_ENDPOINT,
            cause=f"there is no OCPP endpoint at {target[:80]}",
            cure=f"use the URL ws(s)://HOST:PORT{prefix}IDENTITY",
        )
    return RefusedConnection(
        status=HTTPStatus.FORBIDDEN if request.chain_der else HTTPStatus.UNAUTHORIZED,
        reason=Reason.IMPOSSIBLE_IDENTITY,
        cause="the identity in the URL is none that OCPP allows",
        cure="use 1 to 48 letters, digits and the symbols *-_=+|@.",
        claimed=claimed,
    )


class _Judge(Generic[EntryT, EvidenceT]):
    """One attempt."""

    def __init__(
        self,
        request: UpgradeRequest,
        stations: StationSource[EntryT, EvidenceT],
        guard: AuthenticationGuard,
        standing: Standing,
        identity: str,
        now: datetime,
        trust: Sequence[bytes],
        crls: Sequence[bytes],
    ) -> None:
        self._request, self._stations, self._guard, self._standing = request, stations, guard, standing
        self._identity, self._now, self._trust, self._crls = identity, now, trust, crls

    async def by_profile(
        self, profile: SecurityProfile | None, offered: Collection[SecurityProfile]
    ) -> Verdict[EntryT, EvidenceT]:
        """Judge the attempt by what *profile*, one of those *offered*, demands; ``None``: it fits none of them."""
        if profile is None:
            return replace(_NO_PROFILE, claimed=self._identity)
        if profile is SecurityProfile.TLS_CLIENT_CERTIFICATE:
            verdict = await self.by_certificate()
            if isinstance(verdict, RefusedConnection) and self._standing is not Standing.OPEN:
                return _too_many(self._identity)
            return verdict
        if profile is SecurityProfile.NONE:
            return await self.by_name_alone(offers_password=SecurityProfile.UNSECURED_BASIC in offered)
        return await self.by_password(profile)

    # Profile 3

    async def by_certificate(self) -> Verdict[EntryT, EvidenceT]:
        chain = self._request.chain_der
        station = await self._stations.find_station(self._identity, chain)
        try:
            station = self._check_known(station)
            is_onboarding = bool(station.onboarding_anchors) and self._came_from(station.onboarding_anchors)
            evidence = await self._find_evidence(station, is_onboarding=is_onboarding)
            certificate = certificate_identity(chain[0])
            # On a manufacturer's certificate O is the manufacturer, so CN alone binds it to the station (A00.FR.405).
            organization = None if is_onboarding else station.organization
            check_subject(
                certificate,
                station=station.identity,
                serial_number=station.serial_number,
                organization=organization,
            )
            restriction = self._check_validity(certificate, station)
            if is_onboarding:
                restriction = Restriction.ONBOARDING
            elif self._trust:
                self._verify(self._trust, certificate)
        except RevocationError as error:
            revoked = error.status == "revoked"
            reason = Reason.CERTIFICATE_REVOKED if revoked else Reason.REVOCATION_UNKNOWN
            return self._refuse_certificate(reason, error, station)
        except ChainError as error:
            return self._refuse_certificate(Reason.UNTRUSTED_CHAIN, error, station)
        except IdentityMismatch as error:
            return self._refuse_certificate(error.reason, error, station)
        except (PolicyRefusal, InputError) as error:
            return self._refuse_certificate(Reason.CERTIFICATE_REFUSED, error, station)
        return AuthenticatedStation(
            station=station,
            profile=SecurityProfile.TLS_CLIENT_CERTIFICATE,
            certificate=evidence,
            restriction=restriction,
        )

    async def _find_evidence(self, station: EntryT, *, is_onboarding: bool) -> EvidenceT | None:
        try:
            return await self._stations.check_certificate(station, self._request.chain_der, self._now)
        except IdentityMismatch as error:
            # The table need not know a manufacturer's certificate; one that it knows as revoked stays refused.
            if is_onboarding and error.reason == Reason.CERTIFICATE_UNKNOWN:
                return None
            raise

    def _check_known(self, station: EntryT | None) -> EntryT:
        if station is not None and station.is_active:
            return station
        raise IdentityMismatch(
            f"station {self._identity!r} is {'unknown' if station is None else 'removed'}",
            reason=Reason.UNKNOWN_STATION if station is None else Reason.STATION_REMOVED,
            fix=_UNKNOWN_CURE.format(self._identity),
        )

    def _check_validity(self, certificate: CertificateIdentity, station: StationEntry) -> Restriction | None:
        try:
            check_validity(certificate, self._now, station=station.identity)
        except IdentityMismatch as error:
            if error.reason == Reason.CERTIFICATE_EXPIRED and station.accepts_expired_certificate:
                return Restriction.EXPIRED_CERTIFICATE
            raise
        return None

    def _came_from(self, anchors: Sequence[bytes]) -> bool:
        try:
            self._verify(anchors, certificate_identity(self._request.chain_der[0]))
        except RevocationError:
            raise
        except (ChainError, InputError):
            return False
        return True

    def _verify(self, anchors: Sequence[bytes], certificate: CertificateIdentity) -> None:
        leaf, *others = self._request.chain_der
        # Validity of the leaf is judged apart, since an expired one may be let in (A00.FR.429); the CAs that certified
        # it have to have been valid while it was.
        at = min(max(self._now, certificate.not_before), certificate.not_after)
        mode = RevocationMode.IF_PRESENT if self._crls else RevocationMode.OFF
        revocation = Revocation(mode, crls=tuple(self._crls))
        verify_chain(leaf, others, anchors, purpose=Purpose.CHARGING_STATION, at=at, revocation=revocation)

    def _refuse_certificate(self, reason: str, error: ChargePkiError, station: EntryT | None) -> RefusedConnection:
        return RefusedConnection(
            status=HTTPStatus.FORBIDDEN,
            reason=reason,
            cause=f"{error.what} ({error.why})" if error.why else error.what,
            cure=error.fix,
            event=SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE,
            claimed=self._identity,
            station=station.identity if station is not None else None,
        )

    # Profiles 1 and 2

    async def by_password(self, profile: SecurityProfile) -> Verdict[EntryT, EvidenceT]:
        if self._standing is Standing.BLOCKED:
            return _too_many(self._identity)
        try:
            credentials = self._credentials()
        except BadCredentials as error:
            missing = not self._request.authorization
            reason = Reason.NO_CREDENTIALS if missing else Reason.BAD_CREDENTIALS
            return self._unauthorized(reason, error.what)
        station = await self._stations.find_station(self._identity, ())
        reason, accepted = self._accepted(station, credentials)
        # Every refusal costs the same two hash verifications, so time tells nobody which identities exist.
        try:
            match = await self._guard.verify(self._standing, accepted, credentials.password)
        except TooManyAttempts as error:
            return _too_many(self._identity, error.what)
        if match is None or station is None:
            return self._unauthorized(reason, _CAUSES[reason], station)
        try:
            check_profile_allowed(profile, station.security_profile)
        except ProfileTooLow as error:
            return self._too_low(error, station)
        return AuthenticatedStation(
            station=station,
            profile=profile,
            pending_password=match.index == 1,
            previous_password=match.index == 2,
        )

    # No profile at all

    async def by_name_alone(self, *, offers_password: bool) -> Verdict[EntryT, EvidenceT]:
        """Believe the identity of a 1.6 station that is recorded as using no profile; nothing proves it."""
        if self._standing is Standing.BLOCKED:
            return _too_many(self._identity)
        station = await self._stations.find_station(self._identity, ())
        if station is None or not station.is_active:
            reason = Reason.UNKNOWN_STATION if station is None else Reason.STATION_REMOVED
            return self._unauthorized(reason, _CAUSES[reason], station)
        if station.security_profile > SecurityProfile.NONE and offers_password:
            return self._unauthorized(Reason.NO_CREDENTIALS, "no Authorization header", station)
        try:
            check_profile_allowed(SecurityProfile.NONE, station.security_profile)
            if self._request.version is not OcppVersion.V16:
                raise ProfileTooLow(
                    f"{self._identity} uses no security profile over {self._request.version or 'an unknown version'}",
                    why="only OCPP 1.6 knows a station without one",
                    fix="let it use profile 1, 2 or 3",
                )
        except ProfileTooLow as error:
            return self._too_low(error, station)
        return AuthenticatedStation(station=station, profile=SecurityProfile.NONE)

    def _too_low(self, error: ProfileTooLow, station: StationEntry) -> RefusedConnection:
        return RefusedConnection(
            status=HTTPStatus.FORBIDDEN,
            reason=Reason.PROFILE_TOO_LOW,
            cause=f"{error.what} ({error.why})",
            cure=error.fix,
            event="SecurityProfileTooLow",
            claimed=self._identity,
            station=station.identity,
        )

    def _credentials(self) -> Credentials:
        found = self._request.authorization
        if len(found) > 1:
            raise BadCredentials("more than one Authorization header")
        if not found:
            raise BadCredentials("no credentials: neither a client certificate nor an Authorization header")
        return parse_authorization(found[0])

    def _accepted(self, station: EntryT | None, credentials: Credentials) -> tuple[Reason, tuple[str | None, ...]]:
        """Return which hashes count, and the reason if none of them fits."""
        if station is None:
            return Reason.UNKNOWN_STATION, ()
        if not station.is_active:
            return Reason.STATION_REMOVED, ()
        if not same_identity(credentials.username, self._identity):
            return Reason.OTHER_USERNAME, ()
        accepted: tuple[str | None, ...] = (station.password_hash, station.pending_password_hash)
        until = station.previous_password_until
        if station.previous_password_hash is not None and until is not None and self._now <= until:
            accepted += (station.previous_password_hash,)
        return (Reason.WRONG_PASSWORD if any(accepted) else Reason.NO_PASSWORD_ON_RECORD), accepted

    def _unauthorized(self, reason: Reason, cause: str, station: StationEntry | None = None) -> RefusedConnection:
        cure = _UNAUTHORIZED_CURE.format(self._identity)
        if reason in (Reason.UNKNOWN_STATION, Reason.STATION_REMOVED):
            cure = _UNKNOWN_CURE.format(self._identity)
        return RefusedConnection(
            status=HTTPStatus.UNAUTHORIZED,
            reason=reason,
            cause=cause,
            cure=cure,
            event=SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS,
            claimed=self._identity,
            station=station.identity if station is not None else None,
        )


_UNKNOWN_CURE = "register it: chargepki station add {}"
_UNAUTHORIZED_CURE = (
    "compare the station's identity and password with its record (chargepki station show {0}); "
    "chargepki station set-password {0} --record-only corrects the record"
)
_CAUSES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.UNKNOWN_STATION: "the identity is not registered",
        Reason.STATION_REMOVED: "the station was removed",
        Reason.OTHER_USERNAME: "the Basic username is not the identity in the URL (A00.FR.204, A00.FR.303)",
        Reason.NO_PASSWORD_ON_RECORD: "the station has no password on record",
        Reason.WRONG_PASSWORD: "wrong password",
    }
)
_NO_PROFILE = RefusedConnection(
    status=HTTPStatus.FORBIDDEN,
    reason=Reason.NO_PROFILE,
    cause="the connection uses no security profile that this endpoint serves",
    cure="let the station use a profile of this endpoint, or start an endpoint for its profile",
    event=SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS,
)


def _too_many(identity: str, cause: str = "too many failed attempts") -> RefusedConnection:
    return RefusedConnection(
        status=HTTPStatus.TOO_MANY_REQUESTS,
        reason=Reason.TOO_MANY_ATTEMPTS,
        cause=cause,
        cure="wait a minute, and correct the credential first",
        event=SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS,
        claimed=identity,
    )
