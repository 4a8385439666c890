"""Groups of standards, and small helpers that several rule modules share."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from chargepki.pki.extension_view import GeneralName
from chargepki.pki.lint.view import CertificateView
from chargepki.pki.profiles.base import KeyUsageBit, Standard

__all__ = [
    "ISO2",
    "ISO20",
    "ISO20_2022",
    "ISO20_A1",
    "OCPP",
    "V2G",
    "has_bits",
    "is_hostname",
    "is_ip_address",
    "missing_bits",
    "pointer_names",
    "split_url",
]

ISO2: Final = frozenset({Standard.ISO15118_2})
ISO20_2022: Final = frozenset({Standard.ISO15118_20})
ISO20_A1: Final = frozenset({Standard.ISO15118_20_A1})
ISO20: Final = ISO20_2022 | ISO20_A1
V2G: Final = ISO2 | ISO20
OCPP: Final = frozenset({Standard.OCPP})

_ADDRESS_HEAD: Final = re.compile(r"[0-9A-Fa-f]{0,4}[.:]")
"""How every address begins: a first number of at most four digits, and what separates it from the next."""
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_BIT: Final = {bit: bit.bit for bit in KeyUsageBit}


def has_bits(view: CertificateView, *bits: KeyUsageBit) -> bool:
    """Whether the certificate asserts every one of *bits*."""
    usage = view.known.key_usage
    return usage is not None and all(usage.has(_BIT[bit]) for bit in bits)


def missing_bits(view: CertificateView, *bits: KeyUsageBit) -> str | None:
    """Return a message that names those of *bits* that are not set, or ``None``."""
    usage = view.known.key_usage
    absent = [bit.value for bit in bits if usage is None or not usage.has(_BIT[bit])]
    return f"keyUsage lacks {', '.join(absent)}" if absent else None


def pointer_names(view: CertificateView) -> list[tuple[str, GeneralName]]:
    """Return every name in CRLDistributionPoints and AuthorityInfoAccess, with the extension's name."""
    names = [("cRLDistributionPoints", name) for name in view.known.crl_points or ()]
    names += [("authorityInfoAccess", access.location) for access in view.known.authority_info or ()]
    return names


def split_url(text: str) -> SplitResult | None:
    """Return the parts of a URL, or ``None`` when it cannot be taken apart."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # reading the property checks that the port is a number
    except ValueError:
        return None
    return parts


def is_ip_address(text: str) -> bool:
    """Whether *text* is an IPv4 or IPv6 address, brackets allowed."""
    bare = text.strip("[]")
    # What begins like neither is told apart without the library's two failed attempts and their exceptions.
    if not _ADDRESS_HEAD.match(bare):
        return False
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def is_hostname(text: str, *, qualified: bool) -> bool:
    """Whether *text* has the form of a host name; a *qualified* one has a dot and ends in letters.

    >>> is_hostname("cs.example.org", qualified=True), is_hostname("EVB-P17390866", qualified=True)
    (True, False)
    """
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    # A serial number with dots is common; only a last label that can be a top-level domain makes it a name.
    return not qualified or (len(labels) > 1 and len(labels[-1]) > 1 and labels[-1].isalpha())
