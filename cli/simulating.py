"""Run the simulated station for ``station simulate`` and tell what it does."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import rfc3339
from chargepki.ocpp_security.passwords import parse_operator_password
from chargepki.ocpp_security.station import Milestone, Progress, StationSimulator, StationStore
from chargepki.pki import files
from chargepki.pki.errors import StateError, printable

__all__ = ["simulate"]

_MAX_PASSWORD_BYTES = 1024
_MAX_TRUST_BYTES = 1 << 20


def simulate(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Connect and stay connected until the milestone ``--until`` or an interruption.

    Raises:
        click.UsageError: an unknown milestone.
        InputError: a bad URL, identity, password or trust file.
    """
    until = _milestone(options["until"])
    trust = files.read_limited(options["trust"], _MAX_TRUST_BYTES, "trust file") if options["trust"] else None
    password = None
    if options["password_file"]:
        data = files.read_limited(options["password_file"], _MAX_PASSWORD_BYTES, "password file")
        password = parse_operator_password(data)
    if password is None and not Path(options["store"]).exists():
        raise StateError(
            f"station {options['identity']} has neither a certificate nor a password",
            why="its store is new",
            fix="pass --password-file",
        )
    # Tried in a throw-away store first: what is refused leaves the station's own store as it was.
    with tempfile.TemporaryDirectory(prefix="chargepki-") as folder:
        _station(state, options, Path(folder) / "store", trust, password)
    simulator = _station(state, options, Path(options["store"]), trust, password)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(simulator, until))


def _station(
    state: GlobalState, options: Mapping[str, Any], folder: Path, trust: bytes | None, password: bytes | None
) -> StationSimulator:
    store = StationStore(folder)
    if trust is not None:
        store.set_trust(trust)
    if password is not None:
        store.set_password(password)
    return StationSimulator(
        options["url"],
        options["identity"],
        store,
        options["protocol"],
        serial_number=options["serial_number"],
        organization=options["organization"],
        enrol=not options["no_enrol"],
        progress=lambda event: _tell(state, event),
    )


async def _run(simulator: StationSimulator, until: Milestone | None) -> None:
    await simulator.run(until=None if until is None else lambda event: event.milestone is until)


def _milestone(text: str | None) -> Milestone | None:
    if text is None:
        return None
    try:
        return Milestone(text)
    except ValueError:
        known = ", ".join(item.value for item in Milestone)
        raise click.UsageError(f"--until {text!r} is no milestone; known are {known}") from None


def _tell(state: GlobalState, event: Progress) -> None:
    row = {
        "at": event.at,
        "milestone": event.milestone,
        "text": event.text,
        "profile": event.profile,
        "status": event.status,
        "certificate": event.certificate,
    }
    if state.output.for_machines:
        state.output.document("chargepki/station-progress", row)
    else:
        state.output.text(printable(f"{rfc3339(event.at)}  {event.milestone.value:<22}  {event.text}"))
