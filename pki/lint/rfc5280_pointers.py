"""RFC 5280: where certificates say that revocation lists, responders and issuers are."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from chargepki.pki.findings import Severity
from chargepki.pki.lint.engine import CertificateContext, Problem, Verdict, rule
from chargepki.pki.lint.standards import pointer_names, split_url

_URI, _DIRECTORY_NAME = 6, 4


@rule(
    "e_crldp_aia_scheme",
    "RFC 5280 4.2.1.13, 4.2.2.1",
    "pointers are http URLs with a host",
    hint="write http://HOST/PATH, without user and fragment",
    where="tbsCertificate.extensions",
)
def crldp_aia_scheme(context: CertificateContext) -> Verdict:
    """Directory names and ldap are legal, and of no use to a charging station."""
    problems = []
    for extension, name in pointer_names(context.view):
        if name.tag == _DIRECTORY_NAME:
            problems.append(Problem(f"{extension} holds a directory name", severity=Severity.NOTICE))
            continue
        scheme = _pointer_scheme(name.text) if name.tag == _URI else ""
        if scheme in ("ldap", "ldaps"):
            problems.append(Problem(f"{extension} {name.text[:80]} needs LDAP", severity=Severity.NOTICE))
        elif scheme != "http":
            problems.append(Problem(f"{extension} {name.text[:80]!r} is not an http URL with a host"))
    return problems


def _pointer_scheme(url: str) -> str:
    """Return ``ldap``, ``ldaps``, or ``http`` for an http(s) URL that a client can follow; otherwise nothing.

    The certificates of one CA carry the same few URLs, so answers about short ones are remembered.
    """
    return _remembered_scheme(url) if len(url) <= _MAX_REMEMBERED else _read_scheme(url)


def _read_scheme(url: str) -> str:
    parts = split_url(url)
    if parts is None:
        return ""
    scheme = parts.scheme.lower()
    if scheme in ("ldap", "ldaps"):
        return scheme
    plain = parts.hostname and parts.username is None and not parts.fragment
    return "http" if scheme in ("http", "https") and plain else ""


# Only short URLs, so that hostile ones cannot fill the memory.
_MAX_REMEMBERED: Final = 512
_remembered_scheme: Final = lru_cache(maxsize=256)(_read_scheme)


@rule(
    "w_revocation_https",
    "RFC 5280 8",
    "revocation pointers use http",
    hint="use http: the objects are signed, and checking the server's own certificate would need them first",
    where="tbsCertificate.extensions",
)
def revocation_https(context: CertificateContext) -> Verdict:
    """The pointed-to certificate may need the very pointer to be checked."""
    return [
        Problem(f"{extension} {name.text[:80]} is an https URL")
        for extension, name in pointer_names(context.view)
        if name.tag == _URI and name.content[:6].lower() == b"https:"
    ]


@rule(
    "w_placeholder_url",
    "RFC 2606; RFC 1918",
    "pointers lead to a public host",
    hint="set the public URL before issuing certificates for the field",
    where="tbsCertificate.extensions",
)
def placeholder_url(context: CertificateContext) -> Verdict:
    """Names reserved for examples, this host, and private addresses."""
    problems = []
    for extension, name in pointer_names(context.view):
        if name.tag == _URI and _leads_to_placeholder(name.text):
            problems.append(Problem(f"{extension} {name.text[:80]} leads to a placeholder"))
    return problems


def _leads_to_placeholder(url: str) -> bool:
    return _remembered_placeholder(url) if len(url) <= _MAX_REMEMBERED else _read_placeholder(url)


def _read_placeholder(url: str) -> bool:
    parts = split_url(url)
    return parts is not None and bool(parts.hostname) and _is_placeholder((parts.hostname or "").lower())


_remembered_placeholder: Final = lru_cache(maxsize=256)(_read_placeholder)


def _is_placeholder(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        labels = host.rstrip(".").split(".")
        reserved = labels[-1] in ("invalid", "localhost", "example", "test", "local")
        return reserved or labels[-2:] in (["example", "com"], ["example", "org"], ["example", "net"])
