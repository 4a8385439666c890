"""Typed writes on CAs and certificates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict, Unpack

from chargepki.pki.errors import Conflict, InputError, StateError
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.codec import encode_time
from chargepki.pki.inventory.records import CaRecord, CaState, CertificateRecord, CertificateState, Delivery
from chargepki.pki.inventory.writes import Writes

__all__ = ["CaChanges", "CertificateWrites"]

_HEX = frozenset("0123456789abcdef")
_VERIFY = "run: chargepki audit verify"


class CaChanges(TypedDict, total=False):
    """Fields of a `CaRecord` that may change after its reservation."""

    subject: str
    subject_der: bytes
    key_uri: str
    issuer: str | None
    state: CaState
    public_url: str | None
    spki_sha256: str | None
    certificate_der: bytes | None
    not_before: datetime | None
    not_after: datetime | None
    crl_shard_size: int | None
    crl_delta_hours: int | None


class CertificateWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def reserve_ca(self, record: CaRecord) -> None:
        """Store a new CA generation.

        Raises:
            Conflict: this generation exists.
            InputError: the id is not ``NAME@GENERATION``.
        """
        if record.id != f"{record.name}@{record.generation}":
            raise InputError(f"the id {record.id} is not {record.name}@{record.generation}")
        self._add(codec.CA, record, "the CA")

    def next_generation(self, name: str) -> int:
        """Return the generation that the next CA of this name takes (1 for the first)."""
        rows = self._rows("ca_last_generation", {"name": name})
        return int(rows[0][0] or 0) + 1

    def update_ca(self, ca_id: str, **changes: Unpack[CaChanges]) -> CaRecord:
        """Change a CA generation and return it.

        Raises:
            NotFound: there is none.
        """
        return self._change(codec.CA, self._stored(codec.CA, "CA", id=ca_id), changes)

    def reserve_certificate(self, record: CertificateRecord) -> None:
        """Store a reservation (serial, to-be-signed bytes, request key) before the key signs; in state RESERVED.

        Raises:
            Conflict: the serial is taken under this CA: a serial is never used twice.
            InputError: the serial is not lower-case hex without leading zeros, or the id is not ``CA:SERIAL``.
            StateError: the record is not in state RESERVED or has no to-be-signed bytes.
        """
        serial = record.serial
        if not serial or serial[0] == "0" or not _HEX.issuperset(serial):
            raise InputError("a serial is lower-case hex without leading zeros", why=f"got {serial[:80]}")
        if record.id != f"{record.ca}:{serial}":
            raise InputError(f"the id {record.id} is not {record.ca}:{serial}")
        if record.state is not CertificateState.RESERVED or record.tbs is None:
            raise StateError("a certificate enters the inventory as a reservation, with the bytes that will be signed")
        self._add(codec.CERTIFICATE, record, "the certificate")

    def record_certificate(
        self, certificate_id: str, der: bytes, sha256: str, issued_at: datetime
    ) -> CertificateRecord:
        """Turn a reservation into an issued certificate; repeating it with the same bytes changes nothing.

        Raises:
            NotFound: nothing is reserved under this id.
            Conflict: it was recorded with other bytes.
            StateError: it was voided.
        """
        recorded = self.issue_reserved(certificate_id, der, sha256, issued_at)
        if recorded is not None:
            return recorded
        before = self._stored(codec.CERTIFICATE, "certificate", id=certificate_id)
        if before["state"] == "voided":
            raise StateError(f"the reservation {certificate_id} was voided")
        if before["state"] == "reserved":
            raise StateError(f"the reservation {certificate_id} holds a certificate already", fix=_VERIFY)
        if before["der"] != der:
            raise Conflict(f"the certificate {certificate_id} is recorded with other bytes")
        return self._record_of(codec.CERTIFICATE, before)

    def issue_reserved(
        self, certificate_id: str, der: bytes, sha256: str, issued_at: datetime
    ) -> CertificateRecord | None:
        """Turn a reservation into an issued certificate in one statement; ``None`` when it is none (any more)."""
        changed = {"der": der, "sha256": sha256, "issued_at": encode_time(issued_at)}
        rows = self._rows("certificate_issue", {"id": certificate_id, **changed})
        if not rows:
            return None
        after = dict(zip(codec.CERTIFICATE.columns, rows[0], strict=True))
        self._note_update(codec.CERTIFICATE, {**after, **dict.fromkeys(changed), "state": "reserved"}, after)
        return self._record_of(codec.CERTIFICATE, after)

    def void_certificate(self, certificate_id: str) -> CertificateRecord:
        """Give up a reservation for good: its serial stays taken and is never signed.

        Raises:
            NotFound: there is none.
            StateError: it was issued already; revoke it instead.
        """
        before = self._stored(codec.CERTIFICATE, "certificate", id=certificate_id)
        if before["state"] not in ("reserved", "voided"):
            raise StateError(f"the certificate {certificate_id} was issued", fix="revoke it instead")
        return self._change(codec.CERTIFICATE, before, {"state": CertificateState.VOIDED})

    def set_delivery(
        self, certificate_id: str, delivery: Delivery, *, note: Mapping[str, object] | None = None
    ) -> CertificateRecord:
        """Record what became of a certificate that belongs to a station.

        Args:
            note: plain JSON data that replaces ``verdict["delivery"]``, what a CSMS needs to hand it over.

        Raises:
            NotFound: there is none.
        """
        before = self._stored(codec.CERTIFICATE, "certificate", id=certificate_id)
        changes: dict[str, object] = {"delivery": delivery}
        if note is not None:
            changes["verdict"] = {**self.get_certificate(certificate_id).verdict, "delivery": dict(note)}
        return self._change(codec.CERTIFICATE, before, changes)

    def link_station(self, certificate_id: str, station: str) -> CertificateRecord:
        """Say to which station a certificate belongs.

        Raises:
            NotFound: the certificate or the station does not exist.
            Conflict: it belongs to another station.
        """
        before = self._stored(codec.CERTIFICATE, "certificate", id=certificate_id)
        self.get_station(station)
        if before["station"] not in (None, station):
            raise Conflict(f"the certificate {certificate_id} belongs to the station {before['station']!s}")
        return self._change(codec.CERTIFICATE, before, {"station": station})
