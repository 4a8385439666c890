"""``chargepki ca request``, ``sign-request`` and ``accept``: a CA whose issuer's key is in an offline workspace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.approving import approval_options, approving
from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import DURATION, SUBJECT, parse_algorithm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from chargepki.pki.authority.offline_files import CaRequestFile

__all__ = ["add_offline"]


@click.argument("name")
@click.option("--profile", required=True, metavar="ID", help="Profile of a CA below a root, or common/ocsp-signer.")
@click.option("--subject", type=SUBJECT, metavar="RDNS", help="CN=…,O=…,C=…,DC=…; the CN defaults to NAME.")
@click.option("--validity", type=DURATION, metavar="4y", help="What is asked for; the profile's default otherwise.")
@click.option("--key", "algorithm", metavar="ALG", help="Key algorithm, for example secp256r1.")
@click.option("--key-uri", metavar="pkcs11:…", help="Use this key of a token (RFC 7512) instead of making one.")
@click.option("--out", "-o", required=True, metavar="F", help="File for the request, which goes offline.")
@click.option("--dry-run", is_flag=True, help="Judge name and profile, change nothing.")
@pass_state
def request(
    state: GlobalState,
    name: str,
    profile: str,
    subject: tuple[tuple[str, str], ...] | None,
    validity: timedelta | None,
    algorithm: str | None,
    key_uri: str | None,
    out: str,
    dry_run: bool,
) -> None:
    """Make the key of CA NAME here, and a request that the workspace with its issuer's key answers.

    If NAME is there already, the next generation is asked for, which takes over when the answer is accepted. A repeat
    writes the same request. Read the digest that is printed to whoever signs.

    With --profile common/ocsp-signer, NAME is a CA whose key is offline, and asks for a responder's certificate, by
    which `serve` and `ocsp presign` answer for it.
    """
    from chargepki.cli.results import check_folder
    from chargepki.pki.authority import CaOrder
    from chargepki.pki.authority.ocsp import OCSP_PROFILE
    from chargepki.pki.authority.offline import check_request, request_ca

    check_folder("--out", out)
    if profile == OCSP_PROFILE:
        if subject or algorithm or key_uri:
            raise click.UsageError("a responder takes subject and key algorithm from its CA; leave those options out")
        _request_responder(state, name, validity, out, dry_run=dry_run)
        return
    order = CaOrder(
        name=name,
        profile=profile,
        subject=subject or (),
        validity=validity,
        key_algorithm=parse_algorithm(algorithm),
        key_uri=key_uri,
    )
    if dry_run:
        state.rehearse()
        check_request(state.workspace.inventory, order)
        state.output.fields("chargepki/ca-request", {"ca": name, "profile": profile})
        return
    if key_uri is None:
        state.workspace.check_passphrase()
    made = request_ca(state.workspace.authority, _folder(state), order)
    _write_request(state, made, out, issuer="ROOT")


def _request_responder(state: GlobalState, name: str, validity: timedelta | None, out: str, *, dry_run: bool) -> None:
    from chargepki.pki.authority.ocsp import OCSP_PROFILE
    from chargepki.pki.authority.offline_responder import check_responder_request, request_responder

    authority = state.workspace.authority
    if dry_run:
        state.rehearse()
        ca = check_responder_request(state.workspace.inventory, name, authority.now())
        state.output.fields("chargepki/ca-request", {"ca": ca.id, "profile": OCSP_PROFILE})
        return
    state.workspace.check_passphrase()
    made = request_responder(authority, _folder(state), name, validity=validity)
    _write_request(state, made, out, issuer=made.ca)


def _write_request(state: GlobalState, made: CaRequestFile, out: str, *, issuer: str) -> None:
    from chargepki.cli.results import write_result

    write_result(state, made.encoded, out)
    state.output.say(f"offline: chargepki ca sign-request {out} --issuer {issuer} --out answer.json")
    state.output.say(f"then here: chargepki ca accept answer.json; digest of the request: {made.sha256}")
    state.output.fields("chargepki/ca-request", {"ca": made.ca, "profile": made.profile, "sha256": made.sha256})


@click.argument("file", metavar="F")
@click.option("--issuer", required=True, metavar="NAME", help="CA of this workspace that signs.")
@click.option("--validity", type=DURATION, metavar="4y", help="In place of what the request asks for.")
@click.option("--sha256", metavar="HEX", help="Refuse any other request than the one with this digest.")
@click.option("--out", "-o", metavar="F", help="File for the answer, which goes back.")
@approval_options
@click.option("--dry-run", is_flag=True, help="Judge and lint, print what would be signed, change nothing.")
@pass_state
def sign_request(
    state: GlobalState,
    /,
    file: str,
    issuer: str,
    validity: timedelta | None,
    sha256: str | None,
    out: str | None,
    dry_run: bool,
    **brought: Any,
) -> None:
    """Certify the CA, or the responder, whose request is in the file F, and write the signed answer.

    It comes with the policy's verdict. Runs where the issuer's key is, offline if need be: nothing is fetched. A repeat
    gives the same certificate.
    """
    from chargepki.cli.describing import describe_tbs
    from chargepki.cli.results import check_folder, write_result
    from chargepki.pki import files
    from chargepki.pki.authority.offline import answer_request, judge_request_file
    from chargepki.pki.authority.offline_files import MAX_FILE_BYTES, CaRequestFile
    from chargepki.pki.errors import PolicyRefusal

    if not dry_run and out is None and brought["request_approval"] is None:
        raise click.UsageError("pass --out FILE, or --dry-run to look at it first")
    check_folder("--out", out)
    found = CaRequestFile.parse(files.read_limited(file, MAX_FILE_BYTES, "request"))
    if sha256 is not None and sha256.lower() != found.sha256:
        raise PolicyRefusal(
            "the request has another digest", why=f"it is {found.sha256}", fix="get the right file, or read it again"
        )
    state.output.say(f"request of {found.ca}, digest {found.sha256}")
    if dry_run:
        state.rehearse()
        prepared = judge_request_file(state.workspace.authority, found, issuer, validity=validity)
        assert prepared.record.tbs is not None
        row = {**describe_tbs(prepared.record.tbs, profile=found.profile), "verdict": dict(prepared.record.verdict)}
        state.output.fields("chargepki/certificate-preview", row)
        return
    with approving(state, **brought):
        answer = answer_request(state.workspace.authority, found, issuer, validity=validity)
    write_result(state, _encoded(answer.to_json()), out)
    root = answer.chain[-1]
    state.output.say(f"the root is {root.id}, SHA-256 {_digest(root.certificate)}")
    state.output.fields(
        "chargepki/ca-answer",
        {
            "ca": found.ca,
            "issuer": answer.chain[0].id,
            "request_sha256": answer.request_sha256,
            "certificate_sha256": _digest(answer.certificate),
            "root_sha256": _digest(root.certificate),
            "verdict": _verdict(state, answer.verdict),
        },
    )


@click.argument("file", metavar="F")
@click.option("--root-sha256", metavar="HEX", help="SHA-256 of the root, where it is not on record here yet.")
@approval_options
@click.option("--dry-run", is_flag=True, help="Verify the answer, change nothing.")
@pass_state
def accept(state: GlobalState, /, file: str, root_sha256: str | None, dry_run: bool, **brought: Any) -> None:
    """Verify the answer in the file F and activate the CA, or the responder, that asked for it.

    It has to answer a request of this workspace, for its key, its subject and its profile, signed by the issuer that it
    names, below a root that is on record or that --root-sha256 names; otherwise nothing changes.
    """
    from chargepki.cli.ca import ca_row
    from chargepki.pki import files
    from chargepki.pki.authority.offline import accept_answer
    from chargepki.pki.authority.offline_files import MAX_FILE_BYTES, CaAnswer

    answer = CaAnswer.parse(files.read_limited(file, MAX_FILE_BYTES, "answer"))
    if dry_run:
        state.rehearse()
    elif brought["request_approval"] is None:
        state.workspace.check_passphrase()
    with approving(state, **brought):
        accepted = accept_answer(state.workspace.authority, _folder(state), answer, root_sha256=root_sha256)
    if accepted.is_external:
        state.output.say(f"{accepted.id} is answered for; next: chargepki serve, or: chargepki ocsp presign")
    elif not dry_run:
        state.output.say(f"{accepted.id} is {accepted.state.value}, issued by {accepted.issuer}")
        state.output.say(f"next: chargepki crl publish --ca {accepted.name}; and: chargepki crl import ROOT.crl")
    state.output.fields("chargepki/ca", {**ca_row(accepted), "verdict": _verdict(state, answer.verdict)})


def _folder(state: GlobalState) -> Path:
    return state.settings.home / "requests"


def _verdict(state: GlobalState, verdict: Mapping[str, Any]) -> Any:
    """Return the policy's verdict: whole for a program, what did not pass for a person."""
    if state.output.for_machines:
        return dict(verdict)
    judged = verdict.get("request")
    rules = list(judged.get("rules", ())) if isinstance(judged, dict) else []
    remarks = [f"{each['rule']}: {each['message']}" for each in rules if each.get("outcome") in ("notice", "refuse")]
    return "; ".join(remarks) or "every rule that was judged passed"


def _encoded(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def add_offline(group: Any) -> None:
    """Register the commands with the noun ``ca``."""
    example = "chargepki ca request acme-sub --profile ocpp/cso-sub --subject 'CN=Sub,O=Acme' --out request.json"
    group.command("request", writes="create", example=example)(request)
    example = "chargepki ca sign-request request.json --issuer acme-root --out answer.json"
    group.command("sign-request", writes="change", example=example)(sign_request)
    group.command("accept", writes="change", example="chargepki ca accept answer.json --root-sha256 3b1f…")(accept)
