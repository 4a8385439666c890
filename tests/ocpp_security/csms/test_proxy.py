"""Behind a TLS-terminating proxy: its word counts only from its address and with its secret; with a real nginx too."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import websockets
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.datastructures import Headers

from chargepki.ocpp_security.admission_values import RefusedConnection
from chargepki.ocpp_security.csms import ClientTrust, CsmsServer
from chargepki.ocpp_security.csms.proxy import ProxiedPeer, ProxyTrust
from chargepki.pki.errors import InputError
from chargepki.pki.pem import to_pem
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.foreign import missing
from testkit.hierarchy import make_node
from testkit.ocpp_peers import Credential, basic_header, open_socket

SECRET = b"0123456789abcdef0123456789abcdef"
PROXY = ProxyTrust.parse(["127.0.0.1"], SECRET)
SAYS = {"X-Chargepki-Proxy-Secret": SECRET.decode(), "X-Real-IP": "203.0.113.9", "X-Forwarded-Proto": "https"}


def trust(rig: Rig) -> ClientTrust:
    return ClientTrust(anchors=(rig.root_der, rig.sub_der))


def leaf_header(credential: Credential) -> dict[str, str]:
    return {"X-SSL-Client-Cert": quote(credential.chain_pem.split("\n-----END")[0] + "\n-----END CERTIFICATE-----\n")}


@pytest.mark.parametrize(
    ("changes", "host", "is_believed"),
    [
        ({}, "127.0.0.1", True),
        ({}, "::ffff:127.0.0.1", True),
        ({}, "127.0.0.2", False),
        ({"X-Chargepki-Proxy-Secret": "0123456789abcdef0123456789abcdeX"}, "127.0.0.1", False),
        ({"X-Chargepki-Proxy-Secret": ""}, "127.0.0.1", False),
        ({"X-Real-IP": "not an address"}, "127.0.0.1", False),
        ({"X-SSL-Client-Cert": "rubbish"}, "127.0.0.1", False),
        ({"X-SSL-Client-Cert": ""}, "127.0.0.1", True),
    ],
)
def test_only_the_proxy_itself_is_believed(changes: dict[str, str], host: str, is_believed: bool) -> None:
    verdict = PROXY.read(Headers({**SAYS, **changes}), host)
    assert isinstance(verdict, ProxiedPeer) is is_believed
    if isinstance(verdict, RefusedConnection):
        assert (int(verdict.status), verdict.reason) == (403, "not-the-proxy")
        assert SECRET.decode() not in verdict.cause + verdict.cure


def test_a_header_that_comes_twice_is_not_believed() -> None:
    for name in ("X-SSL-Client-Cert", "X-Real-IP", "X-Forwarded-Proto", "X-Chargepki-Proxy-Secret"):
        headers = Headers(SAYS)
        headers[name] = SAYS.get(name, "")
        headers[name] = SAYS.get(name, "")
        assert isinstance(PROXY.read(headers, "127.0.0.1"), RefusedConnection)


def test_a_secret_that_can_be_guessed_and_a_network_that_is_none_are_refused() -> None:
    with pytest.raises(InputError, match="bytes"):
        ProxyTrust.parse(["127.0.0.1"], b"short")
    with pytest.raises(InputError, match="no network"):
        ProxyTrust.parse(["localhost"], SECRET)
    with pytest.raises(InputError, match="no address"):
        ProxyTrust.parse([], SECRET)
    assert "0123" not in repr(PROXY)


async def status(server: CsmsServer, identity: str, headers: dict[str, str]) -> int:
    try:
        opened = await open_socket(f"ws://127.0.0.1:{server.port}", identity, headers=headers)
    except websockets.InvalidStatus as refused:
        return refused.response.status_code
    await opened.close()
    return 101


def test_the_proxys_certificate_is_validated_as_our_own_handshake_would(rig: Rig) -> None:
    rig.add_station("P-CERT", profile=3)
    rig.add_station("P-PASSWORD")
    own, _ = rig.credential("P-CERT")
    stranger = make_node("P-CERT", make_node("t-cso-sub", None, ca=True), ca=False)
    forged = Credential(stranger.key, to_pem("CERTIFICATE", stranger.der))
    basic = basic_header("P-PASSWORD", PASSWORD)

    async def story() -> list[int]:
        async with rig.server(2, 3, proxy=PROXY, client_trust=trust(rig)) as server:
            return [
                await status(server, "P-CERT", {**SAYS, **leaf_header(own)}),
                await status(server, "P-CERT", {**SAYS, **leaf_header(forged)}),
                await status(server, "P-PASSWORD", {**SAYS, **basic}),
                # Without the secret, or over a link that the proxy does not call TLS, nobody comes in.
                await status(server, "P-CERT", leaf_header(own)),
                await status(server, "P-PASSWORD", basic),
                await status(server, "P-PASSWORD", {**SAYS, **basic, "X-Forwarded-Proto": "http"}),
            ]

    assert run_on("uvloop", story()) == [101, 403, 101, 403, 403, 403]


def test_an_endpoint_without_a_proxy_refuses_its_headers(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.add_station("P-DIRECT", profile=3)
    own, _ = rig.credential("P-DIRECT")

    async def story() -> int:
        async with rig.server(2, 3) as server:
            with pytest.raises(websockets.InvalidStatus) as refused:
                headers = {**leaf_header(own), **basic_header("P-DIRECT", PASSWORD)}
                await open_socket(rig.url_of(server), "P-DIRECT", headers=headers, tls=rig.client_tls())
        return refused.value.response.status_code

    assert run_on("uvloop", story()) == 403
    assert "[not-the-proxy]" in caplog.text


NGINX = """
daemon off; worker_processes 1; error_log {folder}/error.log; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_client_certificate {folder}/trust.pem; ssl_verify_client optional; ssl_verify_depth 3;
    location /ocpp/ {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
      proxy_set_header X-Chargepki-Proxy-Secret "{secret}";
      proxy_read_timeout 300s;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, rig: Rig, upstream: int) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    identity = rig.server_identity
    (folder / "server.pem").write_text("".join(to_pem("CERTIFICATE", der) for der in identity.chain_der))
    (folder / "server.key").write_bytes(
        identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (folder / "trust.pem").write_text(rig.root_pem + to_pem("CERTIFICATE", rig.sub_der))
    text = NGINX.format(folder=folder, port=port, upstream=upstream, secret=SECRET.decode())
    (folder / "nginx.conf").write_text(text)
    with (folder / "out.log").open("wb") as log:
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def wait_for_port(port: int) -> None:
    async def is_open() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    for _ in range(200):
        if await is_open():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nginx did not start")


@pytest.mark.foreign
def test_stations_come_in_through_a_real_nginx(rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if reason := missing("nginx", "nginx-light"):
        pytest.skip(reason)
    rig.add_station("N-CERT", profile=3)
    rig.add_station("N-PASSWORD")
    own, certificate_id = rig.credential("N-CERT")

    async def story() -> list[object]:
        seen: list[object] = []
        async with rig.server(2, 3, proxy=PROXY, client_trust=trust(rig)) as server:
            with nginx(tmp_path, rig, server.port) as port:
                await wait_for_port(port)
                url = f"wss://localhost:{port}"
                opened = await open_socket(url, "N-CERT", tls=rig.client_tls(own))
                await opened.send('[2,"1","Heartbeat",{}]')
                seen.append('"currentTime"' in str(await opened.recv()))
                (live,) = list(server.registry)
                seen.append((int(live.profile), live.peer.rpartition(":")[0]))
                other = await open_socket(url, "N-PASSWORD", password=PASSWORD, tls=rig.client_tls())
                await other.close()
                # What a station claims in the proxy's own headers, the proxy overwrites.
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await open_socket(
                        url, "N-CERT", headers={**SAYS, **leaf_header(own)}, password=PASSWORD, tls=rig.client_tls()
                    )
                seen.append(refused.value.response.status_code)
                await asyncio.to_thread(rig.authority.revoke, certificate_id, "keyCompromise")
                await wait_for(lambda: len(server.registry) == 0)
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await open_socket(url, "N-CERT", tls=rig.client_tls(own))
                seen.append(refused.value.response.status_code)
        return seen

    assert run_on("uvloop", story()) == [True, (3, "127.0.0.1"), 403, 403]
