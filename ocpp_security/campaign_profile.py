"""Campaigns on security profiles: a fleet from 1 to 2 and 3, with what each station needs first (A05)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from chargepki.ocpp_security.campaign_roots import find_root
from chargepki.ocpp_security.campaign_types import (
    ALLOWANCE,
    CampaignKind,
    Objection,
    Order,
    Subject,
    known_settings,
    read_allowance,
)
from chargepki.ocpp_security.operations import OperationKind, new_password
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.profile_readiness import (
    describe_steps,
    find_csms_root,
    find_obstacles,
    needs_password,
    needs_root,
)
from chargepki.ocpp_security.unsecured import ALLOW
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.inventory import SealingKey
from chargepki.pki.inventory.reads import Reads

__all__ = ["NO_ROOT", "SET_PROFILE", "may_be_lowered"]

NO_ROOT: Final = "none"
"""What is said in place of a root when none is to be installed."""


def may_be_lowered(profile: int, highest: int, version: OcppVersion | None) -> bool:
    """Say whether the errata let a station that was on *highest* be lowered to *profile* (A05.FR.08, FR.09)."""
    return (highest, profile) == (3, 2) and version is not OcppVersion.V16


def _parse(given: Mapping[str, str]) -> dict[str, object]:
    known = known_settings(given, "profile", "url", "slot", "root", "downgrade", "allow-unsecured")
    numbers = {name: known[name] for name in ("profile", "slot") if name in known}
    for name, text in numbers.items():
        if not (text.isascii() and text.isdigit() and len(text) <= 3):
            raise InputError(f"{name} is a number, not {text!r}")
    if "profile" not in numbers:
        raise InputError("a campaign of profiles needs one", fix="pass --set profile=2 or --set profile=3")
    if known.get("downgrade", "no") not in ("yes", "no"):
        raise InputError("downgrade is yes or no")
    parameters = profile_parameters(
        int(numbers["profile"]),
        url=known.get("url"),
        slot=int(numbers["slot"]) if "slot" in numbers else None,
        downgrade=known.get("downgrade") == "yes",
    )
    return parameters | ({"root": known["root"]} if "root" in known else {}) | read_allowance(known)


def _complete(reads: Reads, parameters: Mapping[str, object], now: datetime) -> Mapping[str, object]:
    """Choose the root here: looking it up means reading every certificate, too much for each station."""
    if "root" in parameters or parameters["profile"] == 1:
        return parameters
    return {**parameters, "root": find_csms_root(reads, now) or NO_ROOT}


def _check(reads: Reads, parameters: Mapping[str, object], _now: datetime) -> None:
    named = parameters.get("root", NO_ROOT)
    if named != NO_ROOT:
        find_root(reads, str(named))


def _root(subject: Subject) -> str | None:
    """Return the root that the station gets first, unless it lists it."""
    named = subject.parameters.get("root")
    if named in (None, NO_ROOT) or not needs_root(subject.presence, int(subject.parameters["profile"])):
        return None
    return find_root(subject.reads, str(named))


def _judge(subject: Subject) -> Objection | None:
    wanted, presence = int(str(subject.parameters["profile"])), subject.presence
    known = presence.security_profile if presence is not None and presence.connected else 0
    highest = max(subject.station.security_profile, known)
    if subject.version not in (None, OcppVersion.V16) and "url" not in subject.parameters:
        return Objection("it speaks OCPP 2.x, which needs a URL: --set url=URL")
    if subject.station.security_profile == wanted == known:
        return Objection(f"it is on profile {wanted} already")
    if subject.parameters.get("downgrade"):
        if not may_be_lowered(wanted, highest, subject.version):
            return Objection("only a station of OCPP 2.x is lowered, and only from profile 3 to 2 (A05.FR.08)")
    elif highest > wanted:
        return Objection(f"it is above profile {wanted} already, and none is ever lowered")
    found = find_obstacles(
        subject.reads,
        subject.station,
        presence,
        wanted,
        subject.now,
        root=_root(subject),
        allow_unsecured=ALLOW in subject.parameters,
    )
    for obstacle in found:
        if not obstacle.is_fetched:
            return Objection(f"{obstacle.why}; to fix: {obstacle.fix}", is_final=False)
    return None


def _parameters(subject: Subject) -> dict[str, object]:
    root = _root(subject)
    rest = {name: value for name, value in subject.parameters.items() if name != "root"}
    return rest | ({"root": root} if root is not None else {})


def _order(subject: Subject, _sealing: SealingKey) -> Order:
    missing = needs_password(subject.station, int(subject.parameters["profile"]))
    return Order(_parameters(subject), secret=new_password() if missing else None)


def _describe(subject: Subject) -> tuple[str, ...]:
    missing = needs_password(subject.station, int(subject.parameters["profile"]))
    parameters = _parameters(subject)
    return describe_steps(
        subject.reads, subject.station, subject.presence, parameters, subject.now, with_password=missing
    )


SET_PROFILE: Final = CampaignKind(
    operation=OperationKind.SET_PROFILE,
    settings={
        "profile": "1, 2 or 3",
        "url": "2.x: endpoint that serves the profile, without the identity",
        "slot": "2.x: configuration slot; the first free one by default",
        "root": "CSMS root that stations without TLS get first: a CA of ours, a SHA-256, or none; the one above our "
        "CSMS certificates by default",
        "downgrade": "yes: 2.x stations that allow it themselves go from profile 3 to 2",
        **ALLOWANCE,
    },
    parse=_parse,
    judge=_judge,
    order=_order,
    describe=_describe,
    complete=_complete,
    check=_check,
)
