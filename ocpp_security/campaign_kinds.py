"""The kinds of campaigns: which stations each suits, what its operations are, and what proves that one worked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from chargepki.ocpp_security.campaign_profile import SET_PROFILE
from chargepki.ocpp_security.campaign_renewal import REPLACE, judge_renewal, settle_renewal
from chargepki.ocpp_security.campaign_roots import DELETE_ROOT, INSTALL_ROOT
from chargepki.ocpp_security.campaign_types import (
    ALLOWANCE,
    CampaignKind,
    Objection,
    Order,
    Subject,
    known_settings,
    read_allowance,
    settle_by_operation,
)
from chargepki.ocpp_security.campaigns import Settlement
from chargepki.ocpp_security.firmware_admission import admit, known_about
from chargepki.ocpp_security.firmware_catalogue import check_location
from chargepki.ocpp_security.firmware_version import version_key
from chargepki.ocpp_security.log_store import register_log
from chargepki.ocpp_security.operations import OperationKind, check_parameters, new_password
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.inventory import SealingKey
from chargepki.pki.inventory.campaign_records import CampaignStationState
from chargepki.pki.inventory.firmware_records import FirmwareReleaseRecord, StationFirmwareRecord
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import OperationRecord

__all__ = ["KINDS", "CampaignKind", "find_kind"]

_MAX_REQUEST_ID: Final = (1 << 31) - 1
_MAX_LOG_BYTES: Final = 64 << 20
_REBOOT: Final = timedelta(minutes=10)
"""How long a station that has installed an image may take until it tells the new version."""


def find_kind(name: str) -> CampaignKind:
    """Return the kind with this name.

    Raises:
        InputError: there is none.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise InputError(f"there is no campaign of the kind {name!r}", fix=f"one of {', '.join(KINDS)}")
    return kind


# --- trigger-renewal -------------------------------------------------------------------------------------------------

_USES: Final = {
    "charging-station": CertificateUse.CHARGING_STATION,
    "v2g": CertificateUse.V2G,
    "v2g20": CertificateUse.V2G20,
    "combined": CertificateUse.COMBINED,
}


def _parse_renewal(given: Mapping[str, str]) -> dict[str, object]:
    use = known_settings(given, "use", "allow-unsecured").get("use", "charging-station")
    if use not in _USES:
        raise InputError(f"unknown certificate use {use!r}", fix=f"one of {', '.join(_USES)}")
    return {"use": _USES[use].value, **read_allowance(given)}


# --- update-firmware -------------------------------------------------------------------------------------------------


def _parse_update(given: Mapping[str, str]) -> dict[str, object]:
    known = known_settings(
        given, "release", "base-url", "retrieve-at", "install-at", "replace", "retries", "retry-interval"
    )
    if "release" not in known:
        raise InputError("a campaign of updates needs a release", fix="pass --set release=NAME")
    parameters: dict[str, object] = {"release": known["release"]}
    for name in ("retrieve-at", "install-at"):
        if name in known:
            parameters[name.replace("-", "_")] = known[name]
    if "base-url" in known:
        parameters["base_url"] = known["base-url"].rstrip("/")
    for name in ("retries", "retry-interval"):
        if name in known:
            if not (known[name].isascii() and known[name].isdigit()):
                raise InputError(f"{name} is no number")
            parameters[name.replace("-", "_")] = int(known[name])
    if known.get("replace", "no") not in ("yes", "no"):
        raise InputError("replace is yes or no")
    if known.get("replace") == "yes":
        parameters["replace"] = True
    check_parameters(OperationKind.UPDATE_FIRMWARE, {**parameters, "request_id": 1}, None)
    return parameters


def _check_update(reads: Reads, parameters: Mapping[str, object], now: datetime) -> None:
    release = reads.get_release(str(parameters["release"]))
    if release.location is None:
        if "base_url" not in parameters:
            raise InputError(
                f"there is no URL from which stations could fetch {release.id}",
                why="the image is in this workspace",
                fix="run `chargepki serve --tls-listen …` and pass that URL as --set base-url=URL",
            )
        check_location(str(parameters["base_url"]))
    retrieve, install = _instant(parameters, "retrieve_at"), _instant(parameters, "install_at")
    if retrieve is not None and install is not None and install < retrieve:
        raise InputError("install-at lies before retrieve-at")
    _admit(reads, release, None, parameters, now)


def _admit(
    reads: Reads,
    release: FirmwareReleaseRecord,
    running: StationFirmwareRecord | None,
    parameters: Mapping[str, object],
    now: datetime,
) -> None:
    retrieve, install = _instant(parameters, "retrieve_at"), _instant(parameters, "install_at")
    known = known_about(reads, release)
    admit(release, running, known=known, now=now, retrieve_at=retrieve, install_at=install)


