"""The TLS listener's context: TLS 1.2 and 1.3, and certificates that can be replaced while it serves."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509

from chargepki.pki import files
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.post_quantum import check_no_tls

__all__ = ["TlsFiles"]

_log = logging.getLogger(__name__)
_MAX_PEM_BYTES = 1 << 20
_MAX_SESSIONS = 128
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN
# Forward secrecy and authenticated encryption only; the suites of TLS 1.3 are not governed by this list.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsFiles:
    """Certificate chain and key in files, loaded into one context and again when they change."""

    def __init__(self, certificate: Path, key: Path, *, client_trust: Callable[[], bytes] | None = None) -> None:
        """Load both.

        Args:
            client_trust: returns as PEM what client certificates may chain to; asked again at each look at the files.
                A client without a certificate is let in all the same. ``None`` asks for none.

        Raises:
            InputError: they are no PEM, or do not belong together.
            UnavailableError: a file cannot be read.
        """
        self._certificate, self._key, self._client_trust = certificate, key, client_trust
        self._trusted = b""
        self._context = self._load()
        self._remembered = 0
        self._trust_more()
        self._stamp = self._read_stamp()
        self.not_after = self._read_end()

    def take_context(self) -> ssl.SSLContext:
        """Return the context for one more connection; a new one when OpenSSL remembers many sessions in the old one.

        It remembers the session of a client that knows TLS 1.2 and no tickets, with the certificates that it showed:
        20,480 of them, 12.7 KB each with one certificate and eight times as much with as many as may be sent. Python
        cannot tell it not to. What else resumes sessions does so by tickets, which take no memory here.
        """
        remembered = self._context.session_stats()["number"]
        if remembered < self._remembered + _MAX_SESSIONS:
            return self._context
        try:
            context = self._load()
            if self._trusted:
                context.load_verify_locations(cadata=self._trusted.decode())
            self._context, self._remembered = context, 0
        except (ChargePkiError, OSError, ssl.SSLError) as error:
            # `reload` says so too. The bound is OpenSSL's own then, until the files can be used again.
            _log.error("the TLS files cannot be loaded: %s", error, extra={"alert": "tls"})
            self._remembered = remembered
        return self._context

    def reload(self, *, force: bool = False) -> bool:
        """Load the files again if they changed; existing connections keep what they have.

        What cannot be used is reported and not used: the listener goes on with the certificate it has.
        """
        self._trust_more()
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp and not force:
                return False
            self._load()  # a context of its own first: one that is half replaced would serve nobody
            self._context.load_cert_chain(self._certificate, self._key, password=_no_password)
            self._stamp = stamp
            self.not_after = self._read_end()
        except (ChargePkiError, OSError, ssl.SSLError) as error:
            _log.error("the TLS certificate was not loaded again: %s", error, extra={"alert": "tls"})
            return False
        _log.info("the TLS certificate was loaded again; it ends at %s", self.not_after.isoformat())
        return True

    def _read_stamp(self) -> tuple[int, ...]:
        found: list[int] = []
        for path in (self._certificate, self._key):
            status = path.stat()
            found += (status.st_mtime_ns, status.st_ino, status.st_size)
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        for path in (self._certificate, self._key):
            files.read_limited(path, _MAX_PEM_BYTES, "TLS file")
        self._check_algorithms()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_SUITES)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise InputError(
                f"{self._certificate} and {self._key} cannot be used for TLS",
                why=getattr(error, "reason", None) or str(error),
                fix="give a PEM chain, leaf first, and its unencrypted PEM key",
            ) from error
        if self._client_trust is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            # An account may be known by a certificate whose issuer is not ours: each listed one is an anchor by itself.
            # What it may do is decided for each request, revocation included.
            context.verify_flags |= ssl.VerifyFlags(_PARTIAL_CHAIN)
        return context

    def _check_algorithms(self) -> None:
        try:
            chain = x509.load_pem_x509_certificates(self._certificate.read_bytes())
        except ValueError:
            return  # OpenSSL says what is wrong with it
        for certificate in chain:
            check_no_tls(certificate)

    def _trust_more(self) -> None:
        """Take up client certificates that have been added; what was removed is refused for each request."""
        if self._client_trust is None:
            return
        try:
            trusted = self._client_trust()
            if trusted and trusted != self._trusted:
                self._context.load_verify_locations(cadata=trusted.decode())
                self._trusted = trusted
        except (ChargePkiError, ssl.SSLError, ValueError) as error:
            _log.warning("the list of client certificates was not read: %s", error)

    def _read_end(self) -> datetime:
        try:
            return x509.load_pem_x509_certificates(self._certificate.read_bytes())[0].not_valid_after_utc
        except ValueError as error:
            raise InputError(f"{self._certificate} holds no certificate", why=str(error)) from error


def _no_password() -> str:
    # OpenSSL would ask on the terminal, and a service has none.
    raise InputError("the TLS key is encrypted", fix="decrypt it with: openssl pkey -in KEY -out PLAIN; mode 0600")
