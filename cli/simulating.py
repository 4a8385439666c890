"""Run the simulated station for ``station simulate`` and tell what it does."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from chargepki.cli.contracting import read_exi
from chargepki.cli.globals import GlobalState
from chargepki.cli.output import rfc3339
from chargepki.cli.simulating_vehicle import VehiclePlan
from chargepki.cli.stations import read_password
from chargepki.cli.values import format_duration
from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.station import Milestone, Progress, StationSimulator, StationStore
from chargepki.ocpp_security.station.ev_contract import EvExchange
from chargepki.ocpp_security.station.fleet import FleetMember
from chargepki.ocpp_security.station.fleet_plan import plan_members
from chargepki.ocpp_security.trust_store import TrustPolicy
from chargepki.pki import files
from chargepki.pki.errors import PolicyRefusal, StateError, UnavailableError, printable
from chargepki.pki.hashdata_defects import HashDefect

__all__ = ["StationPlant", "simulate", "tell_progress"]

_MAX_TRUST_BYTES = 1 << 20
_TRIES = 3
"""So often the CSMS may answer 401 before that counts as its last word."""


def simulate(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Connect and stay connected until the milestone ``--until`` or an interruption.

    Raises:
        click.UsageError: an unknown milestone, ``--timeout`` without one, or several stations without ``--count``.
        InputError: a bad URL, identity, password or trust file, or an unknown misbehaviour.
        PolicyRefusal: the CSMS refuses for good what the milestone needs.
        UnavailableError: the milestone was not reached within ``--timeout``.
    """
    until, timeout = _milestone(options["until"]), options["timeout"]
    if timeout is not None and until is None:
        raise click.UsageError("--timeout needs --until: without a milestone there is nothing to be late for")
    if options["re_enrol"] and not (options["password_file"] or options["password_dir"]):
        raise click.UsageError("--re-enrol needs --password-file: the station enrols again with its password")
    if options["count"] is None and (len(options["urls"]) > 1 or len(options["protocols"]) > 1):
        raise click.UsageError("several URLs or protocols are for a fleet: pass --count")
    plant = StationPlant(options)
    members = plant.members()
    # Tried in a throw-away store first: what is refused leaves the station's own store as it was.
    with tempfile.TemporaryDirectory(prefix="chargepki-") as folder:
        plant.build(members[0], lambda event: None, None, Path(folder) / "store")
    if options["count"] is not None:
        from chargepki.cli.simulating_fleet import simulate_fleet

        simulate_fleet(state, plant, members, until, timeout, at_once=options["at_once"])
        return
    watch = _Watch(until, lambda event: tell_progress(state, event))
    simulator = plant.build(members[0], watch.told, None, Path(options["store"]))
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(simulator, until, timeout, watch))


class StationPlant:
    """Makes the stations that the options of one command describe.

    Raises:
        InputError: a password, trust file or misbehaviour that is none.
        StateError: a new store, and no password.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self.store = Path(options["store"])
        self._trust = _read(options["trust"], "trust file")
        self._manufacturer_trust = _read(options["manufacturer_trust"], "manufacturer trust file")
        self._password = None if options["password_file"] is None else read_password(Path(options["password_file"]))
        self._policy = _trust_policy(options)
        self._exchange = _exchange(options)
        self._vehicle = VehiclePlan.of(options)
        self._needs_password = not (options["password_file"] or options["password_dir"])
        if self._needs_password and not self.store.exists():
            raise StateError(
                f"station {options['identity']} has neither a certificate nor a password",
                why="its store is new",
                fix="pass --password-file",
            )

    def members(self) -> list[FleetMember]:
        """Return who they are; one without ``--count``."""
        options = self._options
        return plan_members(
            options["identity"],
            options["count"],
            options["urls"],
            options["protocols"],
            [*options["misbehave"], *(f"firmware-{name}" for name in options["faults"])],
            stays=options["on_password"],
            enrol=not options["no_enrol"],
        )

    def build(
        self,
        member: FleetMember,
        told: Callable[[Progress], None],
        gate: contextlib.AbstractAsyncContextManager[Any] | None,
        folder: Path | None = None,
    ) -> StationSimulator:
        """Return a station over its store; *folder* in place of its own in the fleet's."""
        options = self._options
        store = StationStore(folder if folder is not None else self.store / member.identity)
        if self._trust is not None:
            store.set_trust(self._trust)
        password = self._password
        if options["password_dir"]:
            password = read_password(Path(options["password_dir"]) / member.identity)
        if password is not None:
            store.set_password(password)
        if self._manufacturer_trust is not None:
            store.set_manufacturer_trust(self._manufacturer_trust)
        for use, pem in self._vehicle.roots.items():
            store.set_roots(use, pem)
        maker = {name: options[name] for name in ("vendor", "model") if options[name]}
        return StationSimulator(
            member.url,
            member.identity,
            store,
            member.version,
            serial_number=options["serial_number"],
            organization=options["organization"],
            enrol=member.enrol,
            enrol_again=options["re_enrol"],
            conduct=member.conduct,
            firmware_version=options["firmware_version"],
            trust_policy=self._policy,
            dialect=Dialect.OLDER if options["older_dialect"] else Dialect.OCA,
            ev=self._exchange,
            uses=self._vehicle.uses_of(member.version),
            variables=self._vehicle.variables,
            driver=self._vehicle.driver,
            drives_in_offline=options["driver_offline"],
            vehicle_chain=self._vehicle.chain,
            secure_url=options["secure_url"],
            gate=gate,
            progress=told,
            **maker,
        )


