"""``chargepki station``: register, operate and simulate charging stations."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.firmware_updates import add_update_firmware
from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.row_filtering import asked_of, row_options, show_page
from chargepki.cli.station_logs import get_log, logs
from chargepki.cli.station_profiles import add_profile_commands
from chargepki.cli.station_roots import add_root_commands
from chargepki.cli.station_watching import events
from chargepki.cli.values import DURATION

if TYPE_CHECKING:
    from chargepki.pki.inventory.records import StationRecord

__all__ = ["station"]

_COLUMNS = (
    *("id", "serial_number", "security_profile", "state", "connected", "protocol"),
    *("model", "firmware_version", "last_seen_at"),
)
_OPERATIONS = ("id", "station", "kind", "state", "requester", "created_at", "outcome")
_MOST_OPERATIONS = 1000
_FAULTS = ("refuse", "download", "corrupt", "verification", "installation", "silent")
_USES = ("charging-station", "v2g", "v2g20", "combined")


@group("station", example="chargepki station add CS-0001 --organization 'Acme Charging'")
def station() -> None:
    """Register, operate and simulate charging stations."""


def _terms_options(command: Any) -> Any:
    """Add the options for the exceptions of one station."""
    for option in reversed(
        [
            click.option(
                "--onboarding-ca",
                metavar="FILE|NAME",
                help="Let it in with its manufacturer's certificate, only to get one of ours (A00.FR.406).",
            ),
            click.option(
                "--accept-expired/--no-accept-expired",
                default=None,
                help="Let it in with its expired certificate, to renew it and for nothing else (A00.FR.429).",
            ),
            click.option(
                "--password-grace",
                type=DURATION,
                metavar="1h",
                help="Accept its old password for so long after a change, against A01.FR.03.",
            ),
        ]
    ):
        command = option(command)
    return command


@station.command(
    "add", writes="create", example="chargepki station add CS-0001 --serial-number SN-77 --password-file cs-0001.txt"
)
@click.argument("station_id", metavar="ID")
@click.option("--serial-number", metavar="S", help="Serial number, the CN of its certificate; ID otherwise.")
@click.option("--organization", metavar="O", help="O that its certificate must have.")
@click.option(
    "--security-profile",
    type=click.IntRange(0, 3),
    default=2,
    show_default=True,
    help="Profile below which it is never let in; 0 is for 1.6 stations that know no profile.",
)
@click.option("--password-file", metavar="F|-", help="Its Basic password, 16 to 20 characters fit every version.")
@_terms_options
@click.option("--count", type=click.IntRange(1, 100_000), metavar="N", help="Register N: {} in ID is their number.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def add(
    state: GlobalState,
    station_id: str,
    serial_number: str | None,
    organization: str | None,
    security_profile: int,
    password_file: str | None,
    onboarding_ca: str | None,
    accept_expired: bool | None,
    password_grace: timedelta | None,
    count: int | None,
    dry_run: bool,
) -> None:
    """Register the station ID, or bring a removed one back; with --count many of them, as `station simulate` runs."""
    from chargepki.cli.station_terms import terms_changes
    from chargepki.cli.stations import add_stations
    from chargepki.ocpp_security.station.fleet_plan import fleet_names

    if count is not None and serial_number is not None:
        raise click.UsageError("stations of a fleet have serial numbers of their own: leave out --serial-number")
    names = [station_id] if count is None else fleet_names(station_id, count)
    password = _read_password(password_file)
    if dry_run:
        state.rehearse()
    records = add_stations(
        state,
        names,
        serial_number=serial_number,
        organization=organization,
        security_profile=security_profile,
        password=password,
        terms=terms_changes(
            state.workspace.inventory,
            onboarding_ca=onboarding_ca,
            accept_expired=accept_expired,
            password_grace=password_grace,
        ),
    )
    if not dry_run:
        state.output.say(f"registered {f'station {records[0].id}' if count is None else f'{len(records)} stations'}")
    if security_profile == 0:
        state.output.say("warning: with profile 0 anybody who knows its identity can speak in its name")
    if password is None and 0 < security_profile < 3:
        state.output.say(f"it has no password yet; next: chargepki station set-password {records[0].id} --record-only")
    if count is None:
        state.output.fields("chargepki/station", _row(state, records[0]))
    else:
        rows = [_row(state, record) for record in records]
        state.output.rows("chargepki/station-list", _COLUMNS, rows, key="stations")


@station.command("set", writes="change", example="chargepki station set CS-0001 --onboarding-ca acme-maker.pem")
@click.argument("station_id", metavar="ID")
@click.option("--serial-number", metavar="S", help="Serial number, the CN of its certificate.")
@click.option("--organization", metavar="O", help="O that its certificate must have.")
@_terms_options
@click.option(
    "--issue", multiple=True, metavar="KIND=CA[:PROFILE]", help="What signs its CSRs of KIND, here alone; repeatable."
)
@click.option("--no-issue", is_flag=True, help="Let the endpoint's --issue decide again.")
@click.option("--no-onboarding", is_flag=True, help="End the exception of --onboarding-ca.")
@click.option("--no-password-grace", is_flag=True, help="End the exception of --password-grace, at once.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def set_station(
    state: GlobalState,
    station_id: str,
    serial_number: str | None,
    organization: str | None,
    onboarding_ca: str | None,
    accept_expired: bool | None,
    password_grace: timedelta | None,
    issue: tuple[str, ...],
    no_issue: bool,
    no_onboarding: bool,
    no_password_grace: bool,
    dry_run: bool,
) -> None:
    """Change what is on record about station ID; what is not given stays.

    The exceptions hold for this station alone, and `station show` names each of them.
    """
    from chargepki.cli.station_terms import change_station, terms_changes

    if (onboarding_ca and no_onboarding) or (password_grace and no_password_grace) or (issue and no_issue):
        raise click.UsageError("an exception cannot be made and ended at once")
    if dry_run:
        state.rehearse()
    workspace = state.workspace
    terms = terms_changes(
        workspace.inventory,
        onboarding_ca=onboarding_ca,
        no_onboarding=no_onboarding,
        accept_expired=accept_expired,
        password_grace=password_grace,
        no_password_grace=no_password_grace,
        issue=issue,
        no_issue=no_issue,
    )
    if not terms and serial_number is None and organization is None:
        raise click.UsageError("nothing to change; see `chargepki station set --help`")
    record = change_station(workspace, station_id, serial_number=serial_number, organization=organization, terms=terms)
    state.output.fields("chargepki/station", _row(state, record))


@station.command("list", example='chargepki station list --where "last_seen_at < now - 30d or last_seen_at is null"')
@row_options
@pass_state
def list_stations(
    state: GlobalState, where: str | None, query: str | None, at: datetime | None, limit: int, after: str | None
) -> None:
    """List the stations by identity: who is connected, which firmware runs, when each was last seen."""
    from chargepki.cli.station_rows import station_rows
    from chargepki.pki.inventory.row_fields import keep_rows

    asked = asked_of(state, "station", where, query, at)
    rows = keep_rows(station_rows(state.workspace.inventory, after=after), asked)
    show_page(state, "chargepki/station-list", _COLUMNS, rows, key="stations", limit=limit)


@station.command(
    "operations", example="chargepki station operations --where \"state = 'failed' and created_at > now - 7d\""
)
@click.argument("station_id", metavar="ID", required=False)
@row_options
@pass_state
def list_operations(
    state: GlobalState,
    station_id: str | None,
    where: str | None,
    query: str | None,
    at: datetime | None,
    limit: int,
    after: str | None,
) -> None:
    """List operations, the newest first: of the station ID, or of all.

    With --json each carries what the station was sent and what it answered.
    """
    from chargepki.cli.station_rows import attempt_rows, operation_row
    from chargepki.pki.inventory.row_fields import keep_rows

    inventory = state.workspace.inventory
    asked = asked_of(state, "operation", where, query, at)
    if station_id is not None:
        inventory.get_station(station_id)
    behind = None if after is None else inventory.get_operation(after)
    rows = keep_rows(map(operation_row, inventory.list_newest_operations(station=station_id, behind=behind)), asked)
    if state.output.for_machines:
        rows = ({**row, "attempts": attempt_rows(inventory, row["id"])} for row in rows)
    show_page(state, "chargepki/operation-list", _OPERATIONS, rows, key="operations", limit=limit)


@station.command("show", example="chargepki station show CS-0001")
@click.argument("station_id", metavar="ID")
@pass_state
def show(state: GlobalState, station_id: str) -> None:
    """Show a station, its certificates, what is installed on it, and its latest operations."""
    from chargepki.cli.cert import certificate_row
    from chargepki.cli.rooting import station_roots
    from chargepki.cli.station_rows import operation_row
    from chargepki.ocpp_security.trust_reconcile import status_row

    inventory = state.workspace.inventory
    record = inventory.get_station(station_id)
    row = _row(state, record)
    certificates = [certificate_row(item) for item in inventory.list_certificates(station=record.id)]
    latest = islice(inventory.list_newest_operations(station=record.id), _MOST_OPERATIONS)
    operations = [operation_row(item) for item in latest]
    roots = [status_row(item) for item in station_roots(state.workspace, record.id, ())]
    if state.output.for_machines:
        lists = {"certificates": certificates, "roots": roots, "operations": operations}
        state.output.document("chargepki/station", {**row, **lists})
        return
    state.output.fields("chargepki/station", row)
    if certificates:
        state.output.rows(
            "chargepki/certificate-list", ("id", "profile", "state", "delivery", "not_after"), certificates
        )
    if roots:
        columns = ("use", "finding", "certificate", "reported_at")
        state.output.rows("chargepki/station-roots", columns, roots)
    if operations:
        state.output.rows("chargepki/operation-list", ("kind", "state", "created_at", "outcome"), operations)


@station.command("remove", writes="change", example="chargepki station remove CS-0001 --yes")
@click.argument("station_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def remove(state: GlobalState, station_id: str, yes: bool, dry_run: bool) -> None:
    """Remove a station: it is not let in any more; its certificates stay until they are revoked."""
    from chargepki.cli.stations import confirm_removal, remove_station

    if dry_run:
        state.rehearse()
    confirm_removal(state, station_id, yes=yes or dry_run)
    record = remove_station(state.workspace, station_id)
    live = [
        item.id for item in state.workspace.inventory.list_certificates(station=record.id) if item.state == "issued"
    ]
    if not dry_run:
        state.output.say(f"removed station {record.id}")
    for certificate in live:
        state.output.say(f"next: chargepki cert revoke {certificate} --reason cessationOfOperation")
    state.output.fields("chargepki/station", _row(state, record))


station.add_command(events)
station.add_command(get_log)
station.add_command(logs)


add_profile_commands(station)


@station.command("set-password", writes="change", example="chargepki station set-password CS-0001 --wait 60s")
@click.argument("station_id", metavar="ID")
@click.option("--password-file", metavar="F|-", help="The new password; one is made when this is left out.")
@click.option("--record-only", is_flag=True, help="Correct our record without talking to the station.")
@click.option(
    "--wait", type=DURATION, metavar="60s", help="How long to wait; by default 60s on a terminal, else not at all."
)
@click.option("--no-wait", is_flag=True, help="Queue the operation and return at once.")
@click.option("--deadline", type=DURATION, default="1h", metavar="1h", help="Give up after this time.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def set_password(
    state: GlobalState,
    station_id: str,
    password_file: str | None,
    record_only: bool,
    wait: timedelta | None,
    no_wait: bool,
    deadline: timedelta,
    dry_run: bool,
) -> None:
    """Change the Basic password of a station, over OCPP.

    Without --password-file a random password is made; it is sent to the station and shown to nobody, except with
    --record-only, where you have to carry it to the station yourself.
    """
    from chargepki.cli.stations import record_password, start_password_change, wait_for
    from chargepki.ocpp_security.passwords import generate_password

    given = _read_password(password_file)
    password = given if given is not None else generate_password().encode()
    if dry_run:
        state.rehearse()
    workspace = state.workspace
    if record_only:
        record = record_password(workspace, station_id, password)
        if not dry_run:
            state.output.say(f"recorded a new password for {record.id}")
        row = _row(state, record)
        if given is None and not dry_run:
            row["password"] = password.decode()
        state.output.fields("chargepki/station", row)
        return
    operation = start_password_change(workspace, station_id, password, deadline=deadline)
    wait_for(state, operation, wait=wait, no_wait=no_wait or dry_run)


@station.command(
    "trigger-renewal", writes="change", example="chargepki station trigger-renewal CS-0001 --use charging-station"
)
@click.argument("station_id", metavar="ID")
@click.option("--use", type=click.Choice(_USES), default="charging-station", show_default=True, help="Which one.")
@click.option(
    "--wait", type=DURATION, metavar="60s", help="How long to wait; by default 60s on a terminal, else not at all."
)
@click.option("--no-wait", is_flag=True, help="Queue the operation and return at once.")
@click.option("--deadline", type=DURATION, default="1h", metavar="1h", help="Give up after this time.")
@click.option("--allow-unsecured", is_flag=True, help="Have it done over a connection without TLS too; recorded.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def trigger_renewal(
    state: GlobalState,
    station_id: str,
    use: str,
    allow_unsecured: bool,
    wait: timedelta | None,
    no_wait: bool,
    deadline: timedelta,
    dry_run: bool,
) -> None:
    """Ask a station to make a new key and send a CSR; done when it has taken the new certificate."""
    from chargepki.cli.stations import start_renewal, wait_for

    if dry_run:
        state.rehearse()
    operation = start_renewal(state.workspace, station_id, use, deadline=deadline, allow_unsecured=allow_unsecured)
    wait_for(state, operation, wait=wait, no_wait=no_wait or dry_run)


add_update_firmware(station)
add_root_commands(station)


@station.command(
    "simulate",
    example="chargepki station simulate wss://localhost:8443 --id CS-0001 --store ./cs-0001 --protocol ocpp2.0.1 \\\n"
    "    --password-file cs-0001.txt --trust root.pem",
)
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--id", "identity", required=True, metavar="ID", help="Identity; of a fleet with {} for the number.")
@click.option("--store", required=True, metavar="DIR", help="Folder of its keys, certificates and settings.")
@click.option(
    "--protocol",
    "protocols",
    required=True,
    multiple=True,
    type=click.Choice(["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]),
    help="OCPP version; of a fleet several, dealt out in turn.",
)
@click.option("--count", type=click.IntRange(1, 100_000), metavar="N", help="Run N stations, each with its own store.")
@click.option(
    "--misbehave", multiple=True, metavar="NAME[=WHO]", help="Err so; WHO is a share, 10%, or numbers: 3,7-9."
)
@click.option("--on-password", metavar="WHO", help="Who of a fleet asks for no certificate and stays on profile 2.")
@click.option(
    "--at-once",
    type=click.IntRange(1, 1000),
    default=32,
    show_default=True,
    help="How many connect at once.",
)
@click.option("--password-file", metavar="F", help="Basic password for its first connection.")
@click.option("--password-dir", metavar="DIR", help="Folder with a password file for each station, named by identity.")
@click.option("--trust", metavar="F", help="CSMS root certificate (PEM) to install first.")
@click.option("--serial-number", metavar="S", help="Serial number; ID otherwise.")
@click.option("--organization", metavar="O", help="Organisation in its CSR.")
@click.option("--no-enrol", is_flag=True, help="Do not ask for a certificate by itself.")
@click.option("--re-enrol", is_flag=True, help="Enrol with the password when its certificate is refused for good.")
@click.option("--manufacturer-trust", metavar="F", help="Manufacturer root (PEM) to install: whose firmware it takes.")
@click.option("--vendor", metavar="V", help="Vendor that it tells in BootNotification.")
@click.option("--model", metavar="M", help="Model that it tells in BootNotification.")
@click.option("--firmware-version", metavar="X.Y.Z", default="1.0.0", help="What a new store runs.")
@click.option("--firmware-fault", "faults", multiple=True, type=click.Choice(_FAULTS), help="Fail so in updates.")
@click.option("--additional-root-check", is_flag=True, help="Take a new CSMS root only if the old one signed it.")
@click.option("--allow-unsecured", is_flag=True, help="Take certificates and roots over connections without TLS too.")
@click.option("--max-roots", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many it can hold.")
@click.option("--hash-defect", "hash_defects", multiple=True, metavar="D", help="Compute hash data wrongly, by name.")
@click.option("--secure-url", metavar="URL", help="1.6: where it goes when the CSMS raises its profile to 2 or 3.")
@click.option("--root-fault", is_flag=True, help="Install anything as a root, and never find it again.")
@click.option("--use", "uses", multiple=True, type=click.Choice(_USES), help="Certificates it enrols for; repeatable.")
@click.option("--variable", "variables", multiple=True, metavar="NAME=VALUE", help="First value of a variable.")
@click.option("--root", "roots", multiple=True, metavar="USE=F", help="Root (PEM) to install first: v2g, mo or oem.")
@click.option("--contract", metavar="F", help="A vehicle's contract chain (PEM, leaf first): authorize it (C07).")
@click.option("--emaid", metavar="E", help="The eMAID of --contract; its CN otherwise.")
@click.option("--id-token", metavar="T", help="A token that a driver shows: authorize it (C08).")
@click.option("--driver-offline", is_flag=True, help="The driver comes before the station has connected.")
@click.option("--vehicle-chain", metavar="F", help="2.1: a vehicle's chain (PEM): ask for its status (M07).")
@click.option("--ev-request", metavar="F", help="EXI of a vehicle's request for its contract, to pass on once.")
@click.option("--ev-response", metavar="F", help="File for the answer; further ones get .2, .3 appended.")
@click.option("--older-dialect", is_flag=True, help="In 1.6, speak of vehicles by the DataTransfer of has.to.be.")
@click.option("--until", metavar="MILESTONE", help="Stop at this milestone, for example certificate-proven.")
@click.option("--timeout", type=DURATION, metavar="60s", help="Give up when --until is not reached in this time.")
@pass_state
def simulate(state: GlobalState, /, **options: Any) -> None:
    """Run a charging station of our own against the CSMS at URL, until Ctrl-C or --until; with --count a fleet of them.

    It makes real keys, keeps them in its store, checks every certificate that it is given, and keeps the old one
    until the new one has worked. Several URLs and protocols are for fleets.
    """
    from chargepki.cli.simulating import simulate as run

    run(state, options)


@station.command("misbehaviours", example="chargepki station misbehaviours --json")
@pass_state
def misbehaviours(state: GlobalState) -> None:
    """List what `station simulate --misbehave` can do wrong, by name: mistakes of stations in the field."""
    from chargepki.ocpp_security.station.misbehaviour import MISBEHAVIOURS

    rows = ({"name": name, "what": what} for name, what in MISBEHAVIOURS.items())
    state.output.rows("chargepki/misbehaviour-list", ("name", "what"), rows, key="misbehaviours")


def _row(state: GlobalState, record: StationRecord) -> dict[str, Any]:
    from chargepki.cli.station_rows import station_row

    inventory = state.workspace.inventory
    return station_row(
        record,
        inventory.find_presence(record.id),
        terms=inventory.find_station_terms(record.id),
        firmware=inventory.find_station_firmware(record.id),
    )


def _read_password(path: str | None) -> bytes | None:
    from chargepki.cli.stations import read_password

    return None if path is None else read_password(path)
