"""What a vehicle may have: the contracts that are offered to it, in its order, once its certificates are known good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from chargepki.pki.errors import ChargePkiError, NotFound, RevocationError
from chargepki.pki.exi import MessageSet
from chargepki.pki.identifiers import Emaid
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import ContractRecord, ContractState, OfferState
from chargepki.pki.provisioning.judgement import Examined
from chargepki.pki.provisioning.request import RequestKind
from chargepki.pki.provisioning.trust import Question, Standing

__all__ = ["Channel", "NoContract", "check_standing", "list_choices"]


class NoContract(NotFound):
    """A vehicle for which there is nothing."""

    code = "no-contract"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """How a request came, and what its answer has to fit into.

    Attributes:
        characters: of base64 that the field of the station's answer takes.
        carrier: the protocol, for people.
        station: identity of the station.
        maximum_contracts: as the station told it beside the request (OCPP 2.1); the smaller one counts.
        prioritized: EMAIDs likewise; they count in place of the request's.
    """

    characters: int = 17_000
    carrier: str = "OCPP 2.1"
    station: str | None = None
    maximum_contracts: int | None = None
    prioritized: tuple[str, ...] = ()


def list_choices(
    inventory: Inventory, examined: Examined, channel: Channel, now: datetime
) -> dict[str, ContractRecord]:
    """Return the contracts that the vehicle may have now, by their 14 characters, in its order.

    Raises:
        NoContract: there is none, or the vehicle has no room.
    """
    request = examined.request
    if request.kind is RequestKind.UPDATE:
        assert examined.contract is not None
        accounts = [examined.contract]
        offers = inventory.list_offers_of(examined.contract)
        if any(each.vehicle == examined.vehicle and each.state is OfferState.WITHDRAWN for each in offers):
            accounts = []
    else:
        assert examined.vehicle is not None
        offers = inventory.list_offers_to(examined.vehicle)
        accounts = [each.contract for each in offers if each.state is OfferState.OFFERED]
        wanted = [account for text in channel.prioritized or request.prioritized for account in _account(text)]
        first = [account for account in dict.fromkeys(wanted) if account in accounts]
        accounts = [*first, *(account for account in accounts if account not in first)]
    found = {account: record for account in accounts if (record := inventory.find_contract(account))}
    active = {
        account: record
        for account, record in found.items()
        if record.state is ContractState.ACTIVE and (record.ends_at is None or record.ends_at > now)
    }
    room = 1
    if request.message_set is MessageSet.ISO15118_20:
        told = [each for each in (request.maximum_contracts, channel.maximum_contracts) if each is not None]
        room = min(told, default=1)
    if active and room < 1:
        raise NoContract(
            f"vehicle {examined.vehicle} has no room for a contract",
            why="MaximumContractCertificateChains is 0",
            fix="the vehicle drops a contract first",
        )
    if not active:
        raise NoContract(
            f"there is no contract for vehicle {examined.vehicle}",
            fix=f"offer one: chargepki contract offer EMAID --vehicle {examined.vehicle}",
        )
    return dict(list(active.items())[:room])


def _account(text: str) -> list[str]:
    """Return the 14 characters of an EMAID; nothing for what is none, as vehicles send what they like."""
    try:
        return [Emaid.parse(text).account]
    except ChargePkiError:
        return []


def check_standing(question: Question, standing: Standing) -> None:
    """Refuse a vehicle one of whose certificates is not known to be good.

    Raises:
        RevocationError: it is revoked, or nobody knows.
    """
    if standing is Standing.GOOD:
        return
    subject = x509.load_der_x509_certificate(question.certificate).subject.rfc4514_string()
    raise RevocationError(
        f"the certificate {subject} is revoked" if standing is Standing.REVOKED
        else f"nobody says whether the certificate {subject} is revoked",
        status=standing.value,
        why="a contract is provisioned to a vehicle whose certificates are known to be good",
        fix="" if standing is Standing.REVOKED else "allow its responder: --ocsp-allow URL",
    )  # fmt: skip
