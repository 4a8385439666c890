"""``inventory export --layout``: write the folder that another charging stack starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.verifying import read_certificates
from chargepki.pki import files, keys, private_keys
from chargepki.pki.authority import utc_now
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import verify_chain
from chargepki.pki.errors import Conflict, InputError, SignerError, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.keys import PrivateKey
from chargepki.pki.layouts import CA_KEYS, Layout, Material, Role, lay_out

__all__ = ["write_layout"]

_LEAVES = (Role.SECC, Role.CPS, Role.CONTRACT, Role.OEM_PROVISIONING, Role.CSMS, Role.CHARGING_STATION)


@dataclass(frozen=True, slots=True)
class _Leaf:
    role: Role
    certificate: bytes
    key: PrivateKey | None


def write_layout(state: GlobalState, layout: Layout, *, prefix: str, out: str, leaves: Sequence[str]) -> None:
    """Write a folder for another stack, complete or with what is wrong said before anything is written.

    Args:
        prefix: of the CAs' names, as `ca create-hierarchy` gave them.
        out: a folder that is not there yet, or empty.
        leaves: ``ROLE=CERT`` or ``ROLE=CERT,KEY`` each; the files that `cert issue` wrote.

    Raises:
        Conflict: the folder holds something.
        InputError: a leaf whose key is another's.
        StateError: something is missing that the stack needs, or a leaf does not belong to these CAs.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(
            f"{folder} exists already", why="nothing of another stack is overwritten", fix="name a new folder"
        )
    if CA_KEYS[layout]:
        # That the key of a CA left the key store belongs into the log.
        state.writes = "change"
    now = utc_now()
    given = [_read_leaf(text) for text in leaves]
    cas = _find_cas(state.workspace.inventory, prefix)
    certificates = {role: record.certificate_der for role, record in cas.items() if record.certificate_der}
    for leaf in given:
        _check_leaf(leaf, certificates, now)
    private = {leaf.role: leaf.key for leaf in given if leaf.key is not None}
    exported = {role: cas[role] for role in CA_KEYS[layout] if role in cas}
    private |= {role: _take_key(state, record) for role, record in exported.items()}
    material = Material(certificates | {leaf.role: leaf.certificate for leaf in given}, private)
    found = lay_out(layout, material)
    for record in exported.values():
        _audit(state, record, layout, now)
    files.write_new_folder(folder, ((each.path, each.content, 0o600 if each.secret else 0o644) for each in found))
    state.output.say(f"wrote {counted(len(found), 'file')} to {folder}")
    secret = [str(each.path) for each in found if each.secret and each.content]
    if secret:
        state.output.say(f"warning: private keys without a passphrase, as {layout} wants them: {', '.join(secret)}")
    for record in exported.values():
        state.output.say(f"warning: whoever reads them can issue certificates as CA {record.id}")


def _read_leaf(text: str) -> _Leaf:
    head, equals, tail = text.partition("=")
    if not equals or head not in {role.value for role in _LEAVES}:
        known = ", ".join(role.value for role in _LEAVES)
        raise InputError(f"--leaf {text[:100]} is not ROLE=CERT,KEY", fix=f"ROLE is one of {known}")
    cert, comma, key_file = tail.partition(",")
    certificate = read_certificates(cert)[0]
    if not comma:
        return _Leaf(Role(head), certificate, None)
    key = private_keys.load_private_key(files.read_private(key_file))
    if keys.spki_der(key) != view_certificate(certificate).key.der:
        raise InputError(
            f"{key_file} is not the key of {cert}", why="the other stack would not start", fix="give the files together"
        )
    return _Leaf(Role(head), certificate, key)


def _find_cas(inventory: Inventory, prefix: str) -> dict[Role, CaRecord]:
    """Return the CAs of a hierarchy by role, the newest generation of each."""
    named = {role: inventory.find_ca(f"{prefix}-{role}") for role in Role if role not in _LEAVES}
    found = {role: record for role, record in named.items() if record is not None}
    if not found:
        raise StateError(
            f"there are no CAs whose names begin with {prefix}-",
            fix=f"chargepki ca create-hierarchy iso15118-2 --prefix {prefix} …, or see: chargepki ca list",
        )
    return found


def _check_leaf(leaf: _Leaf, cas: Mapping[Role, bytes], now: datetime) -> None:
    """Refuse a leaf that the CAs beside it did not issue: stacks fail with such folders, and do not say why."""
    roots = [der for role, der in cas.items() if role.value.endswith("-root")]
    others = [der for role, der in cas.items() if not role.value.endswith("-root")]
    verify_chain(leaf.certificate, others, roots, at=now)


def _take_key(state: GlobalState, record: CaRecord) -> PrivateKey:
    if not record.key_uri.startswith("file:"):
        raise SignerError(
            f"the key of CA {record.id} stays in its token", fix="let the other stack have a sub-CA of its own"
        )
    return state.workspace.keystore.open(record.key_uri).private_key


def _audit(state: GlobalState, record: CaRecord, layout: Layout, now: datetime) -> None:
    actor, details = state.workspace.actor, {"layout": layout.value}
    state.workspace.inventory.write(lambda tx: tx.audit(actor, "ca.export-key", record.id, now=now, details=details))
