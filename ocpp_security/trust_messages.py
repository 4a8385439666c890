"""InstallCertificate, DeleteCertificate and GetInstalledCertificateIds in the words of each version (M03 to M05)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chargepki.ocpp_security import pnc_transfer, schemas
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse, WireCall, root_use_name
from chargepki.pki.errors import InputError

__all__ = [
    "HASH_FIELDS",
    "PNC_USES",
    "ListedCertificate",
    "build_delete_certificate",
    "build_install_certificate",
    "build_list_certificates",
    "build_read_settings",
    "list_rounds",
    "read_listing",
    "read_settings",
    "uses_of",
]

HASH_FIELDS: Final = ("hashAlgorithm", "issuerNameHash", "issuerKeyHash", "serialNumber")
_MAX_ENTRIES: Final = 500
_MAX_TEXT: Final = 128
PNC_USES: Final = (RootUse.V2G, RootUse.MO, RootUse.V2G_CHAIN)
"""What 1.6 has only through the Plug & Charge DataTransfer."""
_SETTINGS_16: Final = ("AdditionalRootCertificateCheck", "CertificateStoreMaxLength")
_SETTINGS_2X: Final = ("AdditionalRootCertificateCheck", "CertificateEntries")


@dataclass(frozen=True, slots=True)
class ListedCertificate:
    """One certificate that a station lists."""

    use: RootUse
    hash_data: Mapping[str, str]
    """The station's own strings (`HASH_FIELDS`)."""
    children: tuple[Mapping[str, str], ...] = ()
    """Sub-CAs of a V2G chain, in the station's order (M03.FR.05)."""

    def to_json(self) -> dict[str, Any]:
        """Return it for the inventory."""
        entry: dict[str, Any] = {"use": self.use.value, "hash": dict(self.hash_data)}
        if self.children:
            entry["children"] = [dict(child) for child in self.children]
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ListedCertificate:
        """Read what `to_json` made."""
        children = tuple({name: str(child[name]) for name in HASH_FIELDS} for child in entry.get("children", ()))
        return cls(RootUse(entry["use"]), {name: str(entry["hash"][name]) for name in HASH_FIELDS}, children)


def uses_of(version: OcppVersion) -> tuple[RootUse, ...]:
    """Return what can be listed in *version*; 1.6 with the Plug & Charge extension has more than its own two."""
    found = [use for use in RootUse if _has(version, use)]
    return tuple(found)


def _has(version: OcppVersion, use: RootUse) -> bool:
    try:
        root_use_name(version, use)
    except InputError:
        return False
    return True


def build_install_certificate(version: OcppVersion, use: RootUse, pem: str) -> WireCall:
    """Return the call that installs a root (M05).

    Raises:
        InputError: *version* has no such use, a chain cannot be installed, or the PEM is longer than the wire allows.
    """
    if use is RootUse.V2G_CHAIN:
        raise InputError("a V2G chain is not installed with InstallCertificate", why="it comes with CertificateSigned")
    spoken = _spoken(version, use)
    limit = schemas.max_length(spoken, "InstallCertificate", Kind.REQUEST, "certificate")
    if len(pem) > limit:
        raise InputError(
            f"the certificate has {len(pem)} characters, {version.value} allows {limit}",
            fix="use a root with a smaller key or fewer extensions",
        )
    return _call(
        version, use, "InstallCertificate", {"certificateType": root_use_name(spoken, use), "certificate": pem}
    )


def build_delete_certificate(version: OcppVersion, use: RootUse, hash_data: Mapping[str, str]) -> WireCall:
    """Return the call that deletes what *hash_data* names, with its strings as they are (M04.FR.07).

    Args:
        use: decides only how it travels in 1.6; the hash names the certificate under every use that it has.
    """
    payload = {"certificateHashData": {name: hash_data[name] for name in HASH_FIELDS}}
    return _call(version, use, "DeleteCertificate", payload)


