"""Get15118EVCertificate (M01, M02): what a station asks for a vehicle, and whoever can answer it.

`ContractProvider` is the seam: `ev_provider.PkiContractProvider` answers out of our own PKI; one of somebody else's,
say a contract certificate pool, stands there just as well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError

if TYPE_CHECKING:
    from chargepki.ocpp_security.status import StatusGateway

__all__ = [
    "DEFAULT_RESPONSE_CHARACTERS", "MOST_RESPONSE_CHARACTERS", "ContractAnswer", "ContractProvider",
    "ContractRequest", "EvAction",
    "accepted_payload", "build_length_question", "failed_payload", "read_length_answer", "read_request",
    "response_characters",
]  # fmt: skip

DEFAULT_RESPONSE_CHARACTERS: Final = 5600
"""Of exiResponse in 2.0.1 and 1.6: the official schema of 2.0.1 ed. 3."""
MOST_RESPONSE_CHARACTERS: Final = 7500
"""What the schema of 2.0.1 that many libraries ship takes."""
_ACTION: Final = "Get15118EVCertificate"
_FIELD_LENGTH: Final = {
    "component": {"name": "OCPPCommCtrlr"},
    "variable": {"name": "FieldLength", "instance": "Get15118EVCertificateResponse.exiResponse"},
}
_MOST_BELIEVED: Final = 65_536
"""Nothing that a vehicle can be given is longer; a station that tells more errs."""


class EvAction(StrEnum):
    """CertificateActionEnumType."""

    INSTALL = "Install"
    UPDATE = "Update"
    """Of ISO 15118-2 alone; in a session of -20 it counts as an installation (M02, 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractRequest:
    """What a station carries to us."""

    station: str
    carrier: str
    """The protocol, for people."""
    action: EvAction | None
    """``None``: the dialect does not tell it."""
    schema_version: str
    """Namespace of the message set, as the station tells it; the message itself decides."""
    exi: bytes
    response_characters: int
    """Of base64 that the answer may have."""
    maximum_contracts: int | None = None
    """Present in 2.1 for ISO 15118-20 (M01.FR.03, FR.04)."""
    prioritized: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContractAnswer:
    """What goes back."""

    exi: bytes
    remaining: int | None = None
    """How many further answers the same request brings; ``None`` for ISO 15118-2."""


class ContractProvider(Protocol):
    """Whoever has contracts for vehicles."""

    async def provide(self, request: ContractRequest, status: StatusGateway) -> ContractAnswer:
        """Return the answer to a request; durable by then, so that a repetition brings the same.

        Args:
            status: answers about the revocation of certificates, within what the operator has allowed to ask.

        Raises:
            ChargePkiError: there is none; the station is told Failed, and the operator why.
        """
        ...


def response_characters(version: OcppVersion, configured: int, told: int | None = None) -> int:
    """Return how many characters of base64 exiResponse may have.

    Args:
        configured: for versions before 2.1, and stations that do not tell; no more than the schemas in use take.
        told: what the station says that it takes; never less than the schema of its version grants.

    >>> response_characters(OcppVersion.V201, 7500, told=6400)
    6400
    """
    if version is OcppVersion.V21:
        granted = schemas.max_length(version, _ACTION, Kind.RESPONSE, "exiResponse")
    else:
        granted = DEFAULT_RESPONSE_CHARACTERS
    if told is not None:
        return max(granted, told)
    return granted if version is OcppVersion.V21 else min(configured, MOST_RESPONSE_CHARACTERS)


def build_length_question() -> dict[str, Any]:
    """Return the payload of GetVariables (2.x) that asks a station how long an exiResponse it takes."""
    return {"getVariableData": [_FIELD_LENGTH]}


def read_length_answer(payload: Mapping[str, Any]) -> int | None:
    """Return what a station takes, from its answer to `build_length_question`; ``None`` when it does not tell.

    Clause: OCPPCommCtrlr.FieldLength (2.0.1 edition 3, 2.1): an integer, one instance for each longer field.
    """
    for item in payload.get("getVariableResult", ()):
        value = item.get("attributeValue", "")
        is_number = value.isascii() and value.isdigit() and len(value) <= 9
        if item.get("attributeStatus") == "Accepted" and is_number and item["variable"] == _FIELD_LENGTH["variable"]:
            return min(int(value), _MOST_BELIEVED)
    return None


def read_request(payload: Mapping[str, Any], station: str, version: OcppVersion, characters: int) -> ContractRequest:
    """Return the request in a payload of 2.x that passed its schema, or of the older dialect of 1.6.

    Raises:
        InputError: exiRequest is no base64.
    """
    try:
        exi = base64.b64decode(str(payload["exiRequest"]), validate=True)
    except binascii.Error as exc:
        raise InputError("exiRequest is no base64", fix="see the station's firmware release") from exc
    action, schema = payload.get("action"), payload.get("iso15118SchemaVersion", payload.get("15118SchemaVersion", ""))
    return ContractRequest(
        station=station,
        carrier=version.value,
        action=None if action is None else EvAction(str(action)),
        schema_version=str(schema),
        exi=exi,
        response_characters=characters,
        maximum_contracts=payload.get("maximumContractCertificateChains"),
        prioritized=tuple(str(each) for each in payload.get("prioritizedEMAIDs", ())),
    )


def accepted_payload(version: OcppVersion, answer: ContractAnswer) -> dict[str, Any]:
    """Return the answer as a payload; remainingContracts came with 2.1 (M01.FR.04)."""
    payload: dict[str, Any] = {"status": "Accepted", "exiResponse": base64.b64encode(answer.exi).decode("ascii")}
    if version is OcppVersion.V21 and answer.remaining is not None:
        payload["remainingContracts"] = answer.remaining
    return payload


def failed_payload(reason: str) -> dict[str, Any]:
    """Return the refusal as a payload: the schemas of 2.x want exiResponse in it too, so it is empty."""
    return {"status": "Failed", "exiResponse": "", "statusInfo": {"reasonCode": reason}}
