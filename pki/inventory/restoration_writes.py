"""Typed writes of restorations."""

from __future__ import annotations

from datetime import datetime

from chargepki.pki.inventory.campaign_records import CampaignState
from chargepki.pki.inventory.campaign_writes import CampaignWrites
from chargepki.pki.inventory.codec import RESTORATION
from chargepki.pki.inventory.records import OperationState
from chargepki.pki.inventory.restoration_records import RestorationRecord
from chargepki.pki.inventory.writes_operations import OperationWrites

__all__ = ["RestorationWrites"]


class RestorationWrites(OperationWrites, CampaignWrites):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def add_restoration(self, record: RestorationRecord) -> None:
        """Store that this inventory was restored: CRL numbers go on above `RestorationRecord.crl_floor`.

        Raises:
            Conflict: it is on record already.
        """
        self._add(RESTORATION, record, "the restoration")

    def end_open_work(self, why: str, *, now: datetime) -> int:
        """End every open operation as expired, and pause every running campaign; return how many operations those were.

        Nobody knows what became of them since the backup, and a station must not be told twice.
        """
        ended = 0
        while operations := self.list_operations(open_only=True):
            for each in operations:
                self.finish_operation(each.id, each.fence, OperationState.EXPIRED, {"reason": why})
            ended += len(operations)
        for campaign in self.list_campaigns(open_only=True):
            if campaign.state is CampaignState.RUNNING:
                self.change_campaign(campaign.id, state=CampaignState.PAUSED, changed_at=now, why=why)
        return ended
