"""Why a TLS handshake failed, in the operator's words: cause, cure, and the security event it amounts to."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from chargepki.ocpp_security.events import SecurityEvent

__all__ = ["TlsFailure", "explain_tls_failure"]


@dataclass(frozen=True, slots=True)
class TlsFailure:
    """One failed handshake, explained."""

    code: str
    """Stable short name, for example ``no-client-certificate``."""
    cause: str
    cure: str
    event: SecurityEvent | None
    """Standard security event that fits (OCPP 2.0.1 appendix), or ``None`` for what is no more than noise."""


_INVALID_CERTIFICATE = SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE
_NOT_AUTHENTICATED = SecurityEvent.CSMS_FAILED_TO_AUTHENTICATE
"""Who refuses our certificate says so by an alert: the authentication of the CSMS failed."""

# OpenSSL's reason names; where one is missing here, its own text is passed on.
_BY_REASON: dict[str, TlsFailure] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": TlsFailure(
        "no-client-certificate",
        "the station presented no client certificate, and this endpoint demands one (security profile 3)",
        "install a charging station certificate, or let the station come in on a profile 2 endpoint to enrol",
        _INVALID_CERTIFICATE,
    ),
    "NO_SHARED_CIPHER": TlsFailure(
        "no-shared-cipher",
        "the station offered no cipher suite that A00.FR.318 allows, or none that fits our server certificates",
        "give the endpoint both an EC and an RSA server certificate, or update the station's TLS configuration",
        SecurityEvent.INVALID_TLS_CIPHER_SUITE,
    ),
    "UNSUPPORTED_PROTOCOL": TlsFailure(
        "tls-version",
        "the station offered no TLS version from 1.2 upwards (A00.FR.313)",
        "update the station's TLS stack",
        SecurityEvent.INVALID_TLS_VERSION,
    ),
    "HTTP_REQUEST": TlsFailure(
        "plain-http",
        "plain HTTP was sent to a TLS port (a ws:// URL in place of wss://)",
        "configure the station with a wss:// URL",
        None,
    ),
    "WRONG_VERSION_NUMBER": TlsFailure(
        "not-tls", "what was sent is not TLS (often a ws:// URL in place of wss://)", "use a wss:// URL", None
    ),
    "CERTIFICATE_VERIFY_FAILED": TlsFailure(
        "client-certificate",
        "the station's certificate was not accepted",
        "give the issuing root with --client-trust, or enrol the station again",
        _INVALID_CERTIFICATE,
    ),
    "TLSV1_ALERT_UNKNOWN_CA": TlsFailure(
        "unknown-ca-alert",
        "the station does not trust our server certificate (alert unknown_ca)",
        "install the root of the server certificate on the station (CSMSRootCertificate)",
        _NOT_AUTHENTICATED,
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": TlsFailure(
        "bad-certificate-alert",
        "the station refused our server certificate (alert bad_certificate)",
        "check that the server certificate's name is the host in the station's URL and that its chain is complete",
        _NOT_AUTHENTICATED,
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": TlsFailure(
        "certificate-expired-alert",
        "the station holds our server certificate for expired",
        "renew the server certificate, or set the station's clock",
        _NOT_AUTHENTICATED,
    ),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": TlsFailure(
        "certificate-unknown-alert",
        "the station refused our server certificate without saying why (alert certificate_unknown)",
        "check the station's trusted roots, its clock, and the name in its URL",
        _NOT_AUTHENTICATED,
    ),
}
_BY_REASON["UNKNOWN_PROTOCOL"] = _BY_REASON["UNSUPPORTED_PROTOCOL"]
_BY_REASON["VERSION_TOO_LOW"] = _BY_REASON["UNSUPPORTED_PROTOCOL"]


_TRUST_CURE = (
    "let the station send its sub-CA with its certificate, or give the CA that issued it with --client-trust; "
    "`chargepki cert verify` explains the chain"
)
_UNKNOWN_ISSUER = TlsFailure(
    "client-certificate-untrusted",
    "the issuer of the station's certificate is neither trusted nor sent along: another CA, or a missing sub-CA",
    _TRUST_CURE,
    _INVALID_CERTIFICATE,
)
_UNKNOWN_ROOT = TlsFailure(
    "client-certificate-untrusted",
    "the station's certificate ends in a root that is not trusted here, perhaps one with the name of ours",
    _TRUST_CURE,
    _INVALID_CERTIFICATE,
)
_WEAK = TlsFailure(
    "client-certificate-weak",
    "the station's certificate, or one above it, has a key or a hash that is too weak (A00.FR.501 to FR.506)",
    "issue it again under a key of at least 112 bits of strength, with SHA-256",
    _INVALID_CERTIFICATE,
)
# X509_V_ERR_… of OpenSSL; what is missing here is told in its own words.
_BY_VERIFY_CODE: dict[int, TlsFailure] = {
    2: _UNKNOWN_ISSUER,
    20: _UNKNOWN_ISSUER,
    21: _UNKNOWN_ISSUER,
    18: _UNKNOWN_ROOT,
    19: _UNKNOWN_ROOT,
    7: TlsFailure(
        "client-certificate-forged",
        "a signature in the station's chain is not that of the CA whose name it bears (a rogue CA of the same name?)",
        "find out where this certificate comes from; enrol the station again if it is genuine",
        _INVALID_CERTIFICATE,
    ),
    26: TlsFailure(
        "client-certificate-purpose",
        "the station's certificate is not one for TLS clients (extendedKeyUsage)",
        "issue it from a profile for charging stations, without extendedKeyUsage (A00.FR.514)",
        _INVALID_CERTIFICATE,
    ),
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
}


def explain_tls_failure(error: OSError) -> TlsFailure:
    """Translate what `connect_accepted_socket` raised; the same on asyncio and uvloop.

    >>> explain_tls_failure(TimeoutError()).code
    'timeout'
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _BY_VERIFY_CODE.get(error.verify_code, _BY_REASON["CERTIFICATE_VERIFY_FAILED"])
        return TlsFailure(known.code, f"{known.cause}: {error.verify_message}", known.cure, known.event)
    if isinstance(error, ssl.SSLError) and error.reason:
        known_or_none = _BY_REASON.get(error.reason)
        if known_or_none is not None:
            return known_or_none
        return TlsFailure("tls", f"TLS error {error.reason}", "see the station's own log", None)
    if isinstance(error, TimeoutError) or "taking longer" in str(error):
        return TlsFailure(
            "timeout", "the TLS handshake was not finished in time", "check the link to the station", None
        )
    # Port scanners, health checks of load balancers, and TLS 1.3 clients that vanish end here.
    return TlsFailure("connection-lost", "the peer hung up during the TLS handshake", "see the station's own log", None)
