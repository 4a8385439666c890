"""Plug & Charge over OCPP 1.6: messages of 2.0.1 as texts inside DataTransfer, in the two dialects of the field.

One is that of OCA's application note: the payloads are those of 2.0.1. The other is has.to.be's extension of 2019,
which is older: its own vendor name, and members that are named or written otherwise. A `Transfer` has 2.0.1's form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.errors import SchemaViolation
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki import der_reader
from chargepki.pki.errors import InputError
from chargepki.pki.pem import pem_blocks, to_pem

__all__ = [
    "FROM_STATION", "OLDER_VENDOR", "TO_STATION", "VENDOR", "Dialect", "Transfer", "is_plug_and_charge",
    "read_transfer", "read_transfer_answer", "wrap", "wrap_answer",
]  # fmt: skip


class Dialect(StrEnum):
    """Which of the two; the values are their vendor names."""

    OCA = "org.openchargealliance.iso15118pnc"
    OLDER = "iso15118"
    """Of has.to.be. CertificateSigned carries a chain as hexadecimal DER, at most 10,000 characters of it; Authorize
    knows hash data alone and two statuses of certificates."""


VENDOR: Final = Dialect.OCA.value
OLDER_VENDOR: Final = Dialect.OLDER.value
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
_OLDER: Final = FROM_STATION | {"CertificateSigned", "TriggerMessage"}
"""Of the older dialect's messages, those that are spoken here."""
_VENDORS: Final = frozenset(Dialect)
_MAX_CHARACTERS: Final = 65_536
_MAX_OLDER_CHAIN: Final = 10_000
_OLDER_INFO: Final = ("status", "cacheExpiryDateTime")


@dataclass(frozen=True, slots=True)
class Transfer:
    """A message inside a DataTransfer."""

    dialect: Dialect
    message: str
    payload: dict[str, Any]
    """In the form of 2.0.1; schema-checked."""


def is_plug_and_charge(payload: Mapping[str, object]) -> bool:
    """Say whether a DataTransfer request is of one of the two dialects, readable or not."""
    return payload.get("vendorId") in _VENDORS


def read_transfer(payload: Mapping[str, object]) -> Transfer | None:
    """Return what a DataTransfer request of one of the two dialects carries; ``None`` for any other.

    Raises:
        SchemaViolation: it is one, and its data break the schema of 2.0.1.
        InputError: its data are no JSON object, or cannot be put in the words of 2.0.1.
    """
    if not is_plug_and_charge(payload):
        return None
    dialect, message = Dialect(str(payload["vendorId"])), payload.get("messageId")
    known = FROM_STATION | TO_STATION if dialect is Dialect.OCA else _OLDER
    if not isinstance(message, str) or message not in known:
        return None
    inner = _object(payload.get("data"))
    if dialect is Dialect.OLDER:
        inner = _from_older(message, inner)
    if not (dialect is Dialect.OLDER and message == "Get15118EVCertificate"):
        # The older request tells no action, which 2.0.1 demands.
        schemas.check_payload(OcppVersion.V201, message, Kind.REQUEST, inner, sending=False)
    return Transfer(dialect, message, inner)


def wrap(message: str, payload: Mapping[str, object], dialect: Dialect = Dialect.OCA) -> dict[str, Any]:
    """Return the DataTransfer request that carries *message* with its payload of 2.0.1.

    Raises:
        InputError: the older dialect has no place for it: a chain that is too long, or certificates in Authorize.
    """
    data = _to_older(message, payload) if dialect is Dialect.OLDER else payload
    return {"vendorId": dialect.value, "messageId": message, "data": orjson.dumps(data).decode()}


def wrap_answer(transfer: Transfer, payload: Mapping[str, object]) -> dict[str, Any]:
    """Return the DataTransfer answer that carries an answer of 2.0.1; the outer status is Accepted, ours is inside."""
    data = _to_older_answer(transfer.message, payload) if transfer.dialect is Dialect.OLDER else payload
    return {"status": "Accepted", "data": orjson.dumps(data).decode()}


