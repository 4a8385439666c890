"""Every other command that writes: what it starts from, and what the audit log tells once it has been done.

`ALL` are these and those of `crash_scenarios`. With `crash_recovery` and `ELSEWHERE` they name every command of the
program that writes; `test_table.py` fails when one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.cli.main import cli
from chargepki.pki.authority.ceremony import Transcript, check_transcript
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.records import CaState, CertificateState
from chargepki.pki.services.accounts import is_account_password
from testkit import crash_setups as given
from testkit.crash import Place
from testkit.crash_scenarios import ISSUE, SCENARIOS, Scenario
from testkit.effort import CAMPAIGN
from testkit.inventories import alert_record, est_request_record

__all__ = ["ALL", "ELSEWHERE", "TRIED", "UNTRIED", "command_of", "writing_commands"]

_EMAID: Final = "DE-8AA-A1B2C3D4E"


def writing_commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command of the program that changes a workspace."""

    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from walk(found, (*words, name))
        # A restore opens no workspace: it makes one.
        elif getattr(command, "writes", "") or words == ("restore",):
            yield words

    return walk(cli, ())


def command_of(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of the command that *arguments* begin with."""
    known = set(writing_commands())
    return next(arguments[:length] for length in (3, 2, 1) if arguments[:length] in known)


# -- what must hold ---------------------------------------------------------------------------------------------------


def _entries(inventory: Inventory) -> list[str]:
    return [entry.action for entry in inventory.list_audit(limit=1000)]


def _told(*actions: str, most: int = 1) -> Callable[[Place, Inventory], str | None]:
    """Judge by the log, whose every entry is of one transaction with its effect: each action is in it."""

    def judge(place: Place, inventory: Inventory) -> str | None:
        entries = _entries(inventory)
        wrong = {action: entries.count(action) for action in actions if not 1 <= entries.count(action) <= most}
        return f"the log tells {wrong}" if wrong else None

    return judge


def _done(*actions: str, most: int = 1) -> dict[str, Any]:
    """Return the two judges of a command of one transaction.

    Its repeat finds that all is done, and is refused or changes nothing. *most* is 2 for the few that do it once more,
    as when they are told to twice, if the first died at its end: nobody can know.
    """
    settled = _told(*actions, most=most)
    return {"settled": settled, "done_before": lambda place, inventory: settled(place, inventory) is None}


def _account_added(place: Place, inventory: Inventory) -> str | None:
    """Judge that the account is there once, and the file holds its password, and nothing waits beside it."""
    account = inventory.find_est_account("acme")
    if account is None or account.password_hash is None:
        return "there is no account"
    # What a crash leaves of a file that was being written is nobody's; a whole one under another name would be.
    files = {path.name: path for path in place.out.iterdir() if "acme" in path.name and path.suffix != ".tmp"}
    if set(files) != {"acme.password"}:
        return f"the password is in {sorted(files)}"
    password = files["acme.password"].read_bytes().removesuffix(b"\n")
    if not is_account_password(account.password_hash, password):
        return "the file holds another password"
    return _told("est-account.add")(place, inventory)


def _accepted(place: Place, inventory: Inventory) -> str | None:
    ca = inventory.get_ca("n")
    own = [each for each in inventory.list_certificates() if each.der == ca.certificate_der]
    if ca.state is not CaState.ACTIVE or ca.issuer != "far@1" or len(own) != 1:
        return f"{ca.id} is {ca.state} with {len(own)} certificates"
    return _told("ca.accept", "ca.record")(place, inventory)


def _listed(place: Place, inventory: Inventory) -> str | None:
    latest = inventory.latest_crl("far@1")
    if latest is None or (place.published / "crl" / "far@1.crl").read_bytes() != latest.der:
        return "the list is not on record, or not published"
    return None


def _held_out(place: Place, inventory: Inventory) -> str | None:
    found = Transcript.parse((place.out / "t.json").read_bytes())
    if wrong := check_transcript(found, inventory=inventory):
        return "; ".join(wrong)
    states = [ca.state for ca in inventory.list_cas(name="k")]
    return None if states == [CaState.ACTIVE] else f"the CA of the ceremony is {states}"


def _renewed(place: Place, inventory: Inventory) -> str | None:
    for name in ("CS-D0", "CS-D1"):
        made = [each for each in inventory.list_certificates() if f"CN={name}," in f"{each.subject},"]
        if [each.state for each in made] != [CertificateState.ISSUED] * 2:
            return f"{len(made)} certificates of {name}"
    written = {x509.load_pem_x509_certificates(path.read_bytes())[0] for path in (place.out / "due").iterdir()}
    on_record = {each.der for each in inventory.list_certificates()}
    if len(written) != 2 or not {each.public_bytes(Encoding.DER) for each in written} <= on_record:
        return f"{len(written)} files"
    asked = [each for each in inventory.list_campaigns() if each.kind == "trigger-renewal"]
    return None if len(asked) == 1 else f"{len(asked)} campaigns for one station"


def _log_key_changed(place: Place, inventory: Inventory) -> str | None:
    head, key = inventory.audit_head(), AuditKey.load(place.home / "audit.key")
    if head is None or head.key_id != key.key_id or (place.home / "audit.key.next").exists():
        return "the file of the log key is not the one of the head"
    # One that was killed at its end is done once more by its repeat: nobody can know.
    return _told("audit.rotate-log-key", most=2)(place, inventory)


def _hierarchy(place: Place, inventory: Inventory) -> str | None:
    made = {ca.id: ca.state for ca in inventory.list_cas() if ca.name.startswith("h-")}
    if set(made.values()) != {CaState.ACTIVE}:
        return f"the hierarchy is {made}"
    own = [each for each in inventory.list_certificates() if each.request_key in {f"ca:{ca}" for ca in made}]
    return None if len(own) == len(made) else f"{len(own)} certificates of {len(made)} CAs"


def _released(place: Place, inventory: Inventory) -> str | None:
    record = next(record for record in inventory.list_certificates() if "CN=CS-B" in record.subject)
    if record.state is not CertificateState.ISSUED:
        return f"{record.id} is {record.state}"
    latest = inventory.latest_crl("s@1")
    return None if latest is not None and latest.entries == 0 else "the newest list still names it"


def _stapled(place: Place, inventory: Inventory) -> str | None:
    found = list((place.out / "staples").rglob("*.ocsp"))
    return None if found else "no response was written"


_STATION: Final = given.STATION
_CAMPAIGN: Final = ("campaign", "create", "spring", "--kind", "trigger-renewal", "--station", "CS-1", "--paused")
_RUNNING: Final = _CAMPAIGN[:-1]
_CHAIN: Final = ("ca", "chain", "r", "--out", "root.pem")
_HELD: Final = (*ISSUE, "--csr", "a.csr", "--station", "CS-1", "--out", "held.pem")
_REPLACE: Final = ("campaign", "replace", "leak", "--certificate", "held.pem", "--reason", "keyCompromise")
_ADD: Final = ("firmware", "add", "m1", "image", "--signature", "sig", "--cert", "fw.pem", "--vendor", "V")
_CAR: Final = ("--cert", "car.pem", "--key", "car.key", "--v2g-root", "v2g.pem")
_SERVICE: Final = ("--contract-ca", "p-mo-sub2", "--cps-ca", "p-cps-sub2")
_ROOT: Final = ("vehicle", "add-root", "v2g.pem", "--use", "v2g", "--source", "letter", "--fingerprint", "{root}")


def _row(*arguments: str, **changes: Any) -> Scenario:
    changes = {"settled": lambda place, inventory: None, "sample": 1, "campaign": True, **changes}
    return Scenario(arguments, **changes)


_ROWS: Final[Mapping[str, Scenario]] = {
    # What makes, moves and answers CAs.
    "accept": _row(
        *("ca", "accept", "answer.json", "--root-sha256", "{root}"),
        setup=given.offline(),
        settled=_accepted,
        done_before=lambda place, inventory: _accepted(place, inventory) is None,
    ),
    "crl-import": _row(
        *("crl", "import", "far.crl", "--publish-dir", "www"),
        setup=given.offline(("ca", "accept", "answer.json", "--root-sha256", "{root}")),
        settled=_listed,
    ),
    "ceremony": _row(
        *("ca", "ceremony", "run", "script.toml", "--transcript", "out/t.json", "--confirm-all"),
        setup=given.ceremony,
        settled=_held_out,
        done_before=lambda place, inventory: "ceremony.end" in _entries(inventory),
        resumes=("--skip", "2"),
        # The one that is killed may be the process of a step.
        ends=(0, 3),
        lists=True,
    ),
    "create-hierarchy": _row(
        *("ca", "create-hierarchy", "ocpp", "--prefix", "h", "--organization", "O", "--country", "DE"),
        settled=_hierarchy,
    ),
    "renew-due": _row(
        *("cert", "renew", "--due", "--out-dir", "out/due", "--rate", "5"),
        start="empty",
        setup=given.due,
        settled=_renewed,
        lists=True,
    ),
    "release": _row(
        *("cert", "release", "{b}", "--publish", "--publish-dir", "www"),
        setup=given.after(("cert", "revoke", "{b}", "--reason", "certificateHold", "--publish")),
        settled=_released,
    ),
    "rotate-log-key": _row("audit", "rotate-log-key", settled=_log_key_changed),
    "approval-register": _row(
        *("approval", "register", "bob", "--public-key", "bob.pub"),
        setup=given.person,
        **_done("firmware.register-approver"),
    ),
    "approval-require": _row(
        *("approval", "require", "ca.create", "1"),
        setup=given.registered,
        settled=_told("approval.rule"),
    ),
    "crl-configure": _row("crl", "configure", "--ca", "r", "--delta", "24h", **_done("ca.configure-crl")),
    "crl-check": _row("crl", "check", "--all", "--repair"),
    "presign": _row("ocsp", "presign", "--all", "--out-dir", "out/staples", settled=_stapled),
    # Stations, campaigns and what they are told.
    "station-add": _row(*_STATION, **_done("station.add")),
    "station-set": _row(
        *("station", "set", "CS-1", "--organization", "Other"), setup=given.after(_STATION), **_done("station.change")
    ),
    "station-remove": _row(
        *("station", "remove", "CS-1", "--yes"), setup=given.after(_STATION), **_done("station.remove")
    ),
    "station-password": _row(
        *("station", "set-password", "CS-1", "--password-file", "password", "--record-only"),
        setup=given.password,
        **_done("station.password", most=2),
    ),
    "station-trigger": _row(
        *("station", "trigger-renewal", "CS-1", "--no-wait"), setup=given.after(_STATION), **_done("operation.create")
    ),
    "station-profile": _row(
        *("station", "set-profile", "CS-1", "3", "--record-only"),
        setup=given.after(_STATION),
        **_done("station.change"),
    ),
    "station-install-root": _row(
        *("station", "install-root", "CS-1", "root.pem", "--use", "csms", "--no-wait"),
        setup=given.after(_STATION, _CHAIN),
        **_done("operation.create"),
    ),
    "station-delete-root": _row(
        *("station", "delete-root", "CS-1", "root.pem", "--use", "csms", "--last", "--yes", "--no-wait"),
        setup=given.after(_STATION, _CHAIN),
        **_done("operation.create"),
    ),
    "station-get-log": _row(
        *("station", "get-log", "CS-1", "--type", "security", "--no-wait"),
        setup=given.after(_STATION),
        **_done("operation.create", most=2),
    ),
    "station-firmware": _row(
        *("station", "update-firmware", "CS-1", "--release", "m1", "--base-url", "https://x.example", "--no-wait"),
        setup=given.firmware(_ADD, ("firmware", "approve", "m1", "--approver", "bob", "--key", "bob.key"), _STATION),
        **_done("operation.create"),
    ),
    "campaign-replace": _row(*_REPLACE, setup=given.after(_STATION, _HELD), **_done("campaign.create")),
    "campaign-revoke-rest": _row(
        *("campaign", "revoke-rest", "leak", "--yes"),
        setup=given.ended("leak", _STATION, _HELD, _REPLACE),
        **_done("certificate.revoke"),
    ),
    "campaign-retry": _row(
        *("campaign", "retry", "spring", "--state", "unreached"),
        setup=given.ended("spring", _STATION, _CAMPAIGN),
        **_done("campaign.retry"),
    ),
    "campaign-create": _row(*_CAMPAIGN, setup=given.after(_STATION), **_done("campaign.create")),
    "campaign-pause": _row(
        *("campaign", "pause", "spring"), setup=given.after(_STATION, _RUNNING), **_done("campaign.pause")
    ),
    "campaign-resume": _row(
        "campaign", "resume", "spring", setup=given.after(_STATION, _CAMPAIGN), **_done("campaign.resume")
    ),
    "campaign-cancel": _row(
        "campaign", "cancel", "spring", setup=given.after(_STATION, _CAMPAIGN), **_done("campaign.cancel")
    ),
    "query-save": _row(*("query", "save", "soon", "not_after < now + 30d"), **_done("query.save")),
    "query-delete": _row(
        *("query", "delete", "soon"),
        setup=given.after(("query", "save", "soon", "not_after < now + 30d")),
        **_done("query.delete"),
    ),
    "alerts-ack": _row(
        *("alerts", "ack", "al-1"),
        setup=given.recorded(lambda tx: tx.add_alert(alert_record("al-1"))),
        **_done("alert.acknowledge"),
    ),
    # Whom we enrol, what vehicles and firmware we know.
    "est-account-add": _row(
        *("est", "account", "add", "acme", "--label", "cpo", "--password-out", "out/acme.password"),
        settled=_account_added,
        done_before=lambda place, inventory: _account_added(place, inventory) is None,
    ),
    "est-account-remove": _row(
        *("est", "account", "remove", "acme"),
        setup=given.after(("est", "account", "add", "acme", "--label", "cpo", "--password-out", "acme.password")),
        **_done("est-account.remove"),
    ),
    "est-approve": _row(
        *("est", "request", "approve", "deadbeef01"),
        setup=given.recorded(lambda tx: tx.add_est_request(est_request_record("deadbeef01"))),
        **_done("est-request.approve"),
    ),
    "est-reject": _row(
        *("est", "request", "reject", "deadbeef01"),
        setup=given.recorded(lambda tx: tx.add_est_request(est_request_record("deadbeef01"))),
        **_done("est-request.reject"),
    ),
    "contract-create": _row("contract", "create", _EMAID, **_done("contract.create")),
    "contract-revoke": _row(
        *("contract", "revoke", _EMAID), setup=given.after(("contract", "create", _EMAID)), **_done("contract.revoke")
    ),
    "vehicle-add-root": _row(*_ROOT, setup=given.vehicle(), **_done("root.add", most=2)),
    "vehicle-withdraw-root": _row(
        *("vehicle", "withdraw-root", "{root}"), setup=given.vehicle(_ROOT), **_done("root.withdraw", most=2)
    ),
    "vehicle-import": _row("vehicle", "import", "car.pem", setup=given.vehicle(), **_done("vehicle.import")),
    "vehicle-remove": _row(
        *("vehicle", "remove", "WAUABC12345678901D"),
        setup=given.vehicle(("vehicle", "import", "car.pem")),
        **_done("vehicle.remove", most=2),
    ),
    "contract-offer": _row(
        *("contract", "offer", _EMAID, "--vehicle", "WAUABC12345678901D"),
        setup=given.vehicle(("vehicle", "import", "car.pem"), ("contract", "create", _EMAID)),
        **_done("contract.offer", most=2),
    ),
    "contract-provision": _row(
        *("contract", "provision", "ask.exi", *_SERVICE, "--out", "out/response.exi"),
        setup=given.vehicle(
            ("vehicle", "import", "car.pem"),
            ("contract", "create", _EMAID, "--vehicle", "WAUABC12345678901D"),
            (
                "vehicle",
                "request",
                "--cert",
                "car.pem",
                "--key",
                "car.key",
                "--v2g-root",
                "v2g.pem",
                "--out",
                "ask.exi",
            ),
        ),
        **_done("contract.provision"),
    ),
    "inventory-import": _row("inventory", "import", "out", **_done("inventory.import")),
    "firmware-add": _row(*_ADD, setup=given.firmware(), **_done("firmware.add")),
    "firmware-approve": _row(
        *("firmware", "approve", "m1", "--approver", "bob", "--key", "bob.key"),
        setup=given.firmware(_ADD),
        **_done("firmware.approve"),
    ),
    "firmware-withdraw": _row(
        *("firmware", "withdraw", "m1", "--reason", "it is bad"),
        setup=given.firmware(_ADD),
        **_done("firmware.withdraw"),
    ),
    "firmware-register": _row(
        *("firmware", "register-approver", "bob", "--public-key", "bob.pub"),
        setup=given.person,
        **_done("firmware.register-approver"),
    ),
    "firmware-remove": _row(
        *("firmware", "remove-approver", "bob"), setup=given.firmware(), **_done("firmware.remove-approver")
    ),
}

ALL: Final[Mapping[str, Scenario]] = MappingProxyType({**SCENARIOS, **_ROWS})
"""Every command whose crashes are tried by repeating it."""
_SAMPLED: Final = ("renew-due",)
TRIED: Final = tuple(name for name, row in ALL.items() if CAMPAIGN or not row.campaign or name in _SAMPLED)
"""Those that an ordinary test run tries."""

ELSEWHERE: Final[Mapping[tuple[str, ...], str]] = MappingProxyType(
    {
        # Services: they write while they answer others, and are killed while they do.
        ("serve",): "test_responder.py::test_no_wrong_answer_while_processes_and_postgresql_die",
        ("csms", "serve"): "test_campaign.py::test_a_small_fleet_survives_kills_and_a_restart_of_the_database",
    }
)
"""Commands whose crashes another test of ``tests/crash`` tries, by its name."""
UNTRIED: Final[Mapping[tuple[str, ...], str]] = MappingProxyType(
    {
        ("ca", "connect"): "asks a server of somebody else, then writes one transaction",
        ("inventory", "watch"): "asks servers of others, then writes one transaction for each answer",
        ("alerts", "test"): "tells targets that there is nothing to tell, and records nothing",
    }
)
"""Commands whose crashes nothing here tries, each with the reason."""
