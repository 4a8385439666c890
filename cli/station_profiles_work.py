"""What ``station set-profile`` and ``station migrate`` do."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from chargepki.cli.globals import GlobalState
from chargepki.cli.station_rows import station_row
from chargepki.cli.stations import operation_store, record_profile, wait_for
from chargepki.ocpp_security.operation_store import new_operation_id
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.profile_readiness import find_obstacles
from chargepki.pki.authority import utc_now
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import StationState

__all__ = ["plan_rows", "record_or_order"]


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
    parameters = profile_parameters(profile, url=options["url"], slot=options["slot"])
    presence = inventory.find_presence(station.id)
    known = presence.security_profile if presence is not None and presence.connected else 0
    if profile < max(station.security_profile, known):
        raise StateError(
            f"station {station.id} is on profile {max(station.security_profile, known)} already",
            why="a profile is never lowered over OCPP (A05.FR.10; 1.6: A05.FR.01)",
            fix=f"correct the record with: chargepki station set-profile {station.id} {profile} --record-only",
        )
    if presence is not None and presence.protocol != "ocpp1.6" and options["url"] is None:
        raise StateError(
            f"station {station.id} speaks {presence.protocol} and needs a URL",
            why="its profiles belong to configuration slots, each with the URL of an endpoint (B09)",
            fix="pass --url with the endpoint that serves the new profile",
        )
    for obstacle in find_obstacles(inventory, station, presence, profile, now):
        state.output.say(f"notice: {obstacle.why}{'; it is fetched first' if obstacle.is_fetched else ''}")
    operation = operation_store(workspace).create(
        OperationKind.SET_PROFILE,
        station.id,
        parameters,
        operation_id=new_operation_id(),
        actor=workspace.actor,
        now=now,
        deadline=now + options["deadline"],
    )
    wait_for(state, operation, wait=options["wait"], no_wait=options["no_wait"] or options["dry_run"])


def plan_rows(
    inventory: Inventory, profile: int, *, matching: str | None, locked_out: bool
) -> Iterator[dict[str, Any]]:
    """Yield each station with its verdict: ready, fetched or locked-out."""
    now = utc_now()
    presence = {item.station: item for item in inventory.list_presence()}
    for station in inventory.list_stations(state=StationState.ACTIVE):
        if matching is not None and not fnmatch.fnmatchcase(station.id, matching):
            continue
        found = find_obstacles(inventory, station, presence.get(station.id), profile, now)
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
