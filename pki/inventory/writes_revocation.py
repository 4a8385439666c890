"""Typed writes on revocations and revocation lists.

Whatever changes the status of a certificate changes, in the same transaction, the stored entry that lists are joined
from (`CrlSegmentRecord`) and notes the change (`RevocationChangeRecord`), from which delta lists are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from chargepki.pki.crl_entry import ReasonCode, RevokedEntry, encode_entry, find_entry
from chargepki.pki.errors import Conflict, InputError, StateError
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.reads_revocation import RevokedRow
from chargepki.pki.inventory.records import (
    CertificateRecord,
    CertificateState,
    CrlDeltaRecord,
    CrlRecord,
    CrlSegmentRecord,
    CrlShardRecord,
    RevocationChangeRecord,
)
from chargepki.pki.inventory.writes import Writes

__all__ = ["SEGMENT_ENTRIES", "RevocationWrites", "entry_of"]

SEGMENT_ENTRIES = 256
"""Entries to a stored segment: each revocation writes one segment anew, and each list reads all of them."""


def entry_of(row: RevokedRow) -> bytes:
    """Return the entry (DER) that complete lists have about a revoked certificate."""
    reason = ReasonCode(row.reason) if row.reason else None
    return encode_entry(RevokedEntry(int(row.serial, 16), row.revoked_at, reason, row.invalidity_date))


def _row(record: CertificateRecord) -> RevokedRow:
    assert record.revoked_at is not None
    return RevokedRow(record.serial, record.shard, record.revoked_at, record.revocation_reason, record.invalidity_date)


class RevocationWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def revoke_certificate(
        self, certificate_id: str, at: datetime, reason: str, *, invalidity_date: datetime | None = None
    ) -> CertificateRecord:
        """Revoke an issued certificate, put it on hold, or give a revoked one the reason that it may still become.

        The first instant at which it was invalid is kept, and so is the earlier of two invalidity dates.

        Args:
            reason: RFC 5280 name, for example ``keyCompromise``.

        Raises:
            InputError: *reason* is no reason of a complete list.
            NotFound: there is none.
            StateError: it is not issued, or was revoked for a reason that may not become *reason*.
        """
        before = self._stored(codec.CERTIFICATE, "certificate", id=certificate_id)
        record = self._record_of(codec.CERTIFICATE, before)
        code = _reason(reason)
        dates = [date for date in (record.invalidity_date, invalidity_date) if date is not None]
        invalid_from = min(dates, default=None)
        if record.state is CertificateState.REVOKED:
            known = _reason(record.revocation_reason or "unspecified")
            if known is code and invalid_from == record.invalidity_date:
                return record
            if known is not code and not known.may_become(code):
                raise StateError(
                    f"the certificate {certificate_id} is revoked already, as {known.value}",
                    why="lists and answers that are out name that reason",
                )
            since = record.revoked_at or at
            # Only a hold may turn out to be older; a final date has been published.
            at = min(at, since) if known is ReasonCode.CERTIFICATE_HOLD and known is not code else since
        elif record.state is not CertificateState.ISSUED:
            raise StateError(f"the certificate {certificate_id} is {record.state.value}: there is nothing to revoke")
        changes = {
            "state": CertificateState.REVOKED,
            "revoked_at": at,
            "revocation_reason": code.value,
            "invalidity_date": invalid_from,
        }
        revoked = self._change(codec.CERTIFICATE, before, changes)
        self._put_entry(revoked, entry_of(_row(revoked)), was_listed=record.state is CertificateState.REVOKED)
        return revoked

    def release_certificate(self, certificate_id: str) -> CertificateRecord:
        """Take a certificate off hold; delta lists tell so with removeFromCRL.

        Raises:
            NotFound: there is none.
            StateError: it is not on hold.
        """
        before = self._stored(codec.CERTIFICATE, "certificate", id=certificate_id)
        if (before["state"], before["revocation_reason"]) != ("revoked", ReasonCode.CERTIFICATE_HOLD.value):
            raise StateError(f"the certificate {certificate_id} is not on hold")
        changes = {
            "state": CertificateState.ISSUED,
            "revoked_at": None,
            "revocation_reason": None,
            "invalidity_date": None,
        }
        released = self._change(codec.CERTIFICATE, before, changes)
        self._put_entry(released, b"", was_listed=True)
        return released

    # -- stored entries -------------------------------------------------------------------------------------------

    def _put_entry(self, record: CertificateRecord, entry: bytes, *, was_listed: bool) -> None:
        """Store *entry* in place of what lists had about *record*; an empty one takes it out."""
        shard = record.shard or 0
        seq = self.last_change(record.ca) + 1
        self._add(
            codec.REVOCATION_CHANGE,
            RevocationChangeRecord(f"{record.ca}/{seq}", record.ca, seq, shard, record.id, entry),
            "the change",
        )
        if not self.count_stored_entries(record.ca):
            # The first entry of this CA, or the first since certificates were revoked without stored entries.
            self.rebuild_crl_segments(record.ca)
        elif was_listed:
            self._replace_entry(record, shard, entry)
        else:
            self._append(record.ca, shard, entry, record.revoked_at)

    def _tail(self, ca: str, shard: int) -> CrlSegmentRecord | None:
        rows = self._rows("crl_segment_tail", {"ca": ca, "shard": shard})
        return codec.CRL_SEGMENT.decode(rows[0]) if rows else None

    def _append(self, ca: str, shard: int, entry: bytes, revoked_at: datetime | None) -> None:
        tail = self._tail(ca, shard)
        if tail is None or tail.count >= SEGMENT_ENTRIES:
            number = 1 if tail is None else tail.number + 1
            self._add(codec.CRL_SEGMENT, _segment(ca, shard, number, [(entry, revoked_at)]), "the segment")
            return
        newest = max((at for at in (tail.newest, revoked_at) if at is not None), default=None)
        self._write_segment(tail, tail.content + entry, tail.count + 1, newest)

    def _replace_entry(self, record: CertificateRecord, shard: int, entry: bytes) -> None:
        serial = int(record.serial, 16)
        for segment in self.list_crl_segments(record.ca, shard):
            place = find_entry(segment.content, serial)
            if place is not None:
                content = segment.content[: place[0]] + entry + segment.content[place[1] :]
                newest = max((at for at in (segment.newest, record.revoked_at) if at is not None), default=None)
                self._write_segment(segment, content, segment.count - (not entry), newest)
                return
        raise StateError(
            f"the stored entries of {record.ca} do not have {record.id}",
            why="the inventory was changed behind our back",
            fix=f"run: chargepki crl check --ca {record.ca}",
        )

    def _write_segment(self, segment: CrlSegmentRecord, content: bytes, count: int, newest: datetime | None) -> None:
        before = codec.CRL_SEGMENT.encode(segment)
        changes = {
            "content": content,
            "count": count,
            "newest": newest,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        self._change(codec.CRL_SEGMENT, before, changes)

    def rebuild_crl_segments(self, ca: str) -> int:
        """Make all stored entries of a CA generation anew from its certificates; return how many there are.

        Segments that are not needed any more stay, empty.
        """
        wanted: dict[int, list[tuple[bytes, datetime | None]]] = {}
        for row in self.list_revoked_rows(ca):
            wanted.setdefault(row.shard or 0, []).append((entry_of(row), row.revoked_at))
        for segment in list(self.list_crl_segments(ca)):
            first = (segment.number - 1) * SEGMENT_ENTRIES
            part = wanted.get(segment.shard, [])[first : first + SEGMENT_ENTRIES]
            fresh = _segment(ca, segment.shard, segment.number, part)
            self._write_segment(segment, fresh.content, fresh.count, fresh.newest)
        stored = {(segment.shard, segment.number) for segment in self.list_crl_segments(ca)}
        for shard, entries in wanted.items():
            for number, first in enumerate(range(0, len(entries), SEGMENT_ENTRIES), start=1):
                if (shard, number) not in stored:
                    segment = _segment(ca, shard, number, entries[first : first + SEGMENT_ENTRIES])
                    self._add(codec.CRL_SEGMENT, segment, "the segment")
        return sum(map(len, wanted.values()))

    # -- lists ----------------------------------------------------------------------------------------------------

    def open_crl_shard(self, record: CrlShardRecord) -> None:
        """Store a new shard.

        Raises:
            Conflict: its number is not the next one.
            InputError: the id is not ``CA/NUMBER``.
        """
        _check_id(record.id, record.ca, record.number)
        expected = self.last_shard_number(record.ca) + 1
        if record.number != expected:
            raise Conflict(f"the shard {record.number} of {record.ca} is not the next one, {expected}")
        self._add(codec.CRL_SHARD, record, "the shard")

    def next_crl_number(self, ca: str) -> int:
        """Return the number that the next CRL of this CA generation takes (1 for the first)."""
        complete = self._rows("crl_last_number", {"ca": ca})[0][0] or 0
        delta = self._rows("crl_delta_last_number", {"ca": ca})[0][0] or 0
        # What was published after the backup that this inventory comes from is not known: go on far above it.
        floor = self._rows("restoration_floor", {})[0][0] or 0
        return max(int(complete), int(delta), int(floor)) + 1

    def add_crl(self, record: CrlRecord) -> None:
        """Store a signed complete CRL, and drop the bytes of the one whose place it takes.

        Raises:
            Conflict: its number is not above every number used before by this CA (RFC 5280 5.2.3).
            InputError: the id is not ``CA/NUMBER``.
        """
        _check_id(record.id, record.ca, record.number)
        self._check_number(record.ca, record.number)
        place: dict[str, object] = {"ca": record.ca, "number": record.number}
        if record.shard is not None:
            place["shard"] = record.shard
        for row in self._rows("crl_superseded" if record.shard is None else "crl_superseded_shard", place):
            self._change(codec.CRL, self._stored(codec.CRL, "CRL", id=row[0]), {"der": b""})
        self._add(codec.CRL, record, "the CRL")

    def add_delta_crl(self, record: CrlDeltaRecord) -> None:
        """Store a signed delta CRL, and drop the bytes of the one whose place it takes.

        A delta that is issued together with the full list has the number of that list (RFC 5280 5.2.4).

        Raises:
            Conflict: its number is below one used before, or is that of an older delta.
            InputError: the id is not ``CA/NUMBER``.
        """
        _check_id(record.id, record.ca, record.number)
        full = self.list_states(record.ca).get(None)
        if full is None or full.number != record.number:
            self._check_number(record.ca, record.number)
        for row in self._rows("crl_delta_superseded", {"ca": record.ca, "number": record.number}):
            self._change(codec.CRL_DELTA, self._stored(codec.CRL_DELTA, "delta CRL", id=row[0]), {"der": b""})
        self._add(codec.CRL_DELTA, record, "the delta CRL")

    def _check_number(self, ca: str, number: int) -> None:
        expected = self.next_crl_number(ca)
        if number < expected:
            raise Conflict(f"the CRL number {number} of {ca} is used; the next one is {expected}")


def _reason(text: str) -> ReasonCode:
    try:
        code = ReasonCode(text)
    except ValueError as exc:
        raise InputError(f"{text[:40]!r} is no revocation reason", why="RFC 5280 5.3.1") from exc
    if code is ReasonCode.REMOVE_FROM_CRL:
        raise InputError("nothing is revoked with removeFromCRL", why="it ends a hold, in delta CRLs (RFC 5280 5.3.1)")
    return code


def _segment(ca: str, shard: int, number: int, entries: Iterable[tuple[bytes, datetime | None]]) -> CrlSegmentRecord:
    part = list(entries)
    content = b"".join(entry for entry, _ in part)
    newest = max((at for _, at in part if at is not None), default=None)
    return CrlSegmentRecord(
        id=f"{ca}/{shard}/{number}",
        ca=ca,
        shard=shard,
        number=number,
        count=len(part),
        newest=newest,
        sha256=hashlib.sha256(content).hexdigest(),
        content=content,
    )


def _check_id(record_id: str, ca: str, number: int) -> None:
    if record_id != f"{ca}/{number}":
        raise InputError(f"the id {record_id} is not {ca}/{number}")
