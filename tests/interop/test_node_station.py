"""The foreign Node.js station does what our tests rely on, shown against a CSMS that is not ours either."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from testkit.hierarchy import make_node
from testkit.node_station import need_node, node_station

pytestmark = pytest.mark.foreign

VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")


def make_csr(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "S1")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    (folder / "s1.csr").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    (folder / "s1.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "s1.csr", folder / "s1.key"


class ScriptedCsms:
    """Accepts a boot, triggers a renewal and answers the CSR with whatever *chain_for* makes of it."""

    def __init__(self, chain_for: Callable[[str], str], *, boot_answer: dict[str, Any] | None = None) -> None:
        self.chain_for, self.boot_answer = chain_for, boot_answer
        self.verdict = ""

    async def handle(self, socket: ServerConnection) -> None:
        trigger = (
            ("ExtendedTriggerMessage", "SignChargePointCertificate")
            if socket.subprotocol == "ocpp1.6"
            else ("TriggerMessage", "SignChargingStationCertificate")
        )
        try:
            async for frame in socket:
                message = json.loads(frame)
                if message[0] == 3 and message[1] == "deliver":
                    self.verdict = message[2]["status"]
                if message[0] != 2:
                    continue
                action, payload = message[2], message[3]
                if action == "BootNotification":
                    accepted = {"currentTime": datetime.now(UTC).isoformat(), "interval": 60, "status": "Accepted"}
                    await socket.send(json.dumps([3, message[1], self.boot_answer or accepted]))
                    await socket.send(json.dumps([2, "trigger", trigger[0], {"requestedMessage": trigger[1]}]))
                elif action == "SignCertificate":
                    await socket.send(json.dumps([3, message[1], {"status": "Accepted"}]))
                    answer = {"certificateChain": self.chain_for(payload["csr"])}
                    answer |= {key: payload[key] for key in ("certificateType", "requestId") if key in payload}
                    await socket.send(json.dumps([2, "deliver", "CertificateSigned", answer]))
        except websockets.ConnectionClosed:
            return


def sign_csr(csr: str) -> str:
    """Sign with a throw-away hierarchy, leaf first, without the root."""
    root = make_node("root", None, ca=True)
    sub = make_node("sub", root, ca=True)
    request = x509.load_pem_x509_csr(csr.encode())
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(sub.certificate.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(sub.certificate.not_valid_after_utc)
        .sign(sub.key, hashes.SHA256())
    )
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in (leaf, sub.certificate))


async def run_station(csms: ScriptedCsms, protocol: str, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    csr, key = make_csr(folder)
    protocols = [Subprotocol(protocol)]
    async with serve(csms.handle, "127.0.0.1", 0, subprotocols=protocols, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        options = {"csr": csr, "csr_key": key, "out": folder / "chain.pem"}
        url = f"ws://127.0.0.1:{port}/ocpp"
        async with node_station(url, "S1", protocol, until="certificate", options=options) as station:
            return await station.exit_code(), station.events


@pytest.mark.parametrize("protocol", VERSIONS)
def test_station_enrols_on_a_trigger_and_writes_the_chain(protocol: str, tmp_path: Path) -> None:
    need_node()
    csms = ScriptedCsms(sign_csr)
    code, events = asyncio.run(run_station(csms, protocol, tmp_path))
    assert code == 0, events
    assert csms.verdict == "Accepted"
    assert (tmp_path / "chain.pem").read_text().count("BEGIN CERTIFICATE") == 2
    assert not [event for event in events if event["event"] in {"invalid", "unexpected"}]


@pytest.mark.parametrize("protocol", VERSIONS)
def test_station_in_strict_mode_reports_an_answer_that_breaks_its_schema(protocol: str, tmp_path: Path) -> None:
    need_node()
    csms = ScriptedCsms(sign_csr, boot_answer={"status": "Accepted", "interval": "soon"})
    code, events = asyncio.run(run_station(csms, protocol, tmp_path))
    assert code == 1
    assert [event["method"] for event in events if event["event"] == "invalid"] == ["BootNotification"]


def test_station_rejects_a_chain_whose_leaf_is_not_first(tmp_path: Path) -> None:
    need_node()

    def issuer_first(csr: str) -> str:
        leaf, issuer, _ = sign_csr(csr).split("-----END CERTIFICATE-----\n")
        return "".join(f"{block}-----END CERTIFICATE-----\n" for block in (issuer, leaf))

    csms = ScriptedCsms(issuer_first)
    code, events = asyncio.run(run_station(csms, "ocpp2.0.1", tmp_path))
    assert (code, csms.verdict) == (1, "Rejected"), events
