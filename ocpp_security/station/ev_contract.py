"""A vehicle at the simulated station: its request goes to the CSMS, and what comes back is kept for it (M01, M02)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.station.status_asking import send_to_csms
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.exi import MessageSet, decode

__all__ = ["EvExchange", "ask_for_contracts"]

_NAMESPACES: Final = {
    MessageSet.ISO15118_2: "urn:iso:15118:2:2013:MsgDef",
    MessageSet.ISO15118_20: "urn:iso:std:iso:15118:-20:CommonMessages",
}
_MOST: Final = 255
_ACTION: Final = "Get15118EVCertificate"

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class EvExchange:
    """What the vehicle has to ask, and where the answers go.

    Attributes:
        request: EXI of CertificateInstallationReq or CertificateUpdateReq.
        keep: called with the EXI of each answer, and its number from 1 on.
        takes: characters of exiResponse that the station says it takes, if it tells (2.x, FieldLength).
    """

    request: bytes
    keep: Callable[[bytes, int], None]
    takes: int | None = None


async def ask_for_contracts(
    exchange: EvExchange, version: OcppVersion, call: Call, dialect: Dialect = Dialect.OCA
) -> AsyncIterator[int]:
    """Ask until nothing remains, keep each answer, and yield how many remain after it.

    Args:
        dialect: of the DataTransfer that it travels in, in 1.6.

    Raises:
        InputError: the CSMS has no contract for the vehicle, or its answer cannot be read.

    Clause: M01.FR.01, FR.03, FR.06; M02.FR.01.
    """
    message = decode(exchange.request)
    payload = _payload(exchange.request, message.message_set, message.tree, version)
    number, remaining = 0, 1
    while remaining and number < _MOST:
        answer = await send_to_csms(version, call, _ACTION, payload, dialect)
        if answer.get("status") != "Accepted":
            info = answer.get("statusInfo") or {}
            raise InputError(
                f"the CSMS has no contract for the vehicle: {info.get('reasonCode', answer.get('status'))}"
            )
        try:
            exi = base64.b64decode(str(answer["exiResponse"]), validate=True)
        except binascii.Error as exc:
            raise InputError("exiResponse is no base64") from exc
        number += 1
        exchange.keep(exi, number)
        told = answer.get("remainingContracts", 0)
        remaining = told if isinstance(told, int) else 0
        yield remaining


def _payload(request: bytes, message_set: MessageSet, tree: Mapping[str, Any], version: OcppVersion) -> dict[str, Any]:
    is_update = "CertificateUpdateReq" in tree.get("Body", {})
    payload: dict[str, Any] = {
        "iso15118SchemaVersion": _NAMESPACES[message_set],
        "action": "Update" if is_update else "Install",
        "exiRequest": base64.b64encode(request).decode("ascii"),
    }
    if version is OcppVersion.V21 and message_set is MessageSet.ISO15118_20:
        payload["maximumContractCertificateChains"] = tree["MaximumContractCertificateChains"]
        wanted = tree.get("PrioritizedEMAIDs", {}).get("EMAID")
        if wanted:
            payload["prioritizedEMAIDs"] = wanted
    return payload
