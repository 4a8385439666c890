"""The CSR that the simulated station sends: its own, or one that an honest station would never send (an attack tool).

A CA is shown to refuse what it must refuse only by being asked for it. `CsrForgery` is for demonstrations and tests
against one's own CSMS; a forged CSR is signed by the station's own new key, so proof of possession holds and nothing
but policy stands between it and a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chargepki.pki import names
from chargepki.pki.errors import InputError
from chargepki.pki.keys import PrivateKey

__all__ = ["CsrForgery", "forge_csr"]


@dataclass(frozen=True, slots=True)
class CsrForgery:
    """What to ask for against the rules; a default `CsrForgery` asks for nothing unusual."""

    ca: bool = False
    """Ask for CA:TRUE and keyCertSign."""
    common_name: str | None = None
    """Ask for this CN: another station's serial number."""
    organization: str | None = None
    """Ask for this O."""


def forge_csr(honest_pem: str, key: PrivateKey, forgery: CsrForgery) -> str:
    """Return a PEM CSR for *key* that asks for what *forgery* says, and otherwise for the subject of *honest_pem*.

    Raises:
        InputError: the key is neither EC nor RSA.
    """
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise InputError("CSRs are forged with EC and RSA keys only")
    subject = x509.load_pem_x509_csr(honest_pem.encode("ascii")).subject
    replaced = {"CN": forgery.common_name, "O": forgery.organization}
    wanted = [(short, replaced.get(short) or value) for short, value in names.attributes(subject)]
    present = {short for short, _ in wanted}
    wanted += [(short, value) for short, value in replaced.items() if value is not None and short not in present]
    builder = x509.CertificateSigningRequestBuilder().subject_name(names.build_name(wanted))
    if forgery.ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")
