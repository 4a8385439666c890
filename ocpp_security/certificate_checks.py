"""What a station puts into a CSR, and what it checks before it trusts a chain that it receives (pure)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from chargepki.ocpp_security.sign_certificate import opens_link
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import names
from chargepki.pki.chain import Purpose, order_chain, verify_chain
from chargepki.pki.errors import ChainError, ChargePkiError, InputError
from chargepki.pki.keys import PrivateKey, spki_der, spki_sha256
from chargepki.pki.pem import pem_blocks

__all__ = [
    "CertificateRules",
    "ReceivedChain",
    "RefusedChain",
    "build_csr",
    "judge_chain",
    "parse_chain",
]

_CLOCK_SKEW = timedelta(minutes=5)
"""How far in the future notBefore may lie without being called not yet valid; clocks of CA and station differ."""


@dataclass(frozen=True, slots=True)
class CertificateRules:
    """Who the station is, and whom it trusts to certify that."""

    serial_number: str
    """CN of its own certificate (A00.FR.511)."""
    organization: str | None = None
    """SecurityCtrlr.OrganizationName (1.6: CpoName); ``None`` leaves O to the CA and unchecked."""
    operator_anchors: tuple[bytes, ...] = ()
    """DER of the CA certificates that may certify the link certificate: the operator's hierarchy."""
    v2g_anchors: tuple[bytes, ...] = ()
    """DER of the installed V2G roots."""
    known_intermediates: tuple[bytes, ...] = ()
    """DER of sub-CA certificates that the station has already; some CSMS send the leaf alone."""
    secc_id: str | None = None
    """ISO15118Ctrlr.SeccId."""
    v2g_organization: str | None = None
    """ISO15118Ctrlr.OrganizationName; `organization` when not set."""
    country: str | None = None
    """ISO15118Ctrlr.CountryName."""
    max_chain_characters: int = 10_000
    """MaxCertificateChainSize (1.6: CertificateSignedMaxChainSize)."""

    def common_name(self, use: CertificateUse) -> str | None:
        """Return the CN that a certificate of *use* has to have, or ``None`` when the station does not know."""
        return self.serial_number if opens_link(use) else self.secc_id

    def organization_of(self, use: CertificateUse) -> str | None:
        """Return the O that a certificate of *use* has to have, or ``None`` when the station does not know."""
        return self.organization if opens_link(use) else self.v2g_organization or self.organization

    def subject(self, use: CertificateUse) -> x509.Name:
        """Return the subject for a CSR of *use*.

        Raises:
            InputError: a variable that the use needs is not set (SeccId, for a V2G certificate).

        Clause: A00.FR.509, A00.FR.511; 1.6 A02.FR.13 (O is CpoName).
        """
        common_name = self.common_name(use)
        if common_name is None:
            raise InputError(
                f"a CSR for a {use.value} needs the SeccId", why="it is the CN", fix="set ISO15118Ctrlr.SeccId"
            )
        pairs = [("CN", common_name)]
        organization = self.organization_of(use)
        if organization is not None:
            pairs.append(("O", organization))
        if use is not CertificateUse.CHARGING_STATION:
            if self.country is not None:
                pairs.append(("C", self.country))
            pairs.append(("DC", "CPO"))
        return names.build_name(pairs)


