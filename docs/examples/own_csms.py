"""A complete CSMS of your own: the `ocpp` package and a `websockets` server, with chargepki for all that is security.

Security profiles 2 and 3 share --port, profile 1 has --plain-port if you ask for it; all three OCPP versions on each.
Stations, passwords, renewals and revocations are managed with `chargepki station …` and `chargepki cert …` meanwhile.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import ocpp.v16
import ocpp.v21
import ocpp.v201
from ocpp.routing import on
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from chargepki import ocpp_security as sec
from chargepki.ocpp_security import v16, v21, v201
from chargepki.pki import Workspace, aio, load_settings

log = logging.getLogger("own_csms")


class Handlers:
    """What your CSMS does besides security: your handlers, your database."""

    @on("BootNotification")
    async def on_boot_notification(self, **fields):
        # A station whose serial number is not its certificate's never gets here.
        return self._call_result.BootNotification(datetime.now(UTC).isoformat(), interval=300, status="Accepted")

    @on("Heartbeat")
    async def on_heartbeat(self):
        return self._call_result.Heartbeat(current_time=datetime.now(UTC).isoformat())

    @on("StatusNotification")
    async def on_status_notification(self, **fields):
        return self._call_result.StatusNotification()

    async def on_certificate_signed(self, news):
        log.info("%s: certificate %s is %s %s", self.id, news.certificate_id, news.fate, news.why)

    async def on_security_event(self, news):
        log.warning("%s: security event %s at %s", self.id, news.type, news.at)


class Station16(v16.SecurityMixin, Handlers, ocpp.v16.ChargePoint): ...


class Station201(v201.SecurityMixin, Handlers, ocpp.v201.ChargePoint): ...


class Station21(v21.SecurityMixin, Handlers, ocpp.v21.ChargePoint): ...


STATIONS = {"ocpp1.6": Station16, "ocpp2.0.1": Station201, "ocpp2.1": Station21}


async def handle(security, websocket):
    """Serve one station: who it is was found out before the upgrade."""
    if websocket.subprotocol is None:
        await websocket.close(1002, "no common subprotocol")
        return
    station = STATIONS[websocket.subprotocol](security.admitted(websocket).station.id, websocket, security=security)
    with contextlib.suppress(ConnectionClosed):
        await station.start()


async def main(options):
    settings = load_settings({}, os.environ, default_home=Path("pki"))
    secret = os.environ.get("CHARGEPKI_PASSPHRASE_FILE")
    workspace = Workspace(settings, passphrase=lambda: Path(secret).read_bytes().strip())
    # With the CA key elsewhere (`chargepki authority serve`), this process needs no passphrase.
    queue = aio.QueueIssuer(workspace.inventory, actor=workspace.actor)
    issuer = aio.Authority(workspace.authority) if secret else queue
    plans = {sec.CertificateUse.CHARGING_STATION: sec.IssuePlan(ca=options.ca, profile="ocpp/charging-station")}
    trust = [workspace.inventory.get_ca(options.ca).certificate_der]

    def load():
        return [sec.TlsIdentity.load(*pair) for pair in zip(options.tls_cert, options.tls_key, strict=True)]

    served = [sec.SecurityProfile(2), sec.SecurityProfile(3)]
    tls = sec.server_context(served, load(), client_trust=trust, ignore_client_validity=True)
    ports = [(options.port, {2, 3}, tls)] + [(port, {1}, None) for port in options.plain_port]
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # New server certificates on SIGHUP, without dropping anyone.
    loop.add_signal_handler(signal.SIGHUP, lambda: [sec.reload_identity(tls, identity) for identity in load()])
    async with contextlib.AsyncExitStack() as stack:
        for port, profiles, context in ports:
            config = sec.CsmsConfig(
                security_profiles=frozenset(profiles), tls=context, plans=plans, sealing_key=workspace.sealing_key
            )
            security = await stack.enter_async_context(sec.CsmsSecurity(config, workspace.inventory, issuer))
            server = serve(partial(handle, security), options.host, port, **security.serve_options())
            bound = (await stack.enter_async_context(server)).sockets[0].getsockname()[1]
            log.info("port %d is ready for security profiles %s", bound, profiles)
        await stop.wait()
    await issuer.aclose()
    workspace.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("--plain-port", type=int, action="append", default=[])
    parser.add_argument("--ca", required=True, help="CA that issues station certificates")
    parser.add_argument("--tls-cert", type=Path, action="append", required=True, help="PEM chain, leaf first")
    parser.add_argument("--tls-key", type=Path, action="append", required=True)
    asyncio.run(main(parser.parse_args()))
