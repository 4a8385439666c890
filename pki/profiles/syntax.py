"""What a subject attribute's value must look like, by the grammar that the profile names."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from chargepki.pki.errors import InputError
from chargepki.pki.identifiers import Emaid, EvccId, EvseId, Pcid, SeccId
from chargepki.pki.profiles.base import Standard, Syntax

__all__ = ["SyntaxFault", "check_dns_name", "check_value", "looks_like_host"]

_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z", re.ASCII)
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}\Z", re.ASCII)
_MAX_SERIAL_NUMBER: Final = 25  # OCPP 2.0.1 and 2.1: chargingStation.serialNumber
_PCID_WITH_CHECK_CHARACTER: Final = 18


@dataclass(frozen=True, slots=True)
class SyntaxFault:
    """What is wrong with a value. A fault that is not `fatal` deserves a notice: sources or practice disagree."""

    fatal: bool
    what: str
    clause: str
    fix: str = ""


def check_value(syntax: Syntax, value: str, standard: Standard) -> tuple[SyntaxFault, ...]:
    """Return the faults of *value* under *syntax*, the fatal ones first; an empty tuple when there is none."""
    basic = _basic_fault(value)
    if basic:
        return (basic,)
    match syntax:
        case Syntax.EMAID:
            return _check_emaid(value)
        case Syntax.PCID:
            return _check_pcid(value, standard)
        case Syntax.EVCCID:
            return _check_evccid(value)
        case Syntax.SECC_ID:
            return _check_secc_id(value)
        case Syntax.STATION_SERIAL:
            return _check_station_serial(value)
        case Syntax.HOSTNAME:
            return _check_hostname(value)
        case Syntax.COUNTRY:
            return _check_country(value)
        case Syntax.TEXT:
            return ()


def looks_like_host(text: str) -> bool:
    """Return whether *text* reads as a URL, an IP address or a host name with a dot.

    Such a CN could pass as a server's, which A00.FR.511 rules out. A serial number such as ``SN.2024.01`` is none: a
    top-level domain is never numeric.

    >>> [looks_like_host(text) for text in ("cs.example.org", "10.0.0.7", "wss://x", "SN.2024.01", "00:1A:2B:3C:4D:5E")]
    [True, True, True, False, False]
    """
    if "." not in text and ":" not in text:
        return text.lower() == "localhost"
    bare = text.removeprefix("[").removesuffix("]").rstrip(".")
    if "://" in text or _is_address(bare) or bare.lower() == "localhost":
        return True
    # A port after a host does not make it less of a host.
    host, _, port = bare.rpartition(":")
    if host and port.isdecimal() and (_is_address(host) or "." in host):
        bare = host
    labels = bare.removeprefix("*.").split(".")
    return len(labels) > 1 and all(map(_LABEL.match, labels)) and not labels[-1].isdecimal()


def check_dns_name(name: str) -> SyntaxFault | None:
    """Return what keeps *name* from being a dNSName of a CSMS certificate, or ``None``.

    Clause: RFC 5280 4.2.1.6; OCPP: wildcards are rejected by default (SecurityCtrlr.AllowCSMSTLSWildcards).
    """
    clause = "OCPP A00.FR.510"
    if "*" in name:
        return SyntaxFault(
            True, f"{name!r} is a wildcard, which stations reject by default", clause, "name each host with --dns"
        )
    if _is_address(name):
        return SyntaxFault(True, f"{name!r} is an IP address, not a host name", clause, "give the endpoint a host name")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.match, labels)) or labels[-1].isdecimal():
        return SyntaxFault(
            True,
            f"{name!r} is not a host name",
            clause,
            "letters, digits and hyphens between dots; punycode for others",
        )
    return None


def _basic_fault(value: str) -> SyntaxFault | None:
    if not value:
        return SyntaxFault(True, "the value is empty", "X.520: at least one character")
    if not value.isprintable():
        return SyntaxFault(True, f"{value!r} holds control or invisible characters", "RFC 5280 4.1.2.4")
    if value != value.strip() or "  " in value:
        # RFC 5280 7.1 ignores such spaces when it compares names, so two texts would be one identity.
        return SyntaxFault(True, f"{value!r} has spaces that name comparison ignores", "RFC 5280 7.1", "remove them")
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_emaid(value: str) -> tuple[SyntaxFault, ...]:
    try:
        emaid = Emaid.parse(value)
    except InputError as exc:
        return (SyntaxFault(True, exc.what, "ISO 15118-2 Annex H.1", exc.fix),)
    faults = []
    if emaid.check_digit_ok is False:
        faults.append(
            SyntaxFault(
                False, f"the check digit of {value!r} is wrong", "eMI3 check digit", "compare with the contract"
            )
        )
    if value != emaid.normalised:
        faults.append(
            SyntaxFault(
                False,
                f"{value!r} is written with separators or in lower case",
                "ISO 15118-2 schema eMAIDType",
                f"{emaid.normalised} is the form on the wire",
            )
        )
    return tuple(faults)


def _check_pcid(value: str, standard: Standard) -> tuple[SyntaxFault, ...]:
    try:
        Pcid.parse(value)
    except InputError as exc:
        return (SyntaxFault(True, exc.what, "ISO 15118-2 [V2G2-933]; 17 or 18 letters and digits", exc.fix),)
    if standard is not Standard.ISO15118_2 and len(value) != _PCID_WITH_CHECK_CHARACTER:
        return (
            SyntaxFault(
                False,
                f"{value!r} has {len(value)} characters, contract delivery needs 18",
                "ISO 15118-20 [V2G20-2492]",
                "append the check character",
            ),
        )
    return ()


def _check_evccid(value: str) -> tuple[SyntaxFault, ...]:
    try:
        evccid = EvccId.parse(value)
    except InputError as exc:
        return (SyntaxFault(True, exc.what, "ISO 15118-20 [V2G20-2598], C.5", exc.fix),)
    faults = []
    # Both rules come from one implementation, whose own samples break the first.
    if not evccid.check_digit_ok:
        faults.append(SyntaxFault(False, f"the check character of {value!r} is wrong", "ISO 15118-20 C.6"))
    if evccid.has_banned_letters:
        faults.append(SyntaxFault(False, f"{value!r} holds I, O or Q", "ISO 15118-20 C.5"))
    return tuple(faults)


def _check_secc_id(value: str) -> tuple[SyntaxFault, ...]:
    for grammar in (EvseId, SeccId):
        try:
            grammar.parse(value)
        except InputError:
            continue
        return ()
    return (
        SyntaxFault(
            False,
            f"{value!r} is neither an EVSEID nor a SECCID",
            "ISO 15118-2 Annex F leaves the identifier to the operator; contract pools want one of these",
            "for example DE*ICE*E45B*78C",
        ),
    )


def _check_station_serial(value: str) -> tuple[SyntaxFault, ...]:
    if looks_like_host(value):
        return (
            SyntaxFault(
                True,
                f"{value!r} looks like a URL, a host name or an IP address",
                "OCPP A00.FR.511: it could pass as a server's certificate",
                "use the station's serial number",
            ),
        )
    if unicodedata.normalize("NFKC", value) != value:
        # Full-width letters and ligatures: name comparison takes them for the plain ones, so for another station.
        return (
            SyntaxFault(
                True,
                f"{value!r} holds compatibility characters, which name comparison takes for plain ones",
                "RFC 5280 7.1, RFC 4518 2.3",
                "write the serial number in plain letters",
            ),
        )
    if len(value) > _MAX_SERIAL_NUMBER:
        return (
            SyntaxFault(
                False,
                f"{value!r} is longer than a serial number in BootNotification (25)",
                "OCPP B01.FR.11 compares the two",
            ),
        )
    return ()


def _check_hostname(value: str) -> tuple[SyntaxFault, ...]:
    fault = check_dns_name(value)
    if fault:
        return (fault,)
    if "." not in value:
        return (
            SyntaxFault(False, f"{value!r} is not fully qualified", "OCPP A00.FR.510: CN is the FQDN of the endpoint"),
        )
    return ()


def _check_country(value: str) -> tuple[SyntaxFault, ...]:
    if not _COUNTRY.match(value):
        return (
            SyntaxFault(True, f"{value!r} is not a country code", "RFC 5280 Appendix A: two letters", "for example DE"),
        )
    if not value.isupper():
        return (SyntaxFault(False, f"{value!r} is written in upper case", "ISO 3166-1"),)
    return ()
