"""Put a `CsmsServer` together from the options of ``csms serve`` and run it until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from chargepki.cli.alerting import alerting
from chargepki.cli.contracting import make_provisioner
from chargepki.cli.csms_settings import Secret, changed_settings, load_csms_settings
from chargepki.cli.csms_tls import Material, TlsLoader
from chargepki.cli.globals import GlobalState
from chargepki.cli.listening import event_loop_factory, parse_listen
from chargepki.cli.uploading import check_upload_options, uploads
from chargepki.ocpp_security.contract import TokenStatus
from chargepki.ocpp_security.contract_check import ContractTrust
from chargepki.ocpp_security.csms import CsmsConfig, CsmsServer, DuplicatePolicy
from chargepki.ocpp_security.csms.metrics import MetricsServer
from chargepki.ocpp_security.csms.proxy import ProxyTrust
from chargepki.ocpp_security.ev_provider import PkiContractProvider
from chargepki.ocpp_security.fetch import parse_allowed
from chargepki.ocpp_security.issue_plans import parse_plan
from chargepki.ocpp_security.security_profile import parse_profiles
from chargepki.ocpp_security.sign_certificate import CertificateUse, IssuePlan
from chargepki.pki import aio, files
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.config import CONFIG_FILE
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.pem import pem_blocks
from chargepki.pki.profiles import get_profile
from chargepki.pki.workspace import Workspace

__all__ = ["parse_plans", "serve_csms"]

_GC_THRESHOLD = 20_000
"""Objects made and not freed before the youngest are looked through."""
_MAX_BUNDLE_BYTES = 1 << 20
_RENEW_SECONDS = 8 * 3600.0
_LOOK_SECONDS = 5.0
"""How often the files of the TLS material are looked at."""


def serve_csms(state: GlobalState, given: Mapping[str, Any]) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads configuration, certificates and trust again.

    Raises:
        click.UsageError: options that contradict each other.
        ChargePkiError: a file, CA or address cannot be used.
    """
    options = load_csms_settings(given, state.settings.home / CONFIG_FILE)
    _start_logging(state, as_json=options["log_json"])
    # What is loaded by now stays: looking through it again with every few hundred new connections costs more CPU
    # than their certificates do. Connections are freed by their counts; cycles are still looked for, less often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 10, 10)
    runner = event_loop_factory()
    with asyncio.Runner(loop_factory=runner) as loop:
        loop.run(_serve(state, given, options))


