"""The folders of two other CSMSs: MaEVe's ``config/certificates`` and CitrineOS' ``assets/certificates``."""

from __future__ import annotations

from pathlib import PurePosixPath

from chargepki.pki.layouts.base import LayoutFile, Material, Role, cer, key_pem, require

__all__ = ["lay_out_citrineos", "lay_out_maeve"]


def lay_out_maeve(material: Material) -> tuple[LayoutFile, ...]:
    """Return the files of MaEVe: its server's chain and key, what its stations' certificates lead to, and the roots.

    Raises:
        StateError: it could not start.
    """
    require(material, "maeve", (Role.CSMS, Role.V2G_ROOT), keys=(Role.CSMS,))
    files = [
        *cer("", "csms", *material.chain(Role.CSMS, Role.CSO_SUB)),
        *cer("", "cpo_sub_ca1", *material.chain(Role.CPO_SUB1)),
        *cer("", "cpo_sub_ca2", *material.chain(Role.CPO_SUB2)),
        *cer("", "trust", *material.chain(Role.CSO_SUB, Role.CSO_ROOT, Role.CPO_SUB2, Role.CPO_SUB1)),
        *cer("", "root-V2G-cert", *material.chain(Role.V2G_ROOT)),
        *cer("", "root-MO-cert", *material.chain(Role.MO_ROOT)),
    ]
    return (*files, LayoutFile(PurePosixPath("csms.key"), key_pem(material.keys[Role.CSMS]), secret=True))


def lay_out_citrineos(material: Material) -> tuple[LayoutFile, ...]:
    """Return the files of CitrineOS: its server's chain and key, the root of its stations, the sub-CA it signs with.

    Raises:
        StateError: it could not start.
    """
    roles = (Role.CSMS, Role.CSO_SUB, Role.CSO_ROOT)
    require(material, "citrineos", roles, keys=(Role.CSMS, Role.CSO_SUB))
    keys = {"leafKey.pem": Role.CSMS, "subCAKey.pem": Role.CSO_SUB}
    return (
        *cer("", "certChain", *material.chain(Role.CSMS, Role.CSO_SUB)),
        *cer("", "rootCertificate", *material.chain(Role.CSO_ROOT)),
        *(LayoutFile(PurePosixPath(name), key_pem(material.keys[role]), secret=True) for name, role in keys.items()),
    )
