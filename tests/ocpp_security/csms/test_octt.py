"""The OCTT cases of the security profiles, one test each: the endpoint as the CSMS under test, foreign stations.

The other side, and the cases of renewal, firmware, trust stores and logs, are in the tests of those; their names hold
the case as well, so ``pytest -k tc_a_08`` finds what shows it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import websockets
from cryptography import x509
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection

from chargepki.ocpp_security.csms import CsmsServer
from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret
from chargepki.ocpp_security.passwords import hash_password
from chargepki.ocpp_security.tls import MANDATED_SUITES
from chargepki.pki.inventory.records import OperationState
from chargepki.pki.pem import to_pem
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.hierarchy import make_node
from testkit.ocpp_peers import Credential, foreign_station, open_socket

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
NEW = b"another-password-20."


async def status_of(opening: Coroutine[Any, Any, ClientConnection]) -> int:
    """Return the HTTP status that the upgrade ends with; 0 when not even TLS is through."""
    try:
        socket = await opening
    except websockets.InvalidStatus as refused:
        return refused.response.status_code
    except (OSError, websockets.InvalidHandshake):
        return 0
    await socket.close()
    return 101


@pytest.mark.parametrize("version", VERSIONS)
def test_tc_085_and_tc_a_01_a_valid_username_and_password_open_a_connection(rig: Rig, version: str) -> None:
    """A00.FR.204, B01.FR.02."""
    station = f"A01-{version}"
    rig.add_station(station)

    async def story() -> None:
        async with (
            rig.server(2) as server,
            foreign_station(rig.url_of(server), station, version, password=PASSWORD, tls=rig.client_tls()) as peer,
        ):
            assert await peer.boot(station) == "Accepted"

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
def test_tc_a_02_and_tc_a_03_another_username_no_password_and_a_wrong_one_fail_before_101(
    rig: Rig, version: str
) -> None:
    """A00.FR.204; the tool comes without any Authorization header, and with a wrong password."""
    station = f"A02-{version}"
    rig.add_station(station)
    rig.add_station(f"{station}-other")

    async def story() -> list[int]:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            options: dict[str, Any] = {"protocols": (version,), "tls": tls}
            own = f"/ocpp/{station}"
            return [
                await status_of(open_socket(url, f"{station}-other", password=PASSWORD, path=own, **options)),
                await status_of(open_socket(url, station, **options)),
                await status_of(open_socket(url, station, password=b"no-such-password", **options)),
                await status_of(open_socket(url, station, password=PASSWORD, **options)),
            ]

    assert run_on("asyncio", story()) == [401, 401, 401, 101]


def test_tc_086_and_tc_a_04_the_server_certificate_and_the_channel_are_as_a00_demands(rig: Rig) -> None:
    """A00.FR.306, 307, 312, 318, 321, 502, 503, 507, 508, 510."""
    rig.add_station("A04")

    async def story(tls: ssl.SSLContext) -> tuple[str, str, str | None, x509.Certificate]:
        async with rig.server(2) as server:
            socket = await open_socket(rig.url_of(server), "A04", password=PASSWORD, tls=tls)
            inner: ssl.SSLObject = socket.transport.get_extra_info("ssl_object")
            der = inner.getpeercert(binary_form=True)
            cipher, compression = inner.cipher(), inner.compression()
            await socket.close()
            assert der is not None and cipher is not None
            return str(inner.version()), cipher[0], compression, x509.load_der_x509_certificate(der)

    limited = rig.client_tls()
    limited.maximum_version = ssl.TLSVersion.TLSv1_2
    version, suite, compression, certificate = run_on("asyncio", story(limited))
    assert (version, compression) == ("TLSv1.2", None) and suite in MANDATED_SUITES
    assert run_on("asyncio", story(rig.client_tls()))[0] == "TLSv1.3"
    subject = {attribute.oid: attribute.value for attribute in certificate.subject}
    assert subject[NameOID.COMMON_NAME] == "localhost" and subject[NameOID.ORGANIZATION_NAME] == "Example CSO"
    assert certificate.public_key().key_size >= 256  # type: ignore[union-attr]  # an EC key
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_tc_a_06_a_station_with_tls_below_1_2_is_turned_away(rig: Rig) -> None:
    """A00.FR.314, 315, 409, 416 to 418."""
    rig.add_station("A06")
    old = rig.client_tls()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")

    async def story() -> int:
        async with rig.server(2) as server:
            answer = await status_of(open_socket(rig.url_of(server), "A06", password=PASSWORD, tls=old))
            await wait_for(lambda: [e for e in rig.inventory.list_security_events() if e.type == "InvalidTLSVersion"])
            return answer

    assert run_on("asyncio", story()) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_tc_087_and_tc_a_07_a_valid_client_certificate_opens_a_connection(rig: Rig, version: str) -> None:
    """A00.FR.409, 410, 415, 416, 421."""
    station = f"A07-{version}"
    rig.add_station(station, profile=3)
    credential, _ = rig.credential(station)

    async def story() -> None:
        async with (
            rig.server(3) as server,
            foreign_station(rig.url_of(server), station, version, tls=rig.client_tls(credential)) as peer,
        ):
            assert await peer.boot(station) == "Accepted"

    run_on("asyncio", story())


def test_tc_a_08_an_unknown_issuer_an_expired_certificate_and_another_cn_are_turned_away(rig: Rig) -> None:
    """A00.FR.405, 407, 409, 410: the three client certificates of the tool."""
    rig.add_station("A08", profile=3)
    valid, _ = rig.credential("A08")
    short, _ = rig.credential("A08", validity=timedelta(days=1))
    other, _ = rig.credential("A08", common_name="A08-ANOTHER")
    leaf = make_node("A08", make_node("Foreign root", None, ca=True), ca=False)
    foreign = Credential(leaf.key, to_pem("CERTIFICATE", leaf.der))
    later = timedelta(0)

    async def attempt(server: CsmsServer, credential: Credential) -> int:
        return await status_of(open_socket(rig.url_of(server), "A08", tls=rig.client_tls(credential)))

    async def story() -> None:
        nonlocal later
        async with rig.server(3, clock=lambda: datetime.now(UTC) + later) as server:
            assert await attempt(server, valid) == 101
            assert await attempt(server, foreign) == 0
            assert await attempt(server, other) == 403
            assert await attempt(server, short) == 101
            later = timedelta(days=2)
            assert await attempt(server, short) == 403

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verdict", ["Accepted", "Rejected"])
def test_tc_073_tc_a_09_and_tc_a_10_a_password_changes_if_and_only_if_the_station_accepts_it(
    rig: Rig, version: str, verdict: str
) -> None:
    """A01.FR.02 and 03; after Rejected A01.FR.04: the old one goes on to be valid, and the new one is not."""
    station = f"A09-{version}-{verdict}"
    rig.add_station(station)
    store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)

    async def story() -> list[int]:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            async with foreign_station(url, station, version, password=PASSWORD, tls=tls) as peer:
                peer.password_verdict = verdict
                await peer.boot(station)
                now = datetime.now(UTC)
                operation = store.create(
                    OperationKind.SET_PASSWORD, station, {}, operation_id=new_operation_id(), actor=ACTOR, now=now,
                    deadline=now + timedelta(seconds=30), secret=PasswordSecret(NEW, hash_password(NEW)),
                )  # fmt: skip
                await peer.next_trigger()
                wanted = OperationState.DONE if verdict == "Accepted" else OperationState.FAILED
                await wait_for(lambda: rig.inventory.get_operation(operation.id).state is wanted)
            options: dict[str, Any] = {"protocols": (version,), "tls": tls}
            return [
                await status_of(open_socket(url, station, password=PASSWORD, **options)),
                await status_of(open_socket(url, station, password=NEW, **options)),
            ]

    assert run_on("asyncio", story()) == ([401, 101] if verdict == "Accepted" else [101, 401])


def test_tc_088_and_tc_b_58_the_subprotocol_is_negotiated(rig: Rig) -> None:
    """OCPP-J 3.1.2: the newest version of both; with none in common the connection is closed after the upgrade."""
    rig.add_station("B58")

    async def story() -> None:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            for offered, chosen in (
                (("ocpp1.6",), "ocpp1.6"),
                (("ocpp1.6", "ocpp2.0.1"), "ocpp2.0.1"),
                (("ocpp2.0.1", "ocpp1.6", "ocpp2.1"), "ocpp2.1"),
                (("ocpp1.5", "ocpp2.0"), None),
            ):
                socket = await open_socket(url, "B58", protocols=offered, password=PASSWORD, tls=tls)
                assert socket.subprotocol == chosen
                if chosen is None:
                    await asyncio.wait_for(socket.wait_closed(), 60)
                await socket.close()

    run_on("asyncio", story())