async def _serve(state: GlobalState, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    workspace = state.workspace
    host, port = parse_listen(options["listen"])
    check_upload_options(options)
    profiles = _profiles(options)
    plans = _usable_plans(workspace, options)
    provider = _provider(state, options)
    proxy = _proxy(options)
    metrics_at = (
        parse_listen(options["metrics_listen"], option="--metrics-listen") if options["metrics_listen"] else None
    )
    issuer = _issuer(state, options, plans)
    loader = TlsLoader(state, options, host, profiles, plans)
    material = loader.load()
    loader.warn(material)
    served: list[CsmsServer] = []
    outer = contextlib.AsyncExitStack()
    upload_url = await outer.enter_async_context(
        # With whatever the OCPP endpoint serves by then.
        uploads(state, options, host, material, lambda: served[0].tls if served else material.context)
    )
    config = CsmsConfig(
        host=host,
        port=port,
        security_profiles=profiles,
        tls=material.context,
        proxy=proxy,
        client_trust=material.client_trust,
        plans=plans,
        sealing_key=workspace.sealing_key,
        duplicate=DuplicatePolicy(options["duplicate"]),
        allow_unsecured=tuple(options["allow_unsecured"]),
        limits=options["limits"],
        upload_url=upload_url,
        fetch=parse_allowed(options["ocsp_allow"], options["ocsp_networks"]),
        contract=_contracts(options),
        provider=provider,
        exi_response_characters=options["exi_response_limit"],
        status_issuers=read_bundle(options["status_trust"]),
        ocsp_signers=OcspAuthority(workspace.authority) if options["issue_here"] else None,
    )
    stop, hangup = _follow_signals()
    async with (
        outer,
        alerting(state),
        CsmsServer(config, workspace.inventory, issuer) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        served.append(server)
        where = {"host": host, "port": server.port, "scheme": "ws" if material.context is None else "wss"}
        where |= {} if upload_url is None else {"upload_url": upload_url}
        _show_expiry(server, material)
        if metrics_at is not None:
            where["metrics_port"] = await _serve_metrics(state, server, metrics_at, stack)
        _say_ready(state, options, where)
        await _keep_until(stop, _Keeper(state, given, options, loader, server, hangup))
    await issuer.aclose()
    if provider is not None:
        provider.close()
    state.output.say("stopped")


def _profiles(options: Mapping[str, Any]) -> frozenset[int]:
    try:
        return frozenset(int(profile) for profile in parse_profiles(options["profiles"]))
    except InputError as error:
        raise click.UsageError(f"--security-profile: {error.what}; {error.fix}") from error


def _usable_plans(workspace: Workspace, options: Mapping[str, Any]) -> dict[CertificateUse, IssuePlan]:
    """Return what CSRs become; refuse what names no profile or no CA."""
    plans = parse_plans(options["issue_plans"])
    for plan in plans.values():
        get_profile(plan.profile)
        workspace.inventory.get_ca(plan.ca)
    return plans


async def _keep_until(stop: asyncio.Event, keeper: _Keeper) -> None:
    """Let *keeper* look after what ends and changes until *stop* is set."""
    keeping = asyncio.create_task(keeper.run())
    await stop.wait()
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


def _follow_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what SIGTERM and SIGINT set, and what SIGHUP sets."""
    stop, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    return stop, hangup


async def _serve_metrics(
    state: GlobalState, server: CsmsServer, at: tuple[str, int], stack: contextlib.AsyncExitStack
) -> int:
    """Serve the metrics until *stack* is left; return the port."""
    metrics = MetricsServer(*at, server.security.metrics, server.security.check_ready)
    await metrics.start()
    stack.push_async_callback(metrics.stop)
    state.output.say(f"metrics: http://{at[0]}:{metrics.port}/metrics")
    return metrics.port


def _say_ready(state: GlobalState, options: Mapping[str, Any], where: Mapping[str, object]) -> None:
    url = f"{where['scheme']}://{where['host']}:{where['port']}/ocpp/"
    state.output.say(f"ready: {url} (security profile {options['profiles']})")
    if state.output.for_machines:
        state.output.document("chargepki/csms", where)
        sys.stdout.flush()


def _issuer(state: GlobalState, options: Mapping[str, Any], plans: Mapping[CertificateUse, IssuePlan]) -> aio.Issuer:
    workspace = state.workspace
    if not options["issue_here"]:
        if plans:
            state.output.say(
                "CSRs are queued for `chargepki authority serve`: run it beside this, or pass --issue-here"
            )
        return aio.QueueIssuer(workspace.inventory, actor=workspace.actor)
    for plan in plans.values():
        # A wrong passphrase must stop the start, not the first station that asks.
        workspace.authority.open_issuer(plan.ca)
    workspace.authority.recover()
    return aio.Authority(workspace.authority)


def _provider(state: GlobalState, options: Mapping[str, Any]) -> PkiContractProvider | None:
    """Return who answers vehicles, if anybody; what an earlier run left unfinished is given up first."""
    names = ("contract_cas", "cps_cas", "cps_certs", "cps_keys")
    if not any(options[name] for name in names):
        return None
    if not options["issue_here"]:
        raise click.UsageError(
            "--contract-ca needs --issue-here: a vehicle waits 4.5 s for its contract, which is not queued for others"
        )
    authority = state.workspace.authority
    provisioner = make_provisioner(authority, options)
    for ca in (*options["contract_cas"], *options["cps_cas"]):
        # A wrong passphrase must stop the start, not the first vehicle that asks.
        authority.open_issuer(ca)
    authority.recover()
    provisioner.recover()
    return PkiContractProvider(provisioner)


def _contracts(options: Mapping[str, Any]) -> ContractTrust:
    """Return what judges contract certificates beside the inventory; the file has no source and no confirmation."""
    try:
        status = TokenStatus(options["contract_token_status"])
    except ValueError:
        raise click.UsageError(f"contract_token_status is one of {', '.join(TokenStatus)}") from None
    return ContractTrust(
        anchors=read_bundle(options["contract_trust"]),
        intermediates=read_bundle(options["contract_sub_cas"]),
        token_status=status,
    )


def read_bundle(path: str | None) -> tuple[bytes, ...]:
    """Return the certificates (DER) of a PEM bundle; none without a path.

    Raises:
        InputError: there is no certificate in it.
        UnavailableError: it cannot be read.
    """
    if path is None:
        return ()
    data = files.read_limited(path, _MAX_BUNDLE_BYTES, "trust file")
    found = tuple(each.der for each in pem_blocks(data, max_bytes=_MAX_BUNDLE_BYTES) if each.label == "CERTIFICATE")
    if not found:
        raise InputError(f"{path} holds no PEM certificate", fix="pass the certificates of the CAs")
    return found


def _proxy(options: Mapping[str, Any]) -> ProxyTrust | None:
    networks, secret = options["behind_proxy"], options["proxy_secret_file"]
    if bool(networks) != bool(secret):
        raise click.UsageError("--behind-proxy and --proxy-secret-file belong together")
    if not networks:
        return None
    where = secret if isinstance(secret, Secret) else Secret(file=str(secret))
    return ProxyTrust.parse(networks, where.read("the secret of the proxy"))


def _show_expiry(server: CsmsServer, material: Material) -> None:
    for identity in material.identities:
        kind = "rsa" if identity.is_rsa else "ec"
        server.security.metrics.server_certificate(kind, identity.not_after.timestamp())


@dataclass(slots=True)
class _Keeper:
    """Exchanges the TLS material of a running endpoint; open connections live on, and a bad file changes nothing."""

    state: GlobalState
    given: Mapping[str, Any]
    options: dict[str, Any]
    loader: TlsLoader
    server: CsmsServer
    hangup: asyncio.Event

    async def run(self) -> None:
        """Follow SIGHUP, the files, and the inventory, for ever."""
        loop = asyncio.get_running_loop()
        trust_changed = self.server.security.trust_changed
        seen, renewed = self.loader.files(), loop.time()
        while True:
            hangup, trust = asyncio.ensure_future(self.hangup.wait()), asyncio.ensure_future(trust_changed.wait())
            try:
                await asyncio.wait((hangup, trust), timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                hangup.cancel()
                trust.cancel()
            told, news = self.hangup.is_set(), trust_changed.is_set()
            self.hangup.clear()
            trust_changed.clear()
            if told:
                self._read_configuration()
            found = await asyncio.to_thread(self.loader.files)
            due = bool(self.options["tls_ca"]) and loop.time() - renewed >= _RENEW_SECONDS
            if not (told or news or due or found != seen):
                continue
            why = (
                "SIGHUP" if told else "renewal" if due else "the files changed" if found != seen else "the CAs changed"
            )
            seen = found
            if await self._exchange(why, renew=told or due):
                renewed = loop.time() if told or due else renewed

    def _read_configuration(self) -> None:
        say = self.state.output.say
        try:
            options = load_csms_settings(self.given, self.state.settings.home / CONFIG_FILE)
        except (ChargePkiError, click.UsageError) as error:
            say(f"error: the configuration is not applied: {error}")
            return
        applied, restart = changed_settings(self.options, options)
        for key in restart:
            say(f"warning: {key} has changed in {CONFIG_FILE}; restart to apply it")
        if applied:
            say(f"applied from {CONFIG_FILE}: {', '.join(applied)}")
        fixed = {name: self.options[name] for name in self.options if name not in _options_of(applied)}
        self.options = {**options, **fixed}
        self.loader.options = self.options

    async def _exchange(self, why: str, *, renew: bool) -> bool:
        say = self.state.output.say
        try:
            material = await asyncio.to_thread(self.loader.load, renew=renew)
            self.server.reload(
                tls=material.context,
                client_trust=material.client_trust,
                duplicate=DuplicatePolicy(self.options["duplicate"]),
                allow_unsecured=tuple(self.options["allow_unsecured"]),
            )
        except (ChargePkiError, click.UsageError) as error:
            # What is in use stays in use; the operator sees why.
            say(f"error: server certificates and trust were not exchanged: {error}")
            return False
        _show_expiry(self.server, material)
        say(f"server certificates loaded again, with trust and revocation lists ({why}); open connections live on")
        return True


def _options_of(keys: Sequence[str]) -> set[str]:
    from chargepki.cli.csms_settings import SETTINGS

    return {setting.option for setting in SETTINGS if setting.key in keys}


def parse_plans(texts: Sequence[str]) -> dict[CertificateUse, IssuePlan]:
    """Return the plan of each ``KIND=CA[:PROFILE]``.

    Raises:
        click.UsageError: an unknown KIND, or one that is given twice.
    """
    plans: dict[CertificateUse, IssuePlan] = {}
    for text in texts:
        try:
            use, plan = parse_plan(text)
        except InputError as error:
            raise click.UsageError(f"--issue: {error.what}; {error.why}") from error
        if use in plans:
            raise click.UsageError(f"--issue names {use.value} twice")
        plans[use] = plan
    return plans


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
