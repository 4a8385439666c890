"""How the simulated station connects: waits between attempts, no redirects, what a failed handshake means."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from websockets.asyncio.client import connect

from chargepki.ocpp_security.events import SecurityEvent

__all__ = ["HANDSHAKE_EVENTS", "NoRedirect", "RetryPolicy"]

# A00.FR.316, FR.323, FR.419 and FR.426: what OpenSSL says when the versions or the suites have nothing in common.
HANDSHAKE_EVENTS = {
    "UNSUPPORTED_PROTOCOL": SecurityEvent.INVALID_TLS_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": SecurityEvent.INVALID_TLS_VERSION,
    "WRONG_VERSION_NUMBER": SecurityEvent.INVALID_TLS_VERSION,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": SecurityEvent.INVALID_TLS_CIPHER_SUITE,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": SecurityEvent.INVALID_TLS_CIPHER_SUITE,
    "WRONG_CIPHER_RETURNED": SecurityEvent.INVALID_TLS_CIPHER_SUITE,
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits between connection attempts: doubling from `minimum` to `maximum`, with up to a fifth more at random.

    Clause: OCPP 2.0.1 part 4, 5.3 (RetryBackOff…): stations of a fleet must not come back all at once.
    """

    minimum: timedelta = timedelta(seconds=1)
    maximum: timedelta = timedelta(minutes=1)

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after *failures* in a row (1 or more)."""
        seconds = min(self.minimum.total_seconds() * 2.0 ** min(failures - 1, 20), self.maximum.total_seconds())
        return seconds * random.uniform(1.0, 1.2)


class NoRedirect(connect):
    """A station goes where it is configured to go: following a redirect would send its password elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
