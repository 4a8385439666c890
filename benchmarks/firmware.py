"""Does an image of 1 GiB cost more to sign and to verify than `openssl dgst` takes, and does memory stay constant?

Verifying is the whole of what a station does: certificate path, digest, signature. The reference only digests and
checks the signature. Both read the same sparse file, from the page cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from benchmarks.harness import Case, Comparison, Limit, command_case, compare, main
from chargepki.ocpp_security.firmware import sign_firmware, verify_firmware
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust
from chargepki.pki.private_keys import serialise_private_key
from chargepki.pki.signer import Signer

SIZE = 1 << 30
LIMIT = Limit(1 / 0.95, "at least 95 % of the throughput of openssl dgst", wall=True)
SMALL = 1 << 20
MAX_GROWTH_KIB = 2048
PROGRAM = str(Path(sys.executable).parent / "chargepki")


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: tuple[str, ec.EllipticCurvePrivateKey] | None = None
) -> x509.Certificate:
    """Return a root, or a signing certificate below *issuer*."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    is_ca = issuer is None
    unset = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*unset, "encipher_only", "decipher_only"), False)
    signer_name, signer = issuer or (name, key)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(signer_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, **usage), critical=True
        )
        .sign(signer, hashes.SHA256())
    )


class Material:
    """Files for both sides: two images, keys, certificates, a signature."""

    def __init__(self, folder: Path) -> None:
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = certificate("Maker", root_key)
        self.leaf = certificate("Firmware", key, ("Maker", root_key))
        self.folder, self.image, self.small = folder, folder / "image", folder / "small"
        self.trust = FirmwareTrust((root.public_bytes(Encoding.DER),))
        self.signer = Signer.of("file:benchmark.key", key)
        for path, size in ((self.image, SIZE), (self.small, SMALL)):
            with path.open("wb") as stream:
                stream.truncate(size)
            signed = sign_firmware(path, self.signer, self.leaf_der, at=datetime.now(UTC))
            path.with_suffix(".sig").write_bytes(signed.raw)
            path.with_suffix(".b64").write_text(signed.text)
        self.text = self.image.with_suffix(".b64").read_text()
        self.write("root.pem", root.public_bytes(Encoding.PEM))
        self.write("cert.pem", self.leaf.public_bytes(Encoding.PEM))
        self.write("key.pem", serialise_private_key(key))
        (folder / "key.pem").chmod(0o600)
        self.write("public.pem", key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    @property
    def leaf_der(self) -> bytes:
        """The signing certificate."""
        return self.leaf.public_bytes(Encoding.DER)

    def write(self, name: str, data: bytes) -> None:
        """Write one file."""
        (self.folder / name).write_bytes(data)

    def at(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / name)

    def verify(self) -> None:
        """Verify the image as a station does."""
        pem = (self.folder / "cert.pem").read_text()
        verify_firmware(self.image, signature=self.text, certificate_pem=pem, trust=self.trust, at=datetime.now(UTC))

    def sign(self) -> None:
        """Sign the image."""
        sign_firmware(self.image, self.signer, self.leaf_der, at=datetime.now(UTC))

    def verifying(self, image: Path) -> list[str]:
        """Return `chargepki firmware verify` of *image*."""
        words = ["--signature", str(image.with_suffix(".sig")), "--cert", self.at("cert.pem"), "--trust"]
        return [PROGRAM, "firmware", "verify", str(image), *words, self.at("root.pem")]

    def signing(self) -> list[str]:
        """Return `chargepki firmware sign` of the large image."""
        words = ["--key", self.at("key.pem"), "--cert", self.at("cert.pem")]
        return [PROGRAM, "firmware", "sign", str(self.image), *words]


def peak_kib(arguments: Sequence[str]) -> int:
    """Return the greatest resident size of `chargepki` with *arguments*, in KiB, as the kernel tells it at the end.

    Not `ru_maxrss`: that of a child begins with the size of the process that started it.
    """
    program = (
        "import sys\n"
        "from chargepki.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print(open('/proc/self/status').read())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)[0])


def measure() -> Sequence[Comparison]:
    """Compare signing and verifying, as a library and as a command."""
    with tempfile.TemporaryDirectory() as name:
        material = Material(Path(name))
        dgst = ["openssl", "dgst", "-sha256"]
        theirs = ["-verify", material.at("public.pem"), "-signature", material.at("image.sig"), material.at("image")]
        verifying = command_case("openssl dgst -verify", *dgst, *theirs)
        signing = command_case(
            "openssl dgst -sign", *dgst, "-sign", material.at("key.pem"), "-out", os.devnull, material.at("image")
        )
        small, large = (peak_kib(material.verifying(path)[1:]) for path in (material.small, material.image))
        if large - small > MAX_GROWTH_KIB:
            raise RuntimeError(f"memory grows with the image: {small} KiB for 1 MiB, {large} KiB for 1 GiB")
        memory = f"greatest resident size of the command: {small} KiB for 1 MiB, {large} KiB for 1 GiB"
        return [
            compare(
                "verify an image of 1 GiB, certificate included",
                subject=Case("verify_firmware", material.verify), reference=verifying, limit=LIMIT, note=memory,
            ),
            compare(
                "verifying as a command, with its start",
                subject=command_case("chargepki firmware verify", *material.verifying(material.image)),
                reference=verifying, limit=LIMIT, note=memory,
            ),
            compare(
                "sign an image of 1 GiB, and verify the signature",
                subject=Case("sign_firmware", material.sign), reference=signing, limit=LIMIT,
            ),
            compare(
                "signing as a command, with its start",
                subject=command_case("chargepki firmware sign", *material.signing()),
                reference=signing,
            ),
        ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main("firmware", measure))
