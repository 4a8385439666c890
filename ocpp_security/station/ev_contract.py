"""A vehicle at the simulated station: its request goes to the CSMS, and what comes back is kept for it (M01, M02)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.exi import MessageSet, decode

__all__ = ["EvExchange", "ask_for_contracts"]

_NAMESPACES: Final = {
    MessageSet.ISO15118_2: "urn:iso:15118:2:2013:MsgDef",
    MessageSet.ISO15118_20: "urn:iso:std:iso:15118:-20:CommonMessages",
}
_MOST: Final = 255

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class EvExchange:
    """What the vehicle has to ask, and where the answers go.

    Attributes:
        request: EXI of CertificateInstallationReq or CertificateUpdateReq.
        keep: called with the EXI of each answer, and its number from 1 on.
        older_dialect: in 1.6, that of has.to.be in place of the application note's.
        takes: characters of exiResponse that the station says it takes, if it tells (2.x, FieldLength).
    """

    request: bytes
    keep: Callable[[bytes, int], None]
    older_dialect: bool = False
    takes: int | None = None


async def ask_for_contracts(exchange: EvExchange, version: OcppVersion, call: Call) -> AsyncIterator[int]:
    """Ask until nothing remains, keep each answer, and yield how many remain after it.

    Raises:
        InputError: the CSMS has no contract for the vehicle, or its answer cannot be read.

    Clause: M01.FR.01, FR.03, FR.06; M02.FR.01.
    """
    message = decode(exchange.request)
    payload = _payload(exchange.request, message.message_set, message.tree, version)
    number, remaining = 0, 1
    while remaining and number < _MOST:
        answer = await _ask(exchange, version, payload, call)
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


async def _ask(exchange: EvExchange, version: OcppVersion, payload: dict[str, Any], call: Call) -> dict[str, Any]:
    action = "Get15118EVCertificate"
    if version is not OcppVersion.V16:
        return await call(action, payload)
    if exchange.older_dialect:
        wrapped = pnc_transfer.wrap_older(payload["exiRequest"], payload["iso15118SchemaVersion"])
    else:
        wrapped = pnc_transfer.wrap(action, payload)
    answer = await call("DataTransfer", wrapped)
    # Both dialects answer with the members of 2.0.1.
    inner = pnc_transfer.read_transfer_answer(action, answer)
    if inner is None:
        raise InputError(f"the CSMS does not serve this DataTransfer: {answer.get('status')}")
    return inner
