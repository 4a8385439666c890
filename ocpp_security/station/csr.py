"""The CSR that the simulated station sends: its own, or one that an honest station would never send (an attack tool).

A CA is shown to refuse what it must refuse only by being asked for it. `CsrForgery` is for demonstrations and tests
against one's own CSMS; a forged CSR is signed by the station's own new key, so proof of possession holds and nothing
but policy stands between it and a certificate.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chargepki.pki import names
from chargepki.pki.errors import InputError
from chargepki.pki.keys import PrivateKey

__all__ = ["CsrForgery", "CsrSpelling", "forge_csr"]


class CsrSpelling(StrEnum):
    """How stations in the field write a CSR, other than as PEM has it."""

    NEW_LABEL = "new-label"
    BASE64 = "base64"
    CRLF = "crlf"
    ESCAPED = "escaped"


@dataclass(frozen=True, slots=True)
class CsrForgery:
    """What to ask for against the rules; a default `CsrForgery` asks for nothing unusual."""

    ca: bool = False
    """Ask for CA:TRUE and keyCertSign."""
    common_name: str | None = None
    """Ask for this CN: another station's serial number."""
    organization: str | None = None
    """Ask for this O."""
    extensions: bool = False
    """Ask for keyUsage and DC=CPO, as some stations do for every certificate."""
    spelling: CsrSpelling | None = None


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
    if forgery.extensions and "DC" not in present:
        wanted.append(("DC", "CPO"))
    wanted += [(short, value) for short, value in replaced.items() if value is not None and short not in present]
    builder = x509.CertificateSigningRequestBuilder().subject_name(names.build_name(wanted))
    if forgery.ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if forgery.ca or forgery.extensions:
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=forgery.extensions, key_cert_sign=forgery.ca, crl_sign=forgery.ca,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")
    return _spell(pem, forgery.spelling)


def _spell(pem: str, how: CsrSpelling | None) -> str:
    match how:
        case CsrSpelling.NEW_LABEL:
            return pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
        case CsrSpelling.BASE64:
            return base64.b64encode(pem.encode()).decode("ascii")
        case CsrSpelling.CRLF:
            return pem.replace("\n", "\r\n")
        case CsrSpelling.ESCAPED:
            return pem.replace("\n", "\\n")
        case None:
            return pem
