"""The work of ``cert renew SERIAL``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.issuing import explain_unwritten, hand_out_key, key_for, preview, read_csr, write_issued
from chargepki.cli.results import check_folder
from chargepki.cli.revoking import find_operand
from chargepki.pki.authority import IssueOrder, utc_now
from chargepki.pki.authority.renewal import find_renewal, renewal_order
from chargepki.pki.errors import Conflict
from chargepki.pki.inventory.records import CaRecord, CertificateRecord, CertificateState
from chargepki.pki.validity import Window

__all__ = ["order_for", "renew_one"]


def renew_one(state: GlobalState, certificate: str, options: Mapping[str, Any]) -> None:
    """Issue and hand out the successor of *certificate*, a serial or a file.

    Raises:
        ChargePkiError: see `renewal_order`.
    """
    if options["csr"] and options["new_key"]:
        raise click.UsageError("pass either --csr FILE or --new-key")
    if options["new_key"] and not options["key_out"]:
        raise click.UsageError("--new-key needs --key-out FILE")
    if not options["new_key"] and (options["key_out"] or options["algorithm"]):
        raise click.UsageError("--key and --key-out belong to --new-key")
    if {options["csr"], state.settings.passphrase_file} == {"-"}:
        raise click.UsageError("standard input cannot be both the request and the passphrase")
    for option in ("key_out", "out", "chain_out"):
        check_folder(f"--{option.replace('_', '-')}", options[option])
    inventory = state.workspace.inventory
    old = find_operand(inventory, certificate)
    order = order_for(state, old, options, csr=read_csr(options["csr"]) if options["csr"] else None)
    if options["dry_run"]:
        preview(state, order, options)
        return
    authority = state.workspace.authority
    # What a crash left reserved is completed first, so that the inventory is whole before it grows.
    authority.recover(order.ca)
    earlier = None if options["again"] else find_renewal(inventory, old)
    resumed = options["new_key"] and Path(f"{options['key_out']}.part").exists()
    if earlier is not None and options["new_key"] and not resumed and _is_live(earlier):
        raise _renewed_already(old, earlier)  # before a key is made for nothing
    order = key_for(state, order, options)
    try:
        issued = authority.issue(order)
    except Conflict as error:
        if earlier is None:
            raise
        raise _renewed_already(old, earlier) from error
    with explain_unwritten(issued, options):
        write_issued(state, issued, out=options["out"], chain_out=options["chain_out"], by_default=False)
        hand_out_key(state, options)
    if old.station is not None and order.csr is None:
        state.output.say(f"to have the station make a new key itself: chargepki station trigger-renewal {old.station}")
    state.output.say(f"{old.id} stays valid; next, once the new one is in use:")
    state.output.say(f"  chargepki cert revoke {old.id} --reason superseded")


def _is_live(record: CertificateRecord) -> bool:
    return record.state is CertificateState.ISSUED and record.not_after >= utc_now()


def _renewed_already(old: CertificateRecord, earlier: CertificateRecord) -> Conflict:
    return Conflict(
        f"{old.id} was renewed already, by {earlier.id}",
        why="that one has another key, validity or generation of its CA",
        fix=f"get it with: chargepki cert show {earlier.id}; or pass --again to make another one",
    )


def order_for(
    state: GlobalState, old: CertificateRecord, options: Mapping[str, Any], *, csr: bytes | None = None
) -> IssueOrder:
    """Return the order for the successor of *old*; with ``--new-key`` its key is made later by `key_for`."""
    newest = _newest(state, old)
    assert newest.not_before is not None and newest.not_after is not None
    order = renewal_order(
        old,
        ca=newest.name,
        ca_window=Window(newest.not_before, newest.not_after),
        now=utc_now(),
        csr=csr,
        validity=options["validity"],
        criticality=options["criticality"],
        again=options["again"],
    )
    return replace(order, spki=None) if options["new_key"] else order


def _newest(state: GlobalState, old: CertificateRecord) -> CaRecord:
    inventory = state.workspace.inventory
    return inventory.get_ca(inventory.get_ca(old.ca).name)
