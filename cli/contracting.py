"""What the commands of ``chargepki contract`` do."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.results import check_folder, write_result
from chargepki.cli.verifying import read_certificates, read_objects
from chargepki.pki import files, private_keys, provisioning
from chargepki.pki.authority import Authority, utc_now
from chargepki.pki.authority.revocation import parse_reason
from chargepki.pki.chain import Revocation, RevocationMode, Status, verify_chain
from chargepki.pki.errors import ChargePkiError, InputError, RevocationError
from chargepki.pki.exi import MAX_EXI_BYTES
from chargepki.pki.identifiers import Emaid, Pcid
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import ContractRecord, OfferState
from chargepki.pki.provisioning import (
    Channel,
    CpsSource,
    FixedCps,
    IssuedCps,
    Provisioner,
    Question,
    Standing,
    list_live,
)

__all__ = [
    "contract_rows", "create_contract", "make_provisioner", "offer_contract", "provision_request", "read_exi",
    "revoke_contract", "show_contract",
]  # fmt: skip

_MAX_TEXT_BYTES: Final = 4 * MAX_EXI_BYTES
_MAX_CRL_BYTES: Final = 64 << 20
_MAX_OCSP_BYTES: Final = 1 << 20


def create_contract(
    state: GlobalState, emaid: str, *, ends: datetime | None, vehicles: Sequence[str], dry_run: bool
) -> None:
    """Carry out ``contract create``."""
    if dry_run:
        state.rehearse()
    parsed = Emaid.parse(emaid)
    inventory, actor, now = state.workspace.inventory, state.workspace.actor, utc_now()
    record = provisioning.create_contract(inventory, emaid, ends_at=ends, vehicles=vehicles, actor=actor, now=now)
    if parsed.check_digit_ok is False:
        state.output.say(
            f"warning: the check digit of {parsed.normalised} would be {parsed.expected_check_digit()}; "
            "wrong ones are in the field, so it is kept"
        )
    if dry_run:
        # What is rehearsed is undone by now.
        content = {"emaid": record.emaid, "state": record.state, "ends_at": ends, "vehicles": list(vehicles)}
        state.output.fields("chargepki/contract", content)
        return
    _show(state, record)
    if not vehicles:
        state.output.say(f"next: chargepki contract offer {record.emaid} --vehicle PCID")


def offer_contract(
    state: GlobalState, emaid: str, vehicle: str, *, priority: int, withdraw: bool, dry_run: bool
) -> None:
    """Carry out ``contract offer``."""
    if dry_run:
        state.rehearse()
    inventory, actor, now = state.workspace.inventory, state.workspace.actor, utc_now()
    if withdraw:
        provisioning.withdraw_offer(inventory, emaid, vehicle, actor=actor, now=now)
    else:
        provisioning.offer_contract(inventory, emaid, vehicle, priority=priority, actor=actor, now=now)
    _show(state, inventory.get_contract(Emaid.parse(emaid).account))


def contract_rows(state: GlobalState, wanted: str | None, vehicle: str | None) -> Iterator[dict[str, Any]]:
    """Return the rows of ``contract list``."""
    inventory = state.workspace.inventory
    of_vehicle = None
    if vehicle is not None:
        offers = inventory.list_offers_to(Pcid.parse(vehicle).normalised)
        of_vehicle = {offer.contract for offer in offers if offer.state is OfferState.OFFERED}
    for record in inventory.list_contracts():
        if wanted in (None, record.state.value) and (of_vehicle is None or record.id in of_vehicle):
            yield _row(inventory, record)


def show_contract(state: GlobalState, emaid: str) -> None:
    """Carry out ``contract show``."""
    _show(state, state.workspace.inventory.get_contract(Emaid.parse(emaid).account))


def revoke_contract(state: GlobalState, emaid: str, reason: str | None, *, superseded: bool, dry_run: bool) -> None:
    """Carry out ``contract revoke``."""
    reason = reason or ("superseded" if superseded else "cessationOfOperation")
    parse_reason(reason)
    if dry_run:
        state.rehearse()
    done = provisioning.revoke_contract(state.workspace.authority, emaid, reason, superseded_only=superseded)
    if not dry_run:
        state.output.say(f"revoked {counted(len(done.certificates), 'certificate')} of {done.contract.emaid}")
    _show(state, done.contract)
    for ca in sorted({each.ca for each in done.certificates}):
        state.output.say(f"next: chargepki crl publish --ca {ca}")


def _row(inventory: Inventory, record: ContractRecord) -> dict[str, Any]:
    offers = inventory.list_offers_of(record.id)
    return {
        "emaid": record.emaid,
        "state": record.state,
        "ends_at": record.ends_at,
        "vehicles": [offer.vehicle for offer in offers if offer.state is OfferState.OFFERED],
        "certificates": len(list_live(inventory, record.id, utc_now())),
        "created_by": record.created_by,
        "created_at": record.created_at,
        "ended_at": record.ended_at,
        "ended_reason": record.ended_reason,
    }


def _show(state: GlobalState, record: ContractRecord) -> None:
    inventory = state.workspace.inventory
    answers = [
        {
            "kind": each.kind,
            "standard": each.standard,
            "vehicle": each.vehicle,
            "station": each.station,
            "state": each.state,
            "began_at": each.began_at,
            "certificate": each.certificate,
        }
        for each in inventory.list_provisionings(record.id)
    ]
    state.output.fields("chargepki/contract", {**_row(inventory, record), "answers": answers})


# -- answering a request ----------------------------------------------------------------------------------------------


def make_provisioner(authority: Authority, options: Mapping[str, Any]) -> Provisioner:
    """Return the provisioning of contracts that the options ask for.

    Raises:
        click.UsageError: they do not belong together.
        ChargePkiError: a CA or file that cannot serve so.
    """
    certs, key_files = options["cps_certs"], options["cps_keys"]
    if not options["contract_cas"] or not (options["cps_cas"] or certs):
        raise click.UsageError("contracts need --contract-ca, and --cps-ca or --cps-cert")
    if len(certs) != len(key_files):
        raise click.UsageError("--cps-cert and --cps-key belong together")
    cps: list[CpsSource] = [IssuedCps(authority, ca) for ca in options["cps_cas"]]
    for cert, key in zip(certs, key_files, strict=True):
        private = private_keys.load_private_key(files.read_private(key))
        cps.append(FixedCps(authority, read_certificates(cert), private))
    return Provisioner(authority, options["contract_cas"], cps)


def read_exi(path: str, what: str) -> bytes:
    """Return an EXI stream from a file that holds its bytes, or base64 of them.

    Raises:
        InputError: neither.
        UnavailableError: it cannot be read.
    """
    data = files.read_limited(path, _MAX_TEXT_BYTES, what)
    if data[:1] == b"\x80":
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error as exc:
        raise InputError(f"{path} is no EXI stream, and no base64 of one", fix=f"give the {what}") from exc


def provision_request(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Carry out ``contract provision``."""
    check_folder("--out", options["out"])
    exi = read_exi(options["request"], "request")
    evidence = read_evidence(options)
    if options["dry_run"]:
        state.rehearse()
    provisioner = make_provisioner(state.workspace.authority, options)
    examined = provisioner.examine(exi)
    standings = {question: _standing(question, evidence) for question in examined.questions}
    if options["dry_run"]:
        bad = [each for each, standing in standings.items() if standing is not Standing.GOOD]
        state.output.say(f"signature and chain hold; {counted(len(bad), 'certificate')} of unknown or bad status")
        return
    # What a crash left reserved is completed first, so that the inventory is whole before it grows.
    state.workspace.authority.recover()
    provisioner.recover()
    channel = Channel(characters=options["characters"], carrier="the answer")
    answer = provisioner.provision(examined, standings=standings, channel=channel)
    again = " (given before)" if answer.repeated else ""
    state.output.say(
        f"contract {answer.contract}: certificate {answer.certificate}{again}, {answer.remaining} remaining"
    )
    write_result(state, answer.exi, options["out"])


def read_evidence(options: Mapping[str, Any]) -> Revocation:
    """Return the revocation lists and responses that the options name."""
    crls = [der for file in options["crls"] for der in read_objects(file, "CRL", ("X509 CRL",), _MAX_CRL_BYTES)]
    responses = [files.read_limited(file, _MAX_OCSP_BYTES, "OCSP response") for file in options["ocsp_responses"]]
    return Revocation(RevocationMode.IF_PRESENT, tuple(crls), tuple(responses))


def _standing(question: Question, evidence: Revocation) -> Standing:
    """Return what the given evidence says of one certificate."""
    try:
        verified = verify_chain(question.certificate, (), [question.issuer], at=utc_now(), revocation=evidence)
    except RevocationError:
        return Standing.REVOKED
    except ChargePkiError:
        return Standing.UNKNOWN
    return Standing.GOOD if verified.statuses[0].status is Status.GOOD else Standing.UNKNOWN
