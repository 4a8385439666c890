"""What the commands about roots of stations do: queue operations, wait, and reconcile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from chargepki.ocpp_security.errors import OcppRefusal
from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.trust_facts import add_root, known_certificates
from chargepki.ocpp_security.trust_messages import HASH_FIELDS
from chargepki.ocpp_security.trust_reconcile import RootStatus, reconcile
from chargepki.ocpp_security.trust_store import InstalledRoot, TrustPolicy, plan_install
from chargepki.ocpp_security.unsecured import allowance
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse, parse_root_use
from chargepki.pki import files
from chargepki.pki.authority import utc_now
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import OperationRecord
from chargepki.pki.pem import decode_der_or_pem, to_pem
from chargepki.pki.workspace import Workspace

__all__ = [
    "order_deletion",
    "order_installation",
    "order_listing",
    "read_hash",
    "read_use",
    "record_root",
    "station_roots",
]

_MAX_BYTES = 65_536


def read_use(text: str, *, installable: bool = False) -> RootUse:
    """Return the use that an option names, in our words or in those of a standard.

    Raises:
        InputError: there is none such.
    """
    for use in RootUse:
        if use.value == text:
            found: RootUse | None = use
            break
    else:
        found = next(filter(None, (_standard(version, text) for version in OcppVersion)), None)
    if found is None or (installable and found is RootUse.V2G_CHAIN):
        known = ", ".join(use.value for use in RootUse if not (installable and use is RootUse.V2G_CHAIN))
        raise InputError(f"there is no use {text!r} of a root", fix=f"one of {known}, or the standard's name")
    return found


def _standard(version: OcppVersion, name: str) -> RootUse | None:
    try:
        return parse_root_use(version, name)
    except InputError:
        return None


def read_hash(text: str) -> dict[str, str]:
    """Return the hash data of ``--hash``.

    Raises:
        InputError: no JSON object with the four fields.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError("--hash is no JSON", why=str(error)) from error
    if not isinstance(document, Mapping) or not all(isinstance(document.get(name), str) for name in HASH_FIELDS):
        raise InputError("--hash lacks a field", fix=f"give a JSON object with {', '.join(HASH_FIELDS)}")
    found = {name: str(document[name]) for name in HASH_FIELDS}
    if any(len(value) > 128 for value in found.values()):
        raise InputError("--hash: a field is longer than 128 characters, which no version of OCPP allows")
    return found


def order_installation(
    workspace: Workspace,
    station_id: str,
    use: RootUse,
    path: str,
    *,
    deadline: timedelta,
    allow_unsecured: bool = False,
) -> OperationRecord:
    """Queue an installation; what a station must refuse is refused here (M05.FR.06, FR.07).

    Raises:
        PolicyRefusal: it is no root, or not valid now.
        InputError: the file holds no certificate.
    """
    workspace.inventory.get_station(station_id)
    der = _read_root(workspace, use, path)
    parameters = {"use": use.value, **allowance(allow=allow_unsecured)}
    return _order(workspace, station_id, OperationKind.INSTALL_ROOT, parameters, der, deadline)


def record_root(workspace: Workspace, use: RootUse, path: str) -> str:
    """Put the root in a file on record, so that an operation may name it, and return its SHA-256.

    Raises:
        PolicyRefusal: it is no root, or not valid now.
        InputError: the file holds no certificate.
    """
    return _put_on_record(workspace, _read_root(workspace, use, path))


def _read_root(workspace: Workspace, use: RootUse, path: str) -> bytes:
    der = _read_certificate(path)
    now = utc_now()
    known = [InstalledRoot(use, each.der) for each in known_certificates(workspace.inventory)]
    try:
        # Whether it fits on this very station is judged when its own list is at hand.
        plan_install(use, to_pem("CERTIFICATE", der), known, TrustPolicy(max_certificates=len(known) + 1), now)
    except OcppRefusal as refusal:
        raise PolicyRefusal(
            f"{path} is not installed: {refusal.what}",
            why="a station refuses it, or could never delete it again (M05.FR.06, M05.FR.07)",
            fix="pass the certificate of a root CA that is valid now",
        ) from refusal
    return der


def _put_on_record(workspace: Workspace, der: bytes) -> str:
    now = utc_now()

    def work(tx: Transaction) -> str:
        sha256 = add_root(tx, der, actor_name=workspace.actor.name, now=now)
        tx.audit(workspace.actor, "root.add", sha256, now=now)
        return sha256

    return workspace.inventory.write(work)


def order_deletion(
    workspace: Workspace,
    station_id: str,
    use: RootUse,
    *,
    path: str | None,
    hash_data: Mapping[str, str] | None,
    verbatim: bool,
    last: bool,
    deadline: timedelta,
    allow_unsecured: bool = False,
) -> OperationRecord:
    """Queue a deletion of the certificate in a file, or of what the hash data name."""
    workspace.inventory.get_station(station_id)
    parameters: dict[str, Any] = {"use": use.value, **allowance(allow=allow_unsecured)}
    if hash_data is not None:
        parameters["hash"] = dict(hash_data)
    if verbatim:
        parameters["verbatim"] = True
    if last:
        parameters["last"] = True
    der = _read_certificate(path) if path is not None else None
    return _order(workspace, station_id, OperationKind.DELETE_ROOT, parameters, der, deadline)


def order_listing(
    workspace: Workspace, station_id: str, uses: Sequence[RootUse], *, deadline: timedelta
) -> OperationRecord:
    """Queue the question what is installed."""
    workspace.inventory.get_station(station_id)
    parameters = {"uses": [use.value for use in uses]}
    return _order(workspace, station_id, OperationKind.LIST_ROOTS, parameters, None, deadline)


def station_roots(workspace: Workspace, station_id: str, uses: Sequence[RootUse]) -> list[RootStatus]:
    """Hold what the station listed last against what we did; all uses when none is given."""
    inventory = workspace.inventory
    station = inventory.get_station(station_id)
    statuses = reconcile(
        inventory.list_station_roots(station.id),
        inventory.list_root_reports(station.id),
        known_certificates(inventory, station.id),
        inventory.list_operations(station=station.id),
    )
    wanted = {use.value for use in uses}
    return [status for status in statuses if not wanted or status.use in wanted]


def _read_certificate(path: str) -> bytes:
    return decode_der_or_pem(files.read_limited(path, _MAX_BYTES, "root"), ("CERTIFICATE",), "a root", _MAX_BYTES)


def _order(
    workspace: Workspace,
    station_id: str,
    kind: OperationKind,
    parameters: dict[str, Any],
    der: bytes | None,
    deadline: timedelta,
) -> OperationRecord:
    now = utc_now()
    if der is not None:
        parameters = {**parameters, "certificate": _put_on_record(workspace, der)}
    store = OperationStore(
        workspace.inventory, workspace.sealing_key, owner=f"cli {workspace.actor.name}", actor=workspace.actor
    )
    return store.create(
        kind,
        station_id,
        parameters,
        operation_id=new_operation_id(),
        actor=workspace.actor,
        now=now,
        deadline=now + deadline,
    )
