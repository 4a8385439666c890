"""Turn the options of ``cert issue`` into an order; make the key for ``--new-key``; preview for ``--dry-run``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from chargepki.cli.globals import GlobalState
from chargepki.pki import keys, private_keys
from chargepki.pki.authority import IssuedCertificate, IssueOrder, utc_now
from chargepki.pki.authority.issuance import judged_on_record, prepare
from chargepki.pki.errors import Conflict, PolicyRefusal, UnavailableError
from chargepki.pki.inventory.records import CertificateRecord
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles import get_profile

__all__ = [
    "explain_unwritten",
    "hand_out_key",
    "key_for",
    "make_order",
    "preview",
    "read_csr",
    "tell_lifetime",
    "write_issued",
]

_SHORT = timedelta(days=1)
_MAX_CSR_BYTES = 65536


def make_order(options: Mapping[str, Any], *, read_csr: Callable[[str], bytes]) -> IssueOrder:
    """Return the order; a missing key is made later by `key_for`.

    Raises:
        click.UsageError: the options contradict each other.
    """
    if bool(options["csr"]) == bool(options["new_key"]):
        raise click.UsageError("pass either --csr FILE or --new-key")
    if options["new_key"] and not options["key_out"]:
        raise click.UsageError("--new-key needs --key-out FILE")
    if not options["new_key"] and (options["key_out"] or options["algorithm"]):
        raise click.UsageError("--key and --key-out belong to --new-key")
    get_profile(options["profile"])
    return IssueOrder(
        ca=options["ca"],
        profile=options["profile"],
        csr=read_csr(options["csr"]) if options["csr"] else None,
        subject=options["subject"] or (),
        validity=options["validity"],
        dns_names=tuple(options["dns_names"]),
        criticality=options["criticality"],
        request_id=options["request_id"],
        again=options["again"],
        station=options["station"],
    )


def key_for(state: GlobalState, order: IssueOrder, options: Mapping[str, Any]) -> IssueOrder:
    """Make and store the new key before anything is signed for it, and return the order with its public key.

    Until the certificate is written too, the key waits beside ``--key-out`` in a file with ``.part`` added; one that an
    interrupted run left there is taken up again, so that repeating the command completes what it began.

    Raises:
        Conflict: ``--key-out`` exists, or the waiting file holds another kind of key.
    """
    if not options["new_key"]:
        return order
    from chargepki.pki import files

    algorithm = _algorithm(options["algorithm"], order.profile)
    path, waiting = _key_paths(options)
    if path.exists() and not (waiting.exists() and path.samefile(waiting)):
        raise Conflict(
            f"{path} exists already",
            why="a key is never overwritten",
            fix="choose another --key-out, or make a CSR with the existing key and pass --csr",
        )
    resumed = waiting.exists()
    if resumed:
        private = private_keys.load_private_key(files.read_private(waiting))
        if keys.algorithm_of(private.public_key()) is not algorithm:
            raise Conflict(
                f"{waiting} holds a key of another algorithm than {algorithm.value}",
                why="an interrupted run with another --key left it",
                fix="repeat that command, or move the file away if its certificate is not needed",
            )
        state.output.say(f"taking up the key that an interrupted run left in {waiting}")
    else:
        private = keys.generate_private_key(algorithm)
    order = replace(order, spki=keys.spki_der(private.public_key()))
    # Everything but the key itself is judged first, so that a refusal leaves no key file behind.
    _prepared(state, order)
    if not resumed:
        files.write_new(waiting, private_keys.serialise_private_key(private), mode=0o600)
    return order


def hand_out_key(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Give the new key its name, now that its certificate has been written."""
    if options["new_key"]:
        from chargepki.pki import files

        # The certificate may be on its way to stdout; once the key has its name, the command is not repeated.
        sys.stdout.flush()
        path, waiting = _key_paths(options)
        files.move_new(waiting, path)
        state.output.say(f"wrote {path}")


@contextmanager
def explain_unwritten(issued: IssuedCertificate, options: Mapping[str, Any]) -> Iterator[None]:
    """Say how to get what was issued when it cannot be written.

    Raises:
        UnavailableError: with that cure, in place of the one that told only what could not be written.
    """
    try:
        yield
    except (UnavailableError, Conflict) as error:
        fix = "repeat this command: it returns the same certificate"
        if options["again"] and not options["new_key"]:
            fix = f"get it with: chargepki cert show {issued.record.id}"
        if options["new_key"] and (waiting := _key_paths(options)[1]).exists():
            fix += f"; its key waits in {waiting}"
        why = f"{issued.record.id} is issued and recorded" + (f"; {error.why}" if error.why else "")
        raise UnavailableError(error.what, why=why, fix=fix) from error


