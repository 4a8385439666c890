"""The work of ``cert renew --due``: a campaign for what stations hold, files for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.progress import progress
from chargepki.cli.renewing import order_for
from chargepki.ocpp_security.campaign_kinds import find_kind
from chargepki.ocpp_security.campaign_store import CampaignStore
from chargepki.ocpp_security.campaigns import Pace
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import files
from chargepki.pki.authority import utc_now
from chargepki.pki.authority.renewal import due_at, find_due, find_renewal
from chargepki.pki.der import to_pem
from chargepki.pki.errors import ChargePkiError, Conflict, SignerError, UnavailableError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.campaign_records import CampaignStationState
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CertificateRecord
from chargepki.pki.profiles import get_profile

__all__ = ["renew_due"]

_CHUNK: Final = 64
_CAMPAIGN_ENDS: Final = timedelta(days=30)
_USES: Final = {
    "ocpp/charging-station": CertificateUse.CHARGING_STATION,
    "iso15118-2/secc": CertificateUse.V2G,
    "iso15118-20/secc": CertificateUse.V2G20,
    "iso15118-20-a1/secc": CertificateUse.V2G20,
}
_ATTEMPTS: Final = 5
"""How often a campaign is planned anew because another process has created one meanwhile."""
_COLUMNS: Final = ("certificate", "station", "not_after", "action", "successor", "why")


@dataclass(slots=True)
class _Due:
    """One certificate that is due, and what becomes of it."""

    record: CertificateRecord
    action: str = "renew"
    successor: str | None = None
    out: str | None = None
    why: str | None = None
    code: int = 0

    def row(self) -> dict[str, Any]:
        return {
            "certificate": self.record.id,
            "profile": self.record.profile,
            "subject": self.record.subject,
            "station": self.record.station,
            "due_at": due_at(self.record),
            "not_after": self.record.not_after,
            "action": self.action,
            "successor": self.successor,
            "out": self.out,
            "why": self.why,
        }


def renew_due(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Renew what is due, and print what became of each.

    Raises:
        click.exceptions.Exit: 3 when one was refused, 4 when a file or a key is not available.
        click.UsageError: certificates that no station holds are due, and there is no ``--out-dir``.
    """
    if options["profile"] is not None:
        get_profile(options["profile"])  # A misspelt one would be answered by an empty list.
    inventory, now = state.workspace.inventory, utc_now()
    ca = inventory.get_ca(options["ca"]).id if options["ca"] else None
    folder = Path(options["out_dir"]) if options["out_dir"] else None
    chosen: list[_Due] = []
    for record, successor in find_due(inventory, now, ca=ca, profile=options["profile"]):
        held = record.station is not None and record.profile in _USES
        unwritten = (
            successor is not None
            and not held
            and successor == find_renewal(inventory, record)
            and folder is not None
            and not _target(folder, record).exists()
        )
        # One that an interrupted run issued and did not write is written by this one.
        if (successor is None and not (held and _is_under_way(inventory, record))) or unwritten:
            chosen.append(_Due(record, "campaign" if held else "renew"))
        if len(chosen) == options["limit"]:
            break
    with_stations = [each for each in chosen if each.action == "campaign"]
    others = [each for each in chosen if each.action == "renew"]
    if others and folder is None and not options["dry_run"]:
        due = counted(len(others), "certificate")
        raise click.UsageError(f"{due} that no station holds: name a folder for the new ones with --out-dir")
    if not options["dry_run"]:
        if others and folder is not None:
            _renew(state, others, folder, options)
        _launch(state, with_stations, options, now)
    _print(state, chosen)


def _is_under_way(inventory: Reads, record: CertificateRecord) -> bool:
    """Whether an open campaign is to make the station of *record* renew it already."""
    assert record.station is not None
    use = _USES[record.profile].value
    asked = {
        each.campaign
        for each in inventory.list_campaigns_of_station(record.station)
        if each.state in (CampaignStationState.WAITING, CampaignStationState.RUNNING)
    }
    return any(
        each.id in asked and each.kind == OperationKind.TRIGGER_RENEWAL and each.parameters.get("use") == use
        for each in inventory.list_campaigns(open_only=True)
    )


def _target(folder: Path, record: CertificateRecord) -> Path:
    return folder / f"{record.ca}-{record.serial}.pem"


