"""One list for all generations of a CA: they share a name, and some software chooses lists by the issuer's name alone.

A revocation list speaks for the CRL issuer of its name, whichever of the issuer's keys signs it (RFC 5280 5, 6.3.3).
Java's validator and GnuTLS take that literally: handed the lists of two generations, either may do for both. So the
full list of each generation names what all of them have revoked, and whichever is taken, no revocation is missed. No
certificate is refused by it wrongly: no two certificates of one name share a serial number (RFC 5280 4.1.2.2), which
are random over 159 bits; `crl check` looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CaRecord, CaState

__all__ = ["CrlGenerations", "check_serials", "relatives", "tells_of_relatives"]

_REMEMBERED: Final = 256
_told: Final[set[tuple[object, ...]]] = set()
"""For which states of lists and generations the entries were found to be told."""


class CrlGenerations(StrEnum):
    """Whose revocations the full list of one generation of a CA names."""

    ALL = "all"
    OWN = "own"


def relatives(reads: Reads, ca: CaRecord, generations: CrlGenerations, now: datetime) -> tuple[str, ...]:
    """Return the ids of the other generations of *ca* whose revocations its full list names too, in order.

    None of a CA with delta lists: a delta tells what became of one generation since one of its full lists, and together
    they have to tell the same as the next full list (RFC 5280 5.2.4). None that has expired: nobody believes what is
    below.
    """
    if generations is CrlGenerations.OWN or ca.crl_delta_hours is not None:
        return ()
    return tuple(
        other.id
        for other in reads.list_cas(name=ca.name)
        if other.id != ca.id
        and other.subject_der == ca.subject_der
        and other.state not in (CaState.PENDING, CaState.FOREIGN)
        and other.not_after is not None
        and now < other.not_after
    )


def tells_of_relatives(reads: Reads, ca: CaRecord, others: Iterable[str]) -> bool:
    """Return whether the newest full list of *ca* has the entries that those generations have now."""
    others = tuple(others)
    changes = {each: reads.last_change(each) for each in (ca.id, *others)}
    if not any(changes[other] or reads.count_stored_entries(other) for other in others):
        return True
    # Lists may be long: they are compared once for each change, not each time that somebody asks.
    asked = (ca.spki_sha256, reads.list_states(ca.id).get(None), tuple(changes.items()))
    if asked in _told:
        return True
    latest = reads.latest_crl(ca.id)
    if latest is None:
        return False
    segments = [segment for each in (ca.id, *others) for segment in reads.list_crl_segments(each)]
    # As they were joined when it was signed, byte for byte; the number tells of an entry that came off.
    told = b"".join(segment.content for segment in segments)
    if sum(segment.count for segment in segments) != latest.entries or told not in latest.der:
        return False
    if len(_told) >= _REMEMBERED:
        _told.clear()
    _told.add(asked)
    return True


def check_serials(reads: Reads, serials: Iterable[str], others: Sequence[str]) -> list[str]:
    """Return the ids of certificates of *others* that have one of *serials*: a list would speak of them too."""
    found = [f"{other}:{serial}" for serial in serials for other in others]
    return [each for each in found if reads.find_certificate(each) is not None]
