"""The firmware signing certificate: one, directly under a manufacturer root, for this purpose, valid and unrevoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chargepki.ocpp_security.firmware_verdict import FirmwareRefusal, FirmwareStage
from chargepki.pki.chain import (
    AnchorUse,
    ChainVerifier,
    PathRefusal,
    Purpose,
    Revocation,
    RevocationMode,
    RevocationRefusal,
    TrustAnchor,
    VerifiedChain,
    WorkBudget,
)
from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.chain.policy import POLICIES, PolicyInputs
from chargepki.pki.chain.processing import check_leaf, check_path
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.keys import PublicKey
from chargepki.pki.pem import pem_blocks

__all__ = [
    "MAX_CERTIFICATE_CHARACTERS",
    "FirmwareTrust",
    "SigningCertificate",
    "check_signing_certificate",
    "parse_signing_certificate",
    "verify_signing_certificate",
]

MAX_CERTIFICATE_CHARACTERS: Final = 5500
"""Longest ``signingCertificate`` in PEM (all versions)."""
_CLAUSE: Final = "OCPP L01.FR.12, FR.21; no intermediate below ManufacturerRootCertificate"
_MAX_ROOTS: Final = 64
_OTHER_ROOT: Final = "give the manufacturer root that issued it, or sign with a certificate directly under this root"


@dataclass(frozen=True, slots=True)
class FirmwareTrust:
    """Whom a station trusts for firmware, and what it knows of revocations."""

    roots: tuple[bytes, ...]
    """Manufacturer roots, DER."""
    revocation: Revocation = field(default_factory=Revocation)


@dataclass(frozen=True, slots=True)
class SigningCertificate:
    """Evidence that a certificate may sign firmware; only `verify_signing_certificate` makes it."""

    der: bytes = field(repr=False)
    label: str
    """Subject and serial number, for people."""
    sha256: str
    not_after: datetime
    root: str
    root_sha256: str
    key: PublicKey = field(repr=False, compare=False)
    chain: VerifiedChain = field(repr=False, compare=False)

    @property
    def revocation_checked(self) -> bool:
        """Whether its status was looked at."""
        return bool(self.chain.statuses)

    def to_json(self) -> dict[str, Any]:
        """Return what reports show."""
        return {
            "certificate": self.label,
            "certificate_sha256": self.sha256,
            "not_after": self.not_after,
            "root": self.root,
            "root_sha256": self.root_sha256,
            "revocation": [status.to_json() for status in self.chain.statuses],
        }


def parse_signing_certificate(pem: str | None) -> tuple[bytes, ...]:
    """Return the certificates (DER) in ``firmware.signingCertificate``, of which there should be one.

    Raises:
        FirmwareRefusal: absent, over 5,500 characters, or no PEM of certificates.
    """
    if not pem:
        raise _refuse("there is no signing certificate", "certificate-missing", why="a signed update carries one")
    if len(pem) > MAX_CERTIFICATE_CHARACTERS:
        raise _refuse(
            f"the signing certificate has {len(pem)} characters",
            "certificate-too-long",
            why=f"the message has room for {MAX_CERTIFICATE_CHARACTERS}",
        )
    try:
        blocks = pem_blocks(pem.encode("utf-8", "replace"), max_bytes=4 * MAX_CERTIFICATE_CHARACTERS)
    except InputError as exc:
        raise _refuse("the signing certificate is not PEM", "certificate-not-pem", why=exc.what) from exc
    if not blocks or any(block.label != "CERTIFICATE" for block in blocks):
        raise _refuse(
            "the signing certificate is not PEM", "certificate-not-pem", why="expected is one CERTIFICATE block"
        )
    return tuple(block.der for block in blocks)


def verify_signing_certificate(certificates: Sequence[bytes], trust: FirmwareTrust, at: datetime) -> SigningCertificate:
    """Validate the certificate as a station does before it answers the update request.

    Args:
        certificates: DER; the signing certificate, and whatever came behind it, which is refused.
        at: the instant of the verdict; timezone-aware.

    Raises:
        FirmwareRefusal: with status RevokedCertificate for a revoked one, else InvalidCertificate.

    Clause: OCPP L01.FR.12, FR.21, FR.22; RFC 5280 6.1.
    """
    certificate_der, *others = certificates
    uses = frozenset({AnchorUse.MANUFACTURER})
    anchors = [TrustAnchor(der, uses) for der in trust.roots[:_MAX_ROOTS]]
    # No CA between leaf and anchor, whatever else is in the bag.
    verifier = ChainVerifier(anchors, budget=WorkBudget(depth=0))
    try:
        chain = verifier.verify(certificate_der, purpose=Purpose.FIRMWARE_SIGNING, at=at, revocation=trust.revocation)
    except PathRefusal as refusal:
        raise _of_path(refusal, certificate_der, anchors, others, at) from refusal
    leaf, anchor = PathCertificate(chain.leaf), PathCertificate(chain.anchor, is_anchor=True)
    if others:
        raise _refuse(
            f"{len(certificates)} certificates where one is expected",
            "certificate-count",
            why="the manufacturer root issues the signing certificate itself, so that there is no chain to send",
            fix="send the signing certificate alone",
        )
    if len(chain.certificates) != 2:
        raise _refuse(
            f"the signing certificate is itself the root: {leaf.label}",
            "self-signed",
            why="a manufacturer root issues it; a root that signs firmware itself cannot be told from a stolen one",
            fix="issue a certificate of the profile ocpp/firmware-signing under the root",
        )
    if not anchor.is_self_issued:
        raise _refuse(
            f"{anchor.label} is not a root",
            "intermediate",
            why="it was issued by another CA, and the signing certificate must stand directly under a root",
            fix="install the manufacturer's root, and issue the signing certificate under it",
        )
    key = _load_key(leaf)
    return SigningCertificate(
        certificate_der, leaf.label, leaf.sha256, leaf.not_after, anchor.label, anchor.sha256, key, chain
    )


def check_signing_certificate(certificate_der: bytes, at: datetime) -> PublicKey:
    """Check what the certificate alone shows: purpose, validity, key; and return its key. For whoever signs.

    Raises:
        PolicyRefusal: no station would accept a signature under it.
        InputError: not a certificate.
    """
    leaf = PathCertificate(certificate_der)
    try:
        check_path([leaf], at, PolicyInputs())
        check_leaf([leaf], POLICIES[Purpose.FIRMWARE_SIGNING])
        return _load_key(leaf)
    except (PathRefusal, FirmwareRefusal) as refusal:
        raise PolicyRefusal(
            refusal.what,
            why=refusal.why,
            fix="issue one: chargepki cert issue --profile ocpp/firmware-signing --ca MANUFACTURER-ROOT …",
        ) from refusal


def _load_key(leaf: PathCertificate) -> PublicKey:
    key = leaf.load_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size >= 2048 and key.public_numbers().e > 2:
            return key
        raise _refuse(
            f"the RSA key of {leaf.label} has {key.key_size} bits",
            "weak-key",
            why="at least 2,048 are demanded (OCPP A00.FR.504)",
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1", "secp521r1"):
        return key
    raise _refuse(
        f"the key of {leaf.label} cannot sign firmware",
        "key-type",
        why="RSA or a NIST curve with SHA-256 is demanded (OCPP L01.FR.04)",
    )


def _of_path(
    refusal: PathRefusal, leaf: bytes, anchors: Sequence[TrustAnchor], others: Sequence[bytes], at: datetime
) -> FirmwareRefusal:
    """Say in the words of firmware why there is no path; an intermediate is named as what is wrong."""
    if others and refusal.rule == "no-issuer":
        try:
            ChainVerifier(anchors, others).verify(leaf, purpose=Purpose.FIRMWARE_SIGNING, at=at)
        except PathRefusal:
            pass
        else:
            return _refuse(
                f"an intermediate CA stands between {refusal.certificate} and the manufacturer root",
                "intermediate",
                why="the root issues the signing certificate itself",
                fix="issue it directly under the root",
            )
    return FirmwareRefusal(
        refusal.what,
        stage=FirmwareStage.CERTIFICATE,
        rule=refusal.rule,
        clause=refusal.clause or _CLAUSE,
        # The path refusal's own text carries its clause already.
        why=refusal.why.removesuffix(f" ({refusal.clause})") if refusal.clause else refusal.why,
        # Elsewhere one would send the CAs in between; here there are none.
        fix=_OTHER_ROOT if refusal.rule == "no-issuer" else refusal.fix,
        revoked=isinstance(refusal, RevocationRefusal) and refusal.status == "revoked",
    )


def _refuse(
    what: str, rule: str, *, why: str, fix: str = "sign with a certificate of the profile ocpp/firmware-signing"
) -> FirmwareRefusal:
    return FirmwareRefusal(what, stage=FirmwareStage.CERTIFICATE, rule=rule, clause=_CLAUSE, why=why, fix=fix)


def revocation_of(crls: Sequence[bytes], ocsp_responses: Sequence[bytes]) -> Revocation:
    """Return how evidence is used: demanded where any is given, not looked at where none is."""
    mode = RevocationMode.REQUIRE if crls or ocsp_responses else RevocationMode.OFF
    return Revocation(mode, tuple(crls), tuple(ocsp_responses), max_age=None, skew=timedelta(minutes=5))
