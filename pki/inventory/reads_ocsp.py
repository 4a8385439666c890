"""Typed reads on prepared OCSP responses and on what they are about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from chargepki.pki.inventory import codec
from chargepki.pki.inventory.codec import encode_time
from chargepki.pki.inventory.ocsp_records import OCSP_RESPONSE, OcspResponseRecord, OcspSubject
from chargepki.pki.inventory.records import CertificateState

__all__ = ["OcspReads"]

_PAGE = 500


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class OcspReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_ocsp_response(self: _Rows, certificate: str, hash_name: str) -> OcspResponseRecord | None:
        """Return the prepared response about a certificate (by its id) whose CertID has this hash."""
        rows = self._rows("ocsp_get", {"certificate": certificate, "hash": hash_name})
        return OCSP_RESPONSE.decode(rows[0]) if rows else None

    def find_ocsp_subject(self: _Rows, certificate: str) -> OcspSubject | None:
        """Return the status of a certificate, reserved and voided ones too; ``None`` for an id that is not there."""
        rows = self._rows("ocsp_subject", {"id": certificate})
        return _subject(rows[0]) if rows else None

    def list_ocsp_responses(self: _Rows) -> Iterator[OcspResponseRecord]:
        """List all prepared responses by certificate and hash."""
        # A page may end between the two hashes of a certificate, so the next one begins with that certificate again.
        after, done = "", set[tuple[str, str]]()
        while True:
            rows = self._rows("ocsp_page", {"after": after, "limit": _PAGE})
            records = [OCSP_RESPONSE.decode(row) for row in rows]
            yield from (record for record in records if (record.certificate, record.hash) not in done)
            if len(rows) < _PAGE:
                return
            last = records[-1].certificate
            done = {(record.certificate, record.hash) for record in records if record.certificate == last}
            after = max((record.certificate for record in records if record.certificate != last), default=after)

    def list_ocsp_responses_of(self: _Rows, ca: str, hash_name: str) -> Iterator[OcspResponseRecord]:
        """List the prepared responses about the certificates of one CA generation, by certificate."""
        after = ""
        while rows := self._rows("ocsp_of_ca", {"after": after, "ca": ca, "hash": hash_name, "limit": _PAGE}):
            for row in rows:
                yield OCSP_RESPONSE.decode(row)
            after = str(rows[-1][0])

    def list_ocsp_changes(
        self: _Rows, ca: str, hash_name: str, *, since: datetime, after: str, limit: int
    ) -> tuple[OcspResponseRecord, ...]:
        """Return responses of one CA generation that were signed at or after *since*, oldest first, at most *limit*.

        Args:
            after: id of a certificate: of those signed at *since* itself, only the ones behind it.
        """
        parameters = {"ca": ca, "hash": hash_name, "since": encode_time(since), "after": after, "limit": limit}
        return tuple(OCSP_RESPONSE.decode(row) for row in self._rows("ocsp_changes", parameters))

    def list_ocsp_due(self: _Rows, ca: str, hash_name: str, *, now: datetime, limit: int) -> tuple[OcspSubject, ...]:
        """Return certificates of a CA generation that have no fresh response, revoked ones first, at most *limit*."""
        parameters = {"ca": ca, "hash": hash_name, "now": encode_time(now), "limit": limit}
        return tuple(_subject(row) for row in self._rows("ocsp_due", parameters))

    def soonest_ocsp_expiry(self: _Rows) -> tuple[datetime | None, int]:
        """Return when the first prepared response expires (``None`` without any), and how many there are."""
        row = self._rows("ocsp_soonest", {})[0]
        return None if row[0] is None else codec.decode_time(row[0]), int(row[1])

    def change_count(self: _Rows) -> int:
        """Return how many audit entries there are: grows with every change of a certificate, CA or list."""
        rows = self._rows("change_count", {})
        return int(rows[0][0]) if rows else 0


def _subject(row: Sequence[Any]) -> OcspSubject:
    return OcspSubject(
        id=str(row[0]),
        ca=str(row[1]),
        serial=str(row[2]),
        state=CertificateState(row[3]),
        revoked_at=None if row[4] is None else codec.decode_time(row[4]),
        revocation_reason=row[5],
        not_after=codec.decode_time(row[6]),
    )
