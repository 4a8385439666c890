"""Put a `CsmsServer` together from the options of ``csms serve`` and run it until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import ssl
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from cryptography import x509

from chargepki.cli.alerting import alerting
from chargepki.cli.globals import GlobalState
from chargepki.ocpp_security.csms import CsmsConfig, CsmsServer, DuplicatePolicy
from chargepki.ocpp_security.security_profile import SecurityProfile, parse_profiles
from chargepki.ocpp_security.sign_certificate import CertificateUse, IssuePlan
from chargepki.ocpp_security.tls import TlsIdentity, missing_issuer, missing_suites, reload_identity, server_context
from chargepki.pki import aio, files, keys
from chargepki.pki.authority import IssueOrder
from chargepki.pki.der import pem_blocks
from chargepki.pki.errors import ChargePkiError, InputError, printable
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles import get_profile
from chargepki.pki.workspace import Workspace

__all__ = [
    "DEFAULT_PROFILES",
    "event_loop_factory",
    "parse_listen",
    "parse_plans",
    "serve_csms",
    "server_identities",
]

DEFAULT_PROFILES: Mapping[CertificateUse, str] = {
    CertificateUse.CHARGING_STATION: "ocpp/charging-station",
    CertificateUse.V2G: "iso15118-2/secc",
    CertificateUse.V2G20: "iso15118-20/secc",
    # One certificate for both links must satisfy ISO 15118-2 (A00.FR.513).
    CertificateUse.COMBINED: "iso15118-2/secc",
}
# A00.FR.701: a server certificate is revoked by expiring within a day.
_SERVER_VALIDITY = timedelta(hours=23)
_RENEW_SECONDS = 8 * 3600.0
_MAX_TRUST_BYTES = 1 << 20


def serve_csms(state: GlobalState, options: Mapping[str, Any]) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads the server certificates again.

    Raises:
        click.UsageError: options that contradict each other.
        ChargePkiError: a file, CA or address cannot be used.
    """
    _start_logging(state, as_json=options["log_json"])
    runner = event_loop_factory()
    with asyncio.Runner(loop_factory=runner) as loop:
        loop.run(_serve(state, options))


async def _serve(state: GlobalState, options: Mapping[str, Any]) -> None:
    workspace = state.workspace
    host, port = parse_listen(options["listen"])
    profiles = {int(profile) for profile in parse_profiles(options["profiles"])}
    plans = parse_plans(options["issue_plans"])
    for plan in plans.values():
        get_profile(plan.profile)
        workspace.inventory.get_ca(plan.ca)
    issuer: aio.Issuer
    if options["issue_here"]:
        for plan in plans.values():
            # A wrong passphrase must stop the start, not the first station that asks.
            workspace.authority.open_issuer(plan.ca)
        workspace.authority.recover()
        issuer = aio.Authority(workspace.authority)
    else:
        issuer = aio.QueueIssuer(workspace.inventory, actor=workspace.actor)
        if plans:
            state.output.say(
                "CSRs are queued for `chargepki authority serve`: run it beside this, or pass --issue-here"
            )
    # Read what others wrote before server certificates are issued: a refusal must have changed nothing.
    client_trust = _client_trust(state, options, plans) if 3 in profiles else []
    identities = _identities(state, options, host) if not profiles <= {0, 1} else []
    context = _context(state, options, profiles, identities, client_trust)
    config = CsmsConfig(
        host=host,
        port=port,
        security_profiles=frozenset(profiles),
        tls=context,
        plans=plans,
        sealing_key=workspace.sealing_key,
        duplicate=DuplicatePolicy(options["duplicate"]),
    )
    stop, renew = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, renew.set)
    async with alerting(state), CsmsServer(config, workspace.inventory, issuer) as server:
        scheme = "ws" if context is None else "wss"
        state.output.say(f"ready: {scheme}://{host}:{server.port}/ocpp/ (security profile {options['profiles']})")
        if state.output.for_machines:
            state.output.document("chargepki/csms", {"host": host, "port": server.port, "scheme": scheme})
            sys.stdout.flush()
        keeper = asyncio.create_task(_keep_fresh(state, options, host, context, renew))
        await stop.wait()
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
    await issuer.aclose()
    state.output.say("stopped")


