"""What an endpoint has to know when a station comes: one look-up, because every connection of a fleet makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from chargepki.pki.inventory.codec import STATION, STATION_TERMS, RowKind
from chargepki.pki.inventory.records import CertificateRecord, StationRecord
from chargepki.pki.inventory.terms_records import StationTermsRecord

__all__ = ["ARRIVING_CERTIFICATE", "ArrivalReads", "ArrivingRecord"]

_OCTETS: Final[Mapping[str, object]] = {"subject_der": b"", "tbs": None, "der": None, "csr": None, "verdict": {}}
ARRIVING_CERTIFICATE: Final[RowKind[CertificateRecord]] = RowKind("certificate", CertificateRecord, omit=tuple(_OCTETS))


@dataclass(frozen=True, slots=True)
class ArrivingRecord:
    """A station, the exceptions made for it, and the certificate that it came with."""

    station: StationRecord
    terms: StationTermsRecord
    certificate: CertificateRecord | None
    """Without the octets of subject, request and certificate, and without its verdict."""


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class ArrivalReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_arriving(self: _Rows, station: str, certificate_sha256: str | None) -> ArrivingRecord | None:
        """Return the station of this identity, removed ones too, with the certificate of this digest if there is one.

        Args:
            certificate_sha256: of the whole DER, lower-case hex; ``None`` where no certificate came.
        """
        rows = self._rows("arriving", {"station": station, "sha256": certificate_sha256})
        if not rows:
            return None
        row = rows[0]
        first, second = len(STATION.columns), len(STATION.columns) + len(STATION_TERMS.columns)
        terms, certificate = row[first:second], row[second:]
        return ArrivingRecord(
            STATION.decode(row[:first]),
            STATION_TERMS.decode(terms) if terms[0] is not None else StationTermsRecord(station),
            ARRIVING_CERTIFICATE.decode(certificate, **_OCTETS) if certificate[0] is not None else None,
        )
