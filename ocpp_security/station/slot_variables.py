"""NetworkConfiguration of OCPP 2.1: the configuration slots of the simulated station as variables (B09)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from chargepki.ocpp_security.basic_auth import check_identity
from chargepki.ocpp_security.passwords import password_from_wire
from chargepki.ocpp_security.station.network import SLOTS, NetworkProfile, StationNetwork, parse_endpoint
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError

__all__ = ["COMPONENT", "SlotVariables", "Written"]

COMPONENT: Final = "NetworkConfiguration"
_INTERFACES: Final = (*(f"Wired{n}" for n in range(4)), *(f"Wireless{n}" for n in range(4)), "Any")
_MOST_SECONDS: Final = 86_400
_EMPTY: Final = NetworkProfile("")
_READ_ONLY: Final = frozenset({"OcppTransport", "OcppVersion", "ApnEnabled", "VpnEnabled"})
"""One value each: JSON over what the station is connected by, and neither APN nor VPN (B09.FR.13)."""
_PASSWORD: Final = "BasicAuthPassword"  # noqa: S105 - the name of the variable
_TYPES: Final = {
    "OcppCsmsUrl": "string",
    "OcppInterface": "OptionList",
    "OcppTransport": "OptionList",
    "OcppVersion": "OptionList",
    "MessageTimeout": "integer",
    "SecurityProfile": "integer",
    "Identity": "string",
    _PASSWORD: "string",
    "ApnEnabled": "boolean",
    "VpnEnabled": "boolean",
}


@dataclass(frozen=True, slots=True)
class Written:
    """What comes of writing a variable."""

    status: str
    reason: str | None = None
    text: str = ""


class SlotVariables:
    """The variables of every slot; each write is judged and stored by itself, and counts from the next attempt on."""

    def __init__(self, network: StationNetwork) -> None:
        self._network = network

    def set(self, item: Mapping[str, Any]) -> Written:
        """Judge and store one entry of SetVariables.

        Clause: B09.FR.21 to FR.25, FR.32, FR.35.
        """
        found = self._find(item)
        if not isinstance(found, int):
            return Written(found)
        name, value = str(item["variable"]["name"]), str(item["attributeValue"])
        if name in _READ_ONLY:
            return Written("Rejected", "ReadOnly", f"{name} is {self._read(found, name)}")
        if found in self._network.order:
            # Order of work: off the order, write, on the order again, reset (fact sheet 9.3).
            return Written("Rejected", "ActiveNetworkConf", f"slot {found} is in NetworkConfigurationPriority")
        before = self._network.slots.get(found, _EMPTY)
        if name == "SecurityProfile" and value in ("1", "2", "3") and self._network.is_downgrade(int(value)):
            return Written("Rejected", "NoSecurityDowngrade", "the security profile is never lowered")
        try:
            new = _changed(before, name, value)
        except InputError as error:
            return Written("Rejected", "InvalidNetworkConf", error.what)
        return Written("Accepted") if self._network.put(found, new) else Written("Rejected", "InternalError")

    def get(self, item: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return the status and the value for one entry of GetVariables; the password is never read (B06.FR.09)."""
        found = self._find(item)
        if not isinstance(found, int):
            return found, None
        name = str(item["variable"]["name"])
        return ("Rejected", None) if name == _PASSWORD else ("Accepted", self._read(found, name))

    def report(self, *, settable_only: bool) -> Iterator[dict[str, Any]]:
        """Yield the entries of NotifyReport, of every slot that there can be (B09.FR.08, FR.10)."""
        for slot in SLOTS:
            for name, data_type in _TYPES.items():
                if settable_only and name in _READ_ONLY:
                    continue
                attribute = {"mutability": "ReadOnly" if name in _READ_ONLY else "ReadWrite"}
                if name == _PASSWORD:
                    attribute = {"mutability": "WriteOnly"}
                else:
                    attribute["value"] = self._read(slot, name)
                characteristics = {"dataType": data_type, "supportsMonitoring": False}
                if name == "OcppInterface":
                    characteristics["valuesList"] = ",".join(_INTERFACES)
                yield {
                    "component": {"name": COMPONENT, "instance": str(slot)},
                    "variable": {"name": name},
                    "variableAttribute": [attribute],
                    "variableCharacteristics": characteristics,
                }

    def _find(self, item: Mapping[str, Any]) -> int | str:
        """Return the slot that an entry is about, or the status that says that there is none."""
        instance = str(item["component"].get("instance", ""))
        if instance not in {str(slot) for slot in SLOTS}:
            return "UnknownComponent"
        if item["variable"]["name"] not in _TYPES or "instance" in item["variable"]:
            return "UnknownVariable"
        return int(instance) if item.get("attributeType", "Actual") == "Actual" else "NotSupportedAttributeType"

    def _read(self, slot: int, name: str) -> str:
        profile = self._network.slots.get(slot, _EMPTY)
        values: dict[str, object] = {
            "OcppCsmsUrl": profile.url,
            "OcppInterface": profile.interface,
            "OcppTransport": "JSON",
            "OcppVersion": "OCPP21",
            "MessageTimeout": profile.message_timeout,
            "SecurityProfile": profile.security_profile or 0,
            "Identity": profile.identity or "",
            "ApnEnabled": "false",
            "VpnEnabled": "false",
        }
        return str(values[name])


def _changed(before: NetworkProfile, name: str, value: str) -> NetworkProfile:
    """Return the slot with one variable changed.

    Raises:
        InputError: the variable takes no such value.
    """
    match name:
        case "OcppCsmsUrl":
            parse_endpoint(value, "X")
            return replace(before, url=value)
        case "SecurityProfile" if value in ("1", "2", "3"):
            return replace(before, security_profile=int(value))
        case "OcppInterface" if value in _INTERFACES:
            return replace(before, interface=value)
        case "MessageTimeout" if value.isascii() and value.isdigit() and 0 < int(value[:9]) <= _MOST_SECONDS:
            return replace(before, message_timeout=int(value))
        case "Identity":
            if value:
                check_identity(value)
            return replace(before, identity=value or None)
        case "BasicAuthPassword":
            if value:
                password_from_wire(value, OcppVersion.V21)
            return replace(before, password=value or None)
    raise InputError(f"{name} does not take the value {value[:50]!r}")
