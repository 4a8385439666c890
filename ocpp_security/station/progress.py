"""What a simulated station reports about itself while it runs, for people and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Milestone", "Progress"]


class Milestone(StrEnum):
    """Kinds of progress; stable names to wait for."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BOOTED = "booted"
    TRIGGERED = "triggered"
    CSR_SENT = "csr-sent"
    CSR_ACCEPTED = "csr-accepted"
    CSR_REFUSED = "csr-refused"
    CERTIFICATE_INSTALLED = "certificate-installed"
    CERTIFICATE_REFUSED = "certificate-refused"
    CERTIFICATE_PROVEN = "certificate-proven"
    PASSWORD_OFFERED = "password-offered"  # noqa: S105 (a name)
    PASSWORD_PROVEN = "password-proven"  # noqa: S105 (a name)
    SECURITY_EVENT = "security-event"
    FIRMWARE = "firmware"
    FIRMWARE_INSTALLED = "firmware-installed"
    """The CSMS has heard of it."""
    ROOTS = "roots"
    """About a root that was installed, deleted or refused."""
    NETWORK = "network"
    """Another configuration slot is in use than before."""
    LOG = "log"
    """About a log that the CSMS asked for."""
    CONTRACT = "contract"
    """The vehicle at the station got one."""
    CONTRACT_REFUSED = "contract-refused"
    STATUS = "certificate-status"
    """About the status of a certificate of its own, or of a vehicle's, that it has asked for."""
    AUTHORIZED = "authorized"
    NOT_AUTHORIZED = "not-authorized"
    REFUSED = "connection-refused"
    """The CSMS answered with an HTTP status, or one side refused the TLS handshake."""
    UNREACHABLE = "unreachable"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing that happened."""

    milestone: Milestone
    text: str
    """One plain sentence without secrets."""
    at: datetime
    profile: int | None = None
    """Security profile of the connection that it happened on or was tried."""
    status: int | None = None
    """HTTP status of a refused connection, or close code of an ended one."""
    certificate: str | None = None
    """SHA-256 of the leaf that this is about, lower-case hex."""
