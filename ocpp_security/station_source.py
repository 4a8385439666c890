"""Where `authenticate` learns about stations: a protocol for anybody's own table, and the inventory behind it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from chargepki.ocpp_security.identity import check_certificate_record, check_fallback
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery, StationRecord, StationState
from chargepki.pki.pem import pem_blocks

__all__ = [
    "MAX_BUNDLE_BYTES",
    "STATION_CERTIFICATE_PROFILES",
    "EntryT",
    "EvidenceT",
    "InventoryEntry",
    "InventoryStations",
    "RunsElsewhere",
    "StationEntry",
    "StationSource",
]

STATION_CERTIFICATE_PROFILES: Collection[str] = frozenset({"ocpp/charging-station"})
"""What opens a connection unless the endpoint issues other certificates for the link as well."""

MAX_BUNDLE_BYTES = 1 << 20
"""Of the PEM certificates of one manufacturer CA."""

_SLOW_SECONDS = 0.02
_SLOW_IN_A_ROW = 3
"""So many look-ups in the event loop that took so long had to wait for a slow disk, and everybody waited with them. A
single one may have been the turn of another process."""
_THREADS_SECONDS = 5.0
"""How long threads look up in its place then."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StationEntry:
    """What has to be known of a station to let it in; a row of anybody's table."""

    identity: str
    serial_number: str
    """The CN that its certificate must have (A00.FR.405)."""
    organization: str | None = None
    """The O that its certificate must have (A00.FR.404); ``None`` leaves it unchecked."""
    security_profile: int = 2
    """Never let in below it; 0 also lets 1.6 stations in that use no profile at all."""
    is_active: bool = True
    """False is answered like an unknown identity."""
    password_hash: str | None = field(default=None, repr=False)
    """From `passwords.hash_password`."""
    pending_password_hash: str | None = field(default=None, repr=False)
    """Accepted too, while a change of password is on its way to the station (A01.FR.03, FR.04)."""
    previous_password_hash: str | None = field(default=None, repr=False)
    """Accepted too, for the grace that its operator allows: a deviation from A01.FR.03."""
    previous_password_until: datetime | None = None
    accepts_expired_certificate: bool = False
    """Let in with an expired certificate, to renew it and for nothing else (A00.FR.429)."""
    onboarding_anchors: tuple[bytes, ...] = ()
    """DER of the manufacturer's CA certificates with which it may come in to get its first certificate, and for
    nothing else (A00.FR.406)."""


EntryT = TypeVar("EntryT", bound=StationEntry)
EvidenceT = TypeVar("EvidenceT", covariant=True)


class StationSource(Protocol[EntryT, EvidenceT]):
    """A table of stations. Both methods are asked at most once a connection attempt, before anything is proven."""

    async def find_station(self, identity: str, chain_der: Sequence[bytes]) -> EntryT | None:
        """Return the station of exactly this *identity*, or ``None``.

        Args:
            chain_der: as for `check_certificate`, empty without a client certificate; a table that keeps stations and
                certificates side by side may read both at once.
        """
        ...

    async def check_certificate(self, station: EntryT, chain_der: Sequence[bytes], now: datetime) -> EvidenceT:
        """Return what is on record about a client certificate that *station* may use, or refuse it.

        CN, O and validity are checked by the caller. What remains is whether this very certificate is the station's
        own and not revoked (A00.FR.427, A00.FR.705); a certificate is told by its whole content, never by its serial
        number alone.

        Args:
            chain_der: leaf first; the handshake has proven possession of its key.

        Raises:
            RevocationError: revoked.
            PolicyRefusal: not a certificate with which this station may connect.
        """
        ...


class RunsElsewhere(Protocol):
    """Runs a blocking function off the event loop, for example `asyncio.to_thread`."""

    async def __call__(self, work: Callable[[], _T], /) -> _T:
        """Return what *work* returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryEntry(StationEntry):
    """A station of the inventory, with what the inventory knows of the certificate that came for it."""

    record: StationRecord
    certificate: CertificateRecord | None = None
    """Without its octets, which the peer has shown."""
    issue: Mapping[str, Any] | None = None
    """What signs its requests where that differs from the endpoint (`StationTermsRecord.issue`)."""
    revoked: tuple[CertificateRecord, ...] = ()
    """The station's revoked certificates; read only where one of them can matter."""


