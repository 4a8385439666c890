"""A pack of updates from one good image: bad ones that a station must refuse, and odd ones that it must take."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware import VerifiedFirmware, verify_firmware
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust, revocation_of
from chargepki.ocpp_security.firmware_image import hash_image
from chargepki.ocpp_security.firmware_lab import Lab
from chargepki.ocpp_security.firmware_mutated_signatures import Digests, bad_signatures, good_signatures
from chargepki.ocpp_security.firmware_version import ImageLabel, build_label, check_no_rollback, read_label
from chargepki.ocpp_security.wire_time import wire_time
from chargepki.pki.errors import InputError

__all__ = ["MutationCase", "MutationPack", "build_pack", "judge"]

_CHUNK: Final = 1 << 20
_GOOD: Final = "good.bin"
_INSTALLED: Final = ("Downloading", "Downloaded", "SignatureVerified", "Installing", "Installed")
_BAD_SIGNATURE: Final = ("Downloading", "Downloaded", "InvalidSignature")
_ROLLED_BACK: Final = ("Downloading", "Downloaded", "SignatureVerified", "Installing", "InstallVerificationFailed")


@dataclass(frozen=True, slots=True)
class MutationCase:
    """One update request and what a station must make of it."""

    id: str
    image: str
    """File of the pack."""
    signature: str
    """``firmware.signature``."""
    certificate: str
    """``firmware.signingCertificate``."""
    why: str
    rule: str | None = None
    """What our own verifier refuses it for; ``None``: it must be installed."""
    answers: tuple[str, ...] = ("Accepted",)
    """Statuses of the response of which the standard allows any."""
    statuses: tuple[str, ...] = _INSTALLED
    """Notifications in their order, the optional ones left out."""
    event: SecurityEvent | None = SecurityEvent.FIRMWARE_UPDATED
    versions: tuple[str, str] | None = None
    """Version of the image, and the one that must be installed before it is offered."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the manifest."""
        return {
            "id": self.id,
            "image": self.image,
            "signature": self.signature,
            "signingCertificate": self.certificate,
            "expect": {
                "install": self.rule is None,
                "answer": list(self.answers),
                "statuses": list(self.statuses),
                "security_event": self.event,
                "rule": self.rule,
            },
            "why": self.why,
            "version": self.versions[0] if self.versions else None,
            "installed_version": self.versions[1] if self.versions else None,
        }


@dataclass(frozen=True, slots=True)
class MutationPack:
    """All cases, and the files that they need."""

    made_at: datetime
    cases: tuple[MutationCase, ...]
    images: Mapping[str, Callable[[], Iterator[bytes]]] = field(repr=False)
    """What gives each image's octets, by file."""
    root_pem: str = field(repr=False)
    crl: bytes = field(repr=False)
    """DER; names the revoked certificate."""

    def manifest(self) -> dict[str, Any]:
        """Return the manifest, to be read by programs."""
        return {
            "schema": "chargepki/firmware-mutations",
            "schema_version": 1,
            "made_at": wire_time(self.made_at),
            "root": "root.pem",
            "crl": "root.crl",
            "cases": [case.to_json() for case in self.cases],
        }


def build_pack(image: Path, *, now: datetime, older: Path | None = None) -> MutationPack:
    """Make every case from *image*. Keys and certificates are made for the pack, and the keys thrown away with it.

    Args:
        image: a good image, at least 64 octets; read several times, never held in memory.
        now: around which the certificates are valid; timezone-aware.
        older: an earlier release, for the case of a rollback; made up when *image* is one for our simulated station.

    Raises:
        InputError: *image* is too small to be mutated.
        UnavailableError: it cannot be read.
    """
    lab, digests = Lab(now), Digests(image)
    size = hash_image(image).size
    if size < 64:
        raise InputError(f"{image} has {size} bytes", why="64 are the least that can be mutated in every way")
    images = _images(image, size)
    good = base64.b64encode(digests.sign_ecdsa(lab.ec_key)).decode()
    leaf = lab.ecdsa.pem
    cases = [MutationCase("good", _GOOD, good, leaf, "nothing is wrong with it")]
    for name, (octets, made, why) in good_signatures(lab, digests).items():
        cases.append(MutationCase(name, _GOOD, base64.b64encode(octets).decode(), made, why))
    for name, why in _CHANGES.items():
        cases.append(_bad(name, f"{name}.bin", good, leaf, "signature-mismatch", why))
    for name, (text, made, rule, why) in bad_signatures(lab, digests).items():
        cases.append(_bad(name, _GOOD, text, made, rule, why))
    for name, (certificate, sent, rule, why) in lab.bad_certificates().items():
        signature = base64.b64encode(digests.sign(certificate.key)).decode()
        cases.append(_bad_certificate(name, signature, sent, rule, why))
    cases.append(_bad_certificate("certificate-missing", good, "", "certificate-missing", "there is no certificate"))
    revoked = lab.leaf(lab.ec_key)
    cases.append(
        _bad_certificate("revoked", good, revoked.pem, "revoked", "it is on the root's list", "RevokedCertificate")
    )
    rollback = _rollback(image, older, lab, images)
    if rollback is not None:
        cases.append(rollback)
    return MutationPack(now, tuple(cases), images, lab.root.pem, lab.crl(revoked))


