"""What a firmware image can be refused for, and the deviations from the standard that somebody may ask for."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.firmware_image import FirmwareHash

if TYPE_CHECKING:
    from chargepki.ocpp_security.events import SecurityEvent

__all__ = ["FirmwareHash", "FirmwareQuirk", "FirmwareRefusal", "FirmwareStage", "deviations"]


class FirmwareStage(StrEnum):
    """Where a station stops, in its order (L01)."""

    CERTIFICATE = "certificate"
    """Before the request is answered; nothing is downloaded."""
    SIGNATURE = "signature"
    """After the download."""
    INSTALLATION = "installation"
    """The image is genuine, and still not one to install."""


class FirmwareQuirk(StrEnum):
    """A deviation that some stations need; never on unless asked for, and every report names it."""

    PKCS1_V15 = "pkcs1-v15"
    """RSASSA-PKCS1-v1_5 in place of RSA-PSS, for stations that verify with OpenSSL's defaults."""


_INVALID: Final = "InvalidCertificate"
_REVOKED: Final = "RevokedCertificate"
_BAD_SIGNATURE: Final = "InvalidSignature"
_NOT_INSTALLED: Final = "InstallVerificationFailed"


class FirmwareRefusal(OcppRefusal):
    """An image that a station must not install. `status` and `event` are what the station tells its CSMS.

    For a certificate the status is that of the response to the update request; for a signature it is that of a
    firmware status notification after the download.

    Clause: OCPP 2.x L01.FR.02, FR.03, FR.21, FR.22; 1.6 white paper L01.FR.02, FR.03, FR.23 to FR.25.
    """

    code: ClassVar[str] = "firmware"

    def __init__(
        self,
        what: str,
        *,
        stage: FirmwareStage,
        rule: str,
        clause: str = "",
        why: str = "",
        fix: str = "",
        revoked: bool = False,
    ) -> None:
        # The catalogue of events costs more to load than all of this module: only who refuses something needs it.
        from chargepki.ocpp_security.events import SecurityEvent

        self.stage = stage
        self.rule = rule
        """Stable short name of the rule broken."""
        self.clause = clause
        if stage is FirmwareStage.CERTIFICATE:
            self.status = _REVOKED if revoked else _INVALID
            event: SecurityEvent | None = SecurityEvent.INVALID_FIRMWARE_SIGNING_CERTIFICATE
        elif stage is FirmwareStage.INSTALLATION:
            self.status, event = _NOT_INSTALLED, None
        else:
            self.status = _BAD_SIGNATURE
            event = SecurityEvent.INVALID_FIRMWARE_SIGNATURE
        # What the peer hears is the status alone: a reason would help whoever tries images out.
        answer = StatusAnswer(self.status)
        super().__init__(
            what, answer=answer, why=f"{why} ({clause})" if clause and why else why or clause, fix=fix, event=event
        )

    def to_json(self) -> dict[str, Any]:
        """Return every field."""
        return {
            "stage": self.stage,
            "rule": self.rule,
            "status": self.status,
            "event": self.event,
            "what": self.what,
            "why": self.why,
            "clause": self.clause,
            "fix": self.fix,
        }


def deviations(hash_name: FirmwareHash, quirks: frozenset[FirmwareQuirk] | tuple[FirmwareQuirk, ...]) -> list[str]:
    """Return a sentence about each way in which this differs from the standard; every report shows them."""
    found = []
    if FirmwareQuirk.PKCS1_V15 in quirks:
        found.append("quirk pkcs1-v15: the signature is RSASSA-PKCS1-v1_5, the standard asks for RSA-PSS (L01.FR.04)")
    if hash_name is not FirmwareHash.SHA256:
        found.append(f"hash {hash_name}: the standard names SHA-256 alone (L01.FR.04); stations will refuse it")
    return found