def _instant(parameters: Mapping[str, object], name: str) -> datetime | None:
    value = parameters.get(name)
    return None if value is None else datetime.fromisoformat(str(value))


def _judge_update(subject: Subject) -> Objection | None:
    reads, release = subject.reads, subject.reads.get_release(str(subject.parameters["release"]))
    running = reads.find_station_firmware(subject.station.id)
    if running is None:
        # A single update says so and goes on; a campaign would send one model's image to the whole fleet.
        return Objection("the station has not told yet what it is and runs", is_final=False)
    if _is_same_version(running.version, release.version):
        return Objection(f"it runs {release.version} already")
    try:
        _admit(reads, release, running, subject.parameters, subject.now)
    except ChargePkiError as error:
        return Objection(str(error))
    return None


def _is_same_version(one: str, other: str) -> bool:
    try:
        return version_key(one) == version_key(other)
    except InputError:  # a station may tell none, or one without any number
        return one == other


def _settle_update(
    reads: Reads, parameters: Mapping[str, Any], operation: OperationRecord, now: datetime
) -> Settlement | None:
    """Take a station's word that it has installed the release only when it also says that it runs it.

    Which version runs is told after the reboot, which may come later than the status (L01.FR.32).
    """
    settlement = settle_by_operation(reads, parameters, operation, now)
    if settlement is None or settlement.state is not CampaignStationState.DONE:
        return settlement
    release = reads.get_release(str(operation.parameters["release"]))
    running = reads.find_station_firmware(operation.station)
    if running is None or not running.version or _is_same_version(running.version, release.version):
        return settlement
    statuses = reads.list_firmware_statuses(operation.id)
    if statuses and now < statuses[-1].at + _REBOOT:
        return None
    why = f"the station says that {release.version} is installed, and runs {running.version}"
    return Settlement(CampaignStationState.FAILED, {**settlement.outcome, "why": why})


# --- get-log ---------------------------------------------------------------------------------------------------------


def _parse_log(given: Mapping[str, str]) -> dict[str, object]:
    known = known_settings(given, "type", "from", "to")
    parameters: dict[str, object] = {"type": "security", **known}
    check_parameters(OperationKind.GET_LOG, parameters, None)
    return parameters


def _order_log(subject: Subject, sealing: SealingKey) -> Order:
    return Order(subject.parameters, within=register_log(sealing, max_bytes=_MAX_LOG_BYTES))


# --- set-password ----------------------------------------------------------------------------------------------------


def _order_password(_subject: Subject, _sealing: SealingKey) -> Order:
    return Order({}, secret=new_password())


KINDS: Final[Mapping[str, CampaignKind]] = {
    "trigger-renewal": CampaignKind(
        operation=OperationKind.TRIGGER_RENEWAL,
        settings={"use": f"{', '.join(_USES)}; charging-station by default", **ALLOWANCE},
        parse=_parse_renewal,
        judge=judge_renewal,
        order=lambda subject, _sealing: Order(subject.parameters),
        settle=settle_renewal,
    ),
    "replace-certificate": REPLACE,
    "set-password": CampaignKind(
        operation=OperationKind.SET_PASSWORD,
        settings={},
        parse=lambda given: dict(known_settings(given)),
        judge=lambda _subject: None,
        order=_order_password,
    ),
    "set-profile": SET_PROFILE,
    "install-root": INSTALL_ROOT,
    "delete-root": DELETE_ROOT,
    "get-log": CampaignKind(
        operation=OperationKind.GET_LOG,
        settings={
            "type": "security or diagnostics; security by default",
            "from": "first instant, RFC 3339",
            "to": "last instant, RFC 3339",
        },
        parse=_parse_log,
        judge=lambda _subject: None,
        order=_order_log,
    ),
    "update-firmware": CampaignKind(
        operation=OperationKind.UPDATE_FIRMWARE,
        settings={
            "release": "approved release",
            "base-url": "TLS listener of `chargepki serve` as stations reach it",
            "retrieve-at": "when stations fetch it, RFC 3339",
            "install-at": "when they install it, RFC 3339",
            "retries": "how often a station tries again to download",
            "retry-interval": "seconds in between",
            "replace": "yes: take the place of an update that is under way",
        },
        parse=_parse_update,
        judge=_judge_update,
        order=lambda subject, _sealing: Order(
            # Drawn, not counted: a station that kept one from an earlier inventory must not take it for the same.
            {**subject.parameters, "request_id": secrets.randbelow(_MAX_REQUEST_ID) + 1}
        ),
        settle=_settle_update,
        check=_check_update,
    ),
}
"""Every kind of campaign by its name."""
