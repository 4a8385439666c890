"""What a station does with its roots (M03 to M05): plan an installation or a deletion (pure), and answer what is there.

A plan is made from the installed certificates and the clock, and applied durably by whoever owns the store; the answer
to the CSMS follows the store, never the other way round.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.trust_messages import HASH_FIELDS
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse, root_use_name
from chargepki.pki import der, keys
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.hashdata import CertificateHashData, hashed_parts
from chargepki.pki.hashdata_defects import HashDefect, write_wrongly
from chargepki.pki.names import same
from chargepki.pki.pem import pem_blocks

__all__ = [
    "DeletePlan",
    "InstallPlan",
    "InstalledRoot",
    "TrustPolicy",
    "answer_listing",
    "is_signed_by",
    "plan_delete",
    "plan_install",
    "root_hash",
]

_CLOCK_SKEW: Final = timedelta(minutes=5)
_MAX_PEM_BYTES: Final = 65_536
_MAX_CHILDREN: Final = 4


@dataclass(frozen=True, slots=True)
class InstalledRoot:
    """A root in the station's store."""

    use: RootUse
    der: bytes
    is_fallback: bool = False
    """The CSMS root before the last, kept until the new one has opened a connection (M05.FR.12)."""


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """How a station decides where the standard leaves it to the station."""

    max_certificates: int = 20
    """CertificateStoreMaxLength (1.6), CertificateEntries.maxLimit (2.x)."""
    additional_check: bool = False
    """AdditionalRootCertificateCheck: a new CSMS root has to be signed by the old one (M05.FR.09 to FR.16)."""
    needs_tls: bool = True
    """Refuse changes of roots and certificates over a connection without TLS, as several stations do; the standard
    does not forbid them."""
    protects_last: bool = True
    """Refuse to delete the last CSMS or manufacturer root (M04.FR.03 allows the refusal)."""
    hash_defects: frozenset[HashDefect] = frozenset()
    """What is wrong with the hash data that it computes; then it compares texts, as such stations do."""
    takes_anything: bool = False
    """Install sub-CAs and leaves as roots, and never find them again, as stations in the field do."""


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """What an accepted InstallCertificate changes."""

    root: InstalledRoot
    replaces: bool = False
    """It is there already: one entry stays (M05.FR.17)."""
    fallback: bytes | None = None
    """The CSMS root that becomes the fallback."""
    drops: tuple[bytes, ...] = ()
    """CSMS roots that go: an older fallback."""


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """What a DeleteCertificate does."""

    status: str
    """Accepted, Failed or NotFound."""
    removes: tuple[InstalledRoot, ...] = field(default=())
    why: str = ""


def plan_install(
    use: RootUse,
    pem: str,
    installed: Sequence[InstalledRoot],
    policy: TrustPolicy,
    now: datetime,
    *,
    over_tls: bool = True,
) -> InstallPlan:
    """Decide about an InstallCertificate, in the order of ocpp-security 14.2.

    Raises:
        OcppRefusal: Rejected, with its reason code.

    Clause: M05.FR.03 (1.6: store full), FR.06, FR.07, FR.09 to FR.12, FR.17; ocpp-security 12, row 32.
    """
    if policy.needs_tls and not over_tls:
        raise _rejected("roots are not changed over an unsecured connection", "UnsupportedRequest")
    certificate = _only_certificate(pem)
    encoded = certificate.public_bytes(Encoding.DER)
    own = [root for root in installed if root.use is use]
    if not policy.takes_anything:
        _check_root(certificate, encoded, own, now)
    replaces = any(root.der == encoded and not root.is_fallback for root in own)
    if not replaces and len(installed) >= policy.max_certificates:
        raise _rejected(f"the store holds {len(installed)} certificates and no more", "OutOfStorage")
    plan = InstallPlan(InstalledRoot(use, encoded), replaces=replaces)
    if replaces or use is not RootUse.CSMS or not policy.additional_check or not own:
        return plan
    current = [root.der for root in own if not root.is_fallback]
    signer = next((der for der in current if is_signed_by(encoded, der)), None)
    if signer is None:
        raise _rejected("the new CSMS root is not signed by the old one (M05.FR.10)", "InvalidCertificate")
    drops = tuple(root.der for root in own if root.is_fallback and root.der != signer)
    return InstallPlan(plan.root, fallback=signer, drops=drops)


