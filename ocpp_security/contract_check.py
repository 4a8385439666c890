"""Find the facts for `contract.decide`: verify the chain or the hash data, ask for their status, compare the eMAID."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from chargepki.ocpp_security.contract import ChainFinding, ContractFacts, RevocationFinding, TokenStatus
from chargepki.ocpp_security.status import CertificateWord, StatusGateway, StatusSource
from chargepki.pki.chain import AnchorUse, PathRefusal, Purpose, TrustAnchor
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.hashdata import CertificateHashData, hashed_parts
from chargepki.pki.identifiers import Emaid
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import ContractRecord, ContractState
from chargepki.pki.ocsp import issuer_hashes
from chargepki.pki.pem import pem_blocks
from chargepki.pki.role_roots import Believed, Roots
from chargepki.pki.status_addresses import status_addresses

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.offload import Offload

__all__ = ["ContractChecker", "ContractTrust", "names_contract"]

_MAX_PEM_BYTES: Final = 65_536
_MAX_CERTIFICATES: Final = 8
_USES: Final = frozenset({AnchorUse.MO, AnchorUse.V2G})
_EMAID: Final = "emaid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractTrust:
    """What contract certificates are judged by.

    The inventory counts first: its roots for contracts (MO and V2G roots of ours, and those of others whose source and
    confirmation are on record), its sub-CAs of mobility operators, and its contracts. It is read for each question, so
    what is added, withdrawn or ended there holds at once.
    """

    anchors: tuple[bytes, ...] = ()
    """DER of further roots that contracts may lead to: MO roots, and V2G roots under which MOs are certified."""
    intermediates: tuple[bytes, ...] = ()
    """DER of further sub-CAs, for stations that send hash data alone, or leave sub-CAs out."""
    token_status: TokenStatus = TokenStatus.UNKNOWN
    """What is said about the eMAID of a contract that is not ours when nobody is asked."""
    ask_token: Callable[[str, str], Awaitable[TokenStatus]] | None = None
    """Asked for the status of any token (its text and its type) where the CSMS has no handler of its own; then the
    contracts of the inventory do not count."""


@dataclass(frozen=True, slots=True)
class _Question:
    """One certificate whose status is asked for."""

    wire: Mapping[str, str]
    urls: Sequence[str]
    source: StatusSource = StatusSource.OCSP
    issuer: bytes | None = None


class ContractChecker:
    """Judges Authorize requests of 2.x, and of 1.6 out of their DataTransfer; for one event loop."""

    def __init__(
        self,
        trust: ContractTrust,
        inventory: Inventory,
        gateway: StatusGateway,
        offload: Offload,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self.trust, self._gateway, self._offload, self._clock = trust, gateway, offload, clock
        self._inventory = inventory
        anchors = [TrustAnchor(der, _USES) for der in trust.anchors]
        self._roots = Roots(
            inventory, uses=_USES, anchors=anchors, sub_cas=trust.intermediates, with_contract_sub_cas=True
        )

    async def token(self, payload: Mapping[str, Any]) -> TokenStatus:
        """Return what is said about the token of a message of 2.x alone.

        Raises:
            UnavailableError: the inventory cannot be read.
        """
        token = payload["idToken"]
        return await self.token_status(str(token["idToken"]), str(token["type"]))

    async def token_status(self, text: str, kind: str, *, otherwise: TokenStatus | None = None) -> TokenStatus:
        """Return what is said about a token by whoever is asked, else by its contract here, else by configuration.

        Args:
            kind: IdTokenEnumType; contracts are known by their eMAID alone.
            otherwise: in place of what is configured.
        """
        if self.trust.ask_token is not None:
            return TokenStatus(await self.trust.ask_token(text, kind))
        contract = await self._offload.run(self._find_contract, text) if kind.lower() == _EMAID else None
        if contract is None:
            return otherwise or self.trust.token_status
        return _status_of(contract, self._clock())

    def _find_contract(self, text: str) -> ContractRecord | None:
        try:
            wanted = Emaid.parse(text)
        except InputError:
            return None
        found = self._inventory.find_contract(wanted.account)
        return found if found is not None and Emaid.parse(found.emaid).same(wanted) else None

    async def facts(self, payload: Mapping[str, Any], token: TokenStatus) -> ContractFacts:
        """Return what is true of an Authorize request that passed its schema; never raises for what a peer sent.

        With both the certificates and hash data, the certificates count (ocpp-security 12, row 40).
        """
        chain, hashes = payload.get("certificate"), payload.get("iso15118CertificateHashData")
        if isinstance(chain, str):
            return await self._by_chain(chain, str(payload["idToken"]["idToken"]), token)
        if isinstance(hashes, list):
            return await self._by_hashes(hashes, token)
        return ContractFacts(ChainFinding.ABSENT, RevocationFinding.UNKNOWN, is_same_contract=True, token=token)

    # -- the certificates themselves (C07.FR.06) -----------------------------------------------------------------

    async def _by_chain(self, text: str, emaid: str, token: TokenStatus) -> ContractFacts:
        now = self._clock()
        finding, path = await self._offload.run(self._verify, text, now)
        revocation, same = RevocationFinding.UNKNOWN, False
        if path:
            revocation = await self._worst(list(itertools.pairwise(path)))
            same = _is_for(path[0], emaid)
        return ContractFacts(finding, revocation, is_same_contract=same, token=token)

    def _verify(self, text: str, now: datetime) -> tuple[ChainFinding, tuple[bytes, ...]]:
        """Return the finding and the path, leaf first and anchor last; the path of an expired chain too."""
        try:
            blocks = [block.der for block in pem_blocks(text.encode(), max_bytes=_MAX_PEM_BYTES)]
            if not 0 < len(blocks) <= _MAX_CERTIFICATES:
                return ChainFinding.BROKEN, ()
            leaf, others = blocks[0], blocks[1:]
            verifier = self._roots.verifier()
            verified = verifier.verify(leaf, others, purpose=Purpose.CONTRACT, at=now)
            return ChainFinding.VALID, verified.certificates
        except PathRefusal as refusal:
            if refusal.rule != "expired":
                return ChainFinding.BROKEN, ()
        except ChargePkiError:
            return ChainFinding.BROKEN, ()
        try:
            # Whether it is expired alone shows at the last instant at which all of it was valid.
            ended = min(x509.load_der_x509_certificate(der).not_valid_after_utc for der in blocks)
            verified = verifier.verify(leaf, others, purpose=Purpose.CONTRACT, at=ended)
            return ChainFinding.EXPIRED, verified.certificates
        except (ChargePkiError, ValueError):
            return ChainFinding.BROKEN, ()

    async def _worst(self, pairs: Sequence[tuple[bytes, bytes]]) -> RevocationFinding:
        questions: list[_Question] = []
        for certificate, issuer in pairs:
            wire = CertificateHashData.of(certificate, issuer).to_wire()
            responders, lists = status_addresses(certificate)
            if lists and not responders:
                questions.append(_Question(wire, lists, StatusSource.CRL, issuer))
            else:
                questions.append(_Question(wire, responders, StatusSource.OCSP, issuer))
        return await self._ask(questions)

    async def _ask(self, questions: Sequence[_Question]) -> RevocationFinding:
        asked = (self._gateway.ask(each.wire, each.urls, each.source, issuer=each.issuer) for each in questions)
        words = {result.word for result in await asyncio.gather(*asked)}
        if CertificateWord.REVOKED in words:
            return RevocationFinding.REVOKED
        return RevocationFinding.GOOD if words == {CertificateWord.GOOD} else RevocationFinding.UNKNOWN

    # -- hash data in their place (C07.FR.02) ----------------------------------------------------------------------

    async def _by_hashes(self, hashes: Sequence[Mapping[str, Any]], token: TokenStatus) -> ContractFacts:
        now = self._clock()
        finding, issuers = await self._offload.run(self._judge_issuers, hashes, now)
        revocation = RevocationFinding.UNKNOWN
        if finding is ChainFinding.VALID:
            pairs = zip(hashes, issuers, strict=True)
            revocation = await self._ask([_Question(each, _urls(each), issuer=issuer) for each, issuer in pairs])
        return ContractFacts(finding, revocation, is_same_contract=True, token=token)

    def _judge_issuers(
        self, hashes: Sequence[Mapping[str, Any]], now: datetime
    ) -> tuple[ChainFinding, Sequence[bytes]]:
        """Each issuer has to be known and to lead to a root; the certificates themselves are not here to be seen."""
        issuers: list[bytes] = []
        try:
            believed = self._roots.now()
            anchors = [each.der for each in believed.anchors]
            for each in hashes:
                issuer = _issuer(believed, anchors, CertificateHashData.from_wire(each))
                if issuer is None:
                    return ChainFinding.BROKEN, ()
                if issuer not in anchors:
                    believed.verifier.verify(issuer, at=now)
                issuers.append(issuer)
        except PathRefusal as refusal:
            return (ChainFinding.EXPIRED if refusal.rule == "expired" else ChainFinding.BROKEN), ()
        except ChargePkiError:
            return ChainFinding.BROKEN, ()
        return ChainFinding.VALID, issuers


def names_contract(payload: Mapping[str, Any]) -> bool:
    """Say whether the token of a message of 2.x is the eMAID of a contract."""
    token = payload.get("idToken")
    return isinstance(token, Mapping) and str(token.get("type", "")).lower() == _EMAID


def _urls(hash_data: Mapping[str, Any]) -> list[str]:
    """Return where to ask; an empty responderURL stands for none."""
    url = str(hash_data["responderURL"])
    return [url] if url else []


def _status_of(contract: ContractRecord, now: datetime) -> TokenStatus:
    """Return what the life of a contract makes of its eMAID; not Accepted is ContractCancelled (C07.FR.13)."""
    if contract.state is not ContractState.ACTIVE:
        return TokenStatus.BLOCKED
    is_over = contract.ends_at is not None and contract.ends_at <= now
    return TokenStatus.EXPIRED if is_over else TokenStatus.ACCEPTED


def _issuer(believed: Believed, anchors: Sequence[bytes], wanted: CertificateHashData) -> bytes | None:
    normal = wanted.normalised()
    for der in (*anchors, *believed.sub_cas):
        _, _, subject, spki = hashed_parts(der)
        name, key = issuer_hashes(wanted.hash_algorithm.lower(), subject, spki)
        if (name.hex(), key.hex()) == (normal.issuer_name_hash, normal.issuer_key_hash):
            return der
    return None


def _is_for(der: bytes, token: str) -> bool:
    """Say whether the CN of a contract certificate is the eMAID of the token, whatever hyphens and case."""
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if len(names) != 1:
        return False
    try:
        return Emaid.parse(str(names[0].value)).same(Emaid.parse(token))
    except InputError:
        return str(names[0].value).casefold() == token.casefold()
