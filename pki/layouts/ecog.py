"""The folder of the EcoG iso15118 simulators (Josev): ``PKI_PATH/iso15118_2/{certs,private_keys}``."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from chargepki.pki.layouts.base import LayoutFile, Material, Role, cer, key_pem, require

__all__ = ["lay_out_ecog"]

_CERTS: Final = "iso15118_2/certs"
_KEYS: Final = "iso15118_2/private_keys"
# File names as shared/security.py of iso15118 0.31 has them (CertPath, KeyPath, KeyPasswordPath).
_NAMES: Final = {
    Role.V2G_ROOT: "v2gRootCACert",
    Role.CPO_SUB1: "cpoSubCA1Cert",
    Role.CPO_SUB2: "cpoSubCA2Cert",
    Role.SECC: "seccLeafCert",
    Role.CPS_SUB1: "cpsSubCA1Cert",
    Role.CPS_SUB2: "cpsSubCA2Cert",
    Role.CPS: "cpsLeafCert",
    Role.MO_ROOT: "moRootCACert",
    Role.MO_SUB1: "moSubCA1Cert",
    Role.MO_SUB2: "moSubCA2Cert",
    Role.CONTRACT: "contractLeafCert",
    Role.OEM_ROOT: "oemRootCACert",
    Role.OEM_SUB1: "oemSubCA1Cert",
    Role.OEM_SUB2: "oemSubCA2Cert",
    Role.OEM_PROVISIONING: "oemLeafCert",
}
_KEY_NAMES: Final = {
    Role.SECC: "seccLeaf",
    Role.CPS: "cpsLeaf",
    Role.CONTRACT: "contractLeaf",
    Role.OEM_PROVISIONING: "oemLeaf",
}
# The simulators read a passphrase from a file for each key; an empty one says that there is none.
_PASSWORDS: Final = (
    "seccLeafPassword.txt",
    "oemLeafPassword.txt",
    "contractLeafPassword.txt",
    "cpsLeafPassword.txt",
    "moSubCA2LeafPassword.txt",
)


def lay_out_ecog(material: Material) -> tuple[LayoutFile, ...]:
    """Return the files for SECC and EVCC; both read one folder, or a copy of it each.

    Raises:
        StateError: neither could start.
    """
    roles = (Role.V2G_ROOT, Role.CPO_SUB2, Role.SECC, Role.MO_ROOT, Role.MO_SUB2, Role.OEM_PROVISIONING)
    require(material, "ecog-iso15118", roles, keys=(Role.SECC, Role.OEM_PROVISIONING))
    files: list[LayoutFile] = []
    for role, name in _NAMES.items():
        files += cer(_CERTS, name, *material.chain(role), der=True)
    files += cer(_CERTS, "cpoCertChain", *material.chain(Role.SECC, Role.CPO_SUB2, Role.CPO_SUB1))
    files += cer(_CERTS, "oemCertChain", *material.chain(Role.OEM_PROVISIONING, Role.OEM_SUB2, Role.OEM_SUB1))
    for role, name in _KEY_NAMES.items():
        if role in material.keys:
            files.append(LayoutFile(PurePosixPath(_KEYS, f"{name}.key"), key_pem(material.keys[role]), secret=True))
    files += [LayoutFile(PurePosixPath(_KEYS, name), b"", secret=True) for name in _PASSWORDS]
    return tuple(files)
