"""What signs the requests of stations: the plans of an endpoint, and of single stations that differ from them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from chargepki.ocpp_security.sign_certificate import IssuePlan
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError

__all__ = ["DEFAULT_PROFILES", "parse_plan", "plan_text", "plans_for"]

DEFAULT_PROFILES: Final[Mapping[CertificateUse, str]] = MappingProxyType(
    {
        CertificateUse.CHARGING_STATION: "ocpp/charging-station",
        CertificateUse.V2G: "iso15118-2/secc",
        CertificateUse.V2G20: "iso15118-20/secc",
        # One certificate for both links must satisfy ISO 15118-2 (A00.FR.513).
        CertificateUse.COMBINED: "iso15118-2/secc",
    }
)


def parse_plan(text: str) -> tuple[CertificateUse, IssuePlan]:
    """Return kind and plan of ``KIND=CA[:PROFILE]``.

    Raises:
        InputError: an unknown KIND, or no CA.

    >>> parse_plan("V2GCertificate=hub")[1].profile
    'iso15118-2/secc'
    """
    kind, equals, target = text.partition("=")
    ca, colon, profile = target.partition(":")
    use = next((item for item in CertificateUse if item.value == kind), None)
    if use is None or not equals or not ca or (colon and not profile):
        raise InputError(
            f"{text[:100]!r} is not KIND=CA[:PROFILE]",
            why=f"KIND is one of {', '.join(item.value for item in CertificateUse)}",
            fix="for example ChargingStationCertificate=acme-cso-sub",
        )
    return use, IssuePlan(ca=ca, profile=profile or DEFAULT_PROFILES[use])


def plan_text(plan: IssuePlan) -> str:
    """Return ``CA:PROFILE``, as the inventory keeps a station's own plan."""
    return f"{plan.ca}:{plan.profile}"


def plans_for(
    endpoint: Mapping[CertificateUse, IssuePlan], own: Mapping[str, Any] | None
) -> Mapping[CertificateUse, IssuePlan]:
    """Return the plans of one station: the endpoint's, and in their place what the station's record says."""
    if not own:
        return endpoint
    return {**endpoint, **dict(parse_plan(f"{kind}={target}") for kind, target in own.items())}