def list_rounds(version: OcppVersion, uses: Sequence[RootUse]) -> list[tuple[RootUse, ...]]:
    """Split *uses* into what one call can ask for: one at a time in 1.6. None asks for all, in 1.6 Plug & Charge last.

    Raises:
        InputError: *version* has no such use.
    """
    wanted = tuple(uses) or uses_of(version) + (PNC_USES if version is OcppVersion.V16 else ())
    for use in wanted:
        root_use_name(_spoken(version, use), use)
    return [(use,) for use in wanted] if version is OcppVersion.V16 else [wanted]


def build_list_certificates(version: OcppVersion, uses: tuple[RootUse, ...]) -> WireCall:
    """Return the call for one round of `list_rounds`; the type is left out where all are asked for (M03)."""
    if version is OcppVersion.V16 and uses[0] not in PNC_USES:
        return WireCall("GetInstalledCertificateIds", {"certificateType": root_use_name(version, uses[0])})
    spoken = _spoken(version, uses[0])
    payload: dict[str, object] = {}
    if version is OcppVersion.V16 or uses != uses_of(version):
        payload["certificateType"] = [root_use_name(spoken, use) for use in uses]
    return _call(version, uses[0], "GetInstalledCertificateIds", payload)


def read_listing(payload: Mapping[str, Any], uses: tuple[RootUse, ...]) -> tuple[ListedCertificate, ...]:
    """Return what a station lists, its strings unchanged; entries that no schema lets pass are left out.

    Args:
        payload: of the answer, out of its DataTransfer.
        uses: what was asked for: 1.6 does not say which type an entry has.
    """
    found: list[ListedCertificate] = []
    for item in _objects(payload.get("certificateHashData")):
        texts = _hash_data(item)
        if texts is not None:
            found.append(ListedCertificate(uses[0], texts))
    for item in _objects(payload.get("certificateHashDataChain")):
        texts = _hash_data(item.get("certificateHashData"))
        use = _use_named(item.get("certificateType"))
        if texts is not None and use is not None:
            children = tuple(filter(None, map(_hash_data, _objects(item.get("childCertificateHashData")))))
            found.append(ListedCertificate(use, texts, children))
    return tuple(found)


def build_read_settings(version: OcppVersion) -> WireCall:
    """Return the call that reads what decides about a new CSMS root: the additional check, and how many fit."""
    if version is OcppVersion.V16:
        return WireCall("GetConfiguration", {"key": list(_SETTINGS_16)})
    wanted = [{"component": {"name": "SecurityCtrlr"}, "variable": {"name": name}} for name in _SETTINGS_2X]
    return WireCall("GetVariables", {"getVariableData": wanted})


def read_settings(payload: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that a station told, by name."""
    found: dict[str, str] = {}
    for item in _objects(payload.get("configurationKey")):
        if item.get("key") in _SETTINGS_16 and isinstance(item.get("value"), str):
            found[str(item["key"])] = str(item["value"])[:_MAX_TEXT]
    for item in _objects(payload.get("getVariableResult")):
        name = (item.get("variable") or {}).get("name")
        if name in _SETTINGS_2X and isinstance(item.get("attributeValue"), str):
            found[str(name)] = str(item["attributeValue"])[:_MAX_TEXT]
    return found


def _spoken(version: OcppVersion, use: RootUse) -> OcppVersion:
    """Return the version whose words carry *use*: 1.6 borrows those of 2.0.1 for Plug & Charge."""
    return OcppVersion.V201 if version is OcppVersion.V16 and use in PNC_USES else version


def _call(version: OcppVersion, use: RootUse, action: str, payload: dict[str, Any]) -> WireCall:
    if version is OcppVersion.V16 and use in PNC_USES:
        return WireCall("DataTransfer", pnc_transfer.wrap(action, payload))
    return WireCall(action, payload)


def _use_named(name: object) -> RootUse | None:
    for use in RootUse:
        if _has(OcppVersion.V21, use) and root_use_name(OcppVersion.V21, use) == name:
            return use
    return None


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value[:_MAX_ENTRIES] if isinstance(item, Mapping)] if isinstance(value, list) else []


def _hash_data(value: object) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    texts = {name: value.get(name) for name in HASH_FIELDS}
    if all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts.values()):
        return {name: str(text) for name, text in texts.items()}
    return None