def _read(path: str | None, what: str) -> bytes | None:
    return None if path is None else files.read_limited(path, _MAX_TRUST_BYTES, what)


def _exchange(options: Mapping[str, Any]) -> EvExchange | None:
    request, response = options["ev_request"], options["ev_response"]
    if (request is None) != (response is None):
        raise click.UsageError("--ev-request and --ev-response belong together")
    if request is None:
        return None

    def keep(exi: bytes, number: int) -> None:
        files.write_durable(Path(response if number == 1 else f"{response}.{number}"), exi)

    return EvExchange(read_exi(request, "request"), keep)


def _trust_policy(options: Mapping[str, Any]) -> TrustPolicy:
    try:
        defects = frozenset(map(HashDefect, options["hash_defects"]))
    except ValueError:
        known = ", ".join(HashDefect)
        raise click.UsageError(f"--hash-defect names no known mistake; known are {known}") from None
    return TrustPolicy(
        max_certificates=options["max_roots"],
        additional_check=options["additional_root_check"],
        needs_tls=not options["allow_unsecured"],
        hash_defects=defects,
        takes_anything=options["root_fault"],
    )


_FINAL = frozenset({(Milestone.CONTRACT_REFUSED, Milestone.CONTRACT), (Milestone.NOT_AUTHORIZED, Milestone.AUTHORIZED)})
"""Answers that are given once, and what then never comes."""


class _Watch:
    """What `--until` waits for, and whether that can still come: a script must not wait for ever for nothing."""

    def __init__(self, until: Milestone | None, tell: Callable[[Progress], None]) -> None:
        self.until, self._tell = until, tell
        self.last: Progress | None = None
        self.failure: PolicyRefusal | None = None
        self._refused: tuple[int | None, int | None, int] = (None, None, 0)

    def told(self, event: Progress) -> None:
        """Take one thing that happened, and show it."""
        self._tell(event)
        self.last = event
        if event.milestone is Milestone.CONNECTED:
            self._refused = (None, None, 0)
        if event.milestone is Milestone.REFUSED:
            profile, status, times = self._refused
            again = (profile, status) == (event.profile, event.status)
            self._refused = (event.profile, event.status, times + 1 if again else 1)

    def is_over(self, event: Progress) -> bool:
        """Say whether *event* is the milestone, or a failure that waiting does not mend."""
        if event.milestone is self.until:
            return True
        if event.milestone is Milestone.CSR_REFUSED:
            self.failure = PolicyRefusal(
                f"the station did not reach {self.until}: {event.text}",
                why="a request that was refused is refused again",
                fix="see the log of the CSMS, and correct the station's record, its options or the --issue of the CSMS",
            )
        if (event.milestone, self.until) in _FINAL:
            self.failure = PolicyRefusal(
                f"the station did not reach {self.until}: {event.text}",
                fix="see the log of the CSMS: it says why, and what helps",
            )
        if self._refused[1] == 401 and self._refused[2] >= _TRIES:
            self.failure = PolicyRefusal(
                f"the station did not reach {self.until}: the CSMS refused its password {_TRIES} times in a row",
                why=event.text,
                fix="register the station, or correct its password: chargepki station set-password ID --record-only",
            )
        return self.failure is not None


async def _run(simulator: StationSimulator, until: Milestone | None, timeout: timedelta | None, watch: _Watch) -> None:
    try:
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            await simulator.run(until=None if until is None else watch.is_over)
    except TimeoutError as exc:
        last = "nothing happened" if watch.last is None else f"last: {watch.last.text}"
        raise UnavailableError(
            f"the station did not reach {until} within {format_duration(timeout or timedelta())}",
            why=printable(last),
            fix="see the log of the CSMS, or allow more time with --timeout",
        ) from exc
    if watch.failure is not None:
        raise watch.failure


def _milestone(text: str | None) -> Milestone | None:
    if text is None:
        return None
    try:
        return Milestone(text)
    except ValueError:
        known = ", ".join(item.value for item in Milestone)
        raise click.UsageError(f"--until {text!r} is no milestone; known are {known}") from None


def tell_progress(state: GlobalState, event: Progress, station: str | None = None) -> None:
    """Write one thing that happened; of a fleet with the station that it happened to."""
    row = {
        **({} if station is None else {"station": station}),
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
        who = "" if station is None else f"{station}  "
        state.output.text(printable(f"{rfc3339(event.at)}  {who}{event.milestone.value:<22}  {event.text}"))
