"""Keys made for a client (RFC 7030 4.4): a key and a request of its own, and the message that only the client opens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chargepki.pki import der
from chargepki.pki.cms import build_enveloped, build_signed_key_package
from chargepki.pki.csr import CertificateRequest, parse_csr
from chargepki.pki.est import build_server_key_answer
from chargepki.pki.keys import PrivateKey, generate_private_key, sign, signature_algorithm, spki_der
from chargepki.pki.profiles import get_profile
from chargepki.pki.services.est_settings import EstLabel, ServerKeys

__all__ = ["ServerMadeKey", "make_server_key"]

Seal = Callable[[bytes], tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class ServerMadeKey:
    """A new key and the request that has it certified. The key lives in this object and in the answer, nowhere else."""

    request: CertificateRequest
    key: PrivateKey = field(repr=False)

    def sealer(
        self, label: EstLabel, client_certificate_der: bytes | None, server_key: tuple[PrivateKey, bytes] | None
    ) -> Seal | str:
        """Return the function that turns the certs-only answer into type and body, or why the key cannot be sent."""
        pkcs8 = self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        if client_certificate_der is None:
            if label.server_keys is not ServerKeys.TLS:
                return "a key is only sent encrypted to a TLS client certificate: show one in the handshake"
            return lambda certificates: build_server_key_answer(pkcs8, certificates, encrypted=False)
        try:
            public = x509.load_der_x509_certificate(client_certificate_der).public_key()
        except (ValueError, UnsupportedAlgorithm):
            # OpenSSL, which has verified it, reads more kinds of certificates.
            return "the client certificate cannot be read"
        if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            return "the client certificate's key only signs: show one with an EC or RSA key"
        if server_key is None:
            return "this server cannot sign the keys that it makes"
        signer, signer_certificate = server_key
        recipient = client_certificate_der

        def seal(certificates: bytes) -> tuple[str, bytes]:
            package = build_signed_key_package(pkcs8, signer, signer_certificate)
            return build_server_key_answer(build_enveloped(package, recipient), certificates, encrypted=True)

        return seal


def make_server_key(label: EstLabel, wanted: CertificateRequest) -> ServerMadeKey:
    """Make a key of the label's profile and a request with the subject of *wanted* (whose own key is not used)."""
    key = generate_private_key(get_profile(label.profile).keys.default)
    attributes = der.implicit(0, b"", constructed=True)
    info = der.sequence(der.integer(0), wanted.subject_der, spki_der(key), attributes)
    algorithm = signature_algorithm(get_profile(label.profile).keys.default)
    signed = der.sequence(info, algorithm.der, der.bit_string(sign(key, info)))
    return ServerMadeKey(parse_csr(signed), key)
