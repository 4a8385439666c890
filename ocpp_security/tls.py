"""Security profile and material in, `ssl.SSLContext` out: exactly what OCPP mandates, and nothing weaker."""

from __future__ import annotations

import secrets
import ssl
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import overload

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from chargepki.ocpp_security.security_profile import DEMANDS, SecurityProfile
from chargepki.pki import files
from chargepki.pki.errors import InputError, PolicyRefusal, SignerError
from chargepki.pki.keys import PrivateKey
from chargepki.pki.post_quantum import check_no_tls, has_ml_dsa_key
from chargepki.pki.private_keys import load_private_key

__all__ = [
    "FORWARD_SECRET_SUITES",
    "MANDATED_SUITES",
    "PeerChain",
    "TlsIdentity",
    "check_no_wildcard",
    "client_context",
    "missing_issuer",
    "missing_suites",
    "peer_chain",
    "reload_identity",
    "server_context",
    "with_few_sessions",
]

FORWARD_SECRET_SUITES = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384")
"""OpenSSL names; need an EC server certificate."""

_RSA_SUITES = ("AES128-GCM-SHA256", "AES256-GCM-SHA384")

MANDATED_SUITES = FORWARD_SECRET_SUITES + _RSA_SUITES
"""The four suites that a CSMS has to offer (A00.FR.318, A00.FR.421; 1.6: A00.FR.317, FR.421)."""

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL; the ssl module has no name for it.
_NO_CHECK_TIME = 0x200000

_MAX_FILE_BYTES = 1 << 20
_MAX_SESSIONS = 1024
"""Making a context again takes some milliseconds, which so many handshakes share."""