def plan_delete(
    hash_data: Mapping[str, str],
    installed: Sequence[InstalledRoot],
    policy: TrustPolicy,
    *,
    own: Sequence[tuple[bytes, bytes | None]] = (),
    in_use: bytes | None = None,
    over_tls: bool = True,
) -> DeletePlan:
    """Decide about a DeleteCertificate; the hash does not tell the use, so every match goes.

    Args:
        own: the station's own certificates, each with its issuer's if it is known.
        in_use: the root that verified the server of this connection.

    Clause: M04.FR.02 to FR.06; ocpp-security 12, rows 32, 34, 35 and 69.
    """
    if policy.needs_tls and not over_tls:
        return DeletePlan("Failed", why="roots are not changed over an unsecured connection")
    for certificate, issuer in own:
        if issuer is not None and _names(hash_data, certificate, issuer, policy):
            return DeletePlan("Failed", why="it is the station's own certificate (M04.FR.06)")
    found = []
    for root in installed:
        issuer = _issuer_of(root, installed)
        if issuer is not None and _names(hash_data, root.der, issuer, policy):
            found.append(root)
    if not found:
        return DeletePlan("NotFound", why="no such certificate (M04.FR.04)")
    if in_use is not None and any(root.use is RootUse.CSMS and root.der == in_use for root in found):
        return DeletePlan("Failed", why="the connection stands on it (1.6 M04.FR.06)")
    for use in (RootUse.CSMS, RootUse.MANUFACTURER) if policy.protects_last else ():
        left = [root for root in installed if root.use is use and root not in found]
        if not left and any(root.use is use for root in found):
            return DeletePlan("Failed", why=f"it is the last {use.value} root (M04.FR.03)")
    return DeletePlan("Accepted", tuple(found))


def answer_listing(
    version: OcppVersion,
    uses: Sequence[RootUse],
    installed: Sequence[InstalledRoot],
    policy: TrustPolicy,
    *,
    chains: Sequence[tuple[bytes, ...]] = (),
    algorithm: str = "SHA256",
) -> dict[str, Any]:
    """Return the answer to GetInstalledCertificateIds; no use asks for all (M03.FR.01 to FR.05).

    Args:
        chains: the station's own V2G chains, leaf first, each with the certificate of its root at the end.
    """
    entries: list[tuple[RootUse, dict[str, str], list[dict[str, str]]]] = []
    for root in installed:
        if uses and root.use not in uses:
            continue
        told = root_hash(root, installed, policy, algorithm)
        if told is not None:
            entries.append((root.use, told, []))
    for chain in chains if not uses or RootUse.V2G_CHAIN in uses else ():
        hashes = [
            write_wrongly(each, issuer, _shown(each, issuer, policy), algorithm)
            for each, issuer in itertools.pairwise(chain)
        ]
        # Leaf-side first, as the field has settled on (ocpp-security 12, row 9); an empty list is left out.
        entries.append((RootUse.V2G_CHAIN, hashes[0], hashes[1 : 1 + _MAX_CHILDREN]))
    if not entries:
        return {"status": "NotFound"}
    if version is OcppVersion.V16:
        return {"status": "Accepted", "certificateHashData": [told for _, told, _ in entries]}
    listed: list[dict[str, Any]] = []
    for use, told, children in entries:
        item: dict[str, Any] = {"certificateType": root_use_name(version, use), "certificateHashData": told}
        if children:
            item["childCertificateHashData"] = children
        listed.append(item)
    return {"status": "Accepted", "certificateHashDataChain": listed}


def root_hash(
    root: InstalledRoot, installed: Sequence[InstalledRoot], policy: TrustPolicy, algorithm: str = "SHA256"
) -> dict[str, str] | None:
    """Return what the station computes for a root; ``None`` for one whose issuer it does not have."""
    issuer = _issuer_of(root, installed)
    if issuer is None:
        return None
    return write_wrongly(root.der, issuer, _shown(root.der, issuer, policy), algorithm)


