"""Roots of a fleet: install a new one, then delete the old one, in waves (M04, M05): that is a rollover."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from chargepki.ocpp_security.campaign_types import (
    ALLOWANCE,
    CampaignKind,
    Objection,
    Order,
    Subject,
    known_settings,
    read_allowance,
)
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.trust_facts import known_certificates
from chargepki.ocpp_security.trust_messages import list_rounds
from chargepki.ocpp_security.unsecured import ALLOW, allowance
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.errors import InputError, NotFound
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.trust_records import StationRootState

__all__ = ["DELETE_ROOT", "INSTALL_ROOT", "find_root"]

_ROOT: Final = "name of a CA of ours, or SHA-256 of a root that `station install-root` has put on one station"
_USES: Final = tuple(use for use in RootUse if use is not RootUse.V2G_CHAIN)


def _parse(given: Mapping[str, str]) -> dict[str, object]:
    known_settings(given, "use", "root", "allow-unsecured")
    if given.get("use") not in [use.value for use in _USES] or not given.get("root"):
        known = ", ".join(use.value for use in _USES)
        raise InputError(
            "a campaign of roots needs a use and a root", fix=f"pass --set use=U (of {known}) --set root=R"
        )
    return {"use": given["use"], "root": given["root"], **read_allowance(given)}


def find_root(reads: Reads, named: str) -> str:
    """Return the SHA-256 of the root that *named* means.

    Raises:
        NotFound: there is none.
    """
    ca = reads.find_ca(named)
    if ca is not None and ca.certificate_der is not None:
        return hashlib.sha256(ca.certificate_der).hexdigest()
    for each in known_certificates(reads):
        found = hashlib.sha256(each.der).hexdigest()
        if found == named.lower():
            return found
    raise NotFound(
        f"there is no root {named[:80]!r} on record",
        fix="name a CA of ours, or try the root on one station first: chargepki station install-root",
    )


def _check(reads: Reads, parameters: Mapping[str, object], _now: datetime) -> None:
    find_root(reads, str(parameters["root"]))


def _speaks(subject: Subject) -> Objection | None:
    """Object where the station's version has no such use; one that was never seen is tried."""
    if subject.version is None:
        return None
    try:
        list_rounds(subject.version, [RootUse(str(subject.parameters["use"]))])
    except InputError as error:
        return Objection(error.what)
    return None


def _judge_installation(subject: Subject) -> Objection | None:
    if _recorded(subject) is StationRootState.INSTALLED and _is_listed(subject):
        return Objection("it has this root already")
    return _speaks(subject)


def _judge_deletion(subject: Subject) -> Objection | None:
    if _recorded(subject) is StationRootState.DELETED:
        return Objection("this root was deleted from it already")
    return _speaks(subject)


def _recorded(subject: Subject) -> StationRootState | None:
    sha256, use = find_root(subject.reads, str(subject.parameters["root"])), subject.parameters["use"]
    records = subject.reads.list_station_roots(subject.station.id)
    return next((each.state for each in records if (each.use, each.certificate) == (use, sha256)), None)


def _is_listed(subject: Subject) -> bool:
    """Whether the station listed anything for the use since; a report that lacks the root is drift, and worth a try."""
    from chargepki.ocpp_security.trust_reconcile import RootFinding, reconcile

    reads, station = subject.reads, subject.station.id
    known = known_certificates(reads, station)
    sha256 = find_root(reads, str(subject.parameters["root"]))
    found = reconcile(reads.list_station_roots(station), reads.list_root_reports(station), known)
    return any(each.sha256 == sha256 and each.finding is RootFinding.IN_STEP for each in found)


def _order(subject: Subject, _sealing: Any) -> Order:
    named = find_root(subject.reads, str(subject.parameters["root"]))
    allowed = allowance(allow=ALLOW in subject.parameters)
    return Order({"use": subject.parameters["use"], "certificate": named, **allowed})


_SETTINGS: Final = {"use": ", ".join(use.value for use in _USES), "root": _ROOT, **ALLOWANCE}
INSTALL_ROOT: Final = CampaignKind(
    operation=OperationKind.INSTALL_ROOT,
    settings=_SETTINGS,
    parse=_parse,
    judge=_judge_installation,
    order=_order,
    check=_check,
)
DELETE_ROOT: Final = CampaignKind(
    operation=OperationKind.DELETE_ROOT,
    settings=_SETTINGS,
    parse=_parse,
    judge=_judge_deletion,
    order=_order,
    check=_check,
)
