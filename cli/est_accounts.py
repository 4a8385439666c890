"""What ``est account`` and ``est request`` do in the inventory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.made_passwords import PasswordFile, make_password
from chargepki.cli.results import check_folder, write_result
from chargepki.pki import der, files
from chargepki.pki.authority import utc_now
from chargepki.pki.config import CONFIG_FILE
from chargepki.pki.errors import Conflict, NotFound, StateError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import EstAccountRecord, EstAccountState, EstRequestRecord, EstRequestState
from chargepki.pki.services.accounts import check_account_name, hash_account_password, is_account_password
from chargepki.pki.services.est_approval import decide
from chargepki.pki.services.est_settings import load_est_settings

__all__ = ["account_row", "add", "decide_on", "remove", "request_row"]

_MAX_BYTES = 1 << 16


def add(state: GlobalState, name: str, options: Mapping[str, Any], *, dry_run: bool) -> EstAccountRecord:
    """Store a new account, with the password that was given or made, or the certificate that it is known by.

    A repeat of a run that was interrupted goes on with the password that it had made.

    Raises:
        Conflict: the name is taken, or the file for the password.
        InputError: name, label, password or certificate do not fit.
    """
    check_account_name(name)
    if options["certificate"] and (options["password_file"] or options["password_out"]):
        raise click.UsageError("an account has a certificate or a password")
    check_folder("--password-out", options["password_out"])
    known = [label.name for label in load_est_settings(state.settings.home / CONFIG_FILE).labels]
    for label in options["labels"]:
        if label not in known:
            state.output.say(f"note: {CONFIG_FILE} has no [est.label.{label}] yet")
    handed = None if options["password_file"] else PasswordFile.of(options["password_out"], name)
    record, made = _make_account(name, options, handed)
    actor = state.workspace.actor

    def work(tx: Transaction) -> EstAccountRecord:
        added = tx.add_est_account(record)
        details = {"labels": list(options["labels"]), "common_names": list(options["patterns"])}
        tx.audit(actor, "est-account.add", name, now=record.created_at, details=details)
        return added

    existing = state.workspace.inventory.find_est_account(name)
    if existing is None or existing.state is EstAccountState.REMOVED:
        if handed is not None and made is not None and not dry_run:
            # The file first: a password that nobody could read would have to be made again.
            handed.put(made)
        added = state.workspace.inventory.write(work)
    elif handed is not None and made is not None and _is_the_same(existing, record, made):
        added = existing  # All that an interrupted run had left to do is to hand the password out.
    else:
        raise Conflict(
            f"the EST account {name} exists already",
            why="it keeps its labels and its password",
            fix=f"choose another name, or first run: chargepki est account remove {name}",
        )
    if made is None or dry_run:
        return added
    if handed is not None:
        handed.hand_out(state)
    elif options["password_out"]:
        write_result(state, made.encode() + b"\n", options["password_out"], private=True)
    else:
        state.output.say(f"its password, shown this once: {made}")
    return added


def _make_account(
    name: str, options: Mapping[str, Any], handed: PasswordFile | None
) -> tuple[EstAccountRecord, str | None]:
    """Return the account, and its password if that was made here, now or by a run that was interrupted."""
    password = made = None
    certificate = None
    if options["certificate"]:
        data = files.read_limited(options["certificate"], _MAX_BYTES, "certificate")
        certificate = der.decode_der_or_pem(data, ("CERTIFICATE",), "certificate", _MAX_BYTES)
    elif options["password_file"]:
        password = files.read_limited(options["password_file"], 1024, "password file").removesuffix(b"\n")
    else:
        made = (None if handed is None else handed.find()) or make_password()
        password = made.encode()
    record = EstAccountRecord(
        id=name,
        labels={"names": list(options["labels"])},
        common_names={"patterns": list(options["patterns"])},
        state=EstAccountState.ACTIVE,
        created_at=utc_now(),
        password_hash=None if password is None else hash_account_password(password),
        certificate_sha256=None if certificate is None else hashlib.sha256(certificate).hexdigest(),
        certificate_der=certificate,
    )
    return record, made


def _is_the_same(existing: EstAccountRecord, wanted: EstAccountRecord, password: str) -> bool:
    """Whether *existing* is what is *wanted*, with the password that waits to be handed out."""
    alike = existing.labels == wanted.labels and existing.common_names == wanted.common_names
    stored = existing.password_hash
    return alike and stored is not None and is_account_password(stored, password.encode())


def remove(state: GlobalState, name: str) -> EstAccountRecord:
    """Let an account enrol no more."""

    def work(tx: Transaction) -> EstAccountRecord:
        record = tx.remove_est_account(name)
        tx.audit(state.workspace.actor, "est-account.remove", name, now=utc_now())
        return record

    return state.workspace.inventory.write(work)


def decide_on(state: GlobalState, prefix: str, *, approve: bool, reason: str | None) -> None:
    """Decide on the one request whose id begins with *prefix*."""
    record = _find(state, prefix)
    decision = EstRequestState.APPROVED if approve else EstRequestState.REJECTED
    workspace = state.workspace
    now: datetime = utc_now()
    decided = decide(workspace.inventory, record.id, decision, actor=workspace.actor, now=now, reason=reason)
    state.output.fields("chargepki/est-request", request_row(decided))


def _find(state: GlobalState, prefix: str) -> EstRequestRecord:
    exact = state.workspace.inventory.find_est_request(prefix)
    if exact is not None:
        return exact
    found = []
    if re.fullmatch(r"[0-9a-f]{8,32}", prefix):
        found = [each for each in state.workspace.inventory.list_est_requests() if each.id.startswith(prefix)]
    if not found:
        raise NotFound(
            f"there is no enrolment request {prefix[:40]}", fix="list what waits with: chargepki est request list"
        )
    if len(found) > 1:
        raise StateError(f"{len(found)} requests begin with {prefix}", fix="write more digits")
    return found[0]


def account_row(record: EstAccountRecord) -> dict[str, Any]:
    """Return *record* as ``--json`` prints it; never the password's hash."""
    return {
        "name": record.id,
        "labels": record.labels["names"],
        "common_names": record.common_names["patterns"],
        "by": "certificate" if record.certificate_sha256 else "password",
        "certificate_sha256": record.certificate_sha256,
        "state": record.state,
        "created_at": record.created_at,
    }


def request_row(record: EstRequestRecord) -> dict[str, Any]:
    """Return *record* as ``--json`` prints it."""
    return {
        "id": record.id,
        "label": record.label,
        "account": record.account,
        "subject": record.subject,
        "state": record.state,
        "created_at": record.created_at,
        "decided_at": record.decided_at,
        "decided_by": record.decided_by,
        "reason": record.reason,
        "csr": der.to_pem("CERTIFICATE REQUEST", record.csr),
    }
