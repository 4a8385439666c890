"""What a station asks for vehicles: status of certificates, contracts, eMAIDs, V2G leaves; in 1.6 by DataTransfer."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.contract import TokenStatus
from chargepki.ocpp_security.contract_check import ContractChecker, names_contract
from chargepki.ocpp_security.csms.answers import plain_answer
from chargepki.ocpp_security.csms.authorization import authorize, concerns_contract
from chargepki.ocpp_security.csms.ev_answers import answer_ev_certificate
from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.csms.status_answers import answer_chain_status, answer_status
from chargepki.ocpp_security.link import Reply
from chargepki.ocpp_security.pnc_transfer import Transfer, wrap_answer
from chargepki.ocpp_security.rpc import CallReceived
from chargepki.ocpp_security.sign_certificate import CertificateUse
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.identifiers import Emaid

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.connection import StationConnection
    from chargepki.ocpp_security.csms.services import Services

__all__ = ["PlugAndCharge"]

_TAG_STATUSES: Final = frozenset({TokenStatus.ACCEPTED, TokenStatus.BLOCKED, TokenStatus.EXPIRED})
"""What 1.6 can say of an idTag in the same word; anything else is Invalid."""


class PlugAndCharge:
    """Answers one connection; where a CSMS of a team's has a handler, that comes first, but for what only we know."""

    def __init__(self, connection: StationConnection, services: Services) -> None:
        self._connection, self._services = connection, services
        self._version = connection.version
        self.told_characters: int | None = None
        """How long an exiResponse the station takes, if it tells."""

    async def answer_first(self, event: CallReceived, now: datetime) -> Reply | None:
        """Answer what is ours although a team's CSMS may have a handler for the action."""
        payload: dict[str, Any] = dict(event.payload)
        contracts = self._services.contracts
        if event.action == "Authorize" and self._version is not OcppVersion.V16:
            if contracts is not None and concerns_contract(payload):
                return await self._authorize(event, contracts)
        elif event.action == "DataTransfer" and self._version is OcppVersion.V16:
            return await self._transferred_to_us(payload, now)
        return None

    async def answer(self, action: str, payload: dict[str, Any], now: datetime) -> Reply | None:
        """Answer where nobody else has a handler; ``None`` for what is not about vehicles."""
        gateway, station = self._services.status, self._connection.station.id
        match action:
            case "GetCertificateStatus":
                return Reply(await answer_status(gateway, self._version, payload, station))
            case "GetCertificateChainStatus":
                return Reply(await answer_chain_status(gateway, payload, station, now))
            case "Get15118EVCertificate" if self._services.config.provider is not None:
                return Reply(await self._ev_certificate(self._version, payload))
            case "DataTransfer" if self._version is OcppVersion.V16:
                return await self._transferred(payload)
            case "Authorize" | "TransactionEvent" | "StartTransaction":
                return await self._driver(action, payload, now)
        return None

    # -- drivers ---------------------------------------------------------------------------------------------------

    async def _authorize(self, event: CallReceived, contracts: ContractChecker) -> Reply:
        """Let a CSMS that knows its tokens answer first, and judge the certificate in any case."""
        told, embedding = None, self._connection.embedding
        if embedding is not None and embedding.handles(event.action):
            told = await embedding.answer(event)
        station = self._connection.station.id
        answer = await authorize(contracts, event.payload, station, told.payload if told is not None else None)
        return Reply(answer, told.then if told is not None else None)

    async def _driver(self, action: str, payload: dict[str, Any], now: datetime) -> Reply | None:
        """Say of an eMAID without certificates what is said of it with them, so that its session is not stopped."""
        contracts, plain = self._services.contracts, plain_answer(self._version, action, payload, now)
        if contracts is None or plain is None:
            return None
        if self._version is OcppVersion.V16:
            # Not Authorize: there an idTag is a card, and a Plug & Charge session comes by DataTransfer.
            if action != "StartTransaction" or not _is_emaid(str(payload["idTag"])):
                return None
            status = await contracts.token_status(str(payload["idTag"]), "eMAID")
            told = status.value if status in _TAG_STATUSES else "Invalid"
            return Reply({**plain, "idTagInfo": {"status": told}})
        if not names_contract(payload):
            return None
        # Of somebody else's contract nothing is known without its certificate; a transaction has shown it before.
        token, otherwise = payload["idToken"], TokenStatus.UNKNOWN if action == "Authorize" else None
        status = await contracts.token_status(str(token["idToken"]), str(token["type"]), otherwise=otherwise)
        return Reply({**plain, "idTokenInfo": {"status": status.value}})

    # -- contracts -------------------------------------------------------------------------------------------------

    async def _ev_certificate(self, version: OcppVersion, payload: dict[str, Any]) -> dict[str, Any]:
        services = self._services
        assert services.config.provider is not None
        return await answer_ev_certificate(
            services.config.provider,
            services.status,
            version,
            payload,
            self._connection.station.id,
            configured_characters=services.config.exi_response_characters,
            told_characters=self.told_characters,
        )

    # -- 1.6 -------------------------------------------------------------------------------------------------------

    def _read(self, payload: dict[str, Any]) -> Transfer | Reply | None:
        try:
            return pnc_transfer.read_transfer(payload)
        except InputError as error:
            self._connection.note(Incident("bad-data-transfer", f"Plug & Charge DataTransfer: {error}"))
            return Reply({"status": "Rejected"})

    async def _transferred_to_us(self, payload: dict[str, Any], now: datetime) -> Reply | None:
        """Answer what a team's CSMS cannot: its handler for DataTransfer is for messages of other vendors."""
        if not pnc_transfer.is_plug_and_charge(payload):
            return None
        found = self._read(payload)
        if not isinstance(found, Transfer):
            return None
        is_ours = {
            "Authorize": self._services.contracts is not None,
            "Get15118EVCertificate": self._services.config.provider is not None,
        }
        if is_ours.get(found.message):
            return await self._transferred(payload)
        if found.message == "SignCertificate" and CertificateUse.V2G in self._connection.renewal.flow.plans:
            allowed = await self._connection.may_be_certified()
            reply = await self._connection.renewal.sign_requested(payload, now, allowed=allowed)
            return Reply(wrap_answer(found, reply.payload), reply.then)
        return None

    async def _transferred(self, payload: dict[str, Any]) -> Reply | None:
        found = self._read(payload)
        if not isinstance(found, Transfer):
            return found
        station, contracts = self._connection.station.id, self._services.contracts
        answer: dict[str, Any] | None = None
        match found.message:
            case "Get15118EVCertificate" if self._services.config.provider is not None:
                answer = await self._ev_certificate(OcppVersion.V16, found.payload)
            case "GetCertificateStatus":
                answer = await answer_status(self._services.status, OcppVersion.V201, found.payload, station)
            case "Authorize" if contracts is not None:
                answer = await authorize(contracts, found.payload, station)
            case "SignCertificate":
                # There is no plan for V2G leaves, or it would have been answered before.
                reason = {"reasonCode": "UnsupportedRequest", "additionalInfo": "no V2G certificates are issued here"}
                answer = {"status": "Rejected", "statusInfo": reason}
        return None if answer is None else Reply(wrap_answer(found, answer))


def _is_emaid(text: str) -> bool:
    try:
        Emaid.parse(text)
    except InputError:
        return False
    return True