def read_transfer_answer(message: str, payload: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the answer of 2.0.1 inside a DataTransfer answer; ``None`` when there is none that can be read.

    The answers of the older dialect are answers of 2.0.1 as well.
    """
    if payload.get("status") != "Accepted":
        return None
    try:
        inner = _object(payload.get("data"))
        schemas.check_payload(OcppVersion.V201, message, Kind.RESPONSE, inner, sending=False)
    except (InputError, SchemaViolation):
        return None
    return inner


# -- the older dialect ---------------------------------------------------------------------------------------------


def _from_older(message: str, inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload of the older dialect in the words of 2.0.1."""
    found = dict(inner)
    match message:
        case "Get15118EVCertificate":
            exi, schema = found.get("exiRequest"), found.get("15118SchemaVersion", "")
            if not isinstance(exi, str) or not isinstance(schema, str):
                raise InputError("the data of the DataTransfer hold no exiRequest")
            return {"exiRequest": exi, "15118SchemaVersion": schema}
        case "Authorize":
            if "15118CertificateHashData" in found:
                found["iso15118CertificateHashData"] = _with_urls(found.pop("15118CertificateHashData"))
        case "GetCertificateStatus":
            found["ocspRequestData"] = _with_urls([found.get("ocspRequestData")])[0]
        case "SignCertificate" | "CertificateSigned":
            if "typeOfCertificate" in found:
                found["certificateType"] = found.pop("typeOfCertificate")
            if "cert" in found:
                found["certificateChain"] = _pem_of(found.pop("cert"))
    return found


def _to_older(message: str, payload: Mapping[str, object]) -> dict[str, object]:
    found = dict(payload)
    match message:
        case "Get15118EVCertificate":
            return {"15118SchemaVersion": found["iso15118SchemaVersion"], "exiRequest": found["exiRequest"]}
        case "Authorize":
            if "certificate" in found or "iso15118CertificateHashData" not in found:
                raise InputError("the older dialect of 1.6 authorizes by hash data alone", fix="send hash data")
            found["15118CertificateHashData"] = found.pop("iso15118CertificateHashData")
        case "SignCertificate" | "CertificateSigned":
            if "certificateType" in found:
                found["typeOfCertificate"] = found.pop("certificateType")
            if "certificateChain" in found:
                found["cert"] = _hex_of(str(found.pop("certificateChain")))
        case _ if message not in _OLDER:
            raise InputError(f"{message} is not spoken in the older dialect of 1.6")
    return found


def _to_older_answer(message: str, payload: Mapping[str, object]) -> dict[str, object]:
    if message == "Authorize":
        info, status = payload.get("idTokenInfo"), payload.get("certificateStatus")
        told = {name: info[name] for name in _OLDER_INFO if name in info} if isinstance(info, Mapping) else {}
        # It has two words: whatever else is wrong with a certificate, the token's status says no as well.
        return {"idTokenInfo": told, "certificateStatus": "Accepted" if status == "Accepted" else "CertificateRevoked"}
    kept = ("status", "ocspResult", "exiResponse")
    return {name: payload[name] for name in kept if name in payload}


def _with_urls(entries: object) -> list[object]:
    """Add an empty responderURL where there is none: 2.0.1 demands one."""
    if not isinstance(entries, list):
        raise InputError("the hash data of the DataTransfer are no list")
    return [{"responderURL": "", **each} if isinstance(each, Mapping) else each for each in entries]


def _pem_of(text: object) -> str:
    """Return a chain of DER certificates in hexadecimal, one behind the other, as PEM."""
    if not isinstance(text, str) or len(text) > _MAX_OLDER_CHAIN:
        raise InputError("the chain of the DataTransfer is no text, or too long")
    try:
        rest = bytes.fromhex(text)
    except ValueError as error:
        raise InputError("the chain of the DataTransfer is no hexadecimal") from error
    found = ""
    while rest:
        length = der_reader.parse(rest, strict_end=False).end
        found += to_pem("CERTIFICATE", rest[:length])
        rest = rest[length:]
    return found


def _hex_of(chain: str) -> str:
    text = "".join(block.der.hex() for block in pem_blocks(chain.encode(), max_bytes=_MAX_CHARACTERS))
    if len(text) > _MAX_OLDER_CHAIN:
        raise InputError(
            f"the certificate chain has {len(text)} hexadecimal characters, this dialect allows {_MAX_OLDER_CHAIN}",
            fix="issue from a CA with fewer or smaller sub-CA certificates",
        )
    return text


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
