"""``chargepki csms``: serve the OCPP endpoint that charging stations connect to."""

from __future__ import annotations

from typing import Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["csms"]

_TOKENS = (
    "Accepted", "Blocked", "ConcurrentTx", "Expired", "Invalid", "NoCredit", "NotAllowedTypeEVSE",
    "NotAtThisLocation", "NotAtThisTime", "Unknown",
)  # fmt: skip


@group("csms", example="chargepki csms serve --listen 127.0.0.1:8443 --security-profile 2,3 --tls-ca acme-cso-sub")
def csms() -> None:
    """Run the OCPP endpoint for ocpp1.6, ocpp2.0.1 and ocpp2.1."""


@csms.command(
    "serve",
    writes="change",
    example="chargepki csms serve --listen 127.0.0.1:8443 --security-profile 2,3 --tls-ca acme-cso-sub \\\n"
    "    --dns csms.example.org --issue ChargingStationCertificate=acme-cso-sub --issue-here",
)
@click.option("--listen", metavar="HOST:PORT", help="Address to bind; port 0 lets the system choose.")
@click.option(
    "--security-profile",
    "profiles",
    metavar="1|2|3|2,3",
    help="OCPP security profile of this port; 0 or 0,1 for old 1.6 stations.",
)
@click.option("--tls-cert", "tls_certs", multiple=True, metavar="F", help="Server chain (PEM, leaf first); repeatable.")
@click.option("--tls-key", "tls_keys", multiple=True, metavar="F", help="Key of the --tls-cert at the same position.")
@click.option("--tls-ca", metavar="NAME", help="Have this CA issue short-lived server certificates, EC and RSA.")
@click.option("--dns", "dns_names", multiple=True, metavar="NAME", help="Host name for --tls-ca; the host otherwise.")
@click.option("--client-trust", metavar="F", help="CA certificates of stations (PEM); those of --issue otherwise.")
@click.option("--client-crl", "client_crls", multiple=True, metavar="F", help="Revocation list about them; repeatable.")
@click.option("--issue", "issue_plans", multiple=True, metavar="KIND=CA[:PROFILE]", help="What signs CSRs of KIND.")
@click.option("--issue-here", is_flag=True, help="Sign in this process; otherwise `authority serve` signs.")
@click.option("--forward-secrecy-only", is_flag=True, help="Drop the two TLS_RSA suites that A00 mandates.")
@click.option(
    "--duplicate",
    type=click.Choice(["newest", "probe"]),
    help="Second connection of one identity: the newest wins (default), or the first if it answers a ping.",
)
@click.option(
    "--allow-unsecured", multiple=True, metavar="STATION",
    help="Change certificates and roots of stations like this shell pattern without TLS too; repeatable.",
)  # fmt: skip
@click.option("--metrics-listen", metavar="HOST:PORT", help="Serve /metrics, /healthz and /readyz there, in clear.")
@click.option("--behind-proxy", multiple=True, metavar="ADDR|NET", help="Where a TLS-terminating proxy connects from.")
@click.option("--proxy-secret-file", metavar="F", help="What that proxy proves itself with, in a header.")
@click.option("--upload-listen", metavar="HOST:PORT", help="Also take the logs that stations are asked for, here.")
@click.option("--upload-url", metavar="URL", help="How stations reach --upload-listen; its host and port otherwise.")
@click.option("--ocsp-allow", "ocsp_allow", multiple=True, metavar="URL", help="Responder or CRL to ask; repeatable.")
@click.option("--ocsp-network", "ocsp_networks", multiple=True, metavar="NET", help="Private range they may be in.")
@click.option("--status-trust", metavar="F", help="CA certificates of others whose answers are verified (PEM).")
@click.option("--contract-trust", metavar="F", help="Roots for contracts (PEM) beside those on record.")
@click.option("--contract-sub-cas", metavar="F", help="Sub-CAs of MOs (PEM), for stations that send hashes alone.")
@click.option("--contract-token-status", type=click.Choice(_TOKENS), help="What contracts of others count as.")
@click.option("--contract-ca", "contract_cas", multiple=True, metavar="CA", help="Answer vehicles: issues contracts.")
@click.option("--cps-ca", "cps_cas", multiple=True, metavar="CA", help="Sub-CA of the provisioning service.")
@click.option(
    "--cps-cert", "cps_certs", multiple=True, metavar="F", help="Its chain where it was made elsewhere (PEM)."
)
@click.option("--cps-key", "cps_keys", multiple=True, metavar="F", help="Key of the --cps-cert at the same place.")
@click.option(
    "--exi-response-limit",
    type=click.IntRange(1000, 7500),
    help="Characters of exiResponse that 2.0.1 and 1.6 stations take; 5600 by default.",
)
@click.option("--log-json", is_flag=True, help="Write log lines as JSON.")
@pass_state
def serve(state: GlobalState, /, **options: Any) -> None:
    """Serve stations at ws(s)://HOST:PORT/ocpp/IDENTITY until SIGTERM or Ctrl-C.

    KIND is ChargingStationCertificate, V2GCertificate, V2G20Certificate or Combined. A CSR of a KIND without --issue
    is refused. What is not given comes from the table [csms] of chargepki.toml. SIGHUP reads that table, the server
    certificates, trust and revocation lists again; so does a change of their files. Nobody is dropped.
    """
    from chargepki.cli.csms_serving import serve_csms

    serve_csms(state, options)
