"""The endpoint for uploads that ``csms serve --upload-listen`` carries with it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import click

from chargepki.cli.csms_tls import Material
from chargepki.cli.globals import GlobalState
from chargepki.cli.station_log_files import logs_folder
from chargepki.ocpp_security.csms.uploads import UploadConfig, UploadServer
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.tls import server_context

__all__ = ["check_upload_options", "upload_context", "uploads"]


def check_upload_options(options: Mapping[str, Any]) -> None:
    """Refuse an ``--upload-url`` that is none, or that nothing listens for.

    Raises:
        click.UsageError: says what is wrong.
    """
    url = options["upload_url"]
    if not url:
        return
    if not options["upload_listen"]:
        raise click.UsageError("--upload-url needs --upload-listen")
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.username is None
        sound = sound and not parts.query and not parts.fragment and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise click.UsageError(f"--upload-url {url!r} is not https://HOST[:PORT][/PATH]")


def upload_context(material: Material, current: Callable[[], ssl.SSLContext | None]) -> ssl.SSLContext:
    """Return the TLS context for uploads: with the certificates of the OCPP endpoint, also after these were renewed.

    A station may show its certificate, and need not: the address proves that it was asked (N01.FR.15).
    """
    identities, client_trust = material.identities, material.client_trust.anchors
    profiles = [SecurityProfile(2), SecurityProfile(3)] if client_trust else [SecurityProfile(2)]
    base = server_context(profiles, identities, client_trust=client_trust, ignore_client_validity=bool(client_trust))

    def choose(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        found = current()
        if found is not None:
            connection.context = found

    base.sni_callback = choose
    return base


@contextlib.asynccontextmanager
async def uploads(
    state: GlobalState,
    options: Mapping[str, Any],
    host: str,
    material: Material,
    current: Callable[[], ssl.SSLContext | None],
) -> AsyncIterator[str | None]:
    """Take uploads while the block runs, if ``--upload-listen`` says so; yield the base of their addresses.

    Args:
        material: what the OCPP endpoint starts with; *current* returns what it serves with later.
        host: of the OCPP endpoint; its name is in the addresses, unless ``--dns`` or ``--upload-url`` gives another.

    Raises:
        UnavailableError: the address cannot be bound.
    """
    from chargepki.cli.listening import parse_listen

    if not options["upload_listen"]:
        yield None
        return
    name = (*options["dns_names"], "localhost" if host in ("127.0.0.1", "::1") else host)[0]
    where, port = parse_listen(options["upload_listen"], option="--upload-listen")
    tls = upload_context(material, current) if material.context is not None else None
    config = UploadConfig(host=where, port=port, folder=logs_folder(state.workspace), tls=tls)
    async with UploadServer(config, state.workspace.inventory) as server:
        url = options["upload_url"] or f"{'http' if tls is None else 'https'}://{name}:{server.port}"
        if tls is None and not options["behind_proxy"]:
            state.output.say("warning: logs are uploaded in clear text; use a security profile with TLS")
        state.output.say(f"uploads: {url}/logs/")
        yield url.rstrip("/")
