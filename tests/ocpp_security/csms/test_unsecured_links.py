"""Certificates and roots without TLS: refused unless an operator has allowed it (ocpp-security 12, row 32)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from chargepki.ocpp_security.campaign_roots import find_root
from chargepki.ocpp_security.csms import CsmsServer
from chargepki.ocpp_security.csms.proxy import ProxyTrust
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.unsecured import ALLOW
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import aio
from chargepki.pki.errors import StateError
from chargepki.pki.inventory.records import Delivery, OperationRecord, OperationState
from testkit.csms_rig import ACTOR, ORGANIZATION, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import Credential, ForeignStation, basic_header, build_station_csr, foreign_station, open_socket
from testkit.station_files import queue_operation

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
RENEWAL: dict[str, object] = {"use": CertificateUse.CHARGING_STATION.value}


def csr_of(station: str) -> str:
    return build_station_csr(Credential().key, station, ORGANIZATION)


def events_of(rig: Rig, station: str) -> list[str]:
    return [event.type for event in rig.inventory.list_security_events(station=station)]


def details_of(rig: Rig, action: str, subject: str) -> list[dict[str, Any]]:
    entries = rig.inventory.list_audit(limit=100_000)
    return [dict(entry.details or {}) for entry in entries if (entry.action, entry.subject) == (action, subject)]


async def outcome_of(rig: Rig, operation: str) -> OperationRecord:
    await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final)
    return rig.inventory.get_operation(operation)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_csr_without_tls_is_refused_with_cause_and_cure(
    rig: Rig, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    station = f"CSR-{version}"
    rig.add_station(station, profile=1)

    async def story() -> None:
        async with (
            rig.server(1, allow_unsecured=()) as server,
            foreign_station(rig.url_of(server), station, version, password=PASSWORD) as peer,
        ):
            await peer.boot(station)
            assert await peer.send_csr(csr_of(station)) == "Rejected"
            await wait_for(lambda: "CertificateRequestRefused" in events_of(rig, station))

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("asyncio", story())
    (line,) = [record.getMessage() for record in caplog.records if "csr-refused" in record.getMessage()]
    assert "over a connection without TLS" in line and "to fix: let the station come in with TLS" in line
    assert list(rig.inventory.list_certificates(station=station)) == []
    (refused,) = details_of(rig, "certificate.request", station)
    assert refused["what"] == f"the CSR of {station} came over a connection without TLS"


@pytest.mark.parametrize("kind", [OperationKind.INSTALL_ROOT, OperationKind.DELETE_ROOT, OperationKind.TRIGGER_RENEWAL])
def test_an_operation_changes_nothing_without_tls_unless_it_says_so(
    rig: Rig, kind: OperationKind, caplog: pytest.LogCaptureFixture
) -> None:
    station = kind.value.upper()
    rig.add_station(station, profile=1)
    root = {"use": "csms", "certificate": find_root(rig.inventory, "t-cso-root")}
    about: dict[OperationKind, dict[str, object]] = {
        OperationKind.INSTALL_ROOT: {**root},
        OperationKind.DELETE_ROOT: {**root, "last": True},
    }
    parameters = about.get(kind, RENEWAL)

    async def story() -> None:
        async with (
            rig.server(1, allow_unsecured=()) as server,
            foreign_station(rig.url_of(server), station, "ocpp2.0.1", password=PASSWORD) as peer,
        ):
            if kind is OperationKind.DELETE_ROOT:
                peer.roots.by_use.append(("CSMSRootCertificate", rig.root_pem))
            await peer.boot(station)
            refused = await outcome_of(rig, queue_operation(rig, kind, station, parameters))
            assert refused.state is OperationState.FAILED and "over a connection without TLS" in str(refused.outcome)
            assert "--allow-unsecured" in str((refused.outcome or {})["fix"])
            await wait_for(lambda: "UnsecuredChangeRefused" in events_of(rig, station))
            sent = {attempt.action.partition("(")[0] for attempt in rig.inventory.list_attempts(refused.id)}
            assert sent <= {"GetInstalledCertificateIds", "GetVariables"}
            allowed = queue_operation(rig, kind, station, {**parameters, ALLOW: True})
            if kind is OperationKind.TRIGGER_RENEWAL:
                await peer.next_trigger()
                assert await peer.send_csr(csr_of(station)) == "Accepted"
            done = await outcome_of(rig, allowed)
            assert (done.state, (done.outcome or {})["deviation"]) == (
                OperationState.DONE,
                "it was allowed without TLS",
            )
            attempts = details_of(rig, "operation.attempt", allowed)
            assert [attempt["action"].partition("(")[0] for attempt in attempts if attempt.get("unsecured")] == [
                {"install-root": "InstallCertificate", "delete-root": "DeleteCertificate"}.get(kind, "TriggerMessage")
            ]

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("asyncio", story())
    (line,) = [record.getMessage() for record in caplog.records if "unsecured-change" in record.getMessage()]
    assert "to fix: let the station come in with TLS" in line


def test_a_certificate_that_waits_is_handed_over_with_tls_alone(rig: Rig) -> None:
    """Asked for over TLS, and the station comes back without."""
    rig.add_station("WAITS", profile=1)

    async def at(
        server: CsmsServer, work: Callable[[ForeignStation], Any], tls: Any = None, version: str = "ocpp2.0.1"
    ) -> None:
        async with foreign_station(rig.url_of(server), "WAITS", version, password=PASSWORD, tls=tls) as peer:
            await peer.boot("WAITS")
            await work(peer)

    async def ask(peer: ForeignStation) -> None:
        assert await peer.send_csr(csr_of("WAITS")) == "Accepted"

    async def get_nothing(peer: ForeignStation) -> None:
        await wait_for(lambda: "UnsecuredChangeRefused" in events_of(rig, "WAITS"))
        assert await peer.heartbeat() and peer.chains.empty()

    async def get(peer: ForeignStation) -> None:
        assert await peer.next_chain()

    async def story() -> None:
        issuer = aio.QueueIssuer(rig.inventory, actor=ACTOR)
        async with (
            rig.server(1, issuer=issuer, allow_unsecured=()) as plain,
            rig.server(2, issuer=issuer, allow_unsecured=()) as secure,
        ):
            await at(secure, ask, rig.client_tls())
            assert await asyncio.to_thread(rig.authority.serve_queue_once, "authority") == 1
            await at(plain, get_nothing)
            await at(secure, get, rig.client_tls())
        await issuer.aclose()

    run_on("asyncio", story())
    (record,) = rig.inventory.list_certificates(station="WAITS")
    assert record.delivery is Delivery.DELIVERED


def test_the_configuration_opens_and_closes_it_for_named_stations(rig: Rig) -> None:
    for name in ("OPEN-1", "SHUT-1"):
        rig.add_station(name, profile=1)

    async def asked(server: CsmsServer, name: str) -> str:
        async with foreign_station(rig.url_of(server), name, "ocpp2.0.1", password=PASSWORD) as peer:
            await peer.boot(name)
            return await peer.send_csr(csr_of(name))

    async def story() -> None:
        async with rig.server(1, allow_unsecured=("OPEN-*",)) as server:
            assert await asked(server, "OPEN-1") == "Accepted"
            assert await asked(server, "SHUT-1") == "Rejected"
            server.reload(tls=None, allow_unsecured=())
            assert await asked(server, "OPEN-1") == "Rejected"

    run_on("asyncio", story())


@pytest.mark.parametrize(
    ("version", "action", "payload"),
    [
        ("ocpp2.0.1", "InstallCertificate", {"certificateType": "CSMSRootCertificate", "certificate": "x"}),
        ("ocpp2.0.1", "CertificateSigned", {"certificateChain": "x"}),
        (
            "ocpp1.6",
            "DataTransfer",
            {"vendorId": "org.openchargealliance.iso15118pnc", "messageId": "InstallCertificate", "data": "{}"},
        ),
    ],
)
def test_no_call_of_anybody_changes_them_without_tls(
    rig: Rig, version: str, action: str, payload: dict[str, Any]
) -> None:
    """The way of the mixin's `call`, and of whoever has the connection."""
    rig.add_station(f"CALL-{action}", profile=1)

    async def story() -> None:
        async with (
            rig.server(1, allow_unsecured=()) as server,
            foreign_station(rig.url_of(server), f"CALL-{action}", version, password=PASSWORD) as peer,
        ):
            await peer.boot(f"CALL-{action}")
            connection = server.security.registry.find(f"CALL-{action}")
            assert connection is not None
            with pytest.raises(StateError, match="over a connection without TLS"):
                await connection.call(action, payload)

    run_on("asyncio", story())


def test_behind_a_proxy_tls_is_the_proxys(rig: Rig) -> None:
    rig.add_station("PROXIED", profile=1)
    proxy = ProxyTrust.parse(["127.0.0.1"], b"0123456789abcdef0123456789abcdef")
    headers = {
        "X-Chargepki-Proxy-Secret": "0123456789abcdef0123456789abcdef",
        "X-Real-IP": "203.0.113.9",
        "X-Forwarded-Proto": "https",
    }

    async def story() -> None:
        async with rig.server(2, proxy=proxy, allow_unsecured=()) as server:
            socket = await open_socket(
                f"ws://localhost:{server.port}", "PROXIED", headers=headers | basic_header("PROXIED", PASSWORD)
            )
            connection = None
            while connection is None:
                await asyncio.sleep(0.01)
                connection = server.security.registry.find("PROXIED")
            assert connection.allows_changes and await connection.may_be_certified()
            await socket.close()

    run_on("asyncio", story())
