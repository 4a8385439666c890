"""``chargepki inventory import``: take in what others left, tell what was new, and what could not be read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.output import counted

if TYPE_CHECKING:
    from chargepki.pki.importing import Importer, Intake
    from chargepki.pki.inventory.import_records import FoundCertificate

__all__ = ["add_import"]

_TLS: Final = "tls://"
_MOST_TOLD: Final = 20
_MOST_SERIALS: Final = 10


@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option(
    "--bundle-passphrase-file",
    "bundle_passphrases",
    multiple=True,
    metavar="PATH|-",
    help="Opens PKCS#12 files and Java key stores; repeatable, each is tried.",
)
@click.option("--dry-run", is_flag=True, help="Read everything and tell what would be added; change nothing.")
@pass_state
def import_(
    state: GlobalState, /, sources: tuple[str, ...], bundle_passphrases: tuple[str, ...], dry_run: bool
) -> None:
    """Take certificates that others issued into the inventory, each with the place where it was found.

    A SOURCE is a file or a folder, with zip, tar, gzip, bzip2 and xz files looked into, or tls://HOST:PORT for what
    that server presents. Read are PEM, DER, PKCS#7, PKCS#12, Java key stores, index.txt of openssl and easy-rsa with
    the certificates beside it, databases of cfssl (SQLite), and dumps of what stations list. What is known already is
    passed over, so a run that was interrupted is simply repeated. Private keys are counted and left where they are.
    Imported certificates are trusted for nothing. Exit 3 when something could not be read; the rest is imported.
    """
    _check_sources(sources)
    if dry_run:
        state.rehearse()
    from chargepki.cli.progress import progress
    from chargepki.pki.importing import Intake

    intake = Intake(_passphrases(state, bundle_passphrases))
    totals: dict[str, int] = {}
    orphans: list[str] = []
    with progress(state, "certificates read") as step:
        done = 0
        for source in sources:
            importer = _importer(state, source, is_rehearsal=dry_run)
            for count in importer.take(_read(intake, source)):
                step(done + count, 0)
            done += importer.tally.added + importer.tally.known + importer.tally.ours
            _settle(intake, importer)
            for name in ("added", "known", "ours", "places", "revoked"):
                totals[name] = totals.get(name, 0) + getattr(importer.tally, name)
            totals["orphans"] = totals.get("orphans", 0) + importer.orphan_count
            orphans += importer.orphans
    totals["dumps"] = _take_dumps(state, intake)
    _tell(state, intake, totals, orphans)
    if intake.problem_count:
        only_unavailable = all(problem.is_unavailable for problem in intake.problems)
        raise click.exceptions.Exit(4 if only_unavailable else 3)


def _check_sources(sources: Sequence[str]) -> None:
    """Refuse a source that is not there before anything is imported."""
    from pathlib import Path

    from chargepki.cli.linting_tls import check_operand
    from chargepki.pki.errors import UnavailableError

    for source in sources:
        if source.startswith(_TLS):
            check_operand(source)
        elif source != "-" and not Path(source).exists():
            raise UnavailableError(
                f"there is no file or folder {source}", why="nothing was imported yet", fix="check the name"
            )


def _importer(state: GlobalState, source: str, *, is_rehearsal: bool) -> Importer:
    from pathlib import Path

    from chargepki.pki.authority import utc_now
    from chargepki.pki.errors import printable
    from chargepki.pki.importing import Importer

    named = source if source.startswith(_TLS) or source == "-" else str(Path(source).absolute())
    workspace = state.workspace
    return Importer(
        workspace.inventory,
        workspace.actor,
        utc_now,
        printable(named)[:500],
        "chargepki inventory import",
        is_rehearsal=is_rehearsal,
    )


def _read(intake: Intake, source: str) -> Iterator[FoundCertificate]:
    if not source.startswith(_TLS):
        yield from intake.path(source)
        return
    from chargepki.cli.linting_tls import presented_chain
    from chargepki.pki.errors import UnavailableError

    try:
        chain = presented_chain(source)
    except UnavailableError as error:
        intake.problem(source, f"{error.what}: {error.why}", is_unavailable=True)
        return
    yield from intake.endpoint(source.removesuffix("/"), chain)


def _passphrases(state: GlobalState, paths: Sequence[str]) -> Callable[[], Sequence[bytes]]:
    """Return a function that obtains them once, when something encrypted is met."""
    from chargepki.cli.passphrase import read_passphrase

    @cache
    def obtain() -> Sequence[bytes]:
        if paths:
            return tuple([read_passphrase(path, warn=state.output.say) for path in paths])
        if state.output.for_machines or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return ()
        import getpass

        typed = getpass.getpass("Passphrase of the PKCS#12 files (empty: leave them closed): ", stream=sys.stderr)
        return (typed.encode(),) if typed else ()

    return obtain


def _settle(intake: Intake, importer: Importer) -> None:
    """Note what the databases of a source say of its certificates, and which of them were not there."""
    importer.revoke(intake.revocations)
    for place, rows in intake.indexes:
        importer.revoke(row.revocation for row in rows if row.revocation is not None)
        absent = importer.find_absent(rows)
        if absent:
            named = ", ".join(absent[:_MOST_SERIALS]) + (", …" if len(absent) > _MOST_SERIALS else "")
            intake.problem(place, f"{len(absent)} of its {len(rows)} certificates are not beside it: {named}")
    intake.revocations, intake.indexes = [], []


def _take_dumps(state: GlobalState, intake: Intake) -> int:
    """Put what stations listed on record; return how many listings were new."""
    if not intake.dumps:
        return 0
    from chargepki.ocpp_security.station_dumps import parse_dumps, take_dump
    from chargepki.pki.authority import utc_now
    from chargepki.pki.errors import InputError, NotFound

    taken = 0
    for place, data in intake.dumps:
        dumps = parse_dumps(data)
        while True:
            try:
                dump = next(dumps, None)
                if dump is None:
                    break
                workspace = state.workspace
                taken += take_dump(workspace.inventory, dump, workspace.actor, source=place, now=utc_now())
            except (InputError, NotFound) as error:
                intake.problem(place, f"{error.what}; {error.fix}" if error.fix else error.what)
    return taken


def _tell(state: GlobalState, intake: Intake, totals: dict[str, int], orphans: Sequence[str]) -> None:
    """Say what was done; problems last, where they are seen."""
    output = state.output
    if output.for_machines:
        document = {
            "files": intake.files,
            **{name: totals[name] for name in ("added", "known", "ours", "places", "revoked", "dumps", "orphans")},
            "private_keys": intake.private_keys,
            "passed_over": intake.passed_over,
            "problem_count": intake.problem_count,
            "problems": [{"place": each.place, "reason": each.reason} for each in intake.problems],
            "orphan_places": list(orphans),
        }
        output.document("chargepki/inventory-import", document)
        return
    if not any(totals[name] for name in ("added", "places", "revoked", "dumps")):
        output.say("nothing is new")
    output.text(f"{counted(totals['added'], 'certificate')} imported, {totals['known']} known, {totals['ours']} ours")
    for name, noun in (("places", "new place"), ("revoked", "new revocation"), ("dumps", "new listing of stations")):
        if totals[name]:
            output.text(counted(totals[name], noun, "new listings of stations" if name == "dumps" else ""))
    if intake.private_keys:
        output.say(f"{counted(intake.private_keys, 'private key')} left where they are: none is ever imported")
    if intake.passed_over:
        output.say(f"{counted(intake.passed_over, 'file')} without a certificate")
    for orphan in orphans[:_MOST_TOLD]:
        output.say(f"warning: a CA of ours should have issued it, and has no record of it: {orphan}")
    for problem in intake.problems[:_MOST_TOLD]:
        output.say(f"not read: {problem.place}: {problem.reason}")
    if intake.problem_count > _MOST_TOLD:
        output.say(f"and {intake.problem_count - _MOST_TOLD} more; --json lists them")


def add_import(group: Any) -> None:
    """Register the command with the noun ``inventory``."""
    example = (
        "chargepki inventory import /etc/everest/certs old-ca.tar.gz tls://csms.example.org:443\n"
        "chargepki inventory import easy-rsa/pki --dry-run"
    )
    group.command("import", writes="create", example=example)(import_)
