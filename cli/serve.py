"""``chargepki serve``: the PKI's own endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chargepki.cli.globals import GlobalState, command, pass_state

__all__ = ["serve"]


@command(
    "serve",
    writes="change",
    example="chargepki serve --listen 0.0.0.0:8080 --workers 2 --passphrase-file pass.txt --log-json",
)
@click.option("--listen", metavar="HOST:PORT", required=True, help="Where OCSP, CRLs and CA certificates are served.")
@click.option("--tls-listen", metavar="HOST:PORT", help="The same with TLS.")
@click.option("--tls-cert", metavar="F", help="PEM chain of the TLS listener, leaf first; read again when it changes.")
@click.option("--tls-key", metavar="F", help="Its unencrypted PEM key.")
@click.option("--workers", metavar="N", type=click.IntRange(1, 64), default=1, help="Processes that serve (default 1).")
@click.option("--issue-here", is_flag=True, help="Sign what EST clients ask for here; else `authority serve` does.")
@click.option("--presigned-only", is_flag=True, help="Hold no keys: answer with what another `serve` has signed.")
@click.option(
    "--answer-memory-mib",
    type=click.IntRange(1, 65536),
    metavar="N",
    default=128,
    show_default=True,
    help="What prepared OCSP answers may take in the memory of each process; about 430 fit into a MiB.",
)
@click.option(
    "--staples-token-file",
    metavar="F",
    help="Hand batches of prepared responses to who shows a token of this file: one a line; read at each request.",
)
@click.option("--probe-url", metavar="URL", help="Where the self-probe fetches from (default: the listener itself).")
@click.option(
    "--firmware-rate-kib", type=click.IntRange(1), metavar="N", help="KiB a second for each download of an image."
)
@click.option(
    "--firmware-total-kib",
    type=click.IntRange(1),
    metavar="N",
    help="The same for all of them together; each worker has an equal share.",
)
@click.option(
    "--firmware-downloads",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Downloads at once per worker; of one station at most 4.",
)
@click.option("--firmware-plain", is_flag=True, help="Serve images without TLS too, against L01.FR.08.")
@click.option(
    "--reports",
    metavar="F",
    help="Serve the report on the inventory under /reports/ to the accounts of this file (inventory report-account).",
)
@click.option("--access-log", is_flag=True, help="Log every request, not failures alone.")
@click.option("--log-json", is_flag=True, help="Log one JSON object a line.")
@pass_state
def serve(state: GlobalState, /, **options: Any) -> None:
    """Answer OCSP requests, serve CRLs and CA certificates, and keep all of them fresh.

    On the TLS listener also EST (RFC 7030) under the labels [est.label.NAME] of chargepki.toml, and the images of
    approved firmware releases, under URLs that an update makes for one station and that end by themselves.
    With --reports also the inventory's report, as `inventory report` writes it, read-only, over TLS or to this machine.
    One process with the keys renews lists, OCSP signers and prepared answers; another takes over when it dies. Stop
    it with SIGTERM or Ctrl-C; SIGHUP loads the TLS certificate again.
    """
    from chargepki.cli.pki_serving import serve_pki
    from chargepki.cli.serve_alerts import ServeAlerts

    reports = None
    if options["reports"]:
        from chargepki.cli.serve_reports import ServeReports

        reports = ServeReports(state, Path(options["reports"]))
    # Without keys nothing can be stored, and so nothing raised: problems are logged.
    serve_pki(state, options, alerts=None if options["presigned_only"] else ServeAlerts(state), reports=reports)
