"""What the campaign commands do: choose stations, create, steer, follow."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.progress import progress
from chargepki.ocpp_security.campaign_kinds import find_kind
from chargepki.ocpp_security.campaign_renewal import affected_certificates
from chargepki.ocpp_security.campaign_store import CampaignStore, plan_station
from chargepki.ocpp_security.campaigns import Pace, check_campaign_name
from chargepki.pki import files
from chargepki.pki.authority import utc_now
from chargepki.pki.errors import InputError, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.campaign_records import (
    CampaignRecord,
    CampaignState,
    CampaignStationRecord,
    CampaignStationState,
)
from chargepki.pki.inventory.records import StationState

__all__ = [
    "campaign_row",
    "changed_pace",
    "connected_first",
    "create_campaign",
    "given_pace",
    "launch",
    "retry_stations",
    "show_campaign",
    "station_rows",
    "steer",
]

_MAX_LIST_BYTES: Final = 64 << 20
_POLL_SECONDS: Final = 0.5


def create_campaign(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Choose the stations, judge them, and store the campaign."""
    check_campaign_name(options["name"])
    kind = find_kind(options["kind"])
    parameters = kind.parse(_settings(options["settings"]))
    pace = given_pace(options)
    if options["dry_run"]:
        state.rehearse()
    chosen = _choose(state.workspace.inventory, options)
    launch(state, options["kind"], parameters, chosen, pace, options)


def launch(
    state: GlobalState,
    kind: str,
    parameters: Mapping[str, object],
    chosen: Sequence[str],
    pace: Pace,
    options: Mapping[str, Any],
) -> None:
    """Store a campaign and print it, or in a dry run what each station is waiting for.

    Args:
        options: ``name``, ``ends_in``, ``paused`` and ``dry_run``.
    """
    inventory, now = state.workspace.inventory, utc_now()
    parameters = find_kind(kind).complete(inventory, parameters, now)
    # Before a sealing key is made for it.
    find_kind(kind).check(inventory, parameters, now)
    record = _store(state).create(
        options["name"], kind, parameters, chosen, pace,
        now=now, ends_at=now + options["ends_in"], paused=options["paused"],
    )  # fmt: skip
    if options["dry_run"]:
        rows = []
        for station in chosen:
            objection, steps = plan_station(inventory, find_kind(kind), station, parameters, now)
            verdict = "ready" if objection is None else "skipped" if objection.is_final else "later"
            why = objection.why if objection else "; then ".join(steps)
            rows.append({"station": station, "verdict": verdict, "why": why, "steps": steps})
        state.output.rows("chargepki/campaign-plan", ("station", "verdict", "why"), rows, key="stations")
        return
    state.output.say(f"created campaign {record.id} for {counted(len(chosen), 'station')}")
    follow = "resume" if options["paused"] else "show"
    state.output.say(f"next: chargepki campaign {follow} {record.id}{'' if options['paused'] else ' --watch'}")
    state.output.fields("chargepki/campaign", campaign_row(inventory, record))


