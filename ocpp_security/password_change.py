"""A01 on the wire: the call that gives a station its new password, and what its answer means."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import WireCall, read_status
from chargepki.pki.errors import InputError

__all__ = ["PasswordAnswer", "build_set_password", "read_set_password_answer"]


class PasswordAnswer(StrEnum):
    """What a station's answer to a new password means (A01.FR.03, FR.04)."""

    ACCEPTED = "accepted"
    """It will reconnect with the new password; the old one is void."""
    REBOOT_REQUIRED = "reboot-required"
    """It takes the new password after a reboot: both count until it has reconnected."""
    REFUSED = "refused"
    """The old password stays."""


def build_set_password(version: OcppVersion, password: bytes) -> WireCall:
    """Return the call that gives a station a new Basic authentication password (A01).

    Args:
        password: as it will stand in the Authorization header. 1.6: any bytes, sent as hex;
            2.x: UTF-8, sent as the text itself.

    Raises:
        InputError: not UTF-8 in 2.x. Lengths are the caller's matter (`passwords`).
    """
    if version is OcppVersion.V16:
        return WireCall("ChangeConfiguration", {"key": "AuthorizationKey", "value": password.hex()})
    try:
        text = password.decode("utf-8")
    except UnicodeDecodeError:
        # "from None": the chained error would carry the password into tracebacks.
        raise InputError("the password is not UTF-8", why=f"{version.value} sends it as text") from None
    setting = {
        "component": {"name": "SecurityCtrlr"},
        "variable": {"name": "BasicAuthPassword"},
        "attributeValue": text,
    }
    return WireCall("SetVariables", {"setVariableData": [setting]})


def read_set_password_answer(version: OcppVersion, payload: Mapping[str, object]) -> tuple[PasswordAnswer, str]:
    """Return what a station's answer to `build_set_password` means, and the status as it spelled it."""
    if version is OcppVersion.V16:
        status = read_status(payload)
    else:
        results = payload.get("setVariableResult")
        first = results[0] if isinstance(results, list) and len(results) == 1 else None
        status = str(first.get("attributeStatus", "")) if isinstance(first, Mapping) else ""
    if status == "Accepted":
        return PasswordAnswer.ACCEPTED, status
    if status == "RebootRequired":
        return PasswordAnswer.REBOOT_REQUIRED, status
    return PasswordAnswer.REFUSED, status