def tell_lifetime(state: GlobalState, record: CertificateRecord, *, by_default: bool) -> None:
    """Say that a certificate lasts less than a day when nobody asked for that."""
    lasts = record.not_after - record.not_before
    if by_default and lasts < _SHORT:
        hours = round(lasts / timedelta(hours=1))
        state.output.say(
            f"{record.profile} lasts {hours} hours unless told otherwise; for another time: --validity 60d"
        )


def _key_paths(options: Mapping[str, Any]) -> tuple[Path, Path]:
    path = Path(options["key_out"])
    return path, path.with_name(f"{path.name}.part")


def preview(state: GlobalState, order: IssueOrder, options: Mapping[str, Any]) -> None:
    """Print what would be signed; nothing is written."""
    from chargepki.cli.describing import describe_tbs

    if order.csr is None and order.spki is None:
        private = keys.generate_private_key(_algorithm(options["algorithm"], order.profile))
        order = replace(order, spki=keys.spki_der(private.public_key()))
    record = _prepared(state, order)
    assert record.tbs is not None
    state.output.fields("chargepki/certificate-preview", describe_tbs(record.tbs, profile=order.profile))


def _prepared(state: GlobalState, order: IssueOrder) -> CertificateRecord:
    """Return the certificate that *order* would reserve, judged by all rules; nothing is written."""
    authority, now = state.workspace.authority, utc_now()
    prepared = prepare(
        order,
        authority.open_issuer(order.ca),
        authority.inventory,
        actor=authority.actor,
        now=now,
        policy=authority.policy,
    )
    return judged_on_record(authority.inventory, prepared, now=now)


def _algorithm(text: str | None, profile_id: str) -> KeyAlgorithm:
    profile = get_profile(profile_id)
    if text is None:
        return profile.keys.default
    try:
        return KeyAlgorithm(text)
    except ValueError as error:
        known = ", ".join(algorithm.value for algorithm in profile.keys.algorithms)
        raise PolicyRefusal(
            f"unknown key algorithm {text[:40]!r}", why=f"{profile_id} allows {known}", fix="use one of these"
        ) from error


def read_csr(path: str) -> bytes:
    """Return the request in the file *path*, ``-`` for standard input.

    Raises:
        UnavailableError: it cannot be read.
        InputError: it is too large.
    """
    from chargepki.pki import files

    return files.read_limited(path, _MAX_CSR_BYTES, "certificate request")


def write_issued(
    state: GlobalState, issued: IssuedCertificate, *, out: str | None, chain_out: str | None, by_default: bool
) -> None:
    """Tell of a certificate and hand it out: to files, as JSON, or its leaf to stdout.

    Args:
        by_default: nobody asked for its length of life.
    """
    from chargepki.cli.cautions import certificate_warnings, tell_warnings
    from chargepki.cli.cert import certificate_row
    from chargepki.cli.results import write_result
    from chargepki.pki.der import to_pem

    leaf = to_pem("CERTIFICATE", issued.certificate_der)
    chain = "".join(to_pem("CERTIFICATE", der) for der in issued.chain)
    record = issued.record
    verb = "already issued" if issued.repeated else "issued"
    state.output.say(f"{verb} {record.id} for {record.subject}, valid until {record.not_after:%Y-%m-%d %H:%M:%S}Z")
    if issued.clamped:
        state.output.say(f"its validity was cut to the end of its issuer {record.ca}")
    tell_lifetime(state, record, by_default=by_default)
    warnings = certificate_warnings(state.workspace.inventory, record)
    tell_warnings(state, warnings)
    if out:
        write_result(state, leaf.encode(), out)
    if chain_out:
        write_result(state, chain.encode(), chain_out)
    if state.output.for_machines:
        row = certificate_row(record)
        row |= {"repeated": issued.repeated, "clamped": issued.clamped, "warnings": warnings}
        row |= {"certificate_pem": leaf, "chain_pem": chain}
        state.output.document("chargepki/certificate", row)
    elif not out and not chain_out:
        state.output.text(leaf)