async def _keep_fresh(
    state: GlobalState, options: Mapping[str, Any], host: str, context: ssl.SSLContext | None, renew: asyncio.Event
) -> None:
    """Load server certificates again on SIGHUP, and issue new ones in time with ``--tls-ca``; nobody is dropped."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(renew.wait(), _RENEW_SECONDS if options["tls_ca"] else None)
        renew.clear()
        if context is None:
            continue
        try:
            for identity in await asyncio.to_thread(_identities, state, options, host):
                reload_identity(context, identity)
            state.output.say("server certificates loaded again")
        except ChargePkiError as error:
            # The certificates in use stay in use; the operator sees why.
            state.output.say(f"error: server certificates were not renewed: {error}")


def parse_listen(text: str, *, option: str = "--listen") -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    >>> parse_listen("127.0.0.1:8443"), parse_listen("[::1]:0")
    (('127.0.0.1', 8443), ('::1', 0))
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise click.UsageError(f"{option} {text!r} is not HOST:PORT, for example 127.0.0.1:8443")
    return host, int(port)


def parse_plans(texts: Sequence[str]) -> dict[CertificateUse, IssuePlan]:
    """Return the plan of each ``KIND=CA[:PROFILE]``.

    Raises:
        click.UsageError: an unknown KIND, or one that is given twice.
    """
    plans: dict[CertificateUse, IssuePlan] = {}
    for text in texts:
        kind, equals, target = text.partition("=")
        ca, colon, profile = target.partition(":")
        try:
            use = CertificateUse(kind)
        except ValueError:
            use = None
        if use is None or not equals or not ca or (colon and not profile):
            known = ", ".join(item.value for item in CertificateUse)
            raise click.UsageError(f"--issue {text!r} is not KIND=CA[:PROFILE]; KIND is one of {known}")
        if use in plans:
            raise click.UsageError(f"--issue names {kind} twice")
        plans[use] = IssuePlan(ca=ca, profile=profile or DEFAULT_PROFILES[use])
    return plans


def _identities(state: GlobalState, options: Mapping[str, Any], host: str) -> list[TlsIdentity]:
    certs, tls_keys, tls_ca = options["tls_certs"], options["tls_keys"], options["tls_ca"]
    if bool(certs) == bool(tls_ca) or len(certs) != len(tls_keys):
        raise click.UsageError("pass --tls-cert with --tls-key (one pair per certificate), or --tls-ca NAME")
    if tls_ca:
        return server_identities(state.workspace, tls_ca, tuple(options["dns_names"]) or (_host_name(host),))
    return [TlsIdentity.load(Path(cert), Path(key)) for cert, key in zip(certs, tls_keys, strict=True)]


def server_identities(
    workspace: Workspace,
    ca: str,
    dns_names: tuple[str, ...],
    *,
    algorithms: Sequence[KeyAlgorithm] = (KeyAlgorithm.SECP256R1, KeyAlgorithm.RSA3072),
) -> list[TlsIdentity]:
    """Issue one short-lived CSMS certificate per algorithm; the keys stay in memory.

    All mandated TLS 1.2 suites need an EC and an RSA certificate (A00.FR.318); an ``ocpp`` CA signs both.
    """
    authority = workspace.authority
    issuer = authority.open_issuer(ca)
    organization = _organization(issuer.ca.subject_der)
    made = []
    for algorithm in algorithms:
        private_key = keys.generate_private_key(algorithm)
        subject = (("CN", dns_names[0]), *((("O", organization),) if organization else ()))
        issued = authority.issue(
            IssueOrder(
                ca=issuer.ca.id,
                profile="ocpp/csms",
                spki=keys.spki_der(private_key.public_key()),
                subject=subject,
                validity=_SERVER_VALIDITY,
                dns_names=dns_names,
            )
        )
        made.append(TlsIdentity(issued.chain, private_key))
    return made


def _organization(subject_der: bytes) -> str | None:
    from chargepki.pki import names

    return names.get(subject_der, "O")


def _host_name(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "::1", "localhost") else host


def _context(
    state: GlobalState,
    options: Mapping[str, Any],
    profiles: set[int],
    identities: Sequence[TlsIdentity],
    client_trust: Sequence[bytes],
) -> ssl.SSLContext | None:
    if profiles <= {0, 1}:
        if options["tls_certs"] or options["tls_ca"]:
            raise click.UsageError("security profile 1 has no TLS; leave out --tls-cert and --tls-ca")
        if 0 in profiles:
            state.output.say(
                "warning: without a security profile anybody who knows a station's identity can speak in its name; "
                "only 1.6 stations recorded with --security-profile 0 are let in so"
            )
        state.output.say(
            "warning: security profile 1 sends passwords in clear text (A00.FR.201: trusted networks only)"
        )
        return None
    for suite in missing_suites(identities, forward_secrecy_only=options["forward_secrecy_only"]):
        kind = "an EC" if suite.startswith("ECDHE-ECDSA") else "an RSA"
        state.output.say(
            f"warning: no certificate serves the mandated suite {suite} (A00.FR.318); "
            f"to fix: add {kind} pair of --tls-cert and --tls-key"
        )
    roots = [ca.certificate_der for ca in state.workspace.inventory.list_cas() if ca.certificate_der and not ca.issuer]
    for identity in identities:
        issuer = missing_issuer(identity, client_trust=client_trust, roots=roots)
        if issuer is not None:
            state.output.say(
                printable(
                    f"warning: the server chain ends below {issuer}, which is no root that we know; stations that "
                    "hold the root alone cannot verify it; to fix: append the certificate of that issuer to the "
                    "--tls-cert file, unless it is the root"
                )
            )
    return server_context(
        [SecurityProfile(number) for number in sorted(profiles)],
        identities,
        client_trust=client_trust,
        forward_secrecy_only=options["forward_secrecy_only"],
        # OpenSSL would refuse an expired certificate without telling whose it is; our own check names the station.
        ignore_client_validity=3 in profiles,
    )


def _client_trust(
    state: GlobalState, options: Mapping[str, Any], plans: Mapping[CertificateUse, IssuePlan]
) -> list[bytes]:
    path = options["client_trust"]
    if path:
        data = files.read_limited(path, _MAX_TRUST_BYTES, "client trust file")
        found = [block.der for block in pem_blocks(data, max_bytes=_MAX_TRUST_BYTES) if block.label == "CERTIFICATE"]
        if not found:
            raise InputError(f"{path} holds no PEM certificate", fix="write it with: chargepki ca chain NAME --out F")
        for der in found:
            try:
                x509.load_der_x509_certificate(der)
            except ValueError as error:
                raise InputError(f"{path} holds something that is no certificate", why=str(error)) from error
        return found
    inventory = state.workspace.inventory
    trust: dict[str, bytes] = {}
    for use in (CertificateUse.CHARGING_STATION, CertificateUse.COMBINED):
        ca = inventory.get_ca(plans[use].ca) if use in plans else None
        while ca is not None:
            if ca.certificate_der is not None:
                trust[ca.id] = ca.certificate_der
            ca = inventory.get_ca(ca.issuer) if ca.issuer else None
    return list(trust.values())


class _JsonLines(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        return json.dumps(line, ensure_ascii=False)


def _start_logging(state: GlobalState, *, as_json: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("chargepki")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if state.verbose else logging.WARNING if state.quiet else logging.INFO)
    # The WebSocket library would repeat every failed handshake of a port scan with a traceback.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)


def event_loop_factory() -> Any:
    """Return what makes event loops: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
