"""What a station that BootNotification was not accepted of may send: what it was asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.versions import OcppVersion

__all__ = ["BootStanding"]

_ACCEPTED, _PENDING, _REJECTED = "Accepted", "Pending", "Rejected"
_SIGN: Final = "SignCertificate"
# What a trigger asks for, where its name is not that of the message itself.
_TRIGGERED: Final = {
    "SignChargingStationCertificate": _SIGN,
    "SignV2GCertificate": _SIGN,
    "SignV2G20Certificate": _SIGN,
    "SignCombinedCertificate": _SIGN,
    "CustomTrigger": "DataTransfer",
}
_REPORTS: Final = {"GetBaseReport": "NotifyReport", "GetReport": "NotifyReport"}


class BootStanding:
    """The last answer to BootNotification over one connection; without one the station takes up an earlier session.

    1.6 leaves it to the station to keep quiet, so nothing is refused there.
    """

    __slots__ = ("_asked", "_has_rules", "_status")

    def __init__(self, version: OcppVersion) -> None:
        self._has_rules = version is not OcppVersion.V16
        self._status = _ACCEPTED
        self._asked: set[str] = set()

    @property
    def is_rejected(self) -> bool:
        """Whether the station was told to stay quiet: it is not called either (B03.FR.03)."""
        return self._status == _REJECTED

    def answered(self, status: object) -> None:
        """Take the status that BootNotification is being answered with."""
        self._status = str(status)
        if self._status != _PENDING:
            self._asked.clear()

    def calling(self, action: str, payload: Mapping[str, object]) -> None:
        """Take note of a call to the station: what it asks for may come."""
        if action == "TriggerMessage":
            wanted = str(payload.get("requestedMessage"))
            self._asked.add(_TRIGGERED.get(wanted, wanted))
        elif action in _REPORTS:
            self._asked.add(_REPORTS[action])

    def check(self, action: str) -> None:
        """Refuse a call of a station that was not accepted.

        Raises:
            OcppRefusal: answered with SecurityError.

        Clause: B01.FR.10, B02.FR.09 (Pending: what was triggered may come), B03.FR.07 (Rejected: nothing may).
        """
        if not self._has_rules or self._status == _ACCEPTED or action == "BootNotification":
            return
        if self._status == _PENDING and action in self._asked:
            return
        raise OcppRefusal(
            f"{action} from a station whose BootNotification was answered {self._status}",
            answer=CallErrorAnswer(RpcErrorCode.SECURITY_ERROR, "BootNotification was not accepted"),
            why="until it is accepted it sends BootNotification and what it is asked for (B01.FR.10, B03.FR.07)",
            event=SecurityEvent.INVALID_MESSAGES,
        )