def _renew(state: GlobalState, due: Sequence[_Due], folder: Path, options: Mapping[str, Any]) -> None:
    files.make_folder(folder)
    authority = state.workspace.authority
    for ca in dict.fromkeys(each.record.ca for each in due):
        # What a crash left reserved is completed first, so that the inventory is whole before it grows.
        authority.recover(state.workspace.inventory.get_ca(ca).name)
    with progress(state, "renewing") as show:
        for start in range(0, len(due), _CHUNK):
            show(start, len(due))
            chunk = due[start : start + _CHUNK]
            orders = [order_for(state, each.record, options) for each in chunk]
            for each, answer in zip(chunk, authority.issue_many(orders), strict=True):
                if isinstance(answer, ChargePkiError):
                    _fail(each, "refused", answer)
                    continue
                each.action, each.successor = "renewed", answer.record.id
                try:
                    chain = "".join(to_pem("CERTIFICATE", der) for der in answer.chain)
                    files.write_durable(_target(folder, each.record), chain.encode())
                except ChargePkiError as error:
                    _fail(each, "unwritten", error)
                else:
                    each.out = str(_target(folder, each.record))


def _fail(due: _Due, action: str, error: ChargePkiError) -> None:
    due.action, due.why = action, str(error)
    due.code = 4 if isinstance(error, UnavailableError | SignerError) else 3


def _launch(state: GlobalState, due: Sequence[_Due], options: Mapping[str, Any], now: datetime) -> None:
    """Create a campaign for each use of the certificates; whichever CSMS holds the stations carries it out."""
    jitter = options["jitter"]
    pace = Pace(
        per_minute=options["rate"],
        waves=tuple(options["waves"]),
        jitter_seconds=int(jitter.total_seconds()) if jitter else 0,
    )
    by_use: dict[CertificateUse, list[_Due]] = {}
    for each in due:
        by_use.setdefault(_USES[each.record.profile], []).append(each)
    for use, members in by_use.items():
        campaign = _create(state, use, members, pace, now)
        if campaign is not None:
            state.output.say(f"next: chargepki campaign show {campaign} --watch")


def _create(state: GlobalState, use: CertificateUse, members: Sequence[_Due], pace: Pace, now: datetime) -> str | None:
    """Create the campaign of one use; ``None`` when other processes have one for all of its stations meanwhile."""
    workspace = state.workspace
    kind, parameters = OperationKind.TRIGGER_RENEWAL.value, {"use": use.value}
    find_kind(kind).check(workspace.inventory, parameters, now)
    owner = f"cli {workspace.actor.name}"
    store = CampaignStore(workspace.inventory, workspace.sealing_key, owner=owner, actor=workspace.actor)

    def check(tx: Transaction) -> None:
        # Asked again where it is written: another process may have been quicker, and nobody is asked twice.
        if any(_is_under_way(tx, each.record) for each in left):
            raise Conflict("another process has asked some of these stations to renew")

    for attempt in range(_ATTEMPTS):
        left = [each for each in members if not _is_under_way(workspace.inventory, each.record)]
        for each in members:
            each.why = None if each in left else "asked by another process just now"
        if not left:
            return None
        stations = list(dict.fromkeys(each.record.station for each in left if each.record.station is not None))
        name = f"renew-{use.value.lower()}-{now:%Y%m%d-%H%M%S}" + (f"-{attempt}" if attempt else "")
        ends_at = max(now + timedelta(hours=1), min(each.record.not_after for each in left))
        ends_at = min(ends_at, now + _CAMPAIGN_ENDS)
        try:
            campaign = store.create(name, kind, parameters, stations, pace, now=now, ends_at=ends_at, check=check)
        except Conflict:
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        for each in left:
            each.why = campaign.id
        state.output.say(f"created campaign {campaign.id} for {counted(len(stations), 'station')}")
        return campaign.id
    return None


def _print(state: GlobalState, chosen: Sequence[_Due]) -> None:
    rows = [each.row() for each in chosen]
    state.output.rows("chargepki/cert-renew-due", _COLUMNS, rows, key="certificates")
    if not chosen:
        state.output.say("nothing is due")
    code = max((each.code for each in chosen), default=0)
    if code:
        raise click.exceptions.Exit(code)
