"""Prepare OCSP responses for `ocsp presign`, and describe one for `ocsp show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.progress import progress
from chargepki.pki import files, names
from chargepki.pki.authority.ocsp import PRESIGNED_HASHES, OcspAuthority, ocsp_cas
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain.ocsp import read_ocsp_response
from chargepki.pki.crl import ReasonCode
from chargepki.pki.errors import NotFound, StateError
from chargepki.pki.inventory.records import CaRecord

__all__ = ["describe_response", "presign_cas"]


def presign_cas(state: GlobalState, ca: str | None, *, out_dir: str | None, hash_name: str, dry_run: bool) -> None:
    """Prepare the responses of one CA, or of all, and print a row for each CA.

    Raises:
        StateError: the CA is not answered for.
        SignerError: no key of a CA opens.
    """
    if dry_run:
        state.rehearse()
    authority = state.workspace.authority
    inventory = state.workspace.inventory
    served = list(ocsp_cas(inventory, authority.now()))
    if ca is not None:
        wanted = inventory.get_ca(ca)
        served = [each for each in served if each.id == wanted.id]
        if not served:
            raise StateError(
                f"nobody answers for {wanted.id}: it is {wanted.state.value}, or has expired",
                why="clients shall stop believing what such a CA has issued",
                fix="list the CAs with: chargepki ca list",
            )
    if not served:
        raise NotFound("there is no CA to answer for", fix="create one with: chargepki ca create")
    signing = OcspAuthority(authority)
    rows = []
    with progress(state, "signing OCSP responses") as advance:
        for done, each in enumerate(served):
            advance(done, len(served))
            signed = _rehearse(state, each) if dry_run else signing.presign(each)
            written = 0 if out_dir is None or dry_run else _write(state, each, Path(out_dir), hash_name)
            rows.append({"ca": each.id, "signed": signed, "written": written})
    state.output.rows("chargepki/ocsp-presigned", ("ca", "signed", "written"), rows, key="cas")
    total = sum(int(str(row["written"])) for row in rows)
    if out_dir is not None and not dry_run:
        state.output.say(f"wrote {counted(total, 'response')} below {out_dir}; fetch them again every day")


def _rehearse(state: GlobalState, ca: CaRecord) -> int:
    """Count what would be signed. A signer that is still to be issued is not made for it."""
    now = state.workspace.authority.now()
    inventory = state.workspace.inventory
    return sum(len(inventory.list_ocsp_due(ca.id, name, now=now, limit=1_000_000)) for name in PRESIGNED_HASHES)


def _write(state: GlobalState, ca: CaRecord, folder: Path, hash_name: str) -> int:
    """Write the responses of one CA; a file of a certificate that has expired meanwhile stays as it is."""
    target = files.make_folder(folder / ca.id)
    written = set()
    for record in state.workspace.inventory.list_ocsp_responses_of(ca.id, hash_name):
        name = f"{record.certificate.rpartition(':')[2]}.ocsp"
        files.write_durable(target / name, record.der)
        written.add(name)
    return len(written)


def describe_response(data: bytes) -> dict[str, Any]:
    """Return the fields of an OCSP response.

    Raises:
        DerError: it is none, or reports an error.
    """
    response = read_ocsp_response(data)
    name, key = response.responder_name, response.responder_key_hash
    return {
        "responder_name": names.text(name) if name else None,
        "responder_key_hash": key.hex() if key else None,
        "produced_at": response.produced_at,
        "nonce": response.nonce.hex() if response.nonce else None,
        "signed_by": [
            {"subject": names.text(view.subject), "serial": f"{view.serial:x}", "not_after": view.not_after.value}
            for view in map(view_certificate, response.certificates)
        ],
        "answers": [
            {
                "serial": f"{answer.serial:x}",
                "hash": answer.hash_name,
                "status": answer.status,
                "revoked_at": answer.revoked_at,
                "reason": ReasonCode.of_number(answer.reason).value if answer.status == "revoked" else None,
                "this_update": answer.this_update,
                "next_update": answer.next_update,
            }
            for answer in response.answers
        ],
        "der_bytes": len(data),
    }
