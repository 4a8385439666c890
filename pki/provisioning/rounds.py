"""Which of a vehicle's contracts comes next (ISO 15118-20; OCPP 2.1 M01.FR.04 to FR.07).

A station repeats the very same request until nothing remains. So the same request brings the next contract, and after
the last one, or after a pause, the first again: what a vehicle missed comes back when it starts over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chargepki.pki.inventory.contract_records import ProvisioningRecord, ProvisioningState

__all__ = ["ROUND_PAUSE", "Turn", "next_turn"]

ROUND_PAUSE: Final = timedelta(minutes=10)
"""A request that comes so long after the last answer starts over; a session of charging control is over by then."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is told now.

    Attributes:
        contract: its 14 characters.
        round: how often this request was told its contracts from the first one on, this time included.
        remaining: how many further contracts the same request brings.
    """

    contract: str
    round: int
    remaining: int


def next_turn(answers: Sequence[ProvisioningRecord], choices: Sequence[str], now: datetime) -> Turn:
    """Return what a request is told that was told *answers* before.

    Args:
        choices: the contracts that the vehicle may have now, in its order, at least one.
    """
    told = [each for each in answers if each.state is ProvisioningState.ANSWERED and each.told_at is not None]
    current = max((each.round for each in told), default=0)
    latest = [each for each in told if each.round == current]
    done = {each.contract for each in latest}
    is_stale = any(each.told_at is not None and now - each.told_at > ROUND_PAUSE for each in latest)
    if not latest or is_stale or done.issuperset(choices):
        current, done = current + 1, set()
    left = [contract for contract in choices if contract not in done]
    return Turn(left[0], current, len(left) - 1)
