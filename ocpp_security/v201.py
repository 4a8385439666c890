"""OCPP 2.0.1 for a CSMS that is built on the `ocpp` package: the security half of its ChargePoint class."""

from __future__ import annotations

from typing import ClassVar

from chargepki.ocpp_security.mixin import SecurityMixinBase
from chargepki.ocpp_security.versions import OcppVersion

__all__ = ["SecurityMixin"]


class SecurityMixin(SecurityMixinBase):
    """Gives an `ocpp.v201.ChargePoint` of yours certificates, security events, operations and the cut-off.

    Example:
        class Station(SecurityMixin, ocpp.v201.ChargePoint):
            ...  # your own @on handlers

        await Station(identity, websocket, security=security).start()

    See `SecurityMixinBase` for what stays and what changes.
    """

    security_version: ClassVar[OcppVersion] = OcppVersion.V201
