"""What the folders of known software say a certificate is for, by the names of files and folders.

The names are those of EcoG iso15118 (Josev, ``create_certs.sh``; its older spelling too), EVerest (libevse-security),
MaEVe (``config/certificates``) and CitrineOS (``assets/certificates``).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["role_of"]

_PLAIN: Final = re.compile(r"[^a-z0-9]+")
_SUFFIX: Final = re.compile(r"(cert|certificate|crt)?(sample)?\Z")
_FILES: Final = {
    "v2grootca": "v2g-root",
    "v2groot": "v2g-root",
    "rootv2g": "v2g-root",
    "cposubca1": "cpo-sub1",
    "cposubca2": "cpo-sub2",
    "seccleaf": "secc",
    "cpocertchain": "secc-chain",
    "oemrootca": "oem-root",
    "oemsubca1": "oem-sub1",
    "oemsubca2": "oem-sub2",
    "oemleaf": "oem-provisioning",
    "oemcertchain": "oem-chain",
    "morootca": "mo-root",
    "mosubca1": "mo-sub1",
    "mosubca2": "mo-sub2",
    "moleaf": "contract",
    "contractleaf": "contract",
    "intermediatemocacerts": "mo-sub-cas",
    "cpssubca1": "cps-sub1",
    "cpssubca2": "cps-sub2",
    "cpsleaf": "cps",
    "intermediatecpscacerts": "cps-sub-cas",
    "csmsrootca": "csms-root",
    "csmsleaf": "charging-station",
    "mfrootca": "manufacturer-root",
    "csms": "csms",
    "certchain": "csms-chain",
    "rootcertificate": "csms-root",
    "mtlscaroot": "station-root",
    "tls": "csms",
}
_FOLDERS: Final = {
    "ca": {
        "v2g": "v2g-trust",
        "csms": "csms-trust",
        "cso": "cso-trust",
        "mf": "manufacturer-trust",
        "mo": "mo-trust",
        "oem": "oem-trust",
        "cps": "cps-trust",
    },
    "client": {
        "csms": "csms-client",
        "cso": "secc",
        "v2g": "v2g-client",
        "mo": "mo-client",
        "oem": "oem-client",
        "cps": "cps-client",
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
    found = _FILES.get(stem) or _FILES.get(_SUFFIX.sub("", stem))
    for above, folder in zip(folders[-2:-1], folders[-1:], strict=False):
        known = _FOLDERS.get(above, {})
        if folder in known:
            return found or known[folder]
    # A name that is common elsewhere says something in its own folder only.
    if found in ("csms", "csms-chain", "csms-root", "station-root") and folders[-1:] != ["certificates"]:
        return None
    return found
