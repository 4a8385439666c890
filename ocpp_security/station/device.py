"""The few variables that a simulated station has, under the names of 1.6 (keys) and of 2.x (component and variable)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chargepki.ocpp_security.station.network import SLOTS
from chargepki.ocpp_security.station.slot_variables import COMPONENT, SlotVariables, Written
from chargepki.pki.errors import InputError

__all__ = [
    "ATTEMPTS",
    "FIELD_LENGTH",
    "IDENTITY",
    "MAY_BE_LOWERED",
    "PASSWORD",
    "PNC",
    "PRIORITY",
    "PROFILE",
    "DeviceModel",
    "Variable",
    "check_variable",
]


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: where each version finds it, and how it may be touched."""

    name: str
    component: str | None
    """``None`` where 2.x has none."""
    key_16: str | None
    """Name of the configuration key in 1.6; ``None`` where 1.6 has none."""
    readable: bool = True
    writable: bool = True
    writable_16: bool | None = None
    """Where 1.6 differs from 2.x."""
    instance: str | None = None
    """Of the variable in 2.x; a station has such a variable when it has a value."""

    @property
    def wire_name(self) -> str:
        """Its name in 2.x; that of ISO15118Ctrlr and AuthCtrlr has the component in front here."""
        return self.name.rpartition(".")[2]


PASSWORD = "BasicAuthPassword"  # noqa: S105 (the name of the variable)
PROFILE = "SecurityProfile"
PRIORITY = "NetworkConfigurationPriority"
ATTEMPTS = "NetworkProfileConnectionAttempts"
FIELD_LENGTH = "FieldLength"
PNC = "ISO15118Ctrlr.PnCEnabled"
IDENTITY = "Identity"
MAY_BE_LOWERED = "AllowSecurityProfileDowngrade"

_VARIABLES: tuple[Variable, ...] = (
    Variable("OrganizationName", "SecurityCtrlr", "CpoName"),
    Variable("BasicAuthPassword", "SecurityCtrlr", "AuthorizationKey", readable=False),
    # 1.6 raises the profile by writing it (A05); 2.x by a slot.
    Variable(PROFILE, "SecurityCtrlr", PROFILE, writable=False, writable_16=True),
    Variable(IDENTITY, "SecurityCtrlr", None, writable=False),
    Variable(MAY_BE_LOWERED, "SecurityCtrlr", None),
    Variable("CertSigningWaitMinimum", "SecurityCtrlr", "CertSigningWaitMinimum"),
    Variable("CertSigningRepeatTimes", "SecurityCtrlr", "CertSigningRepeatTimes"),
    Variable("MaxCertificateChainSize", "SecurityCtrlr", "CertificateSignedMaxChainSize", writable=False),
    Variable("AdditionalRootCertificateCheck", "SecurityCtrlr", "AdditionalRootCertificateCheck", writable=False),
    Variable("CertificateStoreMaxLength", None, "CertificateStoreMaxLength", writable=False),
    Variable("CertificateEntries", "SecurityCtrlr", None, writable=False),
    Variable("HeartbeatInterval", "OCPPCommCtrlr", "HeartbeatInterval"),
    Variable(PRIORITY, "OCPPCommCtrlr", None),
    Variable(ATTEMPTS, "OCPPCommCtrlr", None),
    Variable("ActiveNetworkProfile", "OCPPCommCtrlr", None, writable=False),
    Variable("ISO15118Ctrlr.SeccId", "ISO15118Ctrlr", None),
    Variable("ISO15118Ctrlr.CountryName", "ISO15118Ctrlr", None),
    Variable("ISO15118Ctrlr.OrganizationName", "ISO15118Ctrlr", None),
    Variable("ISO15118Ctrlr.PnCEnabled", "ISO15118Ctrlr", "ISO15118PnCEnabled"),
    Variable("ISO15118Ctrlr.ContractValidationOffline", "ISO15118Ctrlr", "ContractValidationOffline"),
    Variable("ISO15118Ctrlr.CentralContractValidationAllowed", "ISO15118Ctrlr", "CentralContractValidationAllowed"),
    Variable("AuthCtrlr.LocalAuthorizeOffline", "AuthCtrlr", "LocalAuthorizeOffline"),
    Variable("AuthCtrlr.OfflineTxForUnknownIdEnabled", "AuthCtrlr", "AllowOfflineTxForUnknownId"),
    Variable(FIELD_LENGTH, "OCPPCommCtrlr", None, writable=False, instance="Get15118EVCertificateResponse.exiResponse"),
)
_WHOLE_NUMBERS = frozenset({"CertSigningWaitMinimum", "CertSigningRepeatTimes", "HeartbeatInterval", ATTEMPTS})
_BOOLEANS = frozenset(
    {
        MAY_BE_LOWERED, PNC,
        "ISO15118Ctrlr.ContractValidationOffline", "ISO15118Ctrlr.CentralContractValidationAllowed",
        "AuthCtrlr.LocalAuthorizeOffline", "AuthCtrlr.OfflineTxForUnknownIdEnabled",
    }
)  # fmt: skip
_MOST_ATTEMPTS = 100


