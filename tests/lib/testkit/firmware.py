"""A manufacturer with its root and signing certificates, and signatures made with `cryptography` alone."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from chargepki.ocpp_security.firmware_certificate import FirmwareTrust
from chargepki.ocpp_security.firmware_server import FirmwareImages
from chargepki.pki.der import to_pem
from chargepki.pki.inventory import Inventory, SealingKey
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.services.http import Limits
from chargepki.pki.services.server import HttpServer, bind
from chargepki.pki.services.site import PkiSite
from chargepki.pki.signer import Signer
from testkit.chains import Made, make

__all__ = ["IMAGE", "Maker", "foreign_signature", "maker", "pem", "serving_images", "signer_of"]

IMAGE = hashlib.shake_128(b"firmware").digest(300_000)


@dataclass(frozen=True, slots=True)
class Maker:
    """A manufacturer."""

    root: Made
    ecdsa: Made
    rsa: Made

    @property
    def trust(self) -> FirmwareTrust:
        return FirmwareTrust((self.root.der,))


@cache
def maker() -> Maker:
    """Return the manufacturer of this test run; its certificates are valid a day around `testkit.chains.AT`."""
    root = make("Maker Root CA", nth=10, path_length=0)
    return Maker(
        root,
        make("Firmware signing", root, nth=11),
        make("Firmware signing RSA", root, algorithm=KeyAlgorithm.RSA2048, nth=11),
    )


def signer_of(made: Made) -> Signer:
    """Return the signer of a certificate's key."""
    return Signer.of("file:test.key", made.key)


def pem(made: Made) -> str:
    """Return the certificate as it stands in a message."""
    return to_pem("CERTIFICATE", made.der)


def foreign_signature(made: Made, image: bytes, *, salt: int = 32, pkcs1: bool = False) -> str:
    """Return base64 of a SHA-256 signature over *image*."""
    key = made.key
    if isinstance(key, rsa.RSAPrivateKey):
        pad = padding.PKCS1v15() if pkcs1 else padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        raw = key.sign(image, pad, hashes.SHA256())
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        raw = key.sign(image, ec.ECDSA(hashes.SHA256()))
    return base64.b64encode(raw).decode()


@contextlib.asynccontextmanager
async def serving_images(
    inventory: Inventory, home: Path, sealing: SealingKey, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[str]:
    """Serve the images of a workspace as `chargepki serve` does, and yield the base of their URLs."""
    images = FirmwareImages(inventory, home, sealing, allow_plain=tls is None, **options)
    site = PkiSite(inventory, routes=images.routes())
    server = HttpServer(site, limits=Limits(stop_seconds=0.2))
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server.start(listener, None if tls is None else lambda: tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await server.stop()
        await site.close()
