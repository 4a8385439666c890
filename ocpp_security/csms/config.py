"""What a CSMS endpoint is told: addresses, security profiles, limits, and what it may issue."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from chargepki.ocpp_security.csms.proxy import ProxyTrust
from chargepki.ocpp_security.ev_certificate import DEFAULT_RESPONSE_CHARACTERS
from chargepki.ocpp_security.fetch import FetchPolicy
from chargepki.ocpp_security.sign_certificate import IssuePlan
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError
from chargepki.pki.inventory import SealingKey

if TYPE_CHECKING:
    from chargepki.ocpp_security.contract_check import ContractTrust
    from chargepki.ocpp_security.ev_certificate import ContractProvider
    from chargepki.ocpp_security.status import OcspSigners

__all__ = ["ClientTrust", "CsmsConfig", "CsmsLimits", "DuplicatePolicy"]


class DuplicatePolicy(StrEnum):
    """What becomes of a second authenticated connection of one identity."""

    NEWEST = "newest"
    """It replaces the first: a station that lost its link is back before we notice."""
    PROBE = "probe"
    """It replaces the first only when that one leaves a ping unanswered; otherwise 409."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsmsLimits:
    """Bounds on what a peer can make us do; the defaults suit ten thousand stations on one process."""

    tls_handshake: timedelta = timedelta(seconds=10)
    upgrade: timedelta = timedelta(seconds=10)
    """From the end of the TLS handshake to our HTTP answer."""
    close: timedelta = timedelta(seconds=2)
    max_open_handshakes: int = 512
    max_open_handshakes_per_address: int = 128
    max_message_bytes: int = 262_144
    """A longer message closes the connection with 1009; the longest OCPP message has some 20 kB."""
    max_queued_messages: int = 16
    ping_interval: timedelta = timedelta(seconds=60)
    """Zero switches our pings off."""
    ping_timeout: timedelta = timedelta(seconds=30)
    call_timeout: timedelta = timedelta(seconds=30)
    silence: timedelta = timedelta(seconds=5)
    """A connected station that sends nothing gets what waits for it after so long; one that boots, after that."""
    failed_attempts: int = 10
    """Refused upgrades per identity and address within `failed_window`; more are answered 429 unread."""
    failed_attempts_per_identity: int = 100
    """The same from all addresses together, other than those from which the station proved itself lately."""
    failed_attempts_per_address: int = 600
    """The same for all identities together."""
    failed_window: timedelta = timedelta(minutes=1)
    displacements: int = 3
    """Replaced connections of one identity within `displacement_window` that raise the alert."""
    displacement_window: timedelta = timedelta(minutes=1)


def _process_name() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(3)}"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTrust:
    """What client certificates are judged by beside the handshake; may be replaced while the endpoint runs."""

    anchors: tuple[bytes, ...] = ()
    """DER of the CA certificates that client certificates may chain to."""
    crls: tuple[bytes, ...] = ()
    """DER of revocation lists of these CAs; what they revoke is refused, whatever the inventory says."""
    verify: bool = False
    """Validate the path here, because nothing before us has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsmsConfig:
    """One endpoint ``ws(s)://HOST:PORT/ocpp/IDENTITY``.

    Raises:
        InputError: the profiles and the TLS context do not fit together.

    Clause: A00.FR.006 (profiles 2 and 3 may share a port; profile 1 is never served beside them).
    """

    host: str = "127.0.0.1"
    port: int = 0
    """0 lets the system choose; see `CsmsServer.port`."""
    security_profiles: frozenset[int] = frozenset({2, 3})
    tls: ssl.SSLContext | None = None
    """From `ocpp_security.tls.server_context`; required for profiles 2 and 3, forbidden for profile 1."""
    proxy: ProxyTrust | None = None
    """The TLS-terminating proxy in front; then `tls` is ``None``, and nobody but the proxy is listened to."""
    client_trust: ClientTrust = field(default_factory=ClientTrust)
    plans: Mapping[CertificateUse, IssuePlan] = field(default_factory=dict)
    """What a CSR of each use becomes; a use without a plan is refused."""
    revoke_refused: str | None = "cessationOfOperation"
    """RFC 5280 reason under which a certificate that its station never took is revoked; ``None`` leaves it marked."""
    sealing_key: SealingKey | None = None
    """Opens the secret parameters of operations (new passwords); without it such operations fail."""
    upload_url: str | None = None
    """Base of the addresses that stations upload requested logs to, without a slash at the end; see `UploadServer`.
    ``None``: no log can be asked for."""
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    """Which addresses may be asked about the status of certificates; none by default. Our own CAs need none."""
    status_issuers: tuple[bytes, ...] = ()
    """DER of CA certificates of others under which such answers are verified."""
    ocsp_signers: OcspSigners | None = None
    """Signs answers about certificates of our own CAs; without it those that were prepared are given."""
    contract: ContractTrust | None = None
    """What contract certificates are judged by (C07); ``None`` leaves Authorize as it is."""
    provider: ContractProvider | None = None
    """Who has contracts for vehicles (M01, M02); ``None`` leaves Get15118EVCertificate as it is."""
    exi_response_characters: int = DEFAULT_RESPONSE_CHARACTERS
    """Of exiResponse to stations of 2.0.1 and 1.6; 2.1 has 17000."""
    heartbeat_interval: timedelta = timedelta(minutes=5)
    duplicate: DuplicatePolicy = DuplicatePolicy.NEWEST
    allow_unsecured: tuple[str, ...] = ()
    """Shell patterns of the stations whose certificates and roots may be changed over a connection without TLS
    (profile 1, or 0), on a line that is protected otherwise; ``("*",)`` is all of them. For the others such a change
    is refused: their CSRs, and CertificateSigned, InstallCertificate and DeleteCertificate to them."""
    require_serial_number_16: bool = False
    """Close a profile-3 connection of OCPP 1.6 whose BootNotification names no serial number. A wrong one closes it in
    any case; a missing one does in 2.x (B01.FR.11), while 1.6 has no such rule and its field is optional."""
    owner: str = field(default_factory=_process_name)
    """Names this process in presence rows and leases."""
    limits: CsmsLimits = field(default_factory=CsmsLimits)
    clock: Callable[[], datetime] = _utc_now

    def __post_init__(self) -> None:
        profiles = self.security_profiles
        if not profiles or not (profiles <= {0, 1} or profiles <= {2, 3}):
            raise InputError(
                f"security profiles {sorted(profiles)} cannot be served on one port",
                why="a port serves profile 1, or 2, or 3, or 2 and 3 (A00.FR.006); for 1.6 also 0, or 0 and 1",
                fix="start one endpoint per profile",
            )
        if self.proxy is not None:
            if profiles <= {0, 1} or self.tls is not None:
                raise InputError(
                    "behind a proxy only profiles 2 and 3 are served, and TLS is the proxy's",
                    fix="leave out the TLS context, or the proxy",
                )
            if 3 in profiles and not self.client_trust.anchors:
                raise InputError(
                    "behind a proxy profile 3 needs the CA certificates of its stations",
                    why="what the proxy passes on is validated here (A00.FR.403)",
                    fix="pass them as client trust",
                )
            return
        if (self.tls is None) != (profiles <= {0, 1}):
            raise InputError(
                "profiles 2 and 3 need a TLS context, profile 1 must have none",
                fix="pass tls=server_context(...) with profiles 2 and 3 only",
            )
        if 3 in profiles and self.tls is not None and self.tls.verify_mode == ssl.CERT_NONE:
            raise InputError(
                "profile 3 is served, but the TLS context asks for no client certificate",
                fix="give the roots of the station certificates (client trust) when building the context",
            )
