"""``chargepki ca chain``: the certificates above a CA, towards its own root or towards one that somebody holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import INSTANT

if TYPE_CHECKING:
    from datetime import datetime

    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.records import CaRecord

__all__ = ["add_chain"]

_EXAMPLE = """chargepki ca chain acme-sub --out acme-chain.pem
chargepki ca chain acme-sub --anchor old-root.pem --out chain-for-old-stations.pem
chargepki ca chain acme-sub --station CS-0001"""
_MAX_BYTES = 1 << 20


@click.argument("name")
@click.option("--anchor", "anchors", multiple=True, metavar="F", help="A root that the other side holds (PEM or DER).")
@click.option("--station", metavar="ID", help="The other side is this station, with the roots that it holds.")
@click.option("--use", metavar="U", help="With --station: under the roots of this use (csms by default, or v2g …).")
@click.option("--at", type=INSTANT, metavar="TIME", help="With --anchor or --station: valid then; now by default.")
@click.option("--out", "-o", metavar="F", help="File to write instead of stdout.")
@pass_state
def chain(
    state: GlobalState,
    name: str,
    anchors: tuple[str, ...],
    station: str | None,
    use: str | None,
    at: datetime | None,
    out: str | None,
) -> None:
    """Print the chain of CA NAME as PEM: the CA first, its root last.

    With --anchor or --station it is the chain to a root that the other side holds, without that root: through a
    cross-certificate where only that leads there. Exit 1 when nothing does.
    """
    from chargepki.cli.results import write_result
    from chargepki.pki.authority import utc_now
    from chargepki.pki.der import to_pem

    if anchors and station:
        raise click.UsageError("pass either --anchor or --station")
    if (use and not station) or (at and not (anchors or station)):
        raise click.UsageError("--use belongs to --station, --at to --anchor or --station")
    inventory = state.workspace.inventory
    record = inventory.get_ca(name)
    if not anchors and not station:
        write_result(
            state, "".join(to_pem("CERTIFICATE", der) for der in _to_own_root(inventory, record)).encode(), out
        )
        return
    trusted = _read_anchors(anchors) if anchors else _station_anchors(inventory, str(station), use or "csms")
    path = _best_path(inventory, record, trusted, at or utc_now())
    if path is None:
        from chargepki.pki.certificate_view import view_certificate
        from chargepki.pki.names import text

        state.output.say(f"no certificate leads from {record.id} to a root that the other side holds")
        for der in trusted:
            state.output.say(f"it holds: {text(view_certificate(der).subject)}")
        state.output.say("cross-sign with: chargepki ca cross-sign NAME --issuer ROOT; or have the root installed")
        raise click.exceptions.Exit(1)
    for label in path.labels:
        state.output.say(f"through {label}")
    write_result(state, "".join(to_pem("CERTIFICATE", der) for der in path.certificates).encode(), out)


def _to_own_root(inventory: Inventory, record: CaRecord) -> list[bytes]:
    found: list[bytes] = []
    above: CaRecord | None = record
    while above is not None:
        found += [above.certificate_der] if above.certificate_der else []
        above = inventory.get_ca(above.issuer) if above.issuer else None
    return found


def _read_anchors(paths: tuple[str, ...]) -> list[bytes]:
    from chargepki.pki import files
    from chargepki.pki.pem import decode_der_or_pem

    return [
        decode_der_or_pem(files.read_limited(path, _MAX_BYTES, "root"), ("CERTIFICATE",), "a root", _MAX_BYTES)
        for path in paths
    ]


def _station_anchors(inventory: Inventory, station: str, use: str) -> list[bytes]:
    from chargepki.cli.rooting import read_use
    from chargepki.ocpp_security.station_chain import station_anchors
    from chargepki.pki.errors import StateError

    found = station_anchors(inventory, inventory.get_station(station).id, read_use(use))
    if found is None:
        raise StateError(
            f"nobody knows which {use} roots {station} holds",
            why="it was never asked, and none was installed from here",
            fix=f"ask it: chargepki station roots {station} --refresh",
        )
    return list(found)


def _best_path(inventory: Inventory, record: CaRecord, anchors: list[bytes], at: datetime) -> Any:
    from chargepki.pki.certificate_view import view_certificate
    from chargepki.pki.der import DerError
    from chargepki.pki.errors import InputError
    from chargepki.pki.questions import list_authorities
    from chargepki.pki.questions.paths import PathFinder

    try:
        for der in anchors:
            view_certificate(der)
    except DerError as error:
        raise InputError("an --anchor is no certificate", why=str(error), fix="give the root's certificate") from error
    found = PathFinder(list_authorities(inventory)).paths(record.id, anchors, at)
    return found[0] if found else None


def add_chain(group: Any) -> None:
    """Register the command with the noun ``ca``."""
    group.command("chain", example=_EXAMPLE)(chain)
