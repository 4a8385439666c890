"""Every refusal before the upgrade: its status, its security event, one log line with cause and cure, its metric."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.csms import ClientTrust, CsmsLimits, CsmsServer
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.tls import server_context
from chargepki.pki.pem import to_pem
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.hierarchy import Node, make_node
from testkit.ocpp_peers import Credential, basic_header, open_socket

WRONG = b"wrong-password-000"
INVALID_CERTIFICATE = "InvalidChargingStationCertificate"
FAILED = "FailedToAuthenticateAtCsms"
RECORD_PASSWORD = "station set-password KNOWN --record-only"


@dataclass(frozen=True)
class Case:
    """One way to be refused."""

    reason: str
    status: int
    event: str
    cause: str
    cure: str
    identity: str = "KNOWN"
    headers: dict[str, str] = field(default_factory=dict)
    certificate: str = ""
    profiles: tuple[int, ...] = (2, 3)


CASES = [
    Case(
        "unknown-station",
        401,
        FAILED,
        "not registered",
        "station add NOBODY",
        "NOBODY",
        basic_header("NOBODY", PASSWORD),
    ),
    Case("no-credentials", 401, FAILED, "nor an Authorization header", "station show KNOWN"),
    Case("wrong-password", 401, FAILED, "wrong password", RECORD_PASSWORD, headers=basic_header("KNOWN", WRONG)),
    Case(
        "other-username",
        401,
        FAILED,
        "not the identity in the URL",
        "station show KNOWN",
        headers=basic_header("OTHER", PASSWORD),
    ),
    Case(
        "bad-credentials",
        401,
        FAILED,
        "not of the Basic scheme",
        "station show KNOWN",
        headers={"Authorization": "Bearer x"},
    ),
    Case(
        "profile-too-low",
        403,
        "SecurityProfileTooLow",
        "below its expected",
        "station set-profile --record-only",
        "HIGH",
        basic_header("HIGH", PASSWORD),
    ),
    Case("unknown-station", 403, INVALID_CERTIFICATE, "is unknown", "station add NOBODY", "NOBODY", certificate="own"),
    Case(
        "certificate-of-another-station",
        403,
        INVALID_CERTIFICATE,
        "linked to OTHER",
        "`--station`",
        certificate="other's",
    ),
    Case(
        "wrong-common-name", 403, INVALID_CERTIFICATE, "CN is 'STRANGE'", "correct its record", certificate="wrong CN"
    ),
    Case(
        "wrong-organization",
        403,
        INVALID_CERTIFICATE,
        "O is 'Example CSO'",
        "correct the station's record",
        "O-DIFFERS",
        certificate="wrong O",
    ),
    Case(
        "certificate-revoked",
        403,
        INVALID_CERTIFICATE,
        "is revoked since",
        "station set-profile KNOWN 2 --record-only",
        certificate="revoked",
    ),
    Case(
        "certificate-expired",
        403,
        INVALID_CERTIFICATE,
        "not now",
        "station set KNOWN --accept-expired",
        certificate="expired",
    ),
    Case("certificate-unknown", 403, INVALID_CERTIFICATE, "not in the inventory", "issue one", certificate="maker's"),
    Case("not-the-proxy", 403, "ProxyHeaderForged", "not behind a proxy", "proxy", headers={"X-SSL-Client-Cert": "x"}),
]


@pytest.fixture(scope="module")
def maker() -> Node:
    return make_node("Some maker", None, ca=True)


def credential_for(rig: Rig, case: Case, maker: Node) -> Credential | None:
    match case.certificate:
        case "":
            return None
        case "own":
            return rig.credential("KNOWN")[0]
        case "other's":
            return rig.credential("OTHER", common_name="KNOWN")[0]
        case "wrong CN":
            return rig.credential("KNOWN", common_name="STRANGE")[0]
        case "wrong O":
            return rig.credential("O-DIFFERS")[0]
        case "revoked":
            credential, certificate_id = rig.credential("KNOWN")
            rig.authority.revoke(certificate_id, "keyCompromise")
            return credential
        case "expired":
            return rig.credential("KNOWN", validity=timedelta(minutes=5))[0]
        case _:
            leaf = make_node("KNOWN", maker, ca=False)
            return Credential(leaf.key, leaf.certificate.public_bytes(Encoding.PEM).decode())


def register(rig: Rig) -> None:
    for identity, options in (
        ("KNOWN", {}), ("OTHER", {}), ("HIGH", {"profile": 3}), ("O-DIFFERS", {"organization": "Another CSO"}),
    ):  # fmt: skip
        if rig.inventory.find_station(identity) is None:
            rig.add_station(identity, **options)


def metric(server: CsmsServer, name: str, **labels: str) -> float:
    value = server.security.metrics.registry.get_sample_value(name, labels)
    return value or 0.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reason}-{case.status}")
def test_every_refusal_has_status_event_log_line_and_metric(
    rig: Rig, case: Case, maker: Node, caplog: pytest.LogCaptureFixture
) -> None:
    register(rig)
    rig.makers[:] = [maker.der]
    credential = credential_for(rig, case, maker)
    before = len(rig.inventory.list_security_events(limit=100_000))

    async def story() -> None:
        if case.certificate == "expired":
            await asyncio.sleep(1.1)
        async with rig.server(*case.profiles) as server:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await open_socket(
                    rig.url_of(server), case.identity, headers=case.headers, tls=rig.client_tls(credential)
                )
            assert refused.value.response.status_code == case.status
            labels = {"reason": case.reason, "status": str(case.status)}
            assert metric(server, "chargepki_csms_refused_connections_total", **labels) == 1

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("uvloop", story())
    lines = [record.getMessage() for record in caplog.records if record.name == "chargepki.csms"]
    assert len(lines) == 1, lines
    assert f"[{case.reason}]" in lines[0] and case.cause in lines[0]
    assert case.cure in lines[0].partition("; to fix: ")[2]
    (event,) = rig.inventory.list_security_events(limit=100_000)[before:]
    assert (event.type, event.source) == (case.event, "csms")
    # Words such as "password" must not have what follows them taken for a secret.
    assert f"[{case.reason}] " in event.tech_info and case.cause in event.tech_info


@pytest.mark.parametrize(
    ("case", "reason", "event"),
    [
        ("missing sub-CA", "client-certificate-untrusted", INVALID_CERTIFICATE),
        ("rogue CA with the same names", "client-certificate-untrusted", INVALID_CERTIFICATE),
        ("rogue CA with the same names, no key identifiers", "client-certificate-forged", INVALID_CERTIFICATE),
        ("no certificate", "no-client-certificate", INVALID_CERTIFICATE),
        ("our certificate is refused", "unknown-ca-alert", "CsmsFailedToAuthenticate"),
        ("not TLS", "plain-http", None),
    ],
)
def test_every_failed_handshake_is_counted_explained_and_reported(
    rig: Rig, case: str, reason: str, event: str | None, maker: Node, caplog: pytest.LogCaptureFixture
) -> None:
    credential: Credential | None = None
    trust = rig.root_der
    before = occurrences(rig, reason)
    match case:
        case "missing sub-CA":
            rig.add_station("HANDSHAKE", profile=3)
            credential, _ = rig.credential("HANDSHAKE")
            leaf_only = credential.chain_pem.split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
            credential.chain_pem = leaf_only
        case "rogue CA with the same names":
            rogue = make_node("Some maker", None, ca=True)
            leaf = make_node("HANDSHAKE", rogue, ca=False)
            credential, trust = Credential(leaf.key, to_pem("CERTIFICATE", leaf.der)), maker.der
        case "rogue CA with the same names, no key identifiers":
            credential, trust = _forged(maker), maker.der

    async def story() -> None:
        async with rig.server(3) as server:
            context = server_context(
                [SecurityProfile.TLS_CLIENT_CERTIFICATE], [rig.server_identity], client_trust=[trust]
            )
            server.reload(tls=context)
            if case == "not TLS":
                _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"GET /ocpp/X HTTP/1.1\r\n\r\n")
                await wait_for(lambda: f"[{reason}]" in caplog.text)
                writer.close()
            elif case == "our certificate is refused":
                await asyncio.to_thread(_refuse, server.port, maker)
            else:
                with contextlib.suppress(OSError, websockets.InvalidHandshake):
                    await open_socket(rig.url_of(server), "HANDSHAKE", tls=rig.client_tls(credential))
            await wait_for(lambda: f"[{reason}]" in caplog.text)
            assert metric(server, "chargepki_csms_tls_failures_total", reason=reason) == 1

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("uvloop", story())
    (line,) = [r.getMessage() for r in caplog.records if f"[{reason}]" in r.getMessage()]
    assert "to fix: " in line
    assert occurrences(rig, reason) - before == Counter([event] if event is not None else [])


def _refuse(port: int, root: Node) -> None:
    """Connect as a station that trusts another root; in blocking calls, since asyncio does not send the alert."""
    context = ssl.create_default_context(cadata=to_pem("CERTIFICATE", root.der))
    with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(plain, server_hostname="localhost")


def occurrences(rig: Rig, reason: str) -> Counter[str]:
    """Return how often the endpoint reported *reason*, by type of event; what repeats is one row with a count."""
    found: Counter[str] = Counter()
    for series in rig.inventory.list_event_series(limit=100_000):
        if reason in series.event.tech_info and series.event.source == "csms":
            found[series.event.type] += series.count
    return found


def _forged(maker: Node) -> Credential:
    """Return a certificate in the name of *maker* that another key signed, without key identifiers."""
    key, rogue = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "HANDSHAKE")]))
        .issuer_name(maker.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(rogue, hashes.SHA256())
    )
    return Credential(key, certificate.public_bytes(Encoding.PEM).decode())


def test_a_flood_of_failed_attempts_is_one_event_and_every_one_is_counted(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add_station("FLOODED")

    async def story() -> None:
        async with rig.server(2, limits=CsmsLimits(failed_attempts=50)) as server:
            for _ in range(12):
                with pytest.raises(websockets.InvalidStatus):
                    await open_socket(rig.url_of(server), "FLOODED", password=WRONG, tls=rig.client_tls())
            name = "chargepki_csms_refused_connections_total"
            assert metric(server, name, reason="wrong-password", status="401") == 12
            # A burst that has ended is counted all the same: rules about alerts look at the count.
            await wait_for(lambda: [s.count for s in rig.inventory.list_event_series(station="FLOODED")] == [12])

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("uvloop", story())
    assert caplog.text.count("[wrong-password]") == 1
    assert len(rig.inventory.list_security_events(station="FLOODED")) == 1


# --- exchange while connections live on --------------------------------------------------------------------------


def test_certificate_trust_and_lists_are_exchanged_and_nobody_is_dropped(rig: Rig) -> None:
    """A new context decides about new connections: another CA, a list that revokes; who is in stays in."""
    register(rig)
    rig.makers.clear()
    first, _ = rig.credential("KNOWN")
    second, revoked_id = rig.credential("OTHER")
    fresh = rig._server_identity()

    def context(*trust: bytes) -> ssl.SSLContext:
        profiles = [SecurityProfile.TLS_CLIENT_CERTIFICATE]
        return server_context(profiles, [fresh], client_trust=trust, ignore_client_validity=True)

    async def enters(server: CsmsServer, identity: str, credential: Credential) -> int:
        try:
            socket = await open_socket(rig.url_of(server), identity, tls=rig.client_tls(credential))
        except websockets.InvalidStatus as refused:
            return refused.response.status_code
        except (OSError, websockets.InvalidHandshake):
            return 0
        await socket.close()
        return 101

    async def story() -> list[int]:
        async with rig.server(3) as server:
            socket = await open_socket(rig.url_of(server), "KNOWN", tls=rig.client_tls(first))
            seen = [await enters(server, "OTHER", second)]
            # A list of the very CA, made elsewhere, that the inventory knows nothing of.
            record = rig.inventory.get_certificate(revoked_id)
            assert record.der is not None
            crl = _crl_about(rig, record.serial)
            anchors = (rig.root_der, rig.sub_der)
            server.reload(tls=context(*anchors), client_trust=ClientTrust(anchors=anchors, crls=(crl,)))
            seen.append(await enters(server, "OTHER", second))
            ssl_object = (await open_socket(rig.url_of(server), "KNOWN", tls=rig.client_tls(first))).transport
            assert ssl_object.get_extra_info("ssl_object").getpeercert(binary_form=True) == fresh.chain_der[0]
            server.reload(tls=context(make_node("Another CA", None, ca=True).der))
            seen.append(await enters(server, "OTHER", second))
            # The very first connection was replaced by its own station's second, never cut by an exchange.
            assert socket.close_code in (None, 1008)
            assert server.registry.find("KNOWN") is not None
        return seen

    assert run_on("uvloop", story()) == [101, 403, 0]


def _crl_about(rig: Rig, serial: str) -> bytes:
    """Return a list of the rig's sub-CA that revokes *serial*, which its own inventory has not revoked."""
    ca = rig.inventory.get_ca("t-cso-sub")
    key: Any = rig.keystore.open(ca.key_uri).private_key
    now = datetime.now(UTC)
    revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now).build()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.load_der_x509_certificate(rig.sub_der).subject)
        .last_update(now - timedelta(minutes=1))
        .next_update(now + timedelta(days=1))
        .add_extension(x509.CRLNumber(999), critical=False)
        .add_revoked_certificate(revoked)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