def check_variable(name: str, value: str) -> None:
    """Refuse a first value that no variable can have.

    Raises:
        InputError: there is no such variable, or it takes no such value.
    """
    known = {variable.name: variable for variable in _VARIABLES if variable.readable}
    if name not in known:
        raise InputError(f"the simulated station has no variable {name!r}", fix=f"one of {', '.join(sorted(known))}")
    whole = value.isascii() and value.isdigit() and len(value) <= 9
    if (name in _BOOLEANS and value not in ("true", "false")) or (name in _WHOLE_NUMBERS and not whole):
        fix = "write true or false" if name in _BOOLEANS else "write a whole number"
        raise InputError(f"{name} does not take the value {value[:50]!r}", fix=fix)


class DeviceModel:
    """Values of the variables. The password's value is never kept here: it is write-only and lives in the store."""

    def __init__(
        self,
        values: Mapping[str, str],
        *,
        takes_password: Callable[[str], bool],
        takes_order: Callable[[str], bool] = lambda value: False,
        takes_identity: Callable[[str], bool] | None = None,
    ) -> None:
        """Set up.

        Args:
            takes_password: whether a password's wire value is one that this station can use.
            takes_order: whether an order of configuration slots is one.
            takes_identity: 2.1: whether a new identity is one; other versions cannot change it.
        """
        self._checks = {PASSWORD: takes_password, PRIORITY: takes_order}
        self._also_writable = frozenset({IDENTITY}) if takes_identity is not None else frozenset[str]()
        if takes_identity is not None:
            self._checks[IDENTITY] = takes_identity
        self.slots: SlotVariables | None = None
        """2.1: the component NetworkConfiguration."""
        self._values = {variable.name: values.get(variable.name, "") for variable in _VARIABLES}

    def values(self) -> dict[str, str]:
        """Return all values under their 2.x names; never a password."""
        return dict(self._values)

    def is_on(self, name: str) -> bool:
        """Say whether a boolean is true; one without a value is not."""
        return self._values[name] == "true"

    def put(self, name: str, value: str) -> None:
        """Set a variable from inside the station, read-only ones too."""
        self._values[name] = value

    def change_configuration(self, payload: Mapping[str, Any]) -> tuple[str, str | None]:
        """Judge a ChangeConfiguration of 1.6.

        Returns:
            The status, and the new password's wire value if that is what was set (nothing is stored here then).
        """
        variable = next((item for item in _VARIABLES if item.key_16 == payload["key"]), None)
        if variable is None:
            return "NotSupported", None
        value = str(payload["value"])
        if not variable.writable or not self._is_well_formed(variable, value):
            return "Rejected", None
        return self._accept(variable, value)

    def get_configuration(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer GetConfiguration of 1.6; write-only keys are listed without a value."""
        wanted: Sequence[str] = payload.get("key") or [item.key_16 for item in _VARIABLES if item.key_16]
        known = {item.key_16: item for item in _VARIABLES if item.key_16}
        found = []
        for key in wanted:
            if key in known:
                variable = known[key]
                writable = variable.writable if variable.writable_16 is None else variable.writable_16
                entry: dict[str, Any] = {"key": key, "readonly": not writable}
                if variable.readable:
                    entry["value"] = self._values[variable.name]
                found.append(entry)
        answer: dict[str, Any] = {"configurationKey": found}
        unknown = [key for key in wanted if key not in known]
        if unknown:
            answer["unknownKey"] = unknown
        return answer

    def set_variables(self, payload: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Answer SetVariables of 2.x.

        Returns:
            The payload of the answer, and the new password if one was set.
        """
        results, password = [], None
        for item in payload["setVariableData"]:
            written, new = self._set_variable(item)
            password = new if new is not None else password
            result = {"attributeStatus": written.status, "component": item["component"], "variable": item["variable"]}
            if written.reason is not None:
                result["attributeStatusInfo"] = {"reasonCode": written.reason, "additionalInfo": written.text}
            results.append(result)
        return {"setVariableResult": results}, password

    def _set_variable(self, item: Mapping[str, Any]) -> tuple[Written, str | None]:
        if self.slots is not None and item["component"]["name"] == COMPONENT:
            return self.slots.set(item), None
        status, variable = _find(item)
        if variable is None:
            return Written(status), None
        value = str(item["attributeValue"])
        if not variable.writable and variable.name not in self._also_writable:
            return Written("Rejected", "ReadOnly", "it is not for the CSMS to write"), None
        if not self._is_well_formed(variable, value):
            # B10.FR.02, B09.FR.34: which of the slots it is, and why, cannot be said in a code.
            reason = "InvalidNetworkConf" if variable.name == PRIORITY else "InvalidValue"
            return Written("Rejected", reason, "the station does not take this value"), None
        status, new = self._accept(variable, value)
        return Written(status), new

    def get_variables(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer GetVariables of 2.x; a write-only variable is Rejected (B06.FR.09)."""
        results = []
        for item in payload["getVariableData"]:
            entry: dict[str, Any] = {"component": item["component"], "variable": item["variable"]}
            if self.slots is not None and item["component"]["name"] == COMPONENT:
                status, value = self.slots.get(item)
                results.append({"attributeStatus": status, **entry, **({"attributeValue": value} if value else {})})
                continue
            status, variable = _find(item)
            if variable is not None and variable.instance is not None and not self._values[variable.name]:
                status = "UnknownVariable"
            elif variable is not None and not variable.readable:
                status = "Rejected"
            elif variable is not None:
                entry["attributeValue"] = self._values[variable.name]
            results.append({"attributeStatus": status, **entry})
        return {"getVariableResult": results}

    def report(self, *, settable_only: bool) -> list[dict[str, Any]]:
        """Return the entries of NotifyReport for a base report of 2.x (B07, B09.FR.08).

        Args:
            settable_only: leave out what the CSMS cannot write (ConfigurationInventory).
        """
        found: list[dict[str, Any]] = []
        for item in _VARIABLES:
            writable = item.writable or item.name in self._also_writable
            if (
                item.component is None
                or (settable_only and not writable)
                or (item.instance is not None and not self._values[item.name])
            ):
                continue
            attribute = {"mutability": ("ReadWrite" if writable else "ReadOnly") if item.readable else "WriteOnly"}
            if item.readable:
                attribute["value"] = self._values[item.name]
            name = {"name": item.wire_name, **({"instance": item.instance} if item.instance is not None else {})}
            found.append(
                {
                    "component": {"name": item.component},
                    "variable": name,
                    "variableAttribute": [attribute],
                    "variableCharacteristics": _characteristics(item.name),
                }
            )
        return [*found, *(self.slots.report(settable_only=settable_only) if self.slots is not None else ())]

    def _is_well_formed(self, variable: Variable, value: str) -> bool:
        if variable.name in _WHOLE_NUMBERS:
            whole = value.isascii() and value.isdigit() and len(value) <= 9
            return whole and (variable.name != ATTEMPTS or 1 <= int(value) <= _MOST_ATTEMPTS)
        if variable.name in _BOOLEANS:
            return value in ("true", "false")
        if variable.name in self._checks:
            return self._checks[variable.name](value)
        return 0 < len(value) <= 500

    def _accept(self, variable: Variable, value: str) -> tuple[str, str | None]:
        if variable.name == PASSWORD:
            return "Accepted", value
        self._values[variable.name] = value
        return "Accepted", None


def _characteristics(name: str) -> dict[str, Any]:
    if name == PRIORITY:
        # The slots there are (B09.FR.05).
        return {"dataType": "SequenceList", "valuesList": ",".join(map(str, SLOTS)), "supportsMonitoring": False}
    data_type = "integer" if name in _WHOLE_NUMBERS else "boolean" if name in _BOOLEANS else "string"
    return {"dataType": data_type, "supportsMonitoring": False}


def _find(item: Mapping[str, Any]) -> tuple[str, Variable | None]:
    component, name = item["component"]["name"], item["variable"]["name"]
    if not any(variable.component == component for variable in _VARIABLES):
        return "UnknownComponent", None
    for variable in _VARIABLES:
        if (variable.component, variable.wire_name) == (component, name):
            if variable.instance is not None and item["variable"].get("instance") != variable.instance:
                return "UnknownVariable", None
            if item.get("attributeType", "Actual") != "Actual":
                return "NotSupportedAttributeType", None
            return "Accepted", variable
    return "UnknownVariable", None
