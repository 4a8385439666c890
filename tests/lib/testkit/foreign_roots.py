"""The roots of a station that is not ours: handlers for the plain `ocpp` package, hash data by `cryptography` alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from ocpp.routing import on

__all__ = ["InstalledRoots", "with_roots"]


@dataclass
class InstalledRoots:
    """What such a station holds, by the standard's name of its use; it stays when the connection goes."""

    by_use: list[tuple[str, str]] = field(default_factory=list)
    """Use and PEM, in the order of their installation."""
    verdict: str = "Accepted"
    """What it answers to InstallCertificate; it installs nothing unless it accepts."""

    def listed(self, uses: list[str] | None) -> list[tuple[str, dict[str, str]]]:
        """Return use and hash data of what it holds."""
        return [(use, hash_data(pem)) for use, pem in self.by_use if uses is None or use in uses]


def hash_data(pem: str) -> dict[str, str]:
    """Compute the hash data of a self-signed certificate (RFC 6960 4.1.1), as the `ocpp` package spells them."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    point = certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {
        "hash_algorithm": "SHA256",
        "issuer_name_hash": hashlib.sha256(certificate.issuer.public_bytes()).hexdigest(),
        "issuer_key_hash": hashlib.sha256(point).hexdigest(),
        "serial_number": f"{certificate.serial_number:x}",
    }


def with_roots(base: type[Any], result: Any, *, chained: bool) -> type[Any]:
    """Build a subclass of *base* that answers M03 to M05; its ``owner`` has ``roots`` and ``triggers``.

    Args:
        chained: whether answers have the form of 2.x.
    """

    class Station(base):  # type: ignore[misc]  # the base is one of three classes without types
        @on("InstallCertificate")  # type: ignore[untyped-decorator]  # no types
        async def on_install_certificate(self, certificate_type: str, certificate: str, **_: Any) -> Any:
            roots: InstalledRoots = self.owner.roots
            if roots.verdict == "Accepted":
                roots.by_use.append((certificate_type, certificate))
            self.owner.triggers.put_nowait(f"install {certificate_type}")
            return result.InstallCertificate(status=roots.verdict)

        @on("GetInstalledCertificateIds")  # type: ignore[untyped-decorator]  # no types
        async def on_get_installed_certificate_ids(self, certificate_type: Any = None, **_: Any) -> Any:
            wanted = [certificate_type] if isinstance(certificate_type, str) else certificate_type
            found = self.owner.roots.listed(wanted)
            self.owner.triggers.put_nowait(f"list {','.join(wanted or ['all'])}")
            if not found:
                return result.GetInstalledCertificateIds(status="NotFound")
            if not chained:
                return result.GetInstalledCertificateIds("Accepted", [data for _, data in found])
            chains = [{"certificate_type": use, "certificate_hash_data": data} for use, data in found]
            return result.GetInstalledCertificateIds("Accepted", certificate_hash_data_chain=chains)

        @on("DeleteCertificate")  # type: ignore[untyped-decorator]  # no types
        async def on_delete_certificate(self, certificate_hash_data: dict[str, str], **_: Any) -> Any:
            roots: InstalledRoots = self.owner.roots
            kept = [(use, pem) for use, pem in roots.by_use if hash_data(pem) != certificate_hash_data]
            status = "Accepted" if len(kept) < len(roots.by_use) else "NotFound"
            roots.by_use = kept
            self.owner.triggers.put_nowait("delete")
            return result.DeleteCertificate(status=status)

    return Station
