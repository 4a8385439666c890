"""``chargepki est``: enrol with an EST server, and decide who may enrol with ours."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.values import DURATION, SUBJECT

__all__ = ["est"]

_MAX_BYTES = 1 << 16


@group("est", example="chargepki est account add acme --label cpo")
def est() -> None:
    """Enrol with an EST server (RFC 7030), and decide who may enrol with ours."""


# -- client -----------------------------------------------------------------------------------------------------------


def _connection(command: Any) -> Any:
    """Add the options that say which server is asked, and as whom."""
    for option in (
        click.option("--key", "key_file", metavar="F", help="Key of --cert, PEM without passphrase."),
        click.option("--cert", "certificate_file", metavar="F", help="TLS client certificate, PEM, leaf first."),
        click.option("--password-file", metavar="F|-", help="File with the password of --user."),
        click.option("--user", metavar="NAME", help="Account name for HTTP Basic."),
        click.option("--trust", metavar="F", help="Anchors of the server's certificate, PEM; the system's otherwise."),
    ):
        command = option(command)
    return command


def _request(command: Any) -> Any:
    """Add the options of what is asked for and where it goes."""
    for option in (
        click.option(
            "--wait", type=DURATION, default="10m", show_default=True, help="How long to ask again after 202."
        ),
        click.option("--chain-out", metavar="F", help="Also write leaf and CA certificates, without root."),
        click.option("--out", "-o", metavar="F", help="Certificate file instead of stdout."),
        click.option("--key-out", metavar="F", help="File for the new key, mode 0600."),
        click.option("--key-algorithm", metavar="ALG", default="secp256r1", show_default=True, help="Of the new key."),
        click.option("--new-key", is_flag=True, help="Make a key; needs --key-out."),
        click.option("--csr", metavar="FILE|-", help="Request to send."),
    ):
        command = option(command)
    return command


@est.command("cacerts", example="chargepki est cacerts https://est.example.org/.well-known/est/cpo --trust root.pem")
@click.argument("url")
@_connection
@click.option("--out", "-o", metavar="F", help="File instead of stdout.")
@pass_state
def cacerts(state: GlobalState, /, url: str, out: str | None, **options: Any) -> None:
    """Print the CA certificates of the EST server at URL as PEM, in its order."""
    from chargepki.cli.enrolling import client_for
    from chargepki.cli.results import write_result
    from chargepki.pki.services.est_client import pem_of

    certificates = client_for(url, options).get_cacerts()
    write_result(state, pem_of(certificates).encode(), out)


@est.command(
    "enrol",
    example="chargepki est enrol https://est.example.org/.well-known/est/cpo --trust root.pem --user acme"
    " --password-file acme.txt --csr secc.csr --out secc.pem --chain-out secc-chain.pem",
)
@click.argument("url")
@_request
@click.option("--subject", type=SUBJECT, metavar="RDNS", help="Subject of the request that is made for --new-key.")
@_connection
@pass_state
def enrol(state: GlobalState, /, url: str, **options: Any) -> None:
    """Have a request certified by the EST server at URL.

    The key exists before the request is sent; an interrupted run is completed by repeating it.
    """
    from chargepki.cli.enrolling import enrol_with

    enrol_with(state, url, options, renew=False)


@est.command(
    "renew",
    example="chargepki est renew https://est.example.org/.well-known/est/cpo --trust root.pem"
    " --cert secc.pem --key secc.key --out secc-2.pem",
)
@click.argument("url")
@_request
@_connection
@pass_state
def renew(state: GlobalState, /, url: str, **options: Any) -> None:
    """Renew the certificate --cert, for its own key or with --new-key; it authenticates the request."""
    from chargepki.cli.enrolling import enrol_with

    if not options["certificate_file"] or not options["key_file"]:
        raise click.UsageError("a renewal needs --cert and --key of the certificate that is renewed")
    enrol_with(state, url, options, renew=True)


# -- our server ------------------------------------------------------------------------------------------------------


@est.group("account", example="chargepki est account list")
def account() -> None:
    """Say who may enrol with our EST server."""


@account.command(
    "add",
    writes="change",
    example="chargepki est account add acme --label cpo --common-name 'DE*' --password-out p",
)
@click.argument("name")
@click.option("--label", "labels", multiple=True, required=True, metavar="L", help="Label that it may use; repeatable.")
@click.option(
    "--common-name", "patterns", multiple=True, default=("*",), metavar="P", help="CN it may ask for, * and ? allowed."
)
@click.option("--password-file", metavar="F|-", help="Its password, 16 octets or more; made otherwise.")
@click.option("--password-out", metavar="F", help="File for the password that is made, mode 0600.")
@click.option("--certificate", metavar="F", help="TLS client certificate that it is known by, in place of a password.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def add_account(state: GlobalState, /, name: str, dry_run: bool, **options: Any) -> None:
    """Let the account NAME enrol under the given labels."""
    from chargepki.cli.est_accounts import account_row, add

    if dry_run:
        state.rehearse()
    record = add(state, name, options, dry_run=dry_run)
    state.output.fields("chargepki/est-account", account_row(record))


@account.command("list", example="chargepki est account list --json")
@pass_state
def list_accounts(state: GlobalState) -> None:
    """List the accounts, removed ones too."""
    from chargepki.cli.est_accounts import account_row

    rows = (account_row(record) for record in state.workspace.inventory.list_est_accounts())
    state.output.rows(
        "chargepki/est-account-list", ("name", "labels", "common_names", "by", "state"), rows, key="accounts"
    )


@account.command("remove", writes="change", example="chargepki est account remove acme")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def remove_account(state: GlobalState, name: str, dry_run: bool) -> None:
    """Let the account NAME enrol no more; certificates that it got stay until they are revoked."""
    from chargepki.cli.est_accounts import account_row, remove

    if dry_run:
        state.rehearse()
    state.output.fields("chargepki/est-account", account_row(remove(state, name)))


@est.group("request", example="chargepki est request list")
def request() -> None:
    """Decide on the requests of labels that demand an approval."""


@request.command("list", example="chargepki est request list --json")
@click.option("--all", "everything", is_flag=True, help="Decided ones too.")
@pass_state
def list_requests(state: GlobalState, everything: bool) -> None:
    """List the requests that wait for a decision."""
    from chargepki.cli.est_accounts import request_row
    from chargepki.pki.inventory.records import EstRequestState

    wanted = None if everything else EstRequestState.WAITING
    rows = (request_row(record) for record in state.workspace.inventory.list_est_requests(state=wanted))
    columns = ("id", "label", "account", "subject", "state", "created_at")
    state.output.rows("chargepki/est-request-list", columns, rows, key="requests")


@request.command("approve", writes="change", example="chargepki est request approve 5f0c…")
@click.argument("request_id", metavar="ID")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def approve(state: GlobalState, request_id: str, dry_run: bool) -> None:
    """Let the request ID be certified when its client asks again; ID may be cut to 8 digits or more."""
    from chargepki.cli.est_accounts import decide_on

    if dry_run:
        state.rehearse()
    decide_on(state, request_id, approve=True, reason=None)


@request.command("reject", writes="change", example="chargepki est request reject 5f0c… --reason 'unknown operator'")
@click.argument("request_id", metavar="ID")
@click.option("--reason", metavar="TEXT", help="For the record; the client is not told.")
@click.option("--dry-run", is_flag=True, help="Judge it, print what would be recorded, change nothing.")
@pass_state
def reject(state: GlobalState, request_id: str, reason: str | None, dry_run: bool) -> None:
    """Refuse the request ID for good; ID may be cut to 8 digits or more."""
    from chargepki.cli.est_accounts import decide_on

    if dry_run:
        state.rehearse()
    decide_on(state, request_id, approve=False, reason=reason)
