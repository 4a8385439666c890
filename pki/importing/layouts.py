"""What the folders of known software say a certificate is for, by the names of files and folders.

The names are those of EcoG iso15118 (Josev, ``create_certs.sh``, its older spelling and its ``--keysight`` too),
EVerest (libevse-security), MaEVe (``config/certificates``) and CitrineOS (``assets/certificates``).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["role_of"]

_PLAIN: Final = re.compile(r"[^a-z0-9]+")
_SUFFIX: Final = re.compile(r"(cert|certificate|crt)?(sample)?\Z")
_KEYSIGHT: Final = re.compile(r"pkiextcrt(.+)valid")
_HUBJECT: Final = re.compile(r"hubopenprovcert\d")
_FILES: Final = {
    "v2grootca": "v2g-root",
    "v2groot": "v2g-root",
    "rootv2g": "v2g-root",
    "cposubca1": "cpo-sub1",
    "cposubca1leaf": "cpo-sub1",
    "cposub1": "cpo-sub1",
    "cposubca2": "cpo-sub2",
    "cposubca2leaf": "cpo-sub2",
    "cposub2": "cpo-sub2",
    "seccleaf": "secc",
    "evseleaf": "secc",
    "cpocertchain": "secc-chain",
    "oemrootca": "oem-root",
    "oemroot": "oem-root",
    "oemsubca1": "oem-sub1",
    "oemsub1": "oem-sub1",
    "oemsubca2": "oem-sub2",
    "oemsub2": "oem-sub2",
    "oemleaf": "oem-provisioning",
    "oemcertchain": "oem-chain",
    "intermediateoemca": "oem-sub-cas",
    "intermediateoemcacerts": "oem-sub-cas",
    "evcckeystore": "oem-chain",
    "evcctruststore": "ev-trust",
    "morootca": "mo-root",
    "moroot": "mo-root",
    "rootmo": "mo-root",
    "mosubca1": "mo-sub1",
    "mosub1": "mo-sub1",
    "mosubca2": "mo-sub2",
    "mosub2": "mo-sub2",
    "moleaf": "contract",
    "contractleaf": "contract",
    "mocertchain": "contract-chain",
    "intermediatemocacerts": "mo-sub-cas",
    "cpssubca1": "cps-sub1",
    "cpssub1": "cps-sub1",
    "cpssubca2": "cps-sub2",
    "cpssub2": "cps-sub2",
    "cpsleaf": "cps",
    "cpscertchain": "cps-chain",
    "intermediatecpscacerts": "cps-sub-cas",
    "vehiclesubca1": "vehicle-sub1",
    "vehiclesubca2": "vehicle-sub2",
    "vehicleleaf": "vehicle",
    "vehiclecertchain": "vehicle-chain",
    "csmsrootca": "csms-root",
    "csmsleaf": "charging-station",
    "mfrootca": "manufacturer-root",
    "csms": "csms",
    "certchain": "csms-chain",
    "rootcertificate": "csms-root",
    "mtlscaroot": "station-root",
    "tls": "csms",
    "trust": "station-trust",
}
_ELSEWHERE_TOO: Final = frozenset({"csms", "certchain", "rootcertificate", "mtlscaroot", "tls", "trust"})
"""Names that say something in their own folder only."""
_FOLDERS: Final = {
    "ca": {
        "v2g": "v2g-trust",
        "csms": "csms-trust",
        "cso": "cso-trust",
        "mf": "manufacturer-trust",
        "mo": "mo-trust",
        "oem": "oem-trust",
        "cps": "cps-trust",
        "vehicle": "vehicle-trust",
    },
    "client": {
        "csms": "csms-client",
        "cso": "secc",
        "v2g": "v2g-client",
        "mo": "mo-client",
        "oem": "oem-client",
        "cps": "cps-client",
        "vehicle": "vehicle-client",
    },
}


def role_of(path: str) -> str | None:
    """Return what the file at *path* holds in one of those layouts, or ``None``.

    >>> role_of("/etc/everest/certs/ca/v2g/V2G_ROOT_CA.pem"), role_of("certs/client/csms/x.pem"), role_of("a/b.pem")
    ('v2g-root', 'csms-client', None)
    >>> role_of("iso15118_2/certs/cpoSubCA1Cert.der"), role_of("root-V2G-cert.pem")
    ('cpo-sub1', 'v2g-root')
    """
    *folders, name = path.replace("!", "/").lower().split("/")
    stem = _PLAIN.sub("", name.rpartition(".")[0])
    if _HUBJECT.match(stem):
        return "oem-provisioning"
    if (keysight := _KEYSIGHT.fullmatch(stem)) is not None:
        stem = keysight[1]
    if stem not in _FILES:
        stem = _SUFFIX.sub("", stem)
    found = _FILES.get(stem)
    for above, folder in zip(folders[-2:-1], folders[-1:], strict=False):
        known = _FOLDERS.get(above, {})
        if folder in known:
            return known[folder] if found is None or stem in _ELSEWHERE_TOO else found
    return None if stem in _ELSEWHERE_TOO and folders[-1:] != ["certificates"] else found
