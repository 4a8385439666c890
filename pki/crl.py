"""Build, assemble and read certificate revocation lists (RFC 5280 section 5); pure functions over DER."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chargepki.pki import der
from chargepki.pki.errors import InputError

__all__ = [
    "CrlView",
    "ReasonCode",
    "RevokedEntry",
    "assemble_crl",
    "build_crl_tbs",
    "crl_contains",
    "parse_crl",
]


class ReasonCode(StrEnum):
    """CRLReason of RFC 5280 5.3.1, by its name there; `number` is the ENUMERATED value."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    REMOVE_FROM_CRL = "removeFromCRL"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"

    @property
    def number(self) -> int:
        """The ENUMERATED value; 7 is not assigned."""
        return _NUMBERS[self]

    @classmethod
    def of_number(cls, number: int) -> ReasonCode:
        """Return the reason with *number*.

        Raises:
            InputError: no reason has this number.
        """
        for reason, value in _NUMBERS.items():
            if value == number:
                return reason
        raise InputError(
            f"{number} is no CRL reason code", why="RFC 5280 5.3.1 assigns 0 to 6 and 8 to 10", fix="use one of those"
        )


_NUMBERS = dict(zip(ReasonCode, (0, 1, 2, 3, 4, 5, 6, 8, 9, 10), strict=True))


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """One revoked certificate."""

    serial: int
    revoked_at: datetime
    reason: ReasonCode | None = None
    """``None`` and `ReasonCode.UNSPECIFIED` are both encoded as absence (RFC 5280 5.3.1)."""
    invalidity_date: datetime | None = None


@dataclass(frozen=True, slots=True)
class CrlView:
    """A decoded revocation list; nothing here has been verified."""

    der: bytes
    tbs: bytes
    signature_algorithm_der: bytes
    signature: bytes
    issuer_der: bytes
    this_update: datetime
    next_update: datetime | None
    number: int | None
    authority_key_id: bytes | None
    entries: tuple[RevokedEntry, ...]
    distribution_point_url: str | None = None
    delta_base_number: int | None = None

    def find(self, serial: int) -> RevokedEntry | None:
        """Return the entry of *serial*, or ``None``."""
        return next((entry for entry in self.entries if entry.serial == serial), None)


def build_crl_tbs(
    *,
    issuer_name_der: bytes,
    authority_key_id: bytes,
    number: int,
    this_update: datetime,
    next_update: datetime,
    entries: Iterable[RevokedEntry],
    signature_algorithm_der: bytes,
    distribution_point_url: str | None = None,
) -> bytes:
    """Build the DER of a full TBSCertList."""
    raise InputError("not yet")


def assemble_crl(tbs: bytes, signature_algorithm_der: bytes, signature: bytes) -> bytes:
    """Join to-be-signed bytes and signature to a CertificateList (DER)."""
    return der.sequence(tbs, signature_algorithm_der, der.bit_string(signature))


def parse_crl(data: bytes, *, max_bytes: int = 64 * 1024 * 1024) -> CrlView:
    """Decode a CRL, DER or PEM."""
    raise InputError("not yet")


def crl_contains(data: bytes, serial: int) -> bool:
    """Say whether the CRL (DER) lists *serial*."""
    return parse_crl(data).find(serial) is not None
