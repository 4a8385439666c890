"""Run sessions of the unmodified simulators of PyPI's iso15118, each in a process of its own; all talk is JSON lines.

This file runs in the simulators' own environment, and knows nothing of chargepki. What it adds to them are the two
interfaces that they leave to whoever uses them: an EVSE controller that asks a back end, and an EV controller that
keeps the contract which it is given.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from iso15118.evcc import EVCCHandler
from iso15118.evcc.controller.simulator import SimEVController
from iso15118.evcc.evcc_config import EVCCConfig
from iso15118.secc import Config as SeccConfig
from iso15118.secc import SECCHandler
from iso15118.secc.controller.interface import AuthorizationResponse, ServiceStatus
from iso15118.secc.controller.simulator import SimEVSEController
from iso15118.shared.exi_codec import EXI
from iso15118.shared.exificient_exi_codec import ExificientEXICodec
from iso15118.shared.messages.app_protocol import AppProtocol, SupportedAppProtocolReq
from iso15118.shared.messages.enums import AuthorizationStatus, Namespace
from iso15118.shared.messages.iso15118_2.body import Body, SessionSetupReq
from iso15118.shared.messages.iso15118_2.datatypes import ResponseCode
from iso15118.shared.messages.iso15118_2.header import MessageHeader
from iso15118.shared.messages.iso15118_2.msgdef import V2GMessage
from iso15118.shared.settings import JAR_FILE_PATH, load_shared_settings
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

# What a station tells its vehicle when the CSMS does not accept the contract certificate (ISO 15118-2 table 112).
REFUSALS = {
    "CertificateExpired": ResponseCode.FAILED_CERTIFICATE_EXPIRED,
    "CertificateRevoked": ResponseCode.FAILED_CERTIFICATE_REVOKED,
    "NoCertificateAvailable": ResponseCode.FAILED_NO_CERTIFICATE_AVAILABLE,
    "CertChainError": ResponseCode.FAILED_CERT_CHAIN_ERROR,
    "SignatureError": ResponseCode.FAILED_SIGNATURE_ERROR,
}
CURVE_BYTES = 32
# As the simulators start it, but with the compiler that starts fast.
JAVA_OPTIONS = [
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xmx512m",
    "--add-opens",
    "java.base/java.lang=ALL-UNNAMED",
]


def tell(event: str, **more: Any) -> None:
    """Write one event."""
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


class Watch(logging.Handler):
    """Tells what the simulator logs about its messages, and why it stops."""

    def __init__(self, over: asyncio.Event) -> None:
        super().__init__()
        self._over = over

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a message that was sent, a connection that failed, or the end."""
        text = record.getMessage()
        if text.startswith("Sent "):
            tell("sent", message=text.removeprefix("Sent ").split("(")[0].strip())
        elif text.startswith("Reason: "):
            tell("stopped", reason=text.removeprefix("Reason: ")[:400])
            self._over.set()
        elif "when trying to connect to host" in text:
            error = record.exc_info[1] if record.exc_info else None
            reason = f"{type(error).__name__}: {error}" if error else text
            tell("connection", reason=reason[:400])
            self._over.set()
        elif text.startswith("Reset current tcp handler"):
            tell("listens-anew")


class SharedCodec(ExificientEXICodec):
    """The codec of the simulators, in a Java machine that several sessions share."""

    def __init__(self, port: int) -> None:
        self.gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
        self.exi_codec = self.gateway.jvm.com.siemens.ct.exi.main.cmd.EXICodec()


def warm_up(port: int) -> None:
    """Have Java load its grammars: the simulators wait two seconds for an answer, and a cold codec takes as long."""
    load_shared_settings()
    codec = SharedCodec(port)
    EXI().set_exi_codec(codec)
    offer = AppProtocol(
        protocol_ns="urn:iso:15118:2:2013:MsgDef", major_version=2, minor_version=0, schema_id=1, priority=1
    )
    setup = V2GMessage(
        header=MessageHeader(session_id="00"), body=Body(session_setup_req=SessionSetupReq(evcc_id="0" * 12))
    )
    messages = ((SupportedAppProtocolReq(app_protocol=[offer]), Namespace.SAP), (setup, Namespace.ISO_V2_MSG_DEF))
    for message, namespace in messages:
        EXI().from_exi(EXI().to_exi(message, namespace), namespace)
    # The forked processes must not share its sockets.
    codec.gateway.close()


