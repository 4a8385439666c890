"""``chargepki approval``: sign what an act needs, and register who may."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.approving import approval_options, approving
from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.values import DURATION

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["approval"]


@group("approval", example="chargepki approval sign request.json --approver bob --key bob.key --out bob.json")
def approval() -> None:
    """Approve acts that need a second person, and register who may.

    Which acts need how many is told by `approval rules`: what `approval require` put into the inventory, for everybody
    who shares it, and the table [approvals] of chargepki.toml, whichever is more.
    """


@approval.command("sign", example="chargepki approval sign request.json --approver bob --key bob.key --out bob.json")
@click.argument("file", metavar="F")
@click.option("--approver", required=True, metavar="NAME", help="Who approves, as registered.")
@click.option("--key", required=True, metavar="F|URI", help="Private key of the approver.")
@click.option("--valid", type=DURATION, default="7d", metavar="7d", show_default=True, help="For how long.")
@click.option("--out", "-o", metavar="F", help="File for the approval; stdout otherwise.")
@pass_state
def sign(state: GlobalState, file: str, approver: str, key: str, valid: timedelta, out: str | None) -> None:
    """Show what the request in the file F asks for, and sign it.

    Needs no inventory: approve where your key is. The request is what --request-approval of the command wrote.
    """
    from chargepki.cli.firmware_images import open_signer
    from chargepki.cli.results import check_folder, write_result
    from chargepki.pki import files
    from chargepki.pki.authority import utc_now
    from chargepki.pki.authority.approvals import ApprovalRequest, sign_approval

    check_folder("--out", out)
    request = ApprovalRequest.parse(files.read_limited(file, 1 << 16, "approval request"))
    state.output.say(f"{request.act}: " + ", ".join(f"{name}={value}" for name, value in request.parameters.items()))
    made = sign_approval(request, approver, open_signer(state, key), valid_until=utc_now() + valid)
    write_result(state, (json.dumps(made.to_json(), indent=2) + "\n").encode("ascii"), out)
    state.output.say(f"{approver} approves {request.sha256} until {made.valid_until:%Y-%m-%d %H:%M} UTC")


@approval.command("register", writes="create", example="chargepki approval register bob --public-key bob.pub")
@click.argument("name")
@click.option("--public-key", required=True, metavar="F", help="Public key or certificate of that person.")
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge the key, change nothing.")
@pass_state
def register(state: GlobalState, /, name: str, public_key: str, dry_run: bool, **brought: Any) -> None:
    """Register the person NAME as one who may approve, by the public key of that person.

    It is the registry of `chargepki firmware approvers` too: one key, one person.
    """
    from chargepki.cli.firmware_store import register as register_key

    register_key(state, name, public_key, dry_run=dry_run, brought=brought)


@approval.command("require", writes="change", example="chargepki approval require ca.create 2")
@click.argument("act")
@click.argument("count", type=click.IntRange(min=0), metavar="N")
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge it, change nothing.")
@pass_state
def require(state: GlobalState, /, act: str, count: int, dry_run: bool, **brought: Any) -> None:
    """From now on, have ACT approved by N people, whoever does it with this inventory.

    The rule is in the audit log. To ask for fewer takes as many approvals as were needed.
    """
    from chargepki.pki.authority import utc_now
    from chargepki.pki.authority.four_eyes import change_rule

    if dry_run:
        state.rehearse()
    workspace = state.workspace
    with approving(state, **brought):
        before = change_rule(workspace.inventory, workspace.four_eyes, act, count, actor=workspace.actor, now=utc_now())
    state.output.fields("chargepki/approval-rule", {"act": act, "needed": count, "before": before})


@approval.command("rules", example="chargepki approval rules --json")
@pass_state
def rules(state: GlobalState) -> None:
    """List the acts that can need approvals, and how many each needs: by the inventory, by the configuration."""
    from chargepki.pki.authority.approvals import ACTS
    from chargepki.pki.authority.four_eyes import recorded_rule

    inventory, four_eyes = state.workspace.inventory, state.workspace.four_eyes
    rows = [
        {
            "act": act,
            "needed": four_eyes.needed(inventory, act),
            "inventory": recorded_rule(inventory, act),
            "configuration": four_eyes.settings.of(act),
            "what": what,
        }
        for act, what in ACTS.items()
    ]
    state.output.rows("chargepki/approval-rule-list", tuple(rows[0]), rows, key="rules")


@approval.command("list", example="chargepki approval list --json")
@pass_state
def list_approvers(state: GlobalState) -> None:
    """List who may approve, and the digests of their keys."""
    from chargepki.cli.firmware_store import approver_row

    rows = [approver_row(item) for item in state.workspace.inventory.list_approvers()]
    columns = tuple(rows[0]) if rows else ("name",)
    state.output.rows("chargepki/approver-list", columns, rows, key="approvers")
