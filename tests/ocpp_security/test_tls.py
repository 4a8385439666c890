"""TLS contexts: the mandated suites and nothing weaker, client certificates, host names without wildcards."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.tls import (
    FORWARD_SECRET_SUITES,
    MANDATED_SUITES,
    TlsIdentity,
    client_context,
    missing_issuer,
    missing_suites,
    reload_identity,
    server_context,
)
from chargepki.pki.errors import InputError, PolicyRefusal, SignerError
from chargepki.pki.pem import to_pem
from testkit.hierarchy import make_node

_P0, P1, P2, P3 = SecurityProfile
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@cache
def key(kind: str) -> Key:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def certificate(
    common_name: str,
    kind: str,
    issuer: str | None = "ec-root",
    *,
    dns: Sequence[str] = (),
    ca: bool = False,
    days: int = 1,
) -> bytes:
    """A certificate valid since yesterday; negative *days* made it expire."""
    now = datetime.now(UTC).replace(microsecond=0)
    issuer_name = issuer if issuer is not None else common_name
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name)]))
        .public_key(key(kind).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns]), False)
    return builder.sign(key(issuer_name), hashes.SHA256()).public_bytes(Encoding.DER)


@cache
def root(name: str = "ec-root") -> bytes:
    return certificate(name, name, None, ca=True)


def server_identity(kind: str = "ec-server", *dns: str, common_name: str = "localhost") -> TlsIdentity:
    return TlsIdentity(
        (certificate(common_name, kind, dns=dns or ((common_name,) if "*" not in common_name else ())),), key(kind)
    )


def station_identity(issuer: str = "ec-root", *, days: int = 1) -> TlsIdentity:
    return TlsIdentity((certificate("CS-0001", "ec-station", issuer, days=days),), key("ec-station"))


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> dict[str, object]:
    """Shake hands over a socket pair and exchange one octet each way; errors of either side are returned."""
    ends = socket.socketpair()
    result: dict[str, object] = {}

    def serve() -> None:
        try:
            with server.wrap_socket(ends[0], server_side=True) as wrapped:
                wrapped.settimeout(60)
                result["peer"] = wrapped.getpeercert(binary_form=True)
                result["received"] = wrapped.recv(1)
                wrapped.sendall(b"s")
        except OSError as error:
            result["server"] = error
            ends[0].close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ends[1].settimeout(60)
        with client.wrap_socket(ends[1], server_hostname=name) as wrapped:
            result["cipher"] = wrapped.cipher()
            result["version"] = wrapped.version()
            wrapped.sendall(b"c")
            wrapped.recv(1)
    except OSError as error:
        result["client"] = error
        ends[1].close()
    thread.join(60)
    return result


def limited_client(suite: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root())
    context.minimum_version = version
    context.maximum_version = version
    context.set_ciphers(suite)
    return context


@cache
def both_kinds() -> tuple[TlsIdentity, TlsIdentity]:
    return server_identity("ec-server"), server_identity("rsa-server")


def test_a00_fr_318_and_fr_421_the_server_offers_exactly_the_four_mandated_suites_of_tls_1_2() -> None:
    context = server_context({P2}, both_kinds())
    offered = {suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"}
    assert offered == set(MANDATED_SUITES)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("suite", MANDATED_SUITES)
def test_a00_fr_318_each_mandated_suite_is_negotiated_with_two_server_certificates(suite: str) -> None:
    result = handshake(server_context({P2}, both_kinds()), limited_client(suite))
    assert result.get("cipher") == (suite, "TLSv1.2", int(suite.split("AES")[1][:3])), result


@pytest.mark.parametrize(
    "suite", ["ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA", "AES128-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]
)
def test_a00_fr_320_and_fr_322_no_other_suite_of_tls_1_2_is_taken(suite: str) -> None:
    result = handshake(server_context({P2}, both_kinds()), limited_client(suite))
    assert isinstance(result.get("server"), ssl.SSLError) and "received" not in result


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_a00_fr_313_to_fr_315_tls_1_1_is_refused() -> None:
    client = limited_client("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1)
    result = handshake(server_context({P2}, both_kinds()), client)
    assert isinstance(result.get("server"), ssl.SSLError) and "received" not in result


def test_tls_1_3_is_negotiated_where_both_can() -> None:
    result = handshake(server_context({P2}, both_kinds()), client_context([root()]))
    assert result["version"] == "TLSv1.3" and result["received"] == b"c"


def test_a00_fr_321_neither_compression_nor_renegotiation_nor_tickets_are_offered() -> None:
    context = server_context({P2}, both_kinds())
    for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_TICKET):
        assert context.options & option
    assert context.num_tickets == 0
    station = client_context([root()])
    assert station.options & ssl.OP_NO_COMPRESSION and station.options & ssl.OP_NO_RENEGOTIATION


def test_forward_secrecy_only_drops_the_two_tls_rsa_suites() -> None:
    context = server_context({P2}, both_kinds(), forward_secrecy_only=True)
    offered = {suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"}
    assert offered == set(FORWARD_SECRET_SUITES)


def test_the_suites_that_no_certificate_serves_are_named() -> None:
    ec_identity, rsa_identity = both_kinds()
    assert missing_suites([ec_identity, rsa_identity]) == ()
    assert missing_suites([ec_identity]) == ("AES128-GCM-SHA256", "AES256-GCM-SHA384")
    assert missing_suites([ec_identity], forward_secrecy_only=True) == ()
    assert missing_suites([rsa_identity]) == FORWARD_SECRET_SUITES


def test_profiles_decide_whether_a_client_certificate_is_asked_for() -> None:
    modes = {
        profiles: server_context(profiles, both_kinds(), client_trust=[root()]).verify_mode
        for profiles in (frozenset({P2}), frozenset({P3}), frozenset({P2, P3}))
    }
    assert list(modes.values()) == [ssl.CERT_NONE, ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL]


def test_a00_fr_201_profile_1_has_no_tls_context() -> None:
    with pytest.raises(PolicyRefusal, match="profile 1"):
        server_context({P1}, both_kinds())


def test_a00_fr_403_profile_3_without_trusted_ca_is_refused_to_start() -> None:
    with pytest.raises(PolicyRefusal, match="profile 3"):
        server_context({P3}, both_kinds())


def test_a00_fr_401_and_fr_402_a_station_certificate_of_a_trusted_ca_is_seen_by_the_server() -> None:
    identity = station_identity()
    server = server_context({P3}, both_kinds(), client_trust=[root()])
    result = handshake(server, client_context([root()], identity=identity))
    assert result["peer"] == identity.chain_der[0] and result["received"] == b"c"


@pytest.mark.parametrize("identity", [None, "foreign", "expired"])
def test_a00_fr_407_profile_3_refuses_a_missing_foreign_or_expired_certificate(identity: str | None) -> None:
    server = server_context({P3}, both_kinds(), client_trust=[root()])
    shown = {
        None: None,
        "foreign": station_identity("ec-other-root"),
        "expired": station_identity(days=-1),
    }[identity]
    result = handshake(server, client_context([root()], identity=shown))
    assert isinstance(result.get("server"), ssl.SSLError) and "received" not in result


def test_a00_fr_429_an_expired_certificate_can_be_let_through_for_the_upgrade_to_judge() -> None:
    server = server_context({P3}, both_kinds(), client_trust=[root()], ignore_client_validity=True)
    result = handshake(server, client_context([root()], identity=station_identity(days=-1)))
    assert result["received"] == b"c"
    foreign = handshake(server, client_context([root()], identity=station_identity("ec-other-root")))
    assert isinstance(foreign.get("server"), ssl.SSLError)


def test_a_sub_ca_alone_is_enough_as_trust() -> None:
    sub = certificate("ec-sub", "ec-sub", "ec-root", ca=True)
    identity = TlsIdentity((certificate("CS-0001", "ec-station", "ec-sub"),), key("ec-station"))
    server = server_context({P3}, both_kinds(), client_trust=[sub])
    assert handshake(server, client_context([root()], identity=identity))["received"] == b"c"


@pytest.mark.parametrize("trust", [b"no certificate", "leaf"])
def test_a_trust_anchor_that_is_no_ca_certificate_is_refused(trust: bytes | str) -> None:
    anchor = certificate("leaf", "ec-station") if isinstance(trust, str) else trust
    with pytest.raises(InputError):
        server_context({P3}, both_kinds(), client_trust=[anchor])
    with pytest.raises(InputError):
        client_context([anchor])


def test_a00_fr_308_and_fr_411_a_server_of_another_root_is_refused_before_anything_is_sent() -> None:
    result = handshake(server_context({P2}, both_kinds()), client_context([root("ec-other-root")]))
    assert isinstance(result.get("client"), ssl.SSLCertVerificationError) and "received" not in result


def test_a00_fr_309_and_fr_412_a_server_with_another_name_is_refused() -> None:
    server = server_context({P2}, [server_identity(common_name="other.example")])
    assert isinstance(handshake(server, client_context([root()]))["client"], ssl.SSLCertVerificationError)


def test_a00_fr_510_the_cn_counts_where_there_is_no_dns_name() -> None:
    identity = TlsIdentity((certificate("csms.example", "ec-server"),), key("ec-server"))
    result = handshake(server_context({P2}, [identity]), client_context([root()]), "csms.example")
    assert result["received"] == b"c"


WILDCARDS = pytest.mark.parametrize(
    ("common_name", "dns"), [("*.csms.example", ()), ("csms.example", ("*.csms.example", "a.csms.example"))]
)


@WILDCARDS
def test_a_wildcard_name_is_refused_within_the_handshake_unless_allowed(common_name: str, dns: tuple[str, ...]) -> None:
    identity = TlsIdentity((certificate(common_name, "ec-server", dns=dns),), key("ec-server"))
    server = server_context({P2}, [identity])
    result = handshake(server, client_context([root()]), "a.csms.example")
    assert isinstance(result.get("client"), ssl.SSLCertVerificationError)
    assert "wildcard" in str(result["client"]) and result.get("received", b"") == b""
    allowed = handshake(server, client_context([root()], allow_wildcards=True), "a.csms.example")
    assert allowed["received"] == b"c"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_wildcard_name_is_refused_on_both_event_loops_before_credentials_leave(loop: str) -> None:
    identity = TlsIdentity((certificate("*.csms.example", "ec-server"),), key("ec-server"))
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(100))
        writer.close()

    async def run(client: ssl.SSLContext) -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context({P2}, [identity]))
        async with server:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="a.csms.example")
            writer.write(b"credentials")
            await writer.drain()
            writer.close()
            async with asyncio.timeout(60):
                while not received:
                    await asyncio.sleep(0.01)

    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        with pytest.raises(ssl.SSLCertVerificationError, match="wildcard"):
            runner.run(run(client_context([root()])))
        assert received in ([], [b""])
        received.clear()
        runner.run(run(client_context([root()], allow_wildcards=True)))
        assert received == [b"credentials"]


def test_a_station_without_a_root_trusts_nobody() -> None:
    with pytest.raises(InputError, match="CSMS root"):
        client_context([])


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(SignerError, match="does not belong"):
        TlsIdentity((certificate("localhost", "ec-server"),), key("ec-station"))


def test_an_identity_is_read_from_its_two_files_and_never_shows_its_key(tmp_path: Path) -> None:
    identity = server_identity()
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(x509.load_der_x509_certificate(identity.chain_der[0]).public_bytes(Encoding.PEM))
    key_file.write_bytes(key("ec-server").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_file.chmod(0o600)
    loaded = TlsIdentity.load(cert_file, key_file)
    assert loaded.chain_der == identity.chain_der and "private_key" not in repr(loaded)
    key_file.chmod(0o644)
    with pytest.raises(SignerError):
        TlsIdentity.load(cert_file, key_file)
    cert_file.write_bytes(b"nothing")
    with pytest.raises(InputError):
        TlsIdentity.load(cert_file, key_file)


def broken(how: str) -> bytes:
    """A certificate that `cryptography` refuses in another way each."""
    der = bytearray(certificate("localhost", "ec-server"))
    version = der.index(bytes.fromhex("a003020102"))
    if how == "version 5":
        der[version + 4] = 4
    else:
        curve = der.index(bytes.fromhex("06082a8648ce3d030107"))
        der[curve + 9] = 0x63
    return bytes(der)


@pytest.mark.parametrize("how", ["version 5", "unknown curve"])
def test_a_certificate_that_cannot_be_read_is_one_clear_error_whatever_is_wrong(tmp_path: Path, how: str) -> None:
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_text(to_pem("CERTIFICATE", broken(how)))
    key_file.write_bytes(key("ec-server").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_file.chmod(0o600)
    with pytest.raises(InputError, match="certificate"):
        TlsIdentity.load(cert_file, key_file)
    with pytest.raises(InputError):
        server_context({P3}, [server_identity()], client_trust=[broken(how)])


def test_a_serving_context_takes_a_new_certificate_for_new_handshakes() -> None:
    context = server_context({P2}, [server_identity(common_name="old.example")])
    client = client_context([root()])
    assert "client" in handshake(context, client, "localhost")
    reload_identity(context, server_identity())
    assert handshake(context, client, "localhost")["received"] == b"c"


def test_a_server_chain_without_its_intermediate_is_noticed() -> None:
    root = make_node("Root", None, ca=True)
    sub = make_node("Sub", root, ca=True)
    leaf = make_node("csms.example", sub, ca=False)
    root_der, sub_der, leaf_der = root.der, sub.der, leaf.der
    alone, whole = TlsIdentity((leaf_der,), leaf.key), TlsIdentity((leaf_der, sub_der), leaf.key)
    assert missing_issuer(alone, roots=[root_der]) == "CN=Sub"
    assert missing_issuer(whole, roots=[root_der]) is None
    assert missing_issuer(whole) == "CN=Root"
    # OpenSSL finds the issuer of a lone leaf among the trusted certificates; of a longer chain it does not look.
    assert missing_issuer(alone, client_trust=[sub_der, root_der]) is None
    assert missing_issuer(TlsIdentity((leaf_der, leaf_der), leaf.key), client_trust=[sub_der]) == "CN=Sub"
