"""``chargepki doctor``: tell what a heap of certificates and keys is, what ails it, and write the right bundle."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from chargepki.cli.globals import GlobalState, command, pass_state
from chargepki.cli.values import INSTANT

if TYPE_CHECKING:
    from chargepki.pki.doctor import Diagnosis

__all__ = ["doctor"]


@command("doctor", verdict=True, example="chargepki doctor delivered/ station.key --write chain.pem")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--write", "out", metavar="FILE", help="Write the chain of the leaf: leaf first, no root, PEM.")
@click.option("--leaf", metavar="NAME", help="Which leaf to write: its name here, file, CN, serial number or SHA-256.")
@click.option("--with-root", is_flag=True, help="Write the root as well, as private environments send it.")
@click.option("--force", is_flag=True, help="Replace FILE, if it holds certificates alone.")
@click.option("--at", type=INSTANT, metavar="TIME", help="Instant at which validity is judged; now otherwise.")
@pass_state
def doctor(
    state: GlobalState,
    paths: tuple[str, ...],
    out: str | None,
    leaf: str | None,
    with_root: bool,
    force: bool,
    at: datetime | None,
) -> None:
    """Look at files and folders of certificates, requests, keys and bundles, in whatever state they are.

    Says what each is, which chain it belongs to, what is missing, which key fits, and what EVs, stations, CSMS,
    openssl and Java will object to. Reads PEM, DER, PKCS#7, PKCS#12, JKS and JCEKS; fetches nothing, needs no
    workspace, prints no key. Encrypted keys are opened with --passphrase-file. Exit 1 when something is wrong;
    with --write, when something is wrong with the chain that was written.
    """
    from chargepki.cli.doctor_heap import check_target, read_heap, write_bundle
    from chargepki.pki.doctor import choose_chain, examine, to_json

    if out is None and (leaf is not None or with_root or force):
        raise click.UsageError("--leaf, --with-root and --force go with --write")
    if out is not None:
        check_target(out, force=force)
    diagnosis = examine(read_heap(state, paths), at=at or datetime.now(UTC))
    chosen = None if out is None else choose_chain(diagnosis, leaf)
    if state.output.for_machines:
        state.output.document("chargepki/doctor-report", to_json(diagnosis))
    elif out != "-":
        from chargepki.cli.doctor_text import print_diagnosis

        print_diagnosis(state, diagnosis)
    if chosen is not None and out is not None:
        write_bundle(state, chosen, out, with_root=with_root)
    _summarise(state, diagnosis)
    sound = diagnosis.is_sound if chosen is None else diagnosis.is_chain_sound(chosen)
    if not sound:
        raise click.exceptions.Exit(1)


def _summarise(state: GlobalState, diagnosis: Diagnosis) -> None:
    from chargepki.cli.output import counted
    from chargepki.pki.findings import Severity

    errors = sum(finding.severity is Severity.ERROR for finding in diagnosis.findings)
    refused = sum(each.is_refused for each in diagnosis.chains)
    parts = [
        counted(len(diagnosis.objects), "object"),
        counted(len(diagnosis.chains), "chain"),
        counted(errors, "error"),
    ]
    if refused:
        parts.append(f"{counted(refused, 'chain')} refused")
    if diagnosis.skipped:
        parts.append(f"{counted(len(diagnosis.skipped), 'file')} skipped")
    state.output.say(", ".join(parts))
