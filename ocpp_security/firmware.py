"""Sign a firmware image, and verify one as a station must: certificate, then digest, then signature (L01)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from chargepki.ocpp_security.firmware_certificate import (
    FirmwareTrust,
    SigningCertificate,
    check_signing_certificate,
    parse_signing_certificate,
    verify_signing_certificate,
)
from chargepki.ocpp_security.firmware_image import BegunDigest, ImageDigest, Tick, hash_image
from chargepki.ocpp_security.firmware_signature import (
    SignatureScheme,
    decode_signature,
    encode_signature,
    sign_digest,
    verify_digest,
)
from chargepki.ocpp_security.firmware_verdict import FirmwareHash, FirmwareQuirk, FirmwareRefusal, deviations
from chargepki.pki import keys
from chargepki.pki.errors import SignerError

if TYPE_CHECKING:
    from chargepki.pki.signer import Signer

__all__ = [
    "FirmwareSignature",
    "VerifiedFirmware",
    "sign_firmware",
    "verify_firmware",
    "verify_image_digest",
]

_PROOF: Final = object()


@dataclass(frozen=True, slots=True)
class FirmwareSignature:
    """A signature made here."""

    image: ImageDigest
    text: str
    """Base64, as in ``firmware.signature``."""
    raw: bytes = field(repr=False)
    """The octets, as ``openssl dgst`` takes them."""
    scheme: SignatureScheme
    deviations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedFirmware:
    """Evidence that an image is what its manufacturer signed; the only thing that an install step takes.

    Only `verify_firmware` and `verify_image_digest` make it, and it cannot be stored: after a power cut the image is
    verified again.
    """

    image: ImageDigest
    certificate: SigningCertificate
    scheme: SignatureScheme
    at: datetime
    deviations: tuple[str, ...]
    proof: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.proof is not _PROOF:
            raise TypeError("VerifiedFirmware is made by verify_firmware() alone")

    def matches(self, image: ImageDigest) -> bool:
        """Say whether *image* is the one that was verified; for a copy made afterwards."""
        return image == self.image

    @property
    def notices(self) -> tuple[str, ...]:
        """What was not looked at."""
        return () if self.certificate.revocation_checked else ("the revocation status was not looked at",)

    def to_json(self) -> dict[str, Any]:
        """Return the report."""
        return {
            "valid": True,
            "at": self.at,
            "size": self.image.size,
            "hash": self.image.hash,
            "digest": self.image.hex,
            "scheme": self.scheme,
            **self.certificate.to_json(),
            "deviations": list(self.deviations),
            "notices": list(self.notices),
        }


def _digest(image: Path | BinaryIO | BegunDigest, hash_name: FirmwareHash, tick: Tick | None) -> ImageDigest:
    if not isinstance(image, BegunDigest):
        return hash_image(image, hash_name, tick=tick)
    if image.hash is not hash_name:
        raise ValueError(f"the digest was begun with {image.hash}, and {hash_name} is asked for")
    return image.result(tick)


def sign_firmware(
    image: Path | BinaryIO | BegunDigest,
    signer: Signer,
    certificate_der: bytes,
    *,
    at: datetime,
    hash_name: FirmwareHash = FirmwareHash.SHA256,
    quirks: Collection[FirmwareQuirk] = (),
    tick: Tick | None = None,
) -> FirmwareSignature:
    """Sign *image* with the key of a firmware signing certificate; the image is read once.

    The signature is verified before it is returned, so that a faulty token never hands out a useless one.

    Args:
        certificate_der: of the key; must be fit to sign firmware at *at*.

    Raises:
        SignerError: *signer* is not the certificate's key, or failed.
        PolicyRefusal: certificate or key are such that no station would accept the signature.
        UnavailableError: the image cannot be read.
    """
    key = check_signing_certificate(certificate_der, at)
    if keys.spki_der(key) != signer.spki_der:
        raise SignerError(
            "the key is not the one that the certificate names",
            why="their public keys differ",
            fix="give the key that the certificate was issued for",
        )
    digest = _digest(image, hash_name, tick)
    raw, scheme = sign_digest(signer, digest.digest, hash_name, pkcs1_v15=FirmwareQuirk.PKCS1_V15 in quirks)
    try:
        verify_digest(key, raw, digest.digest, hash_name, quirks)
    except FirmwareRefusal as exc:
        raise SignerError("the signature that the key made does not verify", why=exc.what) from exc
    found = deviations(hash_name, frozenset(quirks))
    return FirmwareSignature(digest, encode_signature(raw), raw, scheme, tuple(found))


def verify_firmware(
    image: Path | BinaryIO | BegunDigest,
    *,
    signature: str | None,
    certificate_pem: str | None,
    trust: FirmwareTrust,
    at: datetime,
    hash_name: FirmwareHash = FirmwareHash.SHA256,
    quirks: Collection[FirmwareQuirk] = (),
    tick: Tick | None = None,
) -> VerifiedFirmware:
    """Verify *image* in the order of a station, and return the evidence that an install step takes.

    Args:
        image: file or stream; read once, in constant memory, and only when the certificate is good. A digest that was
            begun before is asked for only then.
        signature: base64 as in ``firmware.signature``.
        certificate_pem: as in ``firmware.signingCertificate``.
        trust: manufacturer roots, and what is known of revocations.
        at: the instant of the verdict; timezone-aware.
        hash_name: another than SHA-256, which the standard demands, is a deviation that reports show.
        quirks: deviations that are accepted.

    Raises:
        FirmwareRefusal: with the status and the security event of the standard.
        UnavailableError: the image cannot be read.

    Clause: OCPP 2.x L01.FR.02 to FR.04, FR.12, FR.21; 1.6 white paper L01.FR.02 to FR.04, FR.12, FR.23.
    """
    certificate = verify_signing_certificate(parse_signing_certificate(certificate_pem), trust, at)
    digest = _digest(image, hash_name, tick)
    return verify_image_digest(digest, signature, certificate, at=at, quirks=quirks)


def verify_image_digest(
    image: ImageDigest,
    signature: str | None,
    certificate: SigningCertificate,
    *,
    at: datetime,
    quirks: Collection[FirmwareQuirk] = (),
) -> VerifiedFirmware:
    """Verify the signature over a digest that `hash_image` made, with a certificate verified before.

    Raises:
        FirmwareRefusal: status InvalidSignature.
    """
    found = verify_digest(certificate.key, decode_signature(signature), image.digest, image.hash, quirks)
    # A quirk that was allowed and not needed is no deviation of this image.
    used = frozenset(quirks) if found.scheme is SignatureScheme.RSA_PKCS1_V15 else frozenset()
    return VerifiedFirmware(image, certificate, found.scheme, at, tuple(deviations(image.hash, used)), _PROOF)
