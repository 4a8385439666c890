"""Typed reads of imports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chargepki.pki.inventory.codec import CERTIFICATE, IMPORT_RUN, PROVENANCE, dump_json
from chargepki.pki.inventory.import_records import ImportRunRecord, ProvenanceRecord
from chargepki.pki.inventory.records import FOREIGN, CertificateRecord

__all__ = ["ImportReads"]


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class ImportReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def list_provenance(self: _Rows, certificate: str) -> tuple[ProvenanceRecord, ...]:
        """Return the places where a certificate was found, by place."""
        return tuple(map(PROVENANCE.decode, self._rows("provenance_of", {"certificate": certificate})))

    def list_import_runs(self: _Rows) -> tuple[ImportRunRecord, ...]:
        """Return the imports that added something, oldest first."""
        return tuple(map(IMPORT_RUN.decode, self._rows("import_runs", {})))

    def count_imported(self: _Rows) -> int:
        """Count the certificates that were imported."""
        return int(self._rows("certificates_imported", {})[0][0])

    def find_known(self: _Rows, sha256s: Sequence[str]) -> dict[str, tuple[str, bool]]:
        """Return id, and whether it was imported, of the certificates with these digests, by digest."""
        rows = self._rows("certificates_of_sha256", {"wanted": dump_json(list(sha256s), "digests")})
        # Where both exist, the one that was issued here is meant.
        return {row[1]: (row[0], row[2] == FOREIGN) for row in sorted(rows, key=lambda row: str(row[2]) != FOREIGN)}

    def find_imported_by_serials(self: _Rows, serials: Sequence[str]) -> tuple[CertificateRecord, ...]:
        """Return the imported certificates with these serials (lower-case hex without leading zeros)."""
        rows = self._rows("certificates_of_serials", {"wanted": dump_json(list(serials), "serials")})
        return tuple(map(CERTIFICATE.decode, rows))
