"""Authorize with a contract certificate (C07, C08): one decision table, from what was found to what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = [
    "CertificateStatus",
    "ChainFinding",
    "ContractFacts",
    "ContractVerdict",
    "RevocationFinding",
    "TokenStatus",
    "decide",
]


class TokenStatus(StrEnum):
    """AuthorizationStatusEnumType of 2.x."""

    ACCEPTED = "Accepted"
    BLOCKED = "Blocked"
    CONCURRENT_TX = "ConcurrentTx"
    EXPIRED = "Expired"
    INVALID = "Invalid"
    NO_CREDIT = "NoCredit"
    NOT_ALLOWED_TYPE_EVSE = "NotAllowedTypeEVSE"
    NOT_AT_THIS_LOCATION = "NotAtThisLocation"
    NOT_AT_THIS_TIME = "NotAtThisTime"
    UNKNOWN = "Unknown"


class CertificateStatus(StrEnum):
    """AuthorizeCertificateStatusEnumType; the same in 2.0.1 and 2.1."""

    ACCEPTED = "Accepted"
    SIGNATURE_ERROR = "SignatureError"
    CERTIFICATE_EXPIRED = "CertificateExpired"
    CERTIFICATE_REVOKED = "CertificateRevoked"
    NO_CERTIFICATE_AVAILABLE = "NoCertificateAvailable"
    CERT_CHAIN_ERROR = "CertChainError"
    CONTRACT_CANCELLED = "ContractCancelled"


class ChainFinding(StrEnum):
    """What the certificates, or the hash data in their place, are."""

    ABSENT = "absent"
    """Neither was sent: there is nothing about certificates to answer."""
    VALID = "valid"
    """A path to a trusted root for contracts, valid now; or hash data whose issuers all lead to such a root."""
    EXPIRED = "expired"
    """A path whose only fault is that a validity has ended."""
    BROKEN = "broken"
    """Anything else: unreadable, no path, no trusted root, not yet valid, not a contract certificate."""


class RevocationFinding(StrEnum):
    """The worst status of the chain."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """No verified answer about at least one of them."""


@dataclass(frozen=True, slots=True)
class ContractFacts:
    """Everything that the answer depends on."""

    chain: ChainFinding
    revocation: RevocationFinding
    is_same_contract: bool
    """Whether the certificate is issued for the eMAID of the token; true where hash data do not tell."""
    token: TokenStatus
    """What the CSMS says about the token alone."""


@dataclass(frozen=True, slots=True)
class ContractVerdict:
    """What is answered."""

    certificate: CertificateStatus | None
    """``None``: nothing was asked about certificates, so the member is left out."""
    token: TokenStatus
    reason: str
    """For the operator, with its clause."""

    @property
    def may_charge(self) -> bool:
        """What the station concludes: token Accepted, and the certificate Accepted or not asked about."""
        return self.token is TokenStatus.ACCEPTED and self.certificate in (None, CertificateStatus.ACCEPTED)


_CANCELLED: Final = frozenset({TokenStatus.BLOCKED, TokenStatus.EXPIRED, TokenStatus.INVALID, TokenStatus.UNKNOWN})
_BY_CHAIN: Final[Mapping[ChainFinding, ContractVerdict]] = MappingProxyType(
    {
        ChainFinding.BROKEN: ContractVerdict(
            CertificateStatus.CERT_CHAIN_ERROR, TokenStatus.INVALID, "the chain cannot be verified (C07.FR.17)"
        ),
        ChainFinding.EXPIRED: ContractVerdict(
            CertificateStatus.CERTIFICATE_EXPIRED, TokenStatus.EXPIRED, "the chain has expired (C07.FR.15)"
        ),
    }
)


def decide(facts: ContractFacts) -> ContractVerdict:
    """Return the answer; fails closed wherever something is not known.

    A revoked certificate counts as revoked even when it has expired since, and as nothing where its chain is broken:
    then nobody entitled has said so.

    Clause: C07.FR.04, FR.05, FR.13 to FR.17; C08.FR.01; ocpp-security 12, rows 38 to 40.
    """
    if facts.chain is ChainFinding.ABSENT:
        return ContractVerdict(None, facts.token, "no certificate was sent: the token alone counts (C08.FR.01)")
    if facts.chain is ChainFinding.BROKEN:
        return _BY_CHAIN[ChainFinding.BROKEN]
    if facts.revocation is RevocationFinding.REVOKED:
        return ContractVerdict(
            CertificateStatus.CERTIFICATE_REVOKED, TokenStatus.INVALID, "the chain is revoked (C07.FR.16)"
        )
    if facts.chain is ChainFinding.EXPIRED:
        return _BY_CHAIN[ChainFinding.EXPIRED]
    if facts.revocation is RevocationFinding.UNKNOWN:
        return ContractVerdict(
            CertificateStatus.CERT_CHAIN_ERROR,
            TokenStatus.INVALID,
            "no verified revocation status of the chain (C07.FR.05, C07.FR.17)",
        )
    if not facts.is_same_contract:
        return ContractVerdict(
            CertificateStatus.CERT_CHAIN_ERROR,
            TokenStatus.INVALID,
            "the certificate is for another contract than the token (C07.FR.17)",
        )
    if facts.token in _CANCELLED:
        return ContractVerdict(
            CertificateStatus.CONTRACT_CANCELLED, facts.token, f"the token is {facts.token.value} (C07.FR.13)"
        )
    return ContractVerdict(CertificateStatus.ACCEPTED, facts.token, "the chain is valid (C07.FR.14)")