class InventoryStations:
    """The inventory as a `StationSource`; its reads run off the event loop.

    Args:
        profiles: ids of the certificate profiles that open a connection.
        run: how to run a blocking read; a thread of the event loop's own pool by default.
        quick: reads that may be done in the event loop, tried first; see `Inventory.quick_reads`.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        profiles: Collection[str] = STATION_CERTIFICATE_PROFILES,
        run: RunsElsewhere = asyncio.to_thread,
        quick: Reads | None = None,
    ) -> None:
        self._inventory, self._profiles, self._run, self._quick = inventory, frozenset(profiles), run, quick
        self._slow = 0
        self._threads_until = 0.0

    async def find_station(self, identity: str, chain_der: Sequence[bytes]) -> InventoryEntry | None:
        """Return the station, removed ones included, and what is on record about its certificate."""
        started = time.monotonic()
        if self._quick is not None and started >= self._threads_until:
            try:
                return _look_up(self._quick, identity, chain_der)
            except UnavailableError:
                # It would have to wait, or is not open: the thread may wait, and knows what is wrong.
                pass
            finally:
                self._note_time(started, time.monotonic())
        return await self._run(lambda: _look_up(self._inventory, identity, chain_der))

    def _note_time(self, started: float, ended: float) -> None:
        """Leave the look-ups to threads for a while when one after the other was slow."""
        self._slow = self._slow + 1 if ended - started > _SLOW_SECONDS else 0
        if self._slow >= _SLOW_IN_A_ROW:
            self._slow, self._threads_until = 0, ended + _THREADS_SECONDS

    async def check_certificate(
        self, station: InventoryEntry, chain_der: Sequence[bytes], now: datetime
    ) -> CertificateRecord:
        """Return the certificate's record; see `StationSource.check_certificate`.

        Raises:
            IdentityMismatch: not in the inventory, another station's, not issued, or for another purpose.
            RevocationError: revoked, or superseded by one that was revoked.
        """
        record = check_certificate_record(station.certificate, station.record, profiles=self._profiles)
        check_fallback(record, station.revoked)
        return record


def _look_up(inventory: Reads, identity: str, chain_der: Sequence[bytes]) -> InventoryEntry | None:
    sha256 = hashlib.sha256(chain_der[0]).hexdigest() if chain_der else None
    found = inventory.find_arriving(identity, sha256)
    if found is None:
        return None
    station, terms, certificate = found.station, found.terms, found.certificate
    if certificate is not None and certificate.origin == "imported" and certificate.state is CertificateState.ISSUED:
        # That it was seen somewhere says nothing for it: a station comes in with what was issued for it, or with
        # what its manufacturer's CA is trusted for. What its own CA has revoked stays out.
        certificate = None
    revoked: tuple[CertificateRecord, ...] = ()
    if certificate is not None and certificate.delivery is Delivery.SUPERSEDED:
        revoked = tuple(inventory.list_certificates(station=station.id, state=CertificateState.REVOKED))
    return InventoryEntry(
        identity=station.id,
        serial_number=station.serial_number,
        organization=station.organization,
        security_profile=station.security_profile,
        is_active=station.state is StationState.ACTIVE,
        password_hash=station.password_hash,
        pending_password_hash=station.pending_password_hash,
        previous_password_hash=terms.previous_password_hash,
        previous_password_until=terms.previous_password_until,
        accepts_expired_certificate=terms.accept_expired,
        onboarding_anchors=_anchors(terms.onboarding_anchors),
        record=station,
        certificate=certificate,
        issue=terms.issue,
        revoked=revoked,
    )


def _anchors(bundle: bytes | None) -> tuple[bytes, ...]:
    if bundle is None:
        return ()
    return tuple(block.der for block in pem_blocks(bundle, max_bytes=MAX_BUNDLE_BYTES))
