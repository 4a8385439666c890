"""What a folder of another stack is made of: certificates by role, keys where that stack needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chargepki.pki.errors import StateError
from chargepki.pki.keys import PrivateKey
from chargepki.pki.pem import to_pem

__all__ = ["LayoutFile", "Material", "Role", "cer", "key_pem", "pem", "require"]


class Role(StrEnum):
    """Whose certificate or key it is; CAs and leaves by the names of their profiles."""

    V2G_ROOT = "v2g-root"
    CPO_SUB1 = "cpo-sub1"
    CPO_SUB2 = "cpo-sub2"
    SECC = "secc"
    CPS_SUB1 = "cps-sub1"
    CPS_SUB2 = "cps-sub2"
    CPS = "cps"
    MO_ROOT = "mo-root"
    MO_SUB1 = "mo-sub1"
    MO_SUB2 = "mo-sub2"
    CONTRACT = "contract"
    OEM_ROOT = "oem-root"
    OEM_SUB1 = "oem-sub1"
    OEM_SUB2 = "oem-sub2"
    OEM_PROVISIONING = "oem-provisioning"
    CSO_ROOT = "cso-root"
    CSO_SUB = "cso-sub"
    CSMS = "csms"
    CHARGING_STATION = "charging-station"
    MANUFACTURER_ROOT = "manufacturer-root"


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to lay out.

    Attributes:
        certificates: DER.
        keys: private keys of the leaves, and of the CAs that a layout lets sign; written without encryption.
    """

    certificates: Mapping[Role, bytes]
    keys: Mapping[Role, PrivateKey] = field(default_factory=dict, repr=False)

    def chain(self, *roles: Role) -> tuple[bytes, ...]:
        """Return those of *roles* that are there, in this order."""
        return tuple(self.certificates[role] for role in roles if role in self.certificates)


@dataclass(frozen=True, slots=True)
class LayoutFile:
    """A file to write, relative to the folder; `secret` ones hold a private key in the clear."""

    path: PurePosixPath
    content: bytes = field(repr=False)
    secret: bool = False


def require(material: Material, layout: str, roles: Iterable[Role], *, keys: Iterable[Role] = ()) -> None:
    """Refuse to lay out a folder that its stack could not start with.

    Raises:
        StateError: names everything that is missing.
    """
    missing = [role.value for role in roles if role not in material.certificates]
    missing += [f"the key of {role.value}" for role in keys if role not in material.keys]
    if missing:
        raise StateError(
            f"the layout {layout} lacks: {', '.join(missing)}",
            why="the other stack would not start, or fail with its first vehicle",
            fix="make the hierarchies (chargepki ca create-hierarchy iso15118-2), and give the leaves with --leaf",
        )


def pem(*certificates: bytes) -> bytes:
    """Return certificates as PEM, one after the other."""
    return "".join(to_pem("CERTIFICATE", each) for each in certificates).encode("ascii")


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key as PKCS #8, not encrypted: none of these stacks can ask for a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def cer(folder: str, name: str, *certificates: bytes, der: bool = False) -> Sequence[LayoutFile]:
    """Return the file for certificates, and with *der* a second one in DER; nothing when there are none."""
    if not certificates:
        return ()
    files = [LayoutFile(PurePosixPath(folder, f"{name}.pem"), pem(*certificates))]
    if der:
        files.append(LayoutFile(PurePosixPath(folder, f"{name}.der"), b"".join(certificates)))
    return files
