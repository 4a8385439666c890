"""What ``station set-profile`` and ``station migrate`` do."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chargepki.cli.globals import GlobalState
from chargepki.cli.rooting import record_root
from chargepki.cli.station_rows import operation_row, station_row
from chargepki.cli.stations import operation_store, read_password, record_profile, wait_for
from chargepki.ocpp_security.campaign_profile import NO_ROOT, may_be_lowered
from chargepki.ocpp_security.campaign_roots import find_root
from chargepki.ocpp_security.operation_store import new_operation_id
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret, new_password
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.passwords import check_password, hash_password
from chargepki.ocpp_security.profile_readiness import (
    describe_steps,
    find_csms_root,
    find_obstacles,
    needs_password,
    needs_root,
)
from chargepki.ocpp_security.unsecured import allowance
from chargepki.ocpp_security.version_readiness import plan_version
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.authority import utc_now
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import PresenceRecord, StationRecord, StationState

__all__ = ["plan_rows", "record_or_order", "version_rows"]


def record_or_order(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Correct the record, or queue the operation and wait for it."""
    if options["dry_run"]:
        state.rehearse()
    workspace, profile = state.workspace, options["profile"]
    inventory = workspace.inventory
    if options["record_only"]:
        record = record_profile(workspace, options["station_id"], profile)
        if not options["dry_run"]:
            state.output.say(f"station {record.id} is let in with security profile {profile} or higher")
        presence, terms = inventory.find_presence(record.id), inventory.find_station_terms(record.id)
        state.output.fields("chargepki/station", station_row(record, presence, terms=terms))
        return
    station, now = inventory.get_station(options["station_id"]), utc_now()
    presence = inventory.find_presence(station.id)
    _check_direction(station, presence, profile, downgrade=options["allow_downgrade"])
    given = options["password_file"]
    secret = _slot_password(station, presence, profile, given) if given is not None else None
    if secret is None and needs_password(station, profile):
        secret = new_password()
    root = _root(state, options["root"], presence, profile)
    parameters = profile_parameters(
        profile, url=options["url"], slot=options["slot"], root=root, downgrade=options["allow_downgrade"]
    ) | allowance(allow=options["allow_unsecured"])
    if presence is not None and presence.protocol != OcppVersion.V16.value and options["url"] is None:
        raise StateError(
            f"station {station.id} speaks {presence.protocol} and needs a URL",
            why="its profiles belong to configuration slots, each with the URL of an endpoint (B09)",
            fix="pass --url with the endpoint that serves the new profile",
        )
    allowed = options["allow_unsecured"]
    for obstacle in find_obstacles(inventory, station, presence, profile, now, root=root, allow_unsecured=allowed):
        state.output.say(f"notice: {obstacle.why}{'; it is fetched first' if obstacle.is_fetched else ''}")
    steps = describe_steps(inventory, station, presence, parameters, now, with_password=secret is not None)
    operation = operation_store(workspace).create(
        OperationKind.SET_PROFILE,
        station.id,
        parameters,
        operation_id=new_operation_id(),
        actor=workspace.actor,
        now=now,
        deadline=now + options["deadline"],
        secret=secret,
    )
    if options["dry_run"]:
        for number, text in enumerate(steps, start=1):
            state.output.say(f"step {number}: {text}")
        state.output.fields("chargepki/operation", operation_row(operation) | {"steps": steps})
        return
    wait_for(state, operation, wait=options["wait"], no_wait=options["no_wait"])


def _slot_password(station: StationRecord, presence: PresenceRecord | None, profile: int, path: str) -> PasswordSecret:
    """Return what a new slot gets as its own password.

    Raises:
        StateError: there is no such password in the station's version, or on profile 3.
    """
    if profile not in (1, 2) or presence is None or presence.protocol != OcppVersion.V21.value:
        raise StateError(
            f"station {station.id} cannot be given a password with its configuration slot",
            why="slots have their own in OCPP 2.1, on profiles 1 and 2 (B09.FR.14); it was last seen with "
            + (presence.protocol if presence is not None else "no version"),
            fix=f"change its password by itself: chargepki station set-password {station.id} --password-file {path}",
        )
    password = read_password(path)
    check_password(password, OcppVersion.V21)
    return PasswordSecret(password, hash_password(password))


