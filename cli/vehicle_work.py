"""What the commands of ``chargepki vehicle`` do."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x448
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chargepki.cli.contracting import read_evidence, read_exi
from chargepki.cli.globals import GlobalState
from chargepki.cli.results import check_folder, write_result
from chargepki.cli.values import read_certificate_file
from chargepki.cli.verifying import read_certificates
from chargepki.pki import files, private_keys, provisioning
from chargepki.pki.authority import utc_now
from chargepki.pki.chain import Revocation
from chargepki.pki.errors import ChargePkiError, InputError, NotFound, PolicyRefusal
from chargepki.pki.identifiers import EvccId
from chargepki.pki.inventory.contract_records import (
    ContractOfferRecord,
    OfferState,
    ProvisioningCertificateRecord,
    RoleRootRecord,
    VehicleCertificateRecord,
)
from chargepki.pki.pem import to_pem
from chargepki.pki.provisioning import vehicle_side

__all__ = [
    "VEHICLE_COLUMNS", "add_root", "import_files", "open_response", "remove_vehicle", "root_row", "show_vehicle",
    "vehicle_rows", "withdraw_root", "write_request",
]  # fmt: skip

_SESSION_BYTES: Final = 8
VEHICLE_COLUMNS: Final = ("pcid", "evccid", "standard", "state", "not_after", "contracts")
_NAMES: Final = ("pcid", "evccid", "contracts")


def import_files(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Carry out ``vehicle import``.

    Raises:
        PolicyRefusal: at least one file was refused; all others are kept.
    """
    evidence = read_evidence(options)
    if options["dry_run"]:
        state.rehearse()
    now = utc_now()
    kept: list[dict[str, Any]] = []
    refused: list[ChargePkiError] = []
    for file in options["files"]:
        try:
            row, notices = _import(state, read_certificates(file), evidence, now)
            kept.append(row)
        except ChargePkiError as error:
            if len(options["files"]) == 1:
                raise
            refused.append(error)
            state.output.say(f"{file} is refused: {error}")
            continue
        for notice in notices:
            state.output.say(f"warning: {file}: {notice}")
    state.output.rows("chargepki/vehicle-list", VEHICLE_COLUMNS, kept, key="vehicles")
    if refused:
        raise PolicyRefusal(
            f"{len(refused)} of {len(options['files'])} files were refused",
            why="each was told above",
            fix="correct them, and import them again: what is kept stays as it is",
        )