def judge(case: MutationCase, image: Path, pack_root: bytes, crl: bytes, at: datetime) -> VerifiedFirmware:
    """Judge a case as our own station does.

    Raises:
        FirmwareRefusal: it must not be installed.
    """
    verified = verify_firmware(
        image,
        signature=case.signature,
        certificate_pem=case.certificate,
        trust=FirmwareTrust((pack_root,), revocation_of([crl], [])),
        at=at,
    )
    if case.versions is not None:
        check_no_rollback(*case.versions)
    return verified


def _bad(name: str, image: str, signature: str, certificate: str, rule: str, why: str) -> MutationCase:
    return MutationCase(
        name, image, signature, certificate, why, rule,
        statuses=_BAD_SIGNATURE, event=SecurityEvent.INVALID_FIRMWARE_SIGNATURE,
    )  # fmt: skip


def _bad_certificate(name: str, signature: str, certificate: str, rule: str, why: str, *more: str) -> MutationCase:
    return MutationCase(
        name, _GOOD, signature, certificate, why, rule,
        # TC_L_05_CS takes InvalidCertificate for a revoked one too, TC_L_18_CS Rejected for none.
        answers=(*more, "InvalidCertificate", *(("Rejected",) if not certificate else ())),
        statuses=(), event=SecurityEvent.INVALID_FIRMWARE_SIGNING_CERTIFICATE,
    )  # fmt: skip


def _rollback(
    image: Path, older: Path | None, lab: Lab, images: dict[str, Callable[[], Iterator[bytes]]]
) -> MutationCase | None:
    label = read_label(image)
    if older is not None:
        old_label = read_label(older)
        images["rolled-back.bin"] = lambda: _read(older)
        digests = Digests(older)
        versions = (old_label.version if old_label else "0", label.version if label else "1")
    elif label is not None:
        line = build_label(ImageLabel(label.vendor, label.model, "0.0.1"))
        skip = len(build_label(label))

        def relabelled() -> Iterator[bytes]:
            yield line
            yield from _read(image, start=skip)

        images["rolled-back.bin"] = relabelled
        state = hashlib.sha256()
        for chunk in relabelled():
            state.update(chunk)
        digests = Digests.of(state.digest())
        versions = ("0.0.1", label.version)
    else:
        return None
    signature = base64.b64encode(digests.sign_ecdsa(lab.ec_key)).decode()
    return MutationCase(
        "rolled-back", "rolled-back.bin", signature, lab.ecdsa.pem,
        "the image is genuine, and older than what is installed", "rolled-back",
        statuses=_ROLLED_BACK, event=None, versions=versions,
    )  # fmt: skip


# ---------------------------------------------------------------- images

_CHANGES: Final = {
    "first-bit-flipped": "the lowest bit of its first octet is changed",
    "middle-bit-flipped": "one bit in its middle is changed",
    "last-bit-flipped": "one bit of its last octet is changed",
    "truncated": "its last octet is missing",
    "truncated-to-half": "its second half is missing, as after a broken download",
    "extended": "a zero octet was appended",
    "prefixed": "a zero octet was put before it",
    "empty": "there is nothing in it",
    "another-image": "it is another image of the same size, with the signature of this one",
}


def _images(image: Path, size: int) -> dict[str, Callable[[], Iterator[bytes]]]:
    def flipped(position: int, bit: int) -> Callable[[], Iterator[bytes]]:
        def chunks() -> Iterator[bytes]:
            offset = 0
            for chunk in _read(image):
                if offset <= position < offset + len(chunk):
                    changed = bytearray(chunk)
                    changed[position - offset] ^= bit
                    yield bytes(changed)
                else:
                    yield chunk
                offset += len(chunk)

        return chunks

    def around(before: bytes, after: bytes) -> Callable[[], Iterator[bytes]]:
        def chunks() -> Iterator[bytes]:
            yield before
            yield from _read(image)
            yield after

        return chunks

    return {
        _GOOD: lambda: _read(image),
        "first-bit-flipped.bin": flipped(0, 1),
        "middle-bit-flipped.bin": flipped(size // 2, 0x10),
        "last-bit-flipped.bin": flipped(size - 1, 0x80),
        "truncated.bin": lambda: _read(image, end=size - 1),
        "truncated-to-half.bin": lambda: _read(image, end=size // 2),
        "extended.bin": around(b"", b"\0"),
        "prefixed.bin": around(b"\0", b""),
        "empty.bin": lambda: iter(()),
        "another-image.bin": lambda: (bytes(octet ^ 0xFF for octet in chunk) for chunk in _read(image)),
    }


def _read(image: Path, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    with image.open("rb") as stream:
        stream.seek(start)
        left = end
        while chunk := stream.read(_CHUNK if left is None else min(_CHUNK, left)):
            if left is not None:
                left -= len(chunk)
            yield chunk
