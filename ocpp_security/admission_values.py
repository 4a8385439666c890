"""What `authenticate` is asked, and what it answers: values without any logic but the peer's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Generic, TypeAlias

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.station_source import EntryT, EvidenceT
from chargepki.ocpp_security.versions import OcppVersion

__all__ = ["AuthenticatedStation", "Reason", "RefusedConnection", "Restriction", "UpgradeRequest", "Verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """Everything about a WebSocket upgrade request that the decision may look at."""

    path: str = ""
    """Request target as received, percent-encoded, with or without a query."""
    identity: str | None = None
    """Given in place of `path` by a server that has found the identity by itself; percent-decoded."""
    authorization: tuple[str | bytes, ...] = field(default=(), repr=False)
    """Every Authorization header, as received; more than one is as good as none."""
    chain_der: Sequence[bytes] = ()
    """TLS client certificate, leaf first, then what came with it if the server knows; empty without one. The TLS
    handshake must have proven possession of the key, and validated the path unless `authenticate` gets *trust*."""
    tls: bool
    """Whether the link to the station is TLS (for a proxy: the link on the other side of it)."""
    host: str
    """Address of the peer without its port: failed attempts are counted for it."""
    version: OcppVersion | None = None
    """What was or will be negotiated; ``None`` when there is no version in common."""


class Reason(StrEnum):
    """Why a connection was refused: stable, for metrics and alert rules. Peers never see it."""

    NO_ENDPOINT = "no-endpoint"
    IMPOSSIBLE_IDENTITY = "impossible-identity"
    TOO_MANY_ATTEMPTS = "too-many-attempts"
    NO_PROFILE = "no-profile"
    NO_CREDENTIALS = "no-credentials"
    BAD_CREDENTIALS = "bad-credentials"
    UNKNOWN_STATION = "unknown-station"
    STATION_REMOVED = "station-removed"
    OTHER_USERNAME = "other-username"
    NO_PASSWORD_ON_RECORD = "no-password-on-record"  # noqa: S105 - the name of a reason
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - the name of a reason
    PROFILE_TOO_LOW = "profile-too-low"
    UNTRUSTED_CHAIN = "untrusted-chain"
    CERTIFICATE_REFUSED = "certificate-refused"
    CERTIFICATE_REVOKED = "certificate-revoked"
    REVOCATION_UNKNOWN = "revocation-unknown"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_UNKNOWN = "certificate-unknown"
    CERTIFICATE_OF_ANOTHER_STATION = "certificate-of-another-station"
    CERTIFICATE_OF_ANOTHER_PURPOSE = "certificate-of-another-purpose"
    CERTIFICATE_DISCARDED = "certificate-discarded"
    WRONG_COMMON_NAME = "wrong-common-name"
    WRONG_ORGANIZATION = "wrong-organization"


class Restriction(StrEnum):
    """Why a station is let in only to get a certificate: BootNotification Pending, A02, and nothing else."""

    EXPIRED_CERTIFICATE = "expired-certificate"
    """A00.FR.429: its certificate has expired, and it is configured to be let in all the same."""
    ONBOARDING = "onboarding"
    """A00.FR.406: it came with its manufacturer's certificate, and is configured to."""


_ANSWERS: Mapping[HTTPStatus, str] = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: "authentication failed\n",
        HTTPStatus.FORBIDDEN: "not allowed\n",
        HTTPStatus.NOT_FOUND: "no OCPP endpoint here\n",
        HTTPStatus.CONFLICT: "this station is connected already\n",
        HTTPStatus.TOO_MANY_REQUESTS: "too many attempts\n",
        HTTPStatus.SERVICE_UNAVAILABLE: "try again later\n",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedConnection:
    """The upgrade is answered with `status`, `headers` and `answer`; all the rest is for the operator alone."""

    status: HTTPStatus
    reason: str
    """A `Reason`, or what a `StationSource` of one's own gave as `IdentityMismatch.reason`."""
    cause: str
    """What is wrong, for the log; one line."""
    cure: str = ""
    """What the operator can do about it."""
    event: SecurityEvent | str | None = None
    """Security event to record; a name of our own where the catalogue has none."""
    claimed: str = ""
    """Identity that the peer claimed, as it came: cut and escape it before it is shown."""
    station: str | None = None
    """Registered station that the attempt was about; it need not have come from that station."""

    @property
    def answer(self) -> str:
        """Body of the HTTP answer: the same for every reason of one status, so that it tells a peer nothing."""
        return _ANSWERS[self.status]

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the HTTP answer."""
        if self.status is HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": 'Basic realm="OCPP"'}
        if self.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            return {"Retry-After": "60"}
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatedStation(Generic[EntryT, EvidenceT]):
    """The connection may be upgraded."""

    station: EntryT
    profile: SecurityProfile
    certificate: EvidenceT | None = None
    """What the table has on record about the certificate of a profile-3 connection."""
    pending_password: bool = False
    """The password was the pending one: the station has taken the change, so the old one is over (A01.FR.03)."""
    previous_password: bool = False
    """The password was the one before, within the grace that the operator allows this station."""
    restriction: Restriction | None = None
    """When set, answer BootNotification with Pending, run A02, and refuse everything else with SecurityError."""


Verdict: TypeAlias = AuthenticatedStation[EntryT, EvidenceT] | RefusedConnection