class Evse(SimEVSEController):
    """A charge point whose back end is a station that speaks OCPP."""

    def __init__(self, backend: int) -> None:
        super().__init__()
        self._backend = backend
        self._decided: AuthorizationResponse | None = None

    async def set_status(self, status: ServiceStatus) -> None:
        """Tell when vehicles are answered."""
        await super().set_status(status)
        if status is ServiceStatus.READY:
            tell("ready")

    async def get_15118_ev_certificate(self, base64_encoded_cert_installation_req: str, namespace: str) -> str:
        """Pass the vehicle's request on (OCPP Get15118EVCertificate)."""
        answer = await self._ask(ask="contract", exi=base64_encoded_cert_installation_req, namespace=str(namespace))
        if answer["status"] != "Accepted":
            raise RuntimeError(f"the back end has no contract: {answer.get('reason')}")
        return str(answer["exi"])

    async def is_authorized(
        self,
        id_token: str | None = None,
        id_token_type: object = None,
        certificate_chain: bytes | None = None,
        hash_data: object = None,
    ) -> AuthorizationResponse:
        """Ask with the chain when the vehicle shows it, and hold on to the decision (OCPP Authorize, C07)."""
        if certificate_chain is not None:
            answer = await self._ask(ask="authorize", token=id_token, chain=certificate_chain.decode())
            if answer["may_charge"]:
                self._decided = AuthorizationResponse(AuthorizationStatus.ACCEPTED, ResponseCode.OK)
            else:
                code = REFUSALS.get(answer["certificate"], ResponseCode.FAILED)
                self._decided = AuthorizationResponse(AuthorizationStatus.REJECTED, code)
        return self._decided or AuthorizationResponse(AuthorizationStatus.REJECTED, ResponseCode.FAILED)

    async def _ask(self, **question: Any) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._backend, limit=1 << 20)
        writer.write(json.dumps(question).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
        writer.close()
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


class Ev(SimEVController):
    """A vehicle that keeps the contract it is given, for the rest of the session."""

    def __init__(self, config: EVCCConfig, pki: Path) -> None:
        super().__init__(config)
        self._pki = pki / "iso15118_2"

    async def store_contract_cert_and_priv_key(self, contract_cert: bytes, priv_key: bytes) -> None:
        """Put certificate and key where the simulator looks for them, and tell the key's public half."""
        scalar = int.from_bytes(priv_key, "big")
        try:
            key = ec.derive_private_key(scalar, ec.SECP256R1())
        except ValueError:
            tell("installed", public=None, octets=len(priv_key))
            raise
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self._pki / "certs" / "contractLeafCert.der").write_bytes(contract_cert)
        (self._pki / "private_keys" / "contractLeaf.key").write_bytes(pem)
        point = key.public_key().public_numbers()
        public = point.x.to_bytes(CURVE_BYTES, "big") + point.y.to_bytes(CURVE_BYTES, "big")
        tell("installed", public=public.hex(), octets=len(priv_key))


async def serve(order: dict[str, Any], codec: SharedCodec) -> None:
    """Be the charge point until it has stopped one session."""
    over = asyncio.Event()
    logging.getLogger("iso15118").addHandler(Watch(over))
    config = SeccConfig()
    config.load_envs()
    handler = SECCHandler(exi_codec=codec, evse_controller=Evse(order["backend"]), config=config)
    await until(over, handler.start(config.iface), order["seconds"])


async def drive(order: dict[str, Any], codec: SharedCodec) -> None:
    """Be the vehicle for one session."""
    over = asyncio.Event()
    logging.getLogger("iso15118").addHandler(Watch(over))
    load_shared_settings()
    config = EVCCConfig(
        supportedProtocols=["ISO_15118_2"],
        supportedEnergyServices=["AC"],
        energyTransferMode="AC_three_phase_core",
        isCertInstallNeeded=order["install"],
        useTls=True,
        enforceTls=True,
        chargeLoopCycle=2,
    )
    config.load_raw_values()
    handler = EVCCHandler(
        evcc_config=config, iface=order["interface"], exi_codec=codec, ev_controller=Ev(config, Path(order["pki"]))
    )
    await until(over, handler.start(), order["seconds"])


async def until(over: asyncio.Event, work: Any, seconds: float) -> None:
    """Run *work* until it is over, and say so."""
    running = asyncio.ensure_future(work)
    ended = asyncio.ensure_future(over.wait())
    done, _ = await asyncio.wait({running, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    failed = running.exception() if running in done and not running.cancelled() else None
    if failed is not None:
        tell("failed", reason=str(failed)[:400])
    # What was written last is on its way; the simulators wait five seconds more before they close.
    await asyncio.sleep(0.05)
    tell("over", timed_out=not done)


def session(side: str, order: dict[str, Any], port: int) -> None:
    """Run one session in this process, which ends with it."""
    logging.getLogger().handlers.clear()
    handler = logging.FileHandler(order["log"])
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("iso15118")
    root.handlers.clear()
    root.propagate = False
    root.addHandler(handler)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("iso15118") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
            logger.propagate = name != "iso15118"
            if name != "iso15118":
                logger.handlers.clear()
    root.setLevel(logging.INFO)
    os.environ.update(
        PKI_PATH=order["pki"] + "/",
        NETWORK_INTERFACE=order["interface"],
        PROTOCOLS="ISO_15118_2",
        AUTH_MODES="PNC",
        SECC_ENFORCE_TLS="True",
        USE_CPO_BACKEND="True",
        MESSAGE_LOG_JSON="False",
    )
    codec = SharedCodec(port)
    asyncio.run((serve if side == "secc" else drive)(order, codec))


def main(side: str) -> None:
    """Start Java once, then fork for every order; an order ``{}`` ends the session that runs."""
    logging.disable(logging.INFO)
    port = launch_gateway(classpath=JAR_FILE_PATH, die_on_exit=True, javaopts=JAVA_OPTIONS)
    warm_up(port)
    logging.disable(logging.NOTSET)
    tell("started")
    child = 0
    for line in sys.stdin:
        order = json.loads(line)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
        if not order:
            tell("idle")
            continue
        child = os.fork()
        if child == 0:
            try:
                session(side, order, port)
            finally:
                sys.stdout.flush()
                os._exit(0)
    if child:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
