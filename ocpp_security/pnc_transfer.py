"""Plug & Charge over OCPP 1.6: messages of 2.0.1 as texts inside DataTransfer (OCA application note)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.errors import SchemaViolation
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError

__all__ = [
    "FROM_STATION", "OLDER_VENDOR", "TO_STATION", "VENDOR", "concerns_vehicle", "read_older_transfer", "read_transfer",
    "read_transfer_answer", "wrap", "wrap_answer", "wrap_older",
]  # fmt: skip

VENDOR: Final = "org.openchargealliance.iso15118pnc"
OLDER_VENDOR: Final = "iso15118"
"""The dialect of has.to.be, which is older than the application note: members of its own, ``15118SchemaVersion`` for
one, and no action. Only Get15118EVCertificate of it is read."""
FROM_STATION: Final = frozenset({"Authorize", "GetCertificateStatus", "Get15118EVCertificate", "SignCertificate"})
TO_STATION: Final = frozenset(
    {
        "CertificateSigned",
        "DeleteCertificate",
        "GetInstalledCertificateIds",
        "InstallCertificate",
        "TriggerMessage",
    }
)
_MAX_CHARACTERS: Final = 65_536


def wrap(message: str, payload: Mapping[str, object]) -> dict[str, Any]:
    """Return the DataTransfer request that carries *message* with its payload of 2.0.1."""
    return {"vendorId": VENDOR, "messageId": message, "data": orjson.dumps(payload).decode()}


def wrap_answer(payload: Mapping[str, object]) -> dict[str, Any]:
    """Return the DataTransfer answer that carries an answer of 2.0.1; the outer status is Accepted, ours is inside."""
    return {"status": "Accepted", "data": orjson.dumps(payload).decode()}


def read_transfer(payload: Mapping[str, object]) -> tuple[str, dict[str, Any]] | None:
    """Return message and payload of a DataTransfer request of this application note; ``None`` for any other.

    Raises:
        SchemaViolation: it is one, and its data break the schema of 2.0.1.
        InputError: its data are no JSON object.
    """
    if payload.get("vendorId") != VENDOR:
        return None
    message = payload.get("messageId")
    if not isinstance(message, str) or message not in FROM_STATION | TO_STATION:
        return None
    inner = _object(payload.get("data"))
    schemas.check_payload(OcppVersion.V201, message, Kind.REQUEST, inner, sending=False)
    return message, inner


def concerns_vehicle(payload: Mapping[str, object]) -> bool:
    """Say whether a DataTransfer request asks for a vehicle's contract, in either dialect."""
    return payload.get("vendorId") in (VENDOR, OLDER_VENDOR) and payload.get("messageId") == "Get15118EVCertificate"


def read_older_transfer(payload: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the payload of Get15118EVCertificate in the older dialect; ``None`` for anything else.

    Raises:
        InputError: it is one, and its data are no such object.
    """
    if payload.get("vendorId") != OLDER_VENDOR or payload.get("messageId") != "Get15118EVCertificate":
        return None
    inner = _object(payload.get("data"))
    exi, schema = inner.get("exiRequest"), inner.get("15118SchemaVersion", "")
    if not isinstance(exi, str) or not isinstance(schema, str):
        raise InputError("the data of the DataTransfer hold no exiRequest")
    return {"exiRequest": exi, "15118SchemaVersion": schema}


def wrap_older(exi_request: str, schema_version: str) -> dict[str, Any]:
    """Return the DataTransfer request that carries Get15118EVCertificate in the older dialect."""
    data = {"15118SchemaVersion": schema_version, "exiRequest": exi_request}
    return {"vendorId": OLDER_VENDOR, "messageId": "Get15118EVCertificate", "data": orjson.dumps(data).decode()}


def read_transfer_answer(message: str, payload: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the answer of 2.0.1 inside a DataTransfer answer; ``None`` when there is none that can be read."""
    if payload.get("status") != "Accepted":
        return None
    try:
        inner = _object(payload.get("data"))
        schemas.check_payload(OcppVersion.V201, message, Kind.RESPONSE, inner, sending=False)
    except (InputError, SchemaViolation):
        return None
    return inner


def _object(data: object) -> dict[str, Any]:
    if not isinstance(data, str) or len(data) > _MAX_CHARACTERS:
        raise InputError("the data of the DataTransfer are no text, or too long")
    try:
        inner = orjson.loads(data)
    except ValueError as error:
        raise InputError("the data of the DataTransfer are no JSON") from error
    if not isinstance(inner, dict):
        raise InputError("the data of the DataTransfer are no JSON object")
    return inner
