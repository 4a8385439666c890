"""What the station commands do in the inventory: registration, passwords, operations and the wait for their outcome."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.progress import progress
from chargepki.cli.station_rows import operation_row
from chargepki.ocpp_security.basic_auth import check_identity
from chargepki.ocpp_security.identity import check_serial_number
from chargepki.ocpp_security.log_store import register_log
from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret
from chargepki.ocpp_security.passwords import hash_password, parse_operator_password
from chargepki.ocpp_security.unsecured import allowance
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.ocpp_security.wire_time import wire_time
from chargepki.pki import files, names
from chargepki.pki.authority import utc_now
from chargepki.pki.errors import Conflict, StateError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import OperationRecord, OperationState, StationRecord, StationState
from chargepki.pki.inventory.terms_records import StationTermsRecord
from chargepki.pki.workspace import Workspace

__all__ = [
    "CERTIFICATE_USES",
    "add_station",
    "add_stations",
    "await_outcome",
    "confirm_removal",
    "operation_store",
    "read_password",
    "record_password",
    "record_profile",
    "remove_station",
    "start_log_request",
    "start_password_change",
    "start_renewal",
    "wait_for",
]

CERTIFICATE_USES = {
    "charging-station": CertificateUse.CHARGING_STATION,
    "v2g": CertificateUse.V2G,
    "v2g20": CertificateUse.V2G20,
    "combined": CertificateUse.COMBINED,
}
_DEFAULT_WAIT = timedelta(seconds=60)
_POLL_SECONDS = 0.2
_MAX_PASSWORD_BYTES = 1024


def add_stations(state: GlobalState, names: Sequence[str], **told: Any) -> list[StationRecord]:
    """Register stations that differ by their identity alone; see `add_station`.

    Raises:
        Conflict: one of them is registered; nothing has changed then.
    """
    inventory = state.workspace.inventory
    for name in names if len(names) > 1 else ():
        known = inventory.find_station(name)
        if known is not None and known.state is StationState.ACTIVE:
            raise Conflict(f"station {name} is registered already", fix="choose other identities, or remove it first")
    records = []
    with progress(state, "stations") as show:
        for done, name in enumerate(names, 1):
            records.append(add_station(state.workspace, name, **told))
            show(done, len(names))
    return records


def add_station(
    workspace: Workspace,
    station_id: str,
    *,
    serial_number: str | None,
    organization: str | None,
    security_profile: int,
    password: bytes | None,
    terms: Mapping[str, Any] = MappingProxyType({}),
) -> StationRecord:
    """Register a station.

    Raises:
        InputError: OCPP does not allow the identity or the serial number.
        Conflict: an active station of that identity exists.
    """
    check_identity(station_id)
    if serial_number is None:
        serial_number = station_id
    check_serial_number(serial_number)
    if organization is not None:
        # What no certificate can hold would refuse every request of the station later.
        names.build_name([("O", organization)])
    now = utc_now()
    hashed = hash_password(password) if password is not None else None
    record = StationRecord(
        id=station_id,
        serial_number=serial_number,
        organization=organization,
        security_profile=security_profile,
        state=StationState.ACTIVE,
        created_at=now,
        password_hash=hashed,
        password_changed_at=now if hashed else None,
    )

    def work(tx: Transaction) -> StationRecord:
        added = _put_station(tx, record)
        # One that is brought back starts without the exceptions it had.
        fresh = {field.name: field.default for field in dataclasses.fields(StationTermsRecord)[1:]}
        kept = tx.find_station_terms(station_id)
        if terms or kept != StationTermsRecord(station_id):
            tx.change_station_terms(station_id, **{**fresh, **terms})
        details = {"serial_number": record.serial_number, "security_profile": security_profile}
        for name in ("onboarding_ca", "accept_expired", "password_grace_seconds"):
            if terms.get(name):
                details[name] = terms[name]
        tx.audit(workspace.actor, "station.add", station_id, now=now, details=details)
        return added

    return workspace.inventory.write(work)


def _put_station(tx: Transaction, record: StationRecord) -> StationRecord:
    """Store a new station, or bring back a removed one with what *record* says."""
    existing = tx.find_station(record.id)
    if existing is not None and existing.state is StationState.ACTIVE:
        raise Conflict(
            f"station {record.id} is registered already",
            why="identities are unique",
            fix=f"look at it with: chargepki station show {record.id}",
        )
    if existing is None:
        tx.add_station(record)
        return record
    return tx.update_station(
        record.id,
        state=StationState.ACTIVE,
        serial_number=record.serial_number,
        organization=record.organization,
        security_profile=record.security_profile,
        password_hash=record.password_hash,
        pending_password_hash=None,
        password_changed_at=record.password_changed_at,
    )


def read_password(path: str | Path) -> bytes:
    """Return the password that a file holds; ``-`` is stdin.

    Raises:
        InputError: it holds none that any version takes.
        UnavailableError: it cannot be read.
    """
    return parse_operator_password(files.read_limited(path, _MAX_PASSWORD_BYTES, "password file"))


def confirm_removal(state: GlobalState, station_id: str, *, yes: bool) -> None:
    """Ask before a station is locked out; refuse where nobody can answer."""
    state.workspace.inventory.get_station(station_id)
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StateError(
            f"station {station_id} would be locked out", why="nobody is there to confirm it", fix="pass --yes"
        )
    if not click.confirm(f"Station {station_id} will not be let in any more. Remove it?", err=True):
        raise click.Abort


def remove_station(workspace: Workspace, station_id: str) -> StationRecord:
    """Lock a station out; its history stays."""

    def work(tx: Transaction) -> StationRecord:
        record = tx.get_station(station_id)
        if record.state is StationState.REMOVED:
            return record
        removed = tx.remove_station(station_id)
        tx.audit(workspace.actor, "station.remove", station_id, now=utc_now())
        return removed

    return workspace.inventory.write(work)


def record_profile(workspace: Workspace, station_id: str, profile: int) -> StationRecord:
    """Set the expected security profile without telling the station; setting it again changes nothing.

    Raises:
        NotFound: no such station.
    """

    def work(tx: Transaction) -> StationRecord:
        record = tx.get_station(station_id)
        if record.security_profile == profile:
            return record
        changed = tx.update_station(station_id, security_profile=profile)
        details = {"security_profile": profile, "before": record.security_profile}
        tx.audit(workspace.actor, "station.change", station_id, now=utc_now(), details=details)
        return changed

    return workspace.inventory.write(work)


def record_password(workspace: Workspace, station_id: str, password: bytes) -> StationRecord:
    """Replace the recorded password without telling the station."""
    workspace.inventory.get_station(station_id)
    store = operation_store(workspace)
    return store.record_password(station_id, hash_password(password), actor=workspace.actor, now=utc_now())


def start_password_change(
    workspace: Workspace, station_id: str, password: bytes, *, deadline: timedelta
) -> OperationRecord:
    """Queue a password change; the new password waits sealed in the inventory."""
    now = utc_now()
    workspace.inventory.get_station(station_id)  # before a sealing key is made for it
    return operation_store(workspace).create(
        OperationKind.SET_PASSWORD,
        station_id,
        {},
        operation_id=new_operation_id(),
        actor=workspace.actor,
        now=now,
        deadline=now + deadline,
        secret=PasswordSecret(password, hash_password(password)),
    )


def start_renewal(
    workspace: Workspace, station_id: str, use: str, *, deadline: timedelta, allow_unsecured: bool = False
) -> OperationRecord:
    """Queue a renewal of the certificate of *use* (the option's spelling)."""
    now = utc_now()
    workspace.inventory.get_station(station_id)
    return operation_store(workspace).create(
        OperationKind.TRIGGER_RENEWAL,
        station_id,
        {"use": CERTIFICATE_USES[use].value, **allowance(allow=allow_unsecured)},
        operation_id=new_operation_id(),
        actor=workspace.actor,
        now=now,
        deadline=now + deadline,
    )


def start_log_request(
    workspace: Workspace,
    station_id: str,
    log_type: str,
    *,
    begin: datetime | None,
    end: datetime | None,
    max_bytes: int,
    deadline: timedelta,
) -> OperationRecord:
    """Queue a request for a log of a station."""
    now = utc_now()
    workspace.inventory.get_station(station_id)  # before a sealing key is made for it
    parameters: dict[str, object] = {"type": log_type}
    parameters |= {name: wire_time(at) for name, at in (("from", begin), ("to", end)) if at is not None}
    return operation_store(workspace).create(
        OperationKind.GET_LOG,
        station_id,
        parameters,
        operation_id=new_operation_id(),
        actor=workspace.actor,
        now=now,
        deadline=now + deadline,
        within=register_log(workspace.sealing_key, max_bytes=max_bytes),
    )


def wait_for(state: GlobalState, operation: OperationRecord, *, wait: timedelta | None, no_wait: bool) -> None:
    """Wait for the outcome (on a terminal, or as long as ``--wait`` says) and print the operation.

    Raises:
        StateError: it failed or expired.
    """
    patience = wait if wait is not None else _DEFAULT_WAIT if sys.stderr.isatty() else timedelta(0)
    current = operation
    if not no_wait and patience > timedelta(0):
        state.output.say(f"{operation.kind} for {operation.station}: waiting up to {int(patience.total_seconds())} s")
        current = _await_outcome(state, operation, patience.total_seconds(), time.monotonic)
    row = operation_row(current)
    if not current.state.is_final and state.writes != "rehearse":
        waited = not no_wait and patience > timedelta(0)
        word = "not finished yet" if waited else "queued"
        state.output.say(f"{word}; look at it with: chargepki station show {operation.station}")
    state.output.fields("chargepki/operation", row)
    if current.state in (OperationState.FAILED, OperationState.EXPIRED):
        why = str((current.outcome or {}).get("why", "the station did not do it"))
        raise StateError(
            f"{current.kind} for {current.station} {current.state.value}: {why}",
            fix=f"see what the station reported: chargepki station events {current.station}",
        )


def await_outcome(state: GlobalState, operation: OperationRecord, wait: timedelta) -> OperationRecord:
    """Wait for the outcome and return the operation.

    Raises:
        StateError: it failed or expired, or has not finished in time.
    """
    current = _await_outcome(state, operation, wait.total_seconds(), time.monotonic)
    if current.state is not OperationState.DONE:
        why = str((current.outcome or {}).get("why", "the station has not answered in time"))
        raise StateError(
            f"{current.kind} for {current.station} {current.state.value}: {why}",
            fix=f"see whether it is connected: chargepki station show {current.station}",
        )
    return current


def _await_outcome(
    state: GlobalState, operation: OperationRecord, seconds: float, clock: Callable[[], float]
) -> OperationRecord:
    end = clock() + seconds
    inventory = state.workspace.inventory
    watcher = inventory.watch()
    try:
        current = operation
        while not current.state.is_final and clock() < end:
            watcher.wait(_POLL_SECONDS)
            current = inventory.get_operation(operation.id)
        return current
    finally:
        watcher.close()


def operation_store(workspace: Workspace) -> OperationStore:
    """Return what queues operations in the name of whoever runs the command."""
    return OperationStore(
        workspace.inventory, workspace.sealing_key, owner=f"cli {workspace.actor.name}", actor=workspace.actor
    )