class RefusedChain(ChargePkiError):
    """A chain that the station does not take; `reason_code` is for the CSMS."""

    code = "refused-chain"

    def __init__(self, what: str, *, reason_code: str = "InvalidCertificate", why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.reason_code = reason_code


@dataclass(frozen=True, slots=True)
class ReceivedChain:
    """A chain as received, decoded and not judged yet."""

    chain_der: tuple[bytes, ...]
    """Leaf first, then its issuers in order, without the root."""
    sha256: str
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    common_name: str | None
    organization: str | None


def build_csr(private_key: PrivateKey, subject: x509.Name) -> str:
    """Return a PKCS#10 request in PEM, signed with the hash that fits the key, without any extension.

    Clause: A02.FR.03; RFC 2986. No extension is asked for: SAN and EKU are discouraged (A00.FR.511, FR.514), and the
    CA takes none from a request.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    csr = builder.sign(private_key, _hash_for(private_key))
    return csr.public_bytes(serialization.Encoding.PEM).decode("ascii")


def parse_chain(text: str, rules: CertificateRules) -> ReceivedChain:
    """Decode a certificateChain: leaf first, its issuers in any order, a root at the end tolerated.

    Raises:
        RefusedChain: longer than the station takes, no PEM certificate, or one that cannot be decoded.

    Clause: A02.FR.16 (size).
    """
    if len(text) > rules.max_chain_characters:
        raise RefusedChain(
            f"the chain has {len(text)} characters, at most {rules.max_chain_characters} are taken",
            reason_code="TooLargeElement",
            why="MaxCertificateChainSize, A02.FR.16",
        )
    try:
        raw = text.encode("ascii", "replace")
        blocks = [block.der for block in pem_blocks(raw, max_bytes=4 * rules.max_chain_characters)]
        if not blocks:
            raise RefusedChain("the chain holds no PEM certificate", why="A00.FR.507")
        leaf = x509.load_der_x509_certificate(blocks[0])
        spki = spki_der(leaf.public_key())  # type: ignore[arg-type]  # a type of key that is not ours is refused there
        return ReceivedChain(
            chain_der=tuple(order_chain(blocks[0], blocks[1:])),
            sha256=hashlib.sha256(blocks[0]).hexdigest(),
            spki_sha256=spki_sha256(spki),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            common_name=names.get(leaf.subject, "CN"),
            organization=names.get(leaf.subject, "O"),
        )
    except (InputError, ChainError) as error:
        raise RefusedChain(error.what, why=error.why) from error
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise RefusedChain("a certificate of the chain cannot be decoded", why=str(error)) from error


def judge_chain(
    chain: ReceivedChain, use: CertificateUse, rules: CertificateRules, now: datetime, *, future_allowed: bool
) -> None:
    """Refuse a chain that is not valid now, not this station's, or not from a hierarchy that the station trusts.

    That the public key is the station's own is `StationCertificateFlow`'s check.

    Args:
        future_allowed: take a certificate whose validity starts later (1.6 A02.FR.08); 2.x refuses it since the errata.

    Raises:
        RefusedChain: as above.

    Clause: A02.FR.06, A00.FR.509, A00.FR.511.
    """
    expected_cn, expected_o = rules.common_name(use), rules.organization_of(use)
    if expected_cn is not None and chain.common_name != expected_cn:
        raise RefusedChain(f"the certificate's CN is {chain.common_name!r}, not {expected_cn!r}", why="A00.FR.511")
    if expected_o is not None and chain.organization != expected_o:
        raise RefusedChain(f"the certificate's O is {chain.organization!r}, not {expected_o!r}", why="A00.FR.509")
    if now > chain.not_after:
        raise RefusedChain(f"the certificate expired on {chain.not_after:%Y-%m-%d}", why="A02.FR.06")
    if not future_allowed and chain.not_before - now > _CLOCK_SKEW:
        raise RefusedChain(
            f"the certificate is not valid before {chain.not_before:%Y-%m-%d %H:%M:%S} UTC",
            why="now must lie inside the validity period (A02.FR.06 since the 2.0.1 errata)",
        )
    anchors = rules.operator_anchors if use is CertificateUse.CHARGING_STATION else rules.v2g_anchors
    purpose = Purpose.CHARGING_STATION if use is CertificateUse.CHARGING_STATION else Purpose.SECC
    try:
        verify_chain(
            chain.chain_der[0],
            [*chain.chain_der[1:], *rules.known_intermediates],
            anchors,
            purpose=purpose,
            at=max(now, chain.not_before),
        )
    except ChargePkiError as error:
        raise RefusedChain(error.what, why=error.why or "A02.FR.06", fix=error.fix) from error


def _hash_for(private_key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    if isinstance(private_key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        if private_key.key_size > 384:
            return hashes.SHA512()
        if private_key.key_size > 256:
            return hashes.SHA384()
    return hashes.SHA256()
