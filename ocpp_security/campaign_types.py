"""What a kind of campaign is made of: preconditions, orders, settlements; `campaign_kinds` has the kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from chargepki.ocpp_security.campaigns import Settlement
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret
from chargepki.ocpp_security.unsecured import allowance
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.inventory import SealingKey, Transaction
from chargepki.pki.inventory.campaign_records import CampaignStationState
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import Actor, OperationRecord, OperationState, PresenceRecord, StationRecord

__all__ = [
    "ALLOWANCE",
    "CampaignKind",
    "Objection",
    "Order",
    "Subject",
    "known_settings",
    "read_allowance",
    "settle_by_operation",
]

ALLOWANCE: Final = {"allow-unsecured": "yes: over connections without TLS too; recorded with each operation"}
"""The setting of every kind that changes certificates or roots."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A station whose turn has come, as its kind of campaign sees it."""

    reads: Reads
    station: StationRecord
    presence: PresenceRecord | None
    """Its connection, the last one when it is offline."""
    parameters: Mapping[str, Any]
    """Of the campaign."""
    now: datetime

    @property
    def version(self) -> OcppVersion | None:
        """What the station spoke last."""
        told = self.presence.protocol if self.presence is not None else None
        return next((version for version in OcppVersion if version.value == told), None)


@dataclass(frozen=True, slots=True)
class Objection:
    """A precondition that is not met."""

    why: str
    is_final: bool = True
    """Whether the station is left out, rather than looked at again later."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the operation of one station is made from."""

    parameters: Mapping[str, object]
    secret: PasswordSecret | None = field(default=None, repr=False)
    within: Callable[[Transaction, OperationRecord], None] | None = None


def known_settings(given: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return the settings of a campaign.

    Raises:
        InputError: one that its kind does not have.
    """
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InputError(
            f"this kind of campaign has no setting {unknown[0]!r}",
            fix=f"it has {', '.join(names)}" if names else "it has none",
        )
    return dict(given)


def read_allowance(given: Mapping[str, str]) -> dict[str, object]:
    """Return the parameter with which certificates and roots may be changed without TLS, where the settings say so.

    Raises:
        InputError: they say neither yes nor no.
    """
    told = given.get("allow-unsecured", "no")
    if told not in ("yes", "no"):
        raise InputError("allow-unsecured is yes or no")
    return allowance(allow=told == "yes")


def settle_by_operation(
    _reads: Reads, _parameters: Mapping[str, Any], operation: OperationRecord, _now: datetime
) -> Settlement | None:
    """Take the outcome of the operation for that of the station; ``None`` while there is none."""
    if not operation.state.is_final:
        return None
    outcome = dict(operation.outcome or {})
    if operation.state is OperationState.DONE:
        return Settlement(CampaignStationState.DONE, outcome)
    if operation.state is OperationState.EXPIRED and "attempts" not in outcome:
        return Settlement(CampaignStationState.UNREACHED, outcome)
    return Settlement(CampaignStationState.FAILED, outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignKind:
    """One kind of campaign; every function is free of effects, but for random numbers in `order`."""

    operation: OperationKind
    settings: Mapping[str, str]
    """The names that `parse` knows, each with one line of help."""
    parse: Callable[[Mapping[str, str]], dict[str, object]]
    """Texts by name to the parameters of the campaign; raises `InputError`."""
    judge: Callable[[Subject], Objection | None]
    """Judge a station's preconditions."""
    order: Callable[[Subject, SealingKey], Order]
    """Make what the operation is created from; only for a station that `judge` has nothing against."""
    settle: Callable[[Reads, Mapping[str, Any], OperationRecord, datetime], Settlement | None] = settle_by_operation
    """Judge how it ended, from the parameters of the campaign and an operation that has ended; ``None`` while that is
    open. It is asked again until the station is settled."""
    retire: Callable[[Transaction, Mapping[str, Any], str, Actor, datetime], None] | None = None
    """What is done in the transaction in which a station is settled as done, with audit entries of its own."""
    describe: Callable[[Subject], tuple[str, ...]] = lambda _subject: ()
    """Say what `order` would have done to a station, step by step; for kinds with several."""
    complete: Callable[[Reads, Mapping[str, object], datetime], Mapping[str, object]] = lambda _reads, given, _now: (
        given
    )
    """Add to the parameters of a new campaign what is looked up once for all stations."""
    check: Callable[[Reads, Mapping[str, object], datetime], None] = lambda _reads, _parameters, _now: None
    """Refuse parameters that no station can do anything with; raises `ChargePkiError`."""
