"""Typed writes of roots on stations."""

from __future__ import annotations

from chargepki.pki.errors import NotFound
from chargepki.pki.inventory.codec import STATION_ROOT, STATION_ROOT_REPORT, TRUST_ROOT
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootReportRecord, TrustRootRecord
from chargepki.pki.inventory.writes import Writes

__all__ = ["TrustWrites"]


class TrustWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def put_trust_root(self, record: TrustRootRecord) -> TrustRootRecord:
        """Store a root, or the issuer of a known one that was not known before; return what is on record."""
        known = self.find_trust_root(record.id)
        if known is None:
            self._add(TRUST_ROOT, record, "the root")
            return record
        if known.issuer_der is None and record.issuer_der is not None:
            return self._change(TRUST_ROOT, TRUST_ROOT.encode(known), {"issuer_der": record.issuer_der})
        return known

    def put_station_root(self, record: StationRootRecord) -> None:
        """Record what was done to a root on a station; the same again is no write."""
        try:
            before = self._stored(
                STATION_ROOT, "root", station=record.station, use=record.use, certificate=record.certificate
            )
        except NotFound:
            self._add(STATION_ROOT, record, "the root")
            return
        changes = {name: getattr(record, name) for name in ("state", "operation", "changed_at")}
        if before["state"] != record.state.value:
            self._change(STATION_ROOT, before, changes)

    def put_root_report(self, record: StationRootReportRecord) -> None:
        """Record what a station listed, in place of what it listed before."""
        try:
            before = self._stored(STATION_ROOT_REPORT, "listing", station=record.station, use=record.use)
        except NotFound:
            self._add(STATION_ROOT_REPORT, record, "the listing")
            return
        self._change(STATION_ROOT_REPORT, before, {"listed": record.listed, "reported_at": record.reported_at})