def _check_direction(station: StationRecord, presence: PresenceRecord | None, profile: int, *, downgrade: bool) -> None:
    known = presence.security_profile if presence is not None and presence.connected else 0
    highest = max(station.security_profile, known)
    version = next((each for each in OcppVersion if presence is not None and each.value == presence.protocol), None)
    if downgrade and not may_be_lowered(profile, highest, version):
        raise StateError(
            f"station {station.id} cannot be lowered from profile {highest} to {profile}",
            why="only a station of OCPP 2.x may be, and only from 3 to 2 (A05.FR.08, FR.09; 1.6 A05.FR.01)",
            fix=f"correct the record with: chargepki station set-profile {station.id} {profile} --record-only",
        )
    if profile < highest and not downgrade:
        raise StateError(
            f"station {station.id} is on profile {highest} already",
            why="a profile is never lowered over OCPP (A05.FR.10; 1.6: A05.FR.01)",
            fix=f"correct the record with: chargepki station set-profile {station.id} {profile} --record-only",
        )


def _root(state: GlobalState, named: str | None, presence: PresenceRecord | None, profile: int) -> str | None:
    """Return the SHA-256 of the CSMS root that the station gets first; a given one is put on record."""
    inventory = state.workspace.inventory
    if named == NO_ROOT or profile == 1:
        return None
    if named is None:
        return find_csms_root(inventory, utc_now()) if needs_root(presence, profile) else None
    if "/" in named or Path(named).is_file():
        return record_root(state.workspace, RootUse.CSMS, named)
    return find_root(inventory, named)


def version_rows(
    inventory: Inventory, version: OcppVersion, *, matching: str | None, locked_out: bool
) -> Iterator[dict[str, Any]]:
    """Yield each station with what it carries over to *version*: there, ready or locked-out."""
    now = utc_now()
    presence = {item.station: item for item in inventory.list_presence()}
    for station in inventory.list_stations(state=StationState.ACTIVE):
        if matching is not None and not fnmatch.fnmatchcase(station.id, matching):
            continue
        plan = plan_version(inventory, station, presence.get(station.id), version, now)
        if locked_out and not plan.obstacles:
            continue
        seen = presence.get(station.id)
        yield {
            "station": station.id,
            "protocol": seen.protocol if seen is not None else None,
            "verdict": "there" if plan.is_there else "locked-out" if plan.obstacles else "ready",
            "why": "; ".join(plan.obstacles),
            "carries": list(plan.carried),
            "steps": list(plan.steps),
        }


def plan_rows(
    inventory: Inventory, profile: int, *, matching: str | None, locked_out: bool
) -> Iterator[dict[str, Any]]:
    """Yield each station with its verdict: ready, fetched or locked-out."""
    now = utc_now()
    root = find_csms_root(inventory, now)
    presence = {item.station: item for item in inventory.list_presence()}
    for station in inventory.list_stations(state=StationState.ACTIVE):
        if matching is not None and not fnmatch.fnmatchcase(station.id, matching):
            continue
        found = find_obstacles(inventory, station, presence.get(station.id), profile, now, root=root)
        verdict = "ready" if not found else "fetched" if all(item.is_fetched for item in found) else "locked-out"
        if locked_out and not found:
            continue
        shown = station_row(station, presence.get(station.id))
        yield {
            "station": station.id,
            "expected_profile": station.security_profile,
            "connected_profile": shown["connected_profile"],
            "protocol": shown["protocol"],
            "verdict": verdict,
            "why": "; ".join(item.why for item in found),
            "obstacles": [{"kind": item.kind, "why": item.why, "fix": item.fix} for item in found],
        }