# _ssl.ENCODING_DER, an argument of `_ssl.Certificate.public_bytes`.
_DER = 2


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A certificate chain with its private key."""

    chain_der: tuple[bytes, ...]
    """Leaf first, without the root."""
    private_key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if not self.chain_der:
            raise InputError("a TLS identity needs a certificate")
        leaf = _load_certificate(self.chain_der[0], "the TLS certificate")
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        own = self.private_key.public_key().public_bytes(encoding, form)
        try:
            certified = leaf.public_key().public_bytes(encoding, form)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError("the public key of the TLS certificate cannot be read", why=str(error)) from error
        if certified != own:
            raise SignerError(
                "the private key does not belong to the TLS certificate",
                fix="pass the key that the certificate was issued for; the leaf comes first in the certificate file",
            )

    @classmethod
    def load(cls, certificate: Path, key: Path) -> TlsIdentity:
        """Read a PEM certificate chain (leaf first) and its unencrypted PEM key.

        Raises:
            UnavailableError: a file cannot be read.
            InputError: no certificate in the file.
            SignerError: the key cannot be read, is readable by others, or is another certificate's.
        """
        pem = files.read_limited(certificate, _MAX_FILE_BYTES, "TLS certificate")
        _parse_chain(pem, str(certificate))  # first: the certificate is what people mix up, and the key is a secret
        return cls.parse(pem, files.read_private(key), str(certificate))

    @classmethod
    def parse(cls, pem: bytes, key_pem: bytes, source: str) -> TlsIdentity:
        """Return the identity of a PEM certificate chain (leaf first) and its unencrypted PEM key.

        Args:
            source: where the chain comes from, for errors.

        Raises:
            InputError: no certificate.
            SignerError: the key cannot be read, or is another certificate's.
        """
        chain = _parse_chain(pem, source)
        private_key = load_private_key(key_pem)
        return cls(tuple(item.public_bytes(serialization.Encoding.DER) for item in chain), private_key)

    @property
    def not_after(self) -> datetime:
        """Last valid second of the leaf, inclusive; aware UTC."""
        return _load_certificate(self.chain_der[0], "the TLS certificate").not_valid_after_utc

    @property
    def is_rsa(self) -> bool:
        """Whether it serves the TLS_RSA suites."""
        return isinstance(self.private_key, rsa.RSAPrivateKey)

    @property
    def is_ec(self) -> bool:
        """Whether it serves the ECDHE_ECDSA suites."""
        return isinstance(self.private_key, ec.EllipticCurvePrivateKey)


def missing_suites(identities: Sequence[TlsIdentity], *, forward_secrecy_only: bool = False) -> tuple[str, ...]:
    """Return the mandated TLS 1.2 suites that no certificate of *identities* can serve.

    A certified CSMS needs two server certificates, one EC and one RSA; with one kind half of the mandated suites
    can never be negotiated. An endpoint says so when it starts.

    Clause: A00.FR.318, A00.FR.421.
    """
    missing: tuple[str, ...] = ()
    if not any(identity.is_ec for identity in identities):
        missing += FORWARD_SECRET_SUITES
    if not forward_secrecy_only and not any(identity.is_rsa for identity in identities):
        missing += _RSA_SUITES
    return missing


def missing_issuer(
    identity: TlsIdentity, *, client_trust: Sequence[bytes] = (), roots: Sequence[bytes] = ()
) -> str | None:
    """Return the issuer (RFC 4514) that the chain of *identity* lacks as far as we know; ``None`` when it is whole.

    A station holds the root alone, so every certificate below the root has to come with the handshake.

    Args:
        client_trust: DER, as for `server_context`. From these OpenSSL completes the chain of a lone leaf by itself.
        roots: DER of self-signed certificates that stations may hold.
    """
    last = _load_certificate(identity.chain_der[-1], "the TLS certificate")
    if last.issuer == last.subject:
        return None
    for der in (*client_trust, *roots):
        known = _load_certificate(der, "the trusted certificate")
        # A chain of several certificates is sent as it is.
        completes = len(identity.chain_der) == 1 or known.issuer == known.subject
        if completes and known.subject == last.issuer:
            return None
    return last.issuer.rfc4514_string()


def server_context(
    profiles: Collection[SecurityProfile],
    certificates: Sequence[TlsIdentity],
    *,
    client_trust: Sequence[bytes] = (),
    forward_secrecy_only: bool = False,
    ignore_client_validity: bool = False,
) -> ssl.SSLContext:
    """Return the TLS context of a CSMS endpoint for profile 2, profile 3, or both on one port.

    TLS 1.2 with the four mandated suites and nothing else, and TLS 1.3; no compression, no renegotiation, no session
    tickets. TLS 1.2 may still resume by session id, which Python cannot switch off: such a connection brings the
    certificate of its first handshake, and the upgrade checks that one again; another context knows no old session.
    Profile 3 demands a client certificate in
    the handshake; with 2 and 3 on one port it is asked for, and the upgrade decides.

    Args:
        certificates: at least one; one EC and one RSA to serve all mandated suites (see `missing_suites`).
        client_trust: DER of the CA certificates that station certificates may chain to; a sub-CA alone is enough.
        forward_secrecy_only: leave out the two TLS_RSA suites, against A00.FR.318.
        ignore_client_validity: let expired client certificates through the handshake, so that the upgrade
            judges them (A00.FR.429). The caller must then check validity itself: `identity` does for the leaf, and
            the leaf of a CA of ours never outlives its issuers.

    Raises:
        InputError: no certificate, or a trust anchor that is no CA certificate.
        PolicyRefusal: profile 1, which has no TLS, or profile 3 without `client_trust`.

    Clause: A00.FR.306 to A00.FR.323, A00.FR.401 to A00.FR.424.
    """
    if not profiles or not all(DEMANDS[profile].tls for profile in profiles):
        raise PolicyRefusal("security profile 1 has no TLS", why="A00.FR.201", fix="use profile 2, 3 or 2,3")
    if not certificates:
        raise InputError("a TLS endpoint needs a server certificate", fix="pass --tls-cert and --tls-key")
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.remake = lambda identities: server_context(
        profiles,
        identities,
        client_trust=client_trust,
        forward_secrecy_only=forward_secrecy_only,
        ignore_client_validity=ignore_client_validity,
    )
    _harden(context, FORWARD_SECRET_SUITES if forward_secrecy_only else MANDATED_SUITES)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    for identity in certificates:
        reload_identity(context, identity)
    _ask_for_clients(context, profiles, client_trust)
    if ignore_client_validity:
        context.verify_flags |= _NO_CHECK_TIME
    return context


def _ask_for_clients(
    context: ssl.SSLContext, profiles: Collection[SecurityProfile], client_trust: Sequence[bytes]
) -> None:
    if SecurityProfile.TLS_CLIENT_CERTIFICATE not in profiles:
        context.verify_mode = ssl.CERT_NONE
        return
    if not client_trust:
        raise PolicyRefusal(
            "profile 3 needs the CA certificates of its stations",
            why="client certificates are validated up to a trusted CA (A00.FR.403)",
            fix="pass --client-trust with the CA that issues station certificates",
        )
    context.verify_mode = (
        ssl.CERT_REQUIRED if set(profiles) == {SecurityProfile.TLS_CLIENT_CERTIFICATE} else ssl.CERT_OPTIONAL
    )
    anchors = [_load_certificate(der, "a trust anchor") for der in client_trust]
    if all(map(has_ml_dsa_key, anchors)):
        # One beside others is no harm: what is below it is refused in the handshake.
        check_no_tls(anchors[0])
    _load_anchors(context, client_trust)


class _ServerContext(ssl.SSLContext):
    """What `server_context` makes, with what it takes to make another one like it."""

    remake: Callable[[Sequence[TlsIdentity]], ssl.SSLContext]
    identities: tuple[TlsIdentity, ...] = ()

    def take(self, identity: TlsIdentity) -> None:
        """Note an identity in the place of the one with the same kind of key."""
        kind = type(identity.private_key)
        self.identities = (*(each for each in self.identities if type(each.private_key) is not kind), identity)


def with_few_sessions(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return *context* for one more connection, or a new one like it once OpenSSL remembers many sessions in it.

    It remembers each session of TLS 1.2 with the certificates that the client showed, up to 20,480 of them, 12.7 KB
    each with one certificate and eight times as much with as many as may be sent. Python cannot tell it not to. Only
    a context of `server_context` can be made again; of what was changed in it afterwards, identities and the callback
    for server names are carried over.
    """
    if not isinstance(context, _ServerContext) or context.session_stats()["number"] < _MAX_SESSIONS:
        return context
    fresh = context.remake(context.identities)
    fresh.sni_callback = context.sni_callback
    return fresh


