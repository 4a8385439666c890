"""The folder of an EVerest charging station: ``etc/everest/certs``, as its module EvseSecurity looks for it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from chargepki.pki.layouts.base import LayoutFile, Material, Role, cer, key_pem, require

__all__ = ["lay_out_everest"]

# Defaults of EvseSecurity's configuration: bundles below ca/, the leaves with their keys below client/.
_CERTIFICATES: Final[tuple[tuple[str, str, tuple[Role, ...]], ...]] = (
    ("ca/v2g", "V2G_ROOT_CA", (Role.V2G_ROOT,)),
    ("ca/mo", "MO_ROOT_CA", (Role.MO_ROOT,)),
    ("ca/mo", "MO_SUB_CA1", (Role.MO_SUB1,)),
    ("ca/mo", "MO_SUB_CA2", (Role.MO_SUB2,)),
    ("ca/oem", "OEM_ROOT_CA", (Role.OEM_ROOT,)),
    ("ca/cso", "CPO_SUB_CA1", (Role.CPO_SUB1,)),
    ("ca/cso", "CPO_SUB_CA2", (Role.CPO_SUB2,)),
    ("client/cso", "SECC_LEAF", (Role.SECC,)),
)
_BUNDLES: Final[tuple[tuple[str, str, tuple[Role, ...]], ...]] = (
    ("ca/mo", "INTERMEDIATE_MO_CA_CERTS", (Role.MO_SUB2, Role.MO_SUB1)),
    ("ca/csms", "CSMS_ROOT_CA", (Role.CSO_ROOT,)),
    ("ca/mf", "MF_ROOT_CA", (Role.MANUFACTURER_ROOT,)),
    ("client/cso", "CPO_CERT_CHAIN", (Role.SECC, Role.CPO_SUB2, Role.CPO_SUB1)),
    ("client/csms", "CSMS_LEAF", (Role.CHARGING_STATION, Role.CSO_SUB)),
)
_KEYS: Final = (("client/cso/SECC_LEAF.key", Role.SECC), ("client/csms/CSMS_LEAF.key", Role.CHARGING_STATION))


def lay_out_everest(material: Material) -> tuple[LayoutFile, ...]:
    """Return the files of a station.

    Raises:
        StateError: it could not serve a vehicle.
    """
    require(material, "everest", (Role.V2G_ROOT, Role.CPO_SUB2, Role.SECC, Role.MO_ROOT), keys=(Role.SECC,))
    files: list[LayoutFile] = []
    for folder, name, roles in _CERTIFICATES:
        files += cer(folder, name, *material.chain(*roles), der=True)
    for folder, name, roles in _BUNDLES:
        # A leaf's sub-CAs alone are no chain.
        if roles[0] in material.certificates:
            files += cer(folder, name, *material.chain(*roles))
    for path, role in _KEYS:
        if role in material.keys:
            files.append(LayoutFile(PurePosixPath(path), key_pem(material.keys[role]), secret=True))
    files.append(LayoutFile(PurePosixPath("client/cso/SECC_LEAF_PASSWORD.txt"), b"", secret=True))
    return tuple(files)