def _settings(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set {text!r} is not NAME=VALUE")
        if name in found:
            raise click.UsageError(f"--set names {name} twice")
        found[name] = value
    return found


def given_pace(options: Mapping[str, Any]) -> Pace:
    """Return the pace of a new campaign."""
    return _pace(Pace(waves=tuple(options["waves"])), options)


def _pace(base: Pace, options: Mapping[str, Any]) -> Pace:
    """Return *base* with what the options say."""
    changes: dict[str, Any] = {
        "per_minute": options["rate"],
        "max_in_flight": options["max_in_flight"],
        "jitter_seconds": _seconds(options["jitter"]),
        "between_waves_seconds": _seconds(options["between_waves"]),
        "stop_after": options["stop_after"],
        "deadline_seconds": _seconds(options["deadline"]),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    share = options["stop_share"]
    if share is not None:
        digits = share.removesuffix("%")
        if share != "never" and not (digits.isascii() and digits.isdigit() and len(digits) <= 3):
            raise click.UsageError(f"--stop-share {share!r} is neither a share, for example 20%, nor `never`")
        given["stop_percent"] = None if share == "never" else int(digits)
    return Pace(**{**base.to_json(), "waves": base.waves, **given})


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


def changed_pace(record: CampaignRecord, options: Mapping[str, Any]) -> Pace | None:
    """Return the pace that the options of ``resume`` ask for, or ``None`` when they leave it."""
    before = Pace.from_json(record.pace)
    after = _pace(before, options)
    return None if after == before else after


def _choose(inventory: Inventory, options: Mapping[str, Any]) -> list[str]:
    named = list(options["stations"])
    if options["stations_file"] is not None:
        text = files.read_limited(options["stations_file"], _MAX_LIST_BYTES, "list of stations")
        try:
            named += [line.strip() for line in text.decode().splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError("the list of stations is not UTF-8", fix="write one station a line") from error
    if bool(named) == options["everything"]:
        raise click.UsageError("choose stations: --station, --stations-file or --all")
    for station in named:
        inventory.get_station(station)
    if options["everything"]:
        named = connected_first(inventory, [item.id for item in inventory.list_stations(state=StationState.ACTIVE)])
    spoken = {item.station: item.protocol for item in inventory.list_presence()} if options["protocols"] else {}
    pattern, protocols, profiles = options["matching"], options["protocols"], options["profiles"]
    chosen = [
        station
        for station in dict.fromkeys(named)
        if (pattern is None or fnmatch.fnmatchcase(station, pattern))
        and (not protocols or spoken.get(station) in protocols)
        and (not profiles or inventory.get_station(station).security_profile in profiles)
    ]
    if not chosen:
        raise StateError("no station is left", why="the filters leave out every one", fix="chargepki station list")
    return chosen


def connected_first(inventory: Inventory, stations: Sequence[str]) -> list[str]:
    """Return *stations* with those in front that are connected, in their order otherwise.

    The first wave is there to show whether it works; one of which nobody is connected would show nothing, and hold up
    all others.
    """
    connected = {item.station for item in inventory.list_presence() if item.connected}
    return sorted(stations, key=lambda station: station not in connected)


def campaign_row(inventory: Inventory, record: CampaignRecord) -> dict[str, Any]:
    """Return a campaign and how far it is."""
    counts = inventory.count_campaign_stations(record.id)
    total = {state: sum(each.get(state, 0) for each in counts.values()) for state in CampaignStationState}
    return {
        "name": record.id,
        "kind": record.kind,
        "parameters": record.parameters,
        "pace": record.pace,
        "state": record.state,
        "why": record.why,
        "requester": record.requester,
        "created_at": record.created_at,
        "changed_at": record.changed_at,
        "ends_at": record.ends_at,
        "wave": record.wave,
        "waves": [
            {"wave": wave, **{state.value: states.get(state, 0) for state in CampaignStationState}}
            for wave, states in sorted(counts.items())
        ],
        "stations": sum(total.values()),
        "ended": sum(count for state, count in total.items() if state.is_final),
        **{state.value: count for state, count in total.items()},
    }


def station_rows(inventory: Inventory, name: str, states: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the stations of a campaign, those of *states* only unless it is empty.

    Of a replacement they have one thing more: the certificates that `campaign revoke-rest` would cut them off by.
    """
    campaign, now = inventory.get_campaign(name), utc_now()
    replaces = campaign.kind == "replace-certificate"
    wanted: list[CampaignStationState | None] = [CampaignStationState(state) for state in states]
    for each in wanted or [None]:
        for record in inventory.list_campaign_stations(name, state=each):
            row = _station_row(record)
            if replaces:
                left = affected_certificates(inventory, campaign.parameters, record.station, now)
                row["cut_off_by"] = [item.id for item in left]
            yield row


def _station_row(record: CampaignStationRecord) -> dict[str, Any]:
    outcome = record.outcome or {}
    return {
        "station": record.station,
        "wave": record.wave,
        "state": record.state,
        "why": outcome.get("why", ""),
        "outcome": record.outcome,
        "round": record.round,
        "not_before": record.not_before,
        "began_at": record.began_at,
        "ended_at": record.ended_at,
        "operation": record.operation,
    }


def show_campaign(state: GlobalState, name: str, *, watch: bool, timeout: timedelta | None) -> None:
    """Print a campaign, at once or when it has ended or stopped.

    Raises:
        StateError: it was followed, and has stopped by itself.
    """
    inventory = state.workspace.inventory
    record = _follow(state, name, timeout) if watch else inventory.get_campaign(name)
    row = campaign_row(inventory, record)
    if not (watch and state.json_lines):
        state.output.fields("chargepki/campaign", row)
    if any(row[each] for each in ("failed", "unreached", "skipped")):
        state.output.say(f"next: chargepki campaign stations {name} --state failed --state unreached --state skipped")
    if watch and record.state is CampaignState.STOPPED:
        raise StateError(
            f"campaign {name} has stopped by itself",
            why=record.why or "",
            fix=f"look at the failures, then: chargepki campaign resume {name}, or cancel",
        )


def _follow(state: GlobalState, name: str, timeout: timedelta | None) -> CampaignRecord:
    inventory = state.workspace.inventory
    end = None if timeout is None else time.monotonic() + timeout.total_seconds()
    watcher = inventory.watch()
    shown: dict[str, Any] = {}
    try:
        with progress(state, f"campaign {name}") as draw:
            while True:
                record = inventory.get_campaign(name)
                row = campaign_row(inventory, record)
                draw(row["ended"], row["stations"])
                if state.json_lines and row != shown:
                    state.output.document("chargepki/campaign", row)
                shown = row
                if record.state.is_final or record.state is CampaignState.STOPPED:
                    return record
                if end is not None and time.monotonic() >= end:
                    return record
                watcher.wait(_POLL_SECONDS)
    finally:
        watcher.close()


def steer(state: GlobalState, dry_run: bool, work: Callable[[CampaignStore, datetime], CampaignRecord]) -> None:
    """Change the course of a campaign and print it."""
    if dry_run:
        state.rehearse()
    record = work(_store(state), utc_now())
    state.output.fields("chargepki/campaign", campaign_row(state.workspace.inventory, record))


def retry_stations(state: GlobalState, name: str, states: Sequence[str], *, ends_in: timedelta, dry_run: bool) -> None:
    """Let stations take part once more."""
    if dry_run:
        state.rehearse()
    now = utc_now()
    wanted = [CampaignStationState(each) for each in dict.fromkeys(states)]
    record, number = _store(state).retry(name, wanted, now=now, ends_at=now + ends_in)
    state.output.say(f"{counted(number, 'station')} of campaign {name} {'is' if number == 1 else 'are'} tried again")
    state.output.fields("chargepki/campaign", campaign_row(state.workspace.inventory, record))


def _store(state: GlobalState) -> CampaignStore:
    workspace = state.workspace
    actor = workspace.actor
    return CampaignStore(workspace.inventory, workspace.sealing_key, owner=f"cli {actor.name}", actor=actor)
