"""What a connection needs from the CSMS of somebody else that it is embedded in, and what it tells that CSMS."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from chargepki.ocpp_security.link import Reply
from chargepki.ocpp_security.rpc import CallReceived
from chargepki.ocpp_security.wire import CertificateUse

__all__ = ["CertificateFate", "CertificateNews", "Embedding", "SecurityEventNews"]


class CertificateFate(StrEnum):
    """What became of a CSR or of the certificate for it."""

    DELIVERED = "delivered"
    """The station answered Accepted."""
    UNDELIVERED = "undelivered"
    """The station does not have it and will not."""
    UNKNOWN = "unknown"
    """No usable answer came; it is sent again when the station reconnects or asks, unless news follow."""
    SUPERSEDED = "superseded"
    """The station asked for another one since."""
    REFUSED = "refused"
    """The CSR was refused, or the CA refused it after it had been accepted; there is no certificate."""


@dataclass(frozen=True, slots=True)
class CertificateNews:
    """Something was settled about a certificate of a station, and is on record."""

    fate: CertificateFate
    use: CertificateUse | None
    """``None``: a refused CSR that named no use that we know."""
    certificate_id: str | None
    """Id in the inventory; ``None`` when there is no certificate."""
    why: str = ""
    """For the operator."""


@dataclass(frozen=True, slots=True)
class SecurityEventNews:
    """A security event that the station reported, and that is stored."""

    type: str
    """At most 50 printable characters; the list of the standard is open."""
    critical: bool
    at: datetime
    """By the station's clock, or when it came if that cannot be read; aware UTC."""
    tech_info: str = ""
    """At most 255 printable characters; the station's text."""


class Embedding(Protocol):
    """Somebody's own CSMS around a connection; nothing here may raise but `answer`."""

    @property
    def unchecked(self) -> Collection[str]:
        """Actions whose requests and answers are not held to their schema."""
        ...

    def handles(self, action: str) -> bool:
        """Say whether the CSMS answers *action* by itself."""
        ...

    async def answer(self, call: CallReceived) -> Reply:
        """Answer a call that `handles` said yes to; raises `OcppRefusal` to refuse it."""
        ...

    def new_message_id(self) -> str:
        """Return the id of the next call."""
        ...

    def trace(self, direction: str, frame: str | bytes) -> None:
        """Take note of a frame, unredacted: ``receive`` or ``send``."""
        ...

    def certificate_news(self, news: CertificateNews) -> None:
        """Take news about a certificate; called on the event loop."""
        ...

    def security_event_news(self, news: SecurityEventNews) -> None:
        """Take a stored security event; called on the event loop."""
        ...