def client_context(
    trust: Sequence[bytes],
    *,
    identity: TlsIdentity | None = None,
    allow_wildcards: bool = False,
) -> ssl.SSLContext:
    """Return the TLS context of a station.

    OpenSSL matches the host name against the server certificate's dNSNames, or its CN where it has none. A name with
    a wildcard is refused before any octet of the connection request, credentials included, is sent.

    Args:
        trust: DER of the CSMS roots installed on the station; nothing else is trusted.
        identity: the station certificate of profile 3.
        allow_wildcards: the variable AllowCSMSTLSWildcards.

    Raises:
        InputError: no trust anchor, or one that is no CA certificate.

    Clause: A00.FR.308, A00.FR.309, A00.FR.411, A00.FR.412; 2.0.1 errata 2025-02 (wildcards).
    """
    if not trust:
        raise InputError(
            "a station without a CSMS root trusts no server", fix="install a CSMSRootCertificate, or pass --trust"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # ECDHE_RSA is not mandated and not forbidden; a station that offers exactly the mandated four is the plainest one.
    _harden(context, MANDATED_SUITES)
    context.check_hostname = True
    context.hostname_checks_common_name = True
    _load_anchors(context, trust)
    if identity is not None:
        reload_identity(context, identity)
    if not allow_wildcards:
        context.sslobject_class = _NoWildcardObject
        context.sslsocket_class = _NoWildcardSocket
    return context


def peer_chain(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> tuple[bytes, ...]:
    """Return what the peer sent as its certificate chain, in DER and leaf first; empty without a certificate.

    The handshake has validated the leaf; the others are what the peer chose to send along.

    Args:
        ssl_object: of a finished handshake; ``transport.get_extra_info("ssl_object")`` in asyncio and uvloop.
    """
    leaf = ssl_object.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    # Public since Python 3.13; before that the same method exists on the object inside, and returns objects.
    source = ssl_object if hasattr(ssl_object, "get_unverified_chain") else getattr(ssl_object, "_sslobj", None)
    read = getattr(source, "get_unverified_chain", None)
    found = (read() or ()) if callable(read) else ()
    others = (item if isinstance(item, bytes) else bytes(item.public_bytes(_DER)) for item in found)
    return (leaf, *(der for der in others if der != leaf))


class PeerChain(Sequence[bytes]):
    """What `peer_chain` returns, read as far as somebody asks: as a rule nobody looks behind the leaf."""

    __slots__ = ("_all", "_leaf", "_ssl_object")

    def __init__(self, leaf: bytes, ssl_object: ssl.SSLObject | ssl.SSLSocket) -> None:
        self._leaf, self._ssl_object = leaf, ssl_object
        self._all: tuple[bytes, ...] | None = None

    @classmethod
    def of(cls, ssl_object: ssl.SSLObject | ssl.SSLSocket) -> Sequence[bytes]:
        """Return the chain of a finished handshake, empty without a certificate."""
        leaf = ssl_object.getpeercert(binary_form=True)
        return () if leaf is None else cls(leaf, ssl_object)

    def _read(self) -> tuple[bytes, ...]:
        if self._all is None:
            self._all = peer_chain(self._ssl_object)
        return self._all

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[bytes, ...]: ...

    def __getitem__(self, index: int | slice) -> bytes | tuple[bytes, ...]:
        return self._leaf if index == 0 else self._read()[index]


def check_no_wildcard(certificate_der: bytes) -> None:
    """Refuse a server certificate with a wildcard in its CN or in any dNSName.

    Raises:
        InputError: not a certificate.
        PolicyRefusal: a name holds ``*``.

    Clause: 2.0.1 errata 2025-02, AllowCSMSTLSWildcards.
    """
    certificate = _load_certificate(certificate_der, "the server certificate")
    try:
        found = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found += extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        pass
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise InputError("the server certificate's names cannot be decoded", why=str(error)) from error
    wild = [name for name in found if "*" in name]
    if wild:
        raise PolicyRefusal(
            f"the server certificate holds the wildcard name {wild[0]!r}",
            why="wildcards are refused unless AllowCSMSTLSWildcards is true (2.0.1 errata 2025-02)",
            fix="issue the CSMS a certificate for its host name",
        )


class _NoWildcardObject(ssl.SSLObject):
    """Checks the server's names as part of the handshake: afterwards the credentials are already on their way."""

    def do_handshake(self) -> None:
        super().do_handshake()
        _check_peer(self.getpeercert(binary_form=True))


class _NoWildcardSocket(ssl.SSLSocket):
    """The same for plain sockets."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check_peer(self.getpeercert(binary_form=True))


def _check_peer(certificate_der: bytes | None) -> None:
    if certificate_der is None:
        raise ssl.SSLCertVerificationError("the server presented no certificate")
    try:
        check_no_wildcard(certificate_der)
    except (InputError, PolicyRefusal) as error:
        # Event loops understand the ssl module's errors; ours would escape from the middle of a handshake.
        raise ssl.SSLCertVerificationError(str(error)) from error


def _harden(context: ssl.SSLContext, suites: Sequence[str]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.3 suites are not governed by this call and stay as OpenSSL has them: AES-GCM and ChaCha20-Poly1305.
    context.set_ciphers(":".join(suites))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_anchors(context: ssl.SSLContext, anchors: Sequence[bytes]) -> None:
    for der in anchors:
        certificate = _load_certificate(der, "a trust anchor")
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (
            x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError
        ) as error:  # fmt: skip
            raise InputError(
                f"trust anchor {certificate.subject.rfc4514_string()!r} is no CA certificate",
                why="it has no readable basicConstraints extension",
            ) from error
        if not constraints.ca:
            raise InputError(
                f"trust anchor {certificate.subject.rfc4514_string()!r} is no CA certificate",
                why="a leaf as anchor would be accepted whatever its issuer does",
                fix="pass the certificate of the CA that issues the peer's certificates",
            )
        context.load_verify_locations(cadata=der)
    # A sub-CA in the trust file is an anchor in its own right (OCPP part 2, block M allows both shapes).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def reload_identity(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """Put *identity* in the place of the one with the same kind of key; live connections keep theirs.

    The key touches the disk only encrypted, under a password made for this call: the ssl module takes files alone.

    Raises:
        PolicyRefusal: ML-DSA is in it.
        SignerError: OpenSSL does not take the certificate and key.
    """
    for der in identity.chain_der:
        check_no_tls(x509.load_der_x509_certificate(der))
    password = secrets.token_hex(32)
    pem = b"".join(
        x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in identity.chain_der
    )
    with tempfile.TemporaryDirectory(prefix="chargepki-") as folder:
        certificate_file, key_file = Path(folder, "chain.pem"), Path(folder, "key.pem")
        files.write_new(certificate_file, pem)
        files.write_new(
            key_file,
            identity.private_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode("ascii")),
            ),
        )
        try:
            context.load_cert_chain(certificate_file, key_file, password=password)
            if isinstance(context, _ServerContext):
                context.take(identity)
        except ssl.SSLError as error:
            raise SignerError(
                "OpenSSL does not take the TLS certificate and key",
                why=str(error.reason or error),
                fix="use an EC key on P-256, P-384 or P-521, or RSA of at least 2048 bits",
            ) from error


def _load_certificate(der: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise InputError(f"{what} cannot be decoded", why=str(error)) from error


def _parse_chain(pem: bytes, source: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise InputError(
            f"{source} holds no PEM certificate that can be read",
            why=str(error),
            fix="pass the certificate file of the server, leaf first, in PEM",
        ) from error