def is_signed_by(certificate_der: bytes, issuer_der: bytes) -> bool:
    """Say whether the key of one certificate has signed another, under its name; false for what is no certificate."""
    try:
        certificate, issuer = (
            x509.load_der_x509_certificate(certificate_der),
            x509.load_der_x509_certificate(issuer_der),
        )
        if not same(certificate.issuer.public_bytes(), issuer.subject.public_bytes()):
            return False
        key = keys.load_public_key(hashed_parts(issuer_der)[3])
        algorithm = der.parse(certificate_der).children(der.SEQUENCE)[1].raw
        return keys.verify(key, certificate.signature, certificate.tbs_certificate_bytes, algorithm)
    except (ValueError, UnsupportedAlgorithm, InputError):
        return False


# --- parts -----------------------------------------------------------------------------------------------------------


def _only_certificate(pem: str) -> x509.Certificate:
    try:
        blocks = pem_blocks(pem.encode(), max_bytes=_MAX_PEM_BYTES)
        if len(blocks) != 1 or blocks[0].label != "CERTIFICATE":
            raise InputError(f"{len(blocks)} PEM blocks where one certificate is expected")
        return x509.load_der_x509_certificate(blocks[0].der)
    except (ChargePkiError, ValueError, x509.InvalidVersion) as error:
        raise _rejected(f"the certificate cannot be read: {error}", "InvalidCertificate") from error


def _check_root(certificate: x509.Certificate, encoded: bytes, own: Sequence[InstalledRoot], now: datetime) -> None:
    """Refuse what is no root: it could be listed and deleted by nobody (ocpp-security 12, rows 29, 30 and 64)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        signs = constraints.ca and usage.key_cert_sign
    except x509.ExtensionNotFound:
        signs = False
    except ValueError as error:
        raise _rejected(f"its extensions cannot be read: {error}", "InvalidCertificate") from error
    if not signs:
        raise _rejected("it is no CA certificate", "InvalidCertificate")
    if not is_signed_by(encoded, encoded) and not any(is_signed_by(encoded, root.der) for root in own):
        raise _rejected("it is no root: neither signed by itself nor by an installed root", "InvalidCertificate")
    if certificate.not_valid_before_utc > now + _CLOCK_SKEW:
        raise _rejected("it is not valid yet", "InvalidCertificate")
    if certificate.not_valid_after_utc < now:
        raise _rejected("it has expired", "InvalidCertificate")


def _issuer_of(root: InstalledRoot, installed: Sequence[InstalledRoot]) -> bytes | None:
    """Return who signed a root: itself, or an old root of the store (ocpp-security 12, row 64)."""
    candidates = [root.der, *(other.der for other in installed if other.use is root.use)]
    return next((der for der in candidates if is_signed_by(root.der, der)), None)


def _names(hash_data: Mapping[str, str], der: bytes, issuer: bytes, policy: TrustPolicy) -> bool:
    if policy.hash_defects:
        # Stations that compute it wrongly compare the texts that they made.
        algorithm = hash_data["hashAlgorithm"]
        told = write_wrongly(der, issuer, _shown(der, issuer, policy), algorithm)
        return all(told[name] == hash_data[name] for name in HASH_FIELDS)
    try:
        given = CertificateHashData.from_wire(hash_data)
        return given == CertificateHashData.of(der, issuer, given.hash_algorithm)
    except InputError:
        return False


def _shown(der: bytes, issuer: bytes, policy: TrustPolicy) -> frozenset[HashDefect]:
    """Return the defects that this certificate can show: a self-signed one hides a mistaken subject."""
    shown = policy.hash_defects
    for defect in sorted(policy.hash_defects):
        try:
            write_wrongly(der, issuer, frozenset({defect}))
        except InputError:
            shown -= {defect}
    return shown


def _rejected(what: str, reason: str) -> OcppRefusal:
    return OcppRefusal(what, answer=StatusAnswer("Rejected", reason))
