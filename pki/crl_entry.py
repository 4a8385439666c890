"""One entry of a revocation list (RFC 5280 5.3): encode it, judge it, and find it in a run of entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from chargepki.pki import der, oids
from chargepki.pki.errors import InputError

__all__ = ["ReasonCode", "RevokedEntry", "encode_entry", "find_entry", "split_entries"]

_MAX_SERIAL_BITS: Final = 159
"""20 octets with the sign bit clear (RFC 5280 4.1.2.2)."""


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

    @property
    def is_compromise(self) -> bool:
        """Whether somebody else may have the private key."""
        return self in (ReasonCode.KEY_COMPROMISE, ReasonCode.CA_COMPROMISE, ReasonCode.AA_COMPROMISE)

    def may_become(self, other: ReasonCode) -> bool:
        """Whether an entry with this reason may be given the reason *other* later.

        A hold ends in a final reason. A final reason stays, for relying parties have seen it; only that somebody else
        has the key may be learned afterwards, and every party is better off knowing it (RFC 5280 5.3.1 leaves this to
        the CA; the CA/Browser Forum's Baseline Requirements 7.2.2 ask for it).
        """
        if other in (self, ReasonCode.REMOVE_FROM_CRL):
            return False
        return self is ReasonCode.CERTIFICATE_HOLD or (
            other.is_compromise and not self.is_compromise and other is not ReasonCode.CERTIFICATE_HOLD
        )

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


_NUMBERS: Final = dict(zip(ReasonCode, (0, 1, 2, 3, 4, 5, 6, 8, 9, 10), strict=True))


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """One revoked certificate."""

    serial: int
    revoked_at: datetime
    reason: ReasonCode | None = None
    """``None`` and `ReasonCode.UNSPECIFIED` are both encoded as absence (RFC 5280 5.3.1)."""
    invalidity_date: datetime | None = None


def _extension(oid: str, value: bytes) -> bytes:
    # Neither reasonCode nor invalidityDate is critical (RFC 5280 5.3.1, 5.3.2).
    return der.sequence(der.oid(oid), der.octet_string(value))


_REASONS: Final[dict[ReasonCode | None, bytes]] = {
    None: b"",
    **{
        reason: b"" if reason is ReasonCode.UNSPECIFIED else _extension(oids.REASON_CODE, der.enumerated(reason.number))
        for reason in ReasonCode
    },
}


@lru_cache(maxsize=1024)
def _date(moment: datetime) -> bytes:
    # Only UTC comes here: in other zones two instants an hour apart can be equal (PEP 495).
    return der.time(moment)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise TypeError("a naive datetime has no place in a revocation list: give it a time zone")
    return moment.astimezone(UTC)


@lru_cache(maxsize=1024)
def _tail(reason: ReasonCode | None, invalidity_date: datetime | None) -> bytes:
    extensions = _REASONS[reason]
    if invalidity_date is not None:
        extensions += _extension(oids.INVALIDITY_DATE, der.generalized_time(invalidity_date))
    return der.sequence(extensions) if extensions else b""


def encode_entry(entry: RevokedEntry, *, in_delta: bool = False) -> bytes:
    """Return the DER of *entry*.

    What is encoded here passes every rule about entries, so that a list of such entries need not be decoded again
    to be judged.

    Args:
        in_delta: the entry goes into a delta list, the only place for removeFromCRL.

    Raises:
        InputError: a serial that no certificate of ours has, or removeFromCRL outside a delta.
        TypeError: a naive datetime.

    Clause: RFC 5280 5.1.2.6, 5.3.1, 5.3.2.
    """
    if not 0 < entry.serial < 1 << _MAX_SERIAL_BITS:
        raise InputError(
            f"serial {entry.serial:x} cannot be listed", why="serials are positive, of 20 octets at most (RFC 5280)"
        )
    if entry.reason is ReasonCode.REMOVE_FROM_CRL and not in_delta:
        raise InputError(
            f"serial {entry.serial:x} has reason removeFromCRL",
            why="it belongs in a delta CRL only (RFC 5280 5.3.1)",
            fix="leave the certificate out of the full list",
        )
    invalidity = None if entry.invalidity_date is None else _utc(entry.invalidity_date)
    return der.sequence(der.integer(entry.serial), _date(_utc(entry.revoked_at)), _tail(entry.reason, invalidity))


def split_entries(entries: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each entry of a run that `encode_entry` has written.

    Raises:
        InputError: the run does not divide into entries.
    """
    position, size = 0, len(entries)
    while position < size:
        # Entries of ours have fewer than 128 octets of content: 22 for the serial, 17, and 40 for the extensions.
        end = position + 2 + entries[position + 1] if position + 1 < size else size + 1
        if entries[position] != der.SEQUENCE or end > size or entries[position + 1] >= 0x80:
            raise InputError(
                f"the stored entries do not divide at octet {position}", fix="run: chargepki crl check --all"
            )
        yield position, end
        position = end


def find_entry(entries: bytes, serial: int) -> tuple[int, int] | None:
    """Return start and end of the entry of *serial* in a run of entries, or ``None``.

    Raises:
        InputError: the run does not divide into entries.
    """
    wanted = der.integer(serial)
    if wanted not in entries:
        return None
    return next((place for place in split_entries(entries) if entries.startswith(wanted, place[0] + 2, place[1])), None)
