"""Whether the names of a certificate lie inside the subtrees that the CAs above it allow (RFC 5280 4.2.1.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki import der, names, oids
from chargepki.pki.chain.certificate import PathCertificate, same_name
from chargepki.pki.chain.extensions import GeneralName, NameConstraints, Subtree
from chargepki.pki.der import DerError

__all__ = ["NameSpace"]

_EMAIL: Final = 1
_DNS: Final = 2
_DIRECTORY: Final = 4
_URI: Final = 6
_IP: Final = 7
_KINDS: Final = {
    0: "otherName",
    _EMAIL: "e-mail",
    _DNS: "DNS name",
    3: "x400Address",
    _DIRECTORY: "directory name",
    5: "ediPartyName",
    _URI: "URI",
    _IP: "IP address",
    8: "registeredID",
}
_URI_HOST: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:\[\]]+)(?::\d*)?(?:[/?#]|\Z)")
_HOST: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+\Z")


@dataclass(slots=True)
class NameSpace:
    """The permitted and excluded subtrees collected from the anchor down to one certificate.

    Each CA's permitted subtrees are kept as one list: a name must lie in every list that speaks of its kind, which is
    the intersection that RFC 5280 6.1.4 (g) asks for, without computing it.
    """

    permitted: list[tuple[Subtree, ...]] = field(default_factory=list)
    excluded: list[Subtree] = field(default_factory=list)

    def narrow(self, constraints: NameConstraints) -> None:
        """Add the constraints of the next CA."""
        if constraints.permitted:
            self.permitted.append(constraints.permitted)
        self.excluded += constraints.excluded

    def violation(self, certificate: PathCertificate, *, common_name_is_host: bool) -> str | None:
        """Return what lies outside, in words, or ``None`` when every name is inside.

        Args:
            common_name_is_host: hold the CN to DNS constraints too when there is no dNSName, because it will be
                compared with a host name.
        """
        if not self.permitted and not self.excluded:
            return None
        for name in _names(certificate, common_name_is_host=common_name_is_host):
            for subtree in self.excluded:
                if subtree.base.tag == name.tag and _is_inside(name, subtree, excluding=True):
                    return f"the {_KINDS[name.tag]} {_shown(name)} lies in the excluded subtree {_shown(subtree.base)}"
            for subtrees in self.permitted:
                same_kind = [subtree for subtree in subtrees if subtree.base.tag == name.tag]
                if same_kind and not any(_is_inside(name, subtree, excluding=False) for subtree in same_kind):
                    inside = ", ".join(_shown(subtree.base) for subtree in same_kind[:5])
                    return f"the {_KINDS[name.tag]} {_shown(name)} lies outside of the permitted {inside}"
        return None


def _names(certificate: PathCertificate, *, common_name_is_host: bool) -> Iterator[GeneralName]:
    subject_names = certificate.subject_names
    if certificate.subject != b"\x30\x00":
        yield GeneralName(_DIRECTORY, certificate.subject)
    yield from subject_names
    if not any(name.tag == _EMAIL for name in subject_names):
        for value in certificate.subject_values(oids.EMAIL_ADDRESS):
            yield GeneralName(_EMAIL, value.encode())
    if common_name_is_host and not any(name.tag == _DNS for name in subject_names):
        for value in certificate.subject_values(oids.COMMON_NAME):
            if _HOST.match(value):
                yield GeneralName(_DNS, value.encode())


def _is_inside(name: GeneralName, subtree: Subtree, *, excluding: bool) -> bool:
    """Whether *name* lies in *subtree*; a form that cannot be judged counts against the certificate."""
    base = subtree.base
    if subtree.has_distance or name.tag not in (_EMAIL, _DNS, _DIRECTORY, _URI, _IP):
        return excluding
    if name.tag == _DIRECTORY:
        return _directory_inside(name.value, base.value)
    if name.tag == _IP:
        return _address_inside(name.value, base.value)
    text, limit = _folded(name.value), _folded(base.value)
    if name.tag == _DNS:
        return _dns_inside(text, limit, excluding=excluding)
    if name.tag == _EMAIL:
        return _email_inside(name.value, base.value)
    found = _URI_HOST.match(name.value.decode("latin-1"))
    if found is None or re.fullmatch(r"[0-9.]+", found[1]):
        return excluding  # no host to compare: RFC 5280 wants it refused
    host = found[1].casefold()
    return host.endswith(limit) and len(host) > len(limit) if limit.startswith(".") else host == limit or not limit


def _folded(value: bytes) -> str:
    return value.decode("latin-1").casefold()


def _directory_inside(name: bytes, base: bytes) -> bool:
    try:
        wanted = len(der.parse(base).children(der.SEQUENCE))
        rdns = der.parse(name).children(der.SEQUENCE)
    except DerError:
        return False
    head = der.sequence(*(rdn.raw for rdn in rdns[:wanted]))
    return len(rdns) >= wanted and same_name(head, base)


def _dns_inside(name: str, limit: str, *, excluding: bool) -> bool:
    name, limit = name.rstrip("."), limit.rstrip(".")
    if not limit:
        return True
    if limit.startswith("."):  # not in RFC 5280, but written: sub-domains only
        return name.endswith(limit) and len(name) > len(limit)
    if name == limit or name.endswith(f".{limit}"):
        return True
    # A wildcard stands for names of one more label; were one of them excluded, the certificate could be used for it.
    return excluding and name.startswith("*.") and limit.partition(".")[2] == name[2:]


def _email_inside(name: bytes, base: bytes) -> bool:
    local, _, host = name.decode("latin-1").rpartition("@")
    limit_local, at, limit_host = base.decode("latin-1").rpartition("@")
    host, limit_host = host.casefold(), limit_host.casefold()
    if at:
        return host == limit_host and local == limit_local
    if limit_host.startswith("."):
        return host.endswith(limit_host) and len(host) > len(limit_host)
    return host == limit_host or not limit_host


def _address_inside(address: bytes, base: bytes) -> bool:
    if len(base) != 2 * len(address) or len(address) not in (4, 16):
        return False
    network, mask = base[: len(address)], base[len(address) :]
    return all(a & m == n & m for a, n, m in zip(address, network, mask, strict=True))


def _shown(name: GeneralName) -> str:
    if name.tag == _DIRECTORY:
        return names.text(name.value)
    if name.tag == _IP:
        return name.value.hex()
    return repr(name.value[:100].decode("latin-1"))
