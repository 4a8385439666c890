"""Carry campaigns out: one leader among all CSMS processes of an inventory, elected through the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from datetime import datetime, timedelta
from typing import Final

from chargepki.ocpp_security.campaign_store import ROLE, CampaignStore
from chargepki.ocpp_security.campaigns import next_campaign_steps
from chargepki.ocpp_security.csms.services import Services
from chargepki.ocpp_security.throttle import RepeatFilter
from chargepki.pki.errors import ChargePkiError, Conflict, UnavailableError
from chargepki.pki.inventory import SealingKey
from chargepki.pki.inventory.campaign_records import CampaignRecord

__all__ = ["CampaignRunner"]

_log = logging.getLogger("chargepki.csms")
_LEASE: Final = timedelta(seconds=15)
"""A dead leader is succeeded after this time; one that stops resigns at once."""
_EXTEND: Final = timedelta(seconds=5)
_TRY: Final = timedelta(seconds=1)
_TICK_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.1
"""Between two looks at most so often, whatever happens to the stations meanwhile."""
_MAX_ROUNDS: Final = 50
"""Steps of one campaign before the others have their turn."""


class CampaignRunner:
    """Does the steps of all open campaigns while it leads; every CSMS process runs one.

    It only creates operations and reads what came of them; the process that holds a station's connection carries them
    out (`OperationRunner`). So the leader may die at any point: the next one reads back where the campaign stands.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._inventory = services.inventory
        # Without the workspace's key nobody could open the passwords that it would seal; see `OperationRunner`.
        self._sealing = services.config.sealing_key or SealingKey(secrets.token_bytes(32))
        self._store = CampaignStore(self._inventory, self._sealing, owner=services.config.owner, actor=services.actor)
        self._fence: int | None = None
        self._asked_at: datetime | None = None
        self._complaints = RepeatFilter(timedelta(minutes=5))
        self._news = asyncio.Event()
        self._stopping = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look at campaigns."""
        self._task = self._services.background.spawn(self._run(), "carrying out campaigns")

    def wake(self) -> None:
        """Something happened that a campaign may wait for."""
        self._news.set()

    async def stop(self) -> None:
        """End, and let a successor take over at once. Idempotent."""
        self._stopping.set()
        self._news.set()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            try:
                await self._services.offload.run(self._look)
            except ChargePkiError as exc:
                self._fence = None
                _log.error("campaigns cannot be carried out: %s; trying again", exc)
            await asyncio.sleep(_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._news.wait()
        with contextlib.suppress(ChargePkiError):
            await self._services.offload.run(self._resign)

    # On a database thread

    def _look(self) -> None:
        campaigns = self._inventory.list_campaigns(open_only=True)
        if not campaigns:
            self._resign()
            return
        for campaign in campaigns:
            if self._stopping.is_set() or not self._lead():
                return
            try:
                self._carry_on(campaign)
            except Conflict as exc:
                _log.warning("this process carries out campaigns no more: %s", exc)
                self._fence = None
                return
            except UnavailableError:
                raise
            except ChargePkiError as exc:
                # One that this release cannot carry out must not hold up the others.
                if self._complaints.admit(campaign.id, self._services.clock()) is not None:
                    _log.error("campaign %s cannot be carried out: %s", campaign.id, exc)

    def _carry_on(self, campaign: CampaignRecord) -> None:
        for _ in range(_MAX_ROUNDS):
            now = self._services.clock()
            steps = next_campaign_steps(self._store.view(campaign, now), now)
            if not steps or self._stopping.is_set() or not self._lead() or self._fence is None:
                return
            self._store.perform(campaign, steps, fence=self._fence, now=now)
            campaign = self._inventory.get_campaign(campaign.id)

    def _lead(self) -> bool:
        """Take the lead, or keep it."""
        now = self._services.clock()
        patience = _EXTEND if self._fence is not None else _TRY
        if self._asked_at is not None and now - self._asked_at < patience:
            return self._fence is not None
        self._asked_at = now
        owner = self._services.config.owner
        fence = self._inventory.write(lambda tx: tx.take_leadership(ROLE, owner=owner, until=now + _LEASE, now=now))
        if fence is not None and fence != self._fence:
            _log.info("this process carries out campaigns (fence %s)", fence)
        self._fence = fence
        return fence is not None

    def _resign(self) -> None:
        fence, self._fence, self._asked_at = self._fence, None, None
        if fence is not None:
            with contextlib.suppress(Conflict):
                self._inventory.write(lambda tx: tx.resign_leadership(ROLE, fence))
