"""Whether a leaf belongs to whom it should: host names of a CSMS, serial number and owner of a charging station."""

from __future__ import annotations

from dataclasses import dataclass

from chargepki.pki import oids
from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.chain.policy import Purpose
from chargepki.pki.chain.refusals import PathRefusal, refuse
from chargepki.pki.der import DerError

__all__ = ["Identity", "check_identity"]

_DNS = 2
_IP = 7


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the leaf must belong to; ``None`` where it does not matter."""

    hostname: str | None = None
    """DNS name or IP address that was connected to."""
    serial_number: str | None = None
    """Serial number of the charging station, as its CN must have it (OCPP A00.FR.511)."""
    organization: str | None = None
    """Owner of station or CSMS, as O must have it (OCPP A00.FR.509)."""
    allow_wildcards: bool = False
    """Accept ``*.`` as the left-most label. Stations refuse it unless AllowCSMSTLSWildcards says otherwise."""

    def uses_common_name(self, purpose: Purpose) -> bool:
        """Whether the CN may be taken for a host name."""
        return self.hostname is not None and purpose is Purpose.CSMS


def check_identity(leaf: PathCertificate, identity: Identity, purpose: Purpose) -> None:
    """Compare the leaf with *identity*.

    Raises:
        PathRefusal: it belongs to someone else.

    Clause: RFC 9525 6; OCPP A00.FR.509 to FR.511.
    """
    try:
        if identity.hostname is not None:
            _check_host(leaf, identity.hostname, identity, purpose)
    except DerError as error:
        raise _other(leaf, "hostname", f"its SubjectAltName cannot be decoded: {error.what}", "RFC 9525 6.3") from error
    if identity.serial_number is not None:
        found = leaf.subject_values(oids.COMMON_NAME)
        if found != [identity.serial_number]:
            why = f"CN is {_shown(found)}, the station's serial number is {identity.serial_number!r}"
            raise _other(leaf, "serial-number", why, "OCPP A00.FR.511")
    if identity.organization is not None:
        found = leaf.subject_values(oids.ORGANIZATION_NAME)
        if found != [identity.organization]:
            why = f"O is {_shown(found)}, expected is {identity.organization!r}"
            raise _other(leaf, "organization", why, "OCPP A00.FR.509")


def _shown(values: list[str]) -> str:
    return ", ".join(repr(value[:100]) for value in values[:5]) or "absent"


def _other(leaf: PathCertificate, rule: str, why: str, clause: str) -> PathRefusal:
    fix = "connect to the right peer, or have the certificate issued for this one"
    return refuse(leaf, 0, "the certificate belongs to someone else", rule=rule, clause=clause, why=why, fix=fix)


def _check_host(leaf: PathCertificate, hostname: str, identity: Identity, purpose: Purpose) -> None:
    import ipaddress  # few paths are validated for a host

    names = leaf.subject_names
    try:
        address = ipaddress.ip_address(hostname.strip("[]"))
    except ValueError:
        address = None
    if address is not None:
        found = [name.value for name in names if name.tag == _IP]
        if address.packed not in found:
            raise _other(leaf, "hostname", f"no iPAddress is {hostname}; {len(found)} are there", "RFC 9525 6.4")
        return
    hosts = [name.value.decode("latin-1") for name in names if name.tag == _DNS]
    if not hosts and identity.uses_common_name(purpose):
        # OCPP puts the FQDN into the CN (A00.FR.510); RFC 9525 reads no CN, so it counts only where no dNSName is.
        hosts = leaf.subject_values(oids.COMMON_NAME)
    wanted = _folded(hostname)
    if not any(_matches(_folded(host), wanted, wildcards=identity.allow_wildcards) for host in hosts):
        why = f"its host names are {_shown(hosts)}, connected was to {hostname[:253]!r}"
        if any(host.startswith("*.") for host in hosts) and not identity.allow_wildcards:
            why += "; wildcards are not accepted"
        raise _other(leaf, "hostname", why, "RFC 9525 6.3; OCPP A00.FR.510")


def _folded(host: str) -> str:
    host = host.removesuffix(".")
    try:
        return host.encode("idna").decode().lower() if not host.isascii() else host.lower()
    except UnicodeError:
        return host.casefold()


def _matches(pattern: str, host: str, *, wildcards: bool) -> bool:
    if pattern.startswith("*."):
        return wildcards and "." in host and pattern.count(".") >= 2 and host.partition(".")[2] == pattern[2:]
    return pattern == host