def _import(
    state: GlobalState, chain: Sequence[bytes], evidence: Revocation, now: datetime
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Admit and keep one certificate; its name says of which kind it is."""
    inventory, actor = state.workspace.inventory, state.workspace.actor
    if provisioning.is_vehicle_certificate(chain[0]):
        client = provisioning.admit_vehicle_certificate(inventory, chain, actor=actor, now=now, evidence=evidence)
        return _row(state, provisioning.store_vehicle(inventory, client, actor=actor, now=now)), client.notices
    admission = provisioning.admit_vehicle(
        inventory, chain, actor=actor, now=now, crls=evidence.crls, ocsp_responses=evidence.ocsp_responses
    )
    return _row(state, provisioning.store_vehicle(inventory, admission, actor=actor, now=now)), admission.notices


def vehicle_rows(state: GlobalState) -> Iterator[dict[str, Any]]:
    """Return the rows of ``vehicle list``: provisioning certificates, then vehicle certificates."""
    inventory = state.workspace.inventory
    for provisioned in inventory.list_provisioning_certificates():
        yield _row(state, provisioned)
    for client in inventory.list_vehicle_certificates():
        yield _row(state, client)


def _row(state: GlobalState, record: ProvisioningCertificateRecord | VehicleCertificateRecord) -> dict[str, Any]:
    """Return what is told of a certificate; contracts are offered to the PCID of a provisioning certificate."""
    names: dict[str, Any]
    if isinstance(record, VehicleCertificateRecord):
        offers: tuple[ContractOfferRecord, ...] = ()
        names = {"pcid": None, "evccid": record.evccid, "standard": "iso15118-20"}
    else:
        names = {"pcid": record.vehicle, "evccid": None, "standard": record.standard}
        offers = state.workspace.inventory.list_offers_to(record.vehicle)
    return {
        **names,
        "state": record.state,
        "subject": record.subject,
        "not_after": record.not_after,
        "sha256": record.id,
        "contracts": [offer.contract for offer in offers if offer.state is OfferState.OFFERED],
        "added_by": record.added_by,
        "added_at": record.added_at,
    }


def show_vehicle(state: GlobalState, name: str) -> None:
    """Carry out ``vehicle show``."""
    inventory, found = state.workspace.inventory, provisioning.identify_vehicle(name)
    vehicle, is_client = found.normalised, isinstance(found, EvccId)
    known = (
        inventory.list_vehicle_certificates(vehicle) if is_client else inventory.list_provisioning_certificates(vehicle)
    )
    if not known:
        raise NotFound(f"there is no vehicle {vehicle}", fix="list them with: chargepki vehicle list")
    certificates = [
        {name: value for name, value in _row(state, record).items() if name not in _NAMES} for record in known
    ]
    content: dict[str, Any] = {"evccid" if is_client else "pcid": vehicle, "certificates": certificates}
    if not is_client:
        content["offers"] = [
            {name: getattr(offer, name) for name in ("contract", "state", "priority", "offered_at")}
            for offer in inventory.list_offers_to(vehicle)
        ]
    state.output.fields("chargepki/vehicle", content)


def remove_vehicle(state: GlobalState, name: str, *, dry_run: bool) -> None:
    """Carry out ``vehicle remove``."""
    if dry_run:
        state.rehearse()
    provisioning.remove_vehicle(state.workspace.inventory, name, actor=state.workspace.actor, now=utc_now())
    show_vehicle(state, name)


def add_root(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Carry out ``vehicle add-root``."""
    der = read_certificate_file(options["file"])
    if der is None:
        raise NotFound(f"there is no file {options['file']}")
    if options["dry_run"]:
        state.rehearse()
    root = provisioning.RoleRoot(
        der, options["use"], options["fingerprint"], options["source"], options["manufacturers"]
    )
    record = provisioning.add_root(state.workspace.inventory, root, actor=state.workspace.actor, now=utc_now())
    state.output.fields("chargepki/vehicle-root", root_row(record))


def withdraw_root(state: GlobalState, sha256: str, *, dry_run: bool) -> None:
    """Carry out ``vehicle withdraw-root``."""
    if dry_run:
        state.rehearse()
    digest = sha256.replace(":", "").lower()
    record = provisioning.withdraw_root(state.workspace.inventory, digest, actor=state.workspace.actor, now=utc_now())
    state.output.fields("chargepki/vehicle-root", root_row(record))


def root_row(record: RoleRootRecord) -> dict[str, Any]:
    """Return what is told of a root."""
    return {
        "use": record.use,
        "subject": record.subject,
        "state": record.state,
        "manufacturers": record.manufacturers.split(),
        "source": record.source,
        "sha256": record.id,
        "added_by": record.added_by,
        "added_at": record.added_at,
    }


# -- in place of a vehicle --------------------------------------------------------------------------------------------


def write_request(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Carry out ``vehicle request``."""
    check_folder("--out", options["out"])
    chain, key, roots = _vehicle(options)
    wishes = vehicle_side.Wishes(
        roots=roots,
        maximum_contracts=options["maximum"],
        prioritized=options["prioritized"],
        update=options["update"],
    )
    session = secrets.token_bytes(_SESSION_BYTES)
    exi = vehicle_side.build_request(chain, key, wishes, session_id=session, now=utc_now())
    write_result(state, exi, options["out"])


def open_response(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Carry out ``vehicle open``."""
    for option in ("key_out", "chain_out"):
        check_folder(f"--{option.replace('_', '-')}", options[option])
    chain, key, roots = _vehicle(options)
    exi = read_exi(options["response"], "response")
    got = vehicle_side.open_response(exi, chain[0], _agreement_key(options, key), roots=roots, now=utc_now())
    if options["key_out"] is not None:
        scalar = got.secret
        written = (
            f"{scalar:0112x}\n".encode() if isinstance(scalar, int) else private_keys.serialise_private_key(scalar)
        )
        write_result(state, written, options["key_out"], private=True)
    if options["chain_out"] is not None:
        pem = "".join(to_pem("CERTIFICATE", each) for each in got.chain)
        write_result(state, pem.encode(), options["chain_out"])
    content = {
        "emaid": got.emaid,
        "chain_bytes": [len(each) for each in got.chain],
        "curve": got.curve,
        "remaining": got.remaining,
    }
    state.output.fields("chargepki/installed-contract", content)


def _agreement_key(
    options: Mapping[str, Any], key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey
) -> ec.EllipticCurvePrivateKey | x448.X448PrivateKey:
    """Return the key that opens the response: the vehicle's, or the second one of an Ed448 certificate.

    Raises:
        click.UsageError: it is there without need, or missing.
        InputError: it is no X448 key.
    """
    path = options["agreement_key"]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if path is not None:
            raise click.UsageError("--agreement-key goes with an Ed448 --key")
        return key
    if path is None:
        raise click.UsageError("an Ed448 --key needs --agreement-key: Ed448 cannot agree on a secret (V2G20-2534)")
    try:
        found = load_pem_private_key(files.read_private(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise InputError(f"{path} holds no private key in PEM without a passphrase") from exc
    if not isinstance(found, x448.X448PrivateKey):
        raise InputError(f"{path} holds no key for X448")
    return found


def _vehicle(
    options: Mapping[str, Any],
) -> tuple[list[bytes], ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey, list[bytes]]:
    key = private_keys.load_private_key(files.read_private(options["key"]))
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey):
        raise InputError("the key of the vehicle is on no curve", fix="secp256r1 for -2, secp521r1 or Ed448 for -20")
    roots = [der for file in options["v2g_roots"] for der in read_certificates(file)]
    return read_certificates(options["cert"]), key, roots
