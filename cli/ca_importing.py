"""``chargepki ca import``: an existing CA with its key becomes ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from chargepki.cli.approving import approval_options, approving
from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.output import counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from chargepki.pki.adopting import AdoptOrder, CaEstate, EstateVerdict

__all__ = ["add_import"]

_MOST_TOLD: Final = 20


@click.argument("name")
@click.argument("folder", metavar="FOLDER")
@click.option("--profile", "profile_id", required=True, metavar="ID", help="Profile that it has from now on.")
@click.option("--certificate", metavar="F", help="Its certificate, where FOLDER holds several CAs with their keys.")
@click.option("--key", "key", metavar="F", help="Its private key, where that lies elsewhere.")
@click.option("--key-passphrase-file", "key_passphrase", metavar="PATH|-", help="Opens its key where it is encrypted.")
@click.option("--crl", "lists", multiple=True, metavar="F", help="A list it published, from elsewhere; repeatable.")
@click.option("--issuer", metavar="NAME", help="CA above it; looked for among those on record otherwise.")
@approval_options
@click.option("--dry-run", is_flag=True, help="Read and judge everything, change nothing.")
@pass_state
def import_(
    state: GlobalState,
    /,
    name: str,
    folder: str,
    profile_id: str,
    certificate: str | None,
    key: str | None,
    key_passphrase: str | None,
    lists: tuple[str, ...],
    issuer: str | None,
    dry_run: bool,
    **brought: Any,
) -> None:
    """Take over the CA in FOLDER as NAME: its key, what it issued, what it revoked, the number of its newest list.

    FOLDER is what `openssl ca`, easy-rsa, cfssl (its SQLite database) or step-ca left. The database of step-ca is not
    read: give files of its certificates, and its lists. From then on the CA issues here and nowhere else. A root
    comes before the CAs below it. Repeat the command for what has come since, or when it was interrupted. Nothing in
    FOLDER is changed; destroy the key there once a backup was verified.
    """
    from pathlib import Path

    from chargepki.pki.adopting import AdoptOrder, check_keeping, check_order, judge_estate, read_estate
    from chargepki.pki.authority import utc_now
    from chargepki.pki.errors import UnavailableError

    if not Path(folder).is_dir():
        raise UnavailableError(f"there is no folder {folder}", fix="name the folder of the CA")
    if dry_run:
        state.rehearse()
    estate = read_estate(
        Path(folder),
        passphrase=_passphrase(state, key_passphrase),
        certificate=Path(certificate) if certificate else None,
        key=Path(key) if key else None,
        lists=[Path(path) for path in lists],
    )
    workspace, now = state.workspace, utc_now()
    order = AdoptOrder(name, profile_id, issuer, state.settings.public_url)
    inventory = workspace.inventory if workspace.exists else None
    profile = check_order(order, estate, inventory, now)
    check_keeping(order, workspace.keystore)
    verdict = judge_estate(estate, profile)
    if dry_run:
        row = {"name": name, "profile": profile.id, "added": len(estate.issued) + 1, "revoked": len(estate.revocations)}
    else:
        row = _adopt(state, order, estate, now, brought)
    _tell(state, estate, verdict, row, is_rehearsal=dry_run)


def _adopt(
    state: GlobalState, order: AdoptOrder, estate: CaEstate, now: datetime, brought: Mapping[str, Any]
) -> dict[str, Any]:
    """Take the CA over and return its row, with what came with it."""
    from chargepki.cli.ca import ca_row
    from chargepki.pki.adopting import adopt_ca

    workspace = state.workspace
    with approving(state, **brought):
        if brought["request_approval"] is None:
            workspace.check_passphrase()
        made = adopt_ca(
            order,
            estate,
            inventory=workspace.inventory,
            keystore=workspace.keystore,
            actor=workspace.actor,
            now=now,
            four_eyes=workspace.four_eyes,
        )
    return {**ca_row(made.ca), "added": made.certificates, "revoked": made.revoked}


def _passphrase(state: GlobalState, path: str | None) -> Callable[[], bytes]:
    from functools import cache

    from chargepki.cli.passphrase import read_passphrase
    from chargepki.pki.errors import SignerError

    @cache
    def obtain() -> bytes:
        if path is None:
            raise SignerError("the key of the CA is encrypted", fix="pass --key-passphrase-file with what opens it")
        return read_passphrase(path, warn=state.output.say)

    return obtain


def _tell(
    state: GlobalState, estate: CaEstate, verdict: EstateVerdict, row: dict[str, Any], *, is_rehearsal: bool
) -> None:
    valid = [each.serial for each in estate.missing if each.revocation is None]
    number = estate.lists[-1].number if estate.lists else None
    row |= {
        "certificates": len(estate.issued),
        "revocations": len(estate.revocations),
        "without_file": len(estate.missing),
        "others": estate.others,
        "crl_number": number,
        "key_file": estate.key_place,
    }
    output = state.output
    if output.for_machines:
        row |= {
            "lint_ca": [{"rule": item.rule, "message": item.message, "clause": item.clause} for item in verdict.ca],
            "lint_issued": [{"rule": a, "severity": b, "certificates": n} for a, b, n in verdict.issued],
            "list_urls": list(verdict.pointers),
            "missing": valid,
            "problems": estate.problems,
        }
    output.fields("chargepki/ca-import", row)
    for item in verdict.ca:
        output.say(f"lint of the CA: {item.severity.value} {item.rule}: {item.message}")
    for rule, severity, count in verdict.issued[:_MOST_TOLD]:
        output.say(f"lint of what it issued: {severity} {rule}: {counted(count, 'certificate')}")
    for problem in estate.problems[:_MOST_TOLD]:
        output.say(f"not taken: {problem}")
    if len(estate.problems) > _MOST_TOLD:
        output.say(f"and {len(estate.problems) - _MOST_TOLD} more; --json lists them")
    if valid:
        named = ", ".join(valid[:10]) + (", …" if len(valid) > 10 else "")
        output.say(
            f"of {counted(len(valid), 'serial')} there is no certificate, and nothing is answered of them: {named}"
        )
        output.say("cure: put the certificates into the folder, and repeat the command")
    if is_rehearsal:
        return
    for url in verdict.pointers:
        output.say(f"relying parties of its certificates go on asking {url}: publish there too")
    output.say(f"next: chargepki crl publish --ca {row['name']}, then take the old CA out of service")


def add_import(group: Any) -> None:
    """Register the command with the noun ``ca``."""
    example = "chargepki ca import old-root /etc/easy-rsa/pki --profile ocpp/cso-root --key-passphrase-file old.txt"
    group.command("import", writes="create", example=example)(import_)
