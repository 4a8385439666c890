"""A05, end to end: what a station lacks for a higher security profile is fetched first, once, whatever breaks."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret, new_password
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.passwords import verify_password
from chargepki.pki.inventory.records import OperationRecord, OperationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.foreign_roots import InstalledRoots
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station

URL = "wss://csms.example/ocpp"
CSMS_ROOT = {"ocpp1.6": "CentralSystemRootCertificate"}


def order(
    rig: Rig, station: str, profile: int, version: str, *, root: bool = False, secret: PasswordSecret | None = None,
    downgrade: bool = False,
) -> str:  # fmt: skip
    store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
    parameters = profile_parameters(
        profile,
        url=None if version == "ocpp1.6" else URL,
        root=hashlib.sha256(rig.root_der).hexdigest() if root else None,
        downgrade=downgrade,
    )
    now = datetime.now(UTC)
    return store.create(
        OperationKind.SET_PROFILE, station, parameters, operation_id=new_operation_id(), actor=ACTOR, now=now,
        deadline=now + timedelta(minutes=2), secret=secret,
    ).id  # fmt: skip


def outcome(rig: Rig, operation: str) -> OperationRecord:
    return rig.inventory.get_operation(operation)


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_root_certificate_and_profile_3_in_one_operation_across_lost_links(rig: Rig, version: str) -> None:
    """A05.FR.02, FR.03: from profile 1 with nothing; the link is lost after each step, and no step is taken twice."""
    station, credential, roots, steps = f"NEEDS-{version}", Credential(), InstalledRoots(), []
    rig.add_station(station, profile=1)
    use = CSMS_ROOT.get(version, "CSMSRootCertificate")

    async def story() -> None:
        async with rig.server(1) as plain, rig.server(2, 3) as secure:
            url = rig.url_of(plain)
            operation = order(rig, station, 3, version, root=True)

            async def until(last: str) -> None:
                async with foreign_station(url, station, version, password=PASSWORD, roots=roots) as peer:
                    await peer.boot(station)
                    while True:
                        steps.append(await peer.next_trigger())
                        if steps[-1].startswith("Sign"):
                            await peer.send_csr(build_station_csr(credential.key, station, "Example CSO"), request_id=1)
                            credential.chain_pem = await peer.next_chain()
                            steps.append("certificate")
                        if steps[-1] == last:
                            return

            await until(f"install {use}")
            await until("certificate")
            await until("SecurityProfile=3" if version == "ocpp1.6" else "reset OnIdle")
            tls = rig.client_tls(credential)
            async with foreign_station(rig.url_of(secure), station, version, tls=tls):
                await wait_for(lambda: outcome(rig, operation).state is OperationState.DONE)

    run_on("asyncio", story())
    assert [use for use, _ in roots.by_use] == [use]
    assert rig.inventory.get_station(station).security_profile == 3
    done = [step for step in steps if step.startswith(("install", "certificate", "SecurityProfile", "slot", "reset"))]
    change = ["SecurityProfile=3"] if version == "ocpp1.6" else [f"slot 2: profile 3 at {URL}", "reset OnIdle"]
    assert done == [f"install {use}", "certificate", *change]
    (installed,) = rig.inventory.list_station_roots(station)
    assert installed.certificate == hashlib.sha256(rig.root_der).hexdigest()


def test_a_16_station_without_any_profile_gets_a_root_and_a_password_that_alone_open_the_next_door(rig: Rig) -> None:
    """1.6 A05.FR.02, FR.03, A01.FR.02: profile 0 to 2; what came as hexadecimal digits is sent as octets."""
    rig.add_station("BARE", profile=0, password=None)
    secret = new_password()

    async def story() -> None:
        async with rig.server(0, 1) as plain, rig.server(2) as secure:
            operation = order(rig, "BARE", 2, "ocpp1.6", root=True, secret=secret)
            async with foreign_station(rig.url_of(plain), "BARE", "ocpp1.6") as peer:
                told = [await peer.next_trigger() for _ in range(5)]
            assert told == [
                "list CentralSystemRootCertificate", "install CentralSystemRootCertificate",
                "list CentralSystemRootCertificate", f"AuthorizationKey={secret.password.hex()}", "SecurityProfile=2",
            ]  # fmt: skip
            password = bytes.fromhex(told[3].partition("=")[2])
            tls = rig.client_tls()
            async with foreign_station(rig.url_of(secure), "BARE", "ocpp1.6", password=password, tls=tls):
                await wait_for(lambda: outcome(rig, operation).state is OperationState.DONE)
            assert outcome(rig, operation).sealed is None

    run_on("asyncio", story())
    record = rig.inventory.get_station("BARE")
    assert record.security_profile == 2 and record.pending_password_hash is None
    assert record.password_hash is not None and verify_password(record.password_hash, secret.password)


def test_a_root_that_is_refused_ends_the_operation_before_the_profile_is_touched(rig: Rig) -> None:
    rig.add_station("REFUSES", profile=1)

    async def story() -> None:
        async with rig.server(1) as plain:
            operation = order(rig, "REFUSES", 2, "ocpp2.0.1", root=True)
            roots = InstalledRoots(verdict="Rejected")
            url = rig.url_of(plain)
            async with foreign_station(url, "REFUSES", "ocpp2.0.1", password=PASSWORD, roots=roots) as peer:
                await wait_for(lambda: outcome(rig, operation).state is OperationState.FAILED)
                assert not any("slot" in peer.triggers.get_nowait() for _ in range(peer.triggers.qsize()))
            assert "needs a CSMS root first" in str(outcome(rig, operation).outcome)

    run_on("asyncio", story())


@pytest.mark.parametrize("version", ["ocpp2.0.1", "ocpp2.1"])
def test_a_station_is_lowered_from_3_to_2_only_if_it_allows_it_and_gets_its_password_before(
    rig: Rig, version: str
) -> None:
    """A05.FR.07, FR.08, FR.10: the errata's one way down; in 2.1 the password comes with its slot (B09.FR.14)."""
    station = f"DOWN-{version}"
    rig.add_station(station, profile=3, password=None)
    credential, _ = rig.credential(station)
    secret = new_password()

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url, tls = rig.url_of(server), rig.client_tls(credential)
            refused = order(rig, station, 2, version, downgrade=True)
            async with foreign_station(url, station, version, tls=tls) as peer:
                await wait_for(lambda: outcome(rig, refused).state is OperationState.FAILED)
                assert await peer.next_trigger() == "AllowSecurityProfileDowngrade?"
                assert rig.inventory.get_station(station).security_profile == 3
                peer.variables["AllowSecurityProfileDowngrade"] = "true"
                operation = order(rig, station, 2, version, secret=secret, downgrade=True)
                assert await peer.next_trigger() == "AllowSecurityProfileDowngrade?"
                if version == "ocpp2.0.1":
                    assert await peer.next_trigger() == f"BasicAuthPassword={secret.password.decode()}"
                for _ in range(3):
                    await peer.next_trigger()
                assert await peer.next_trigger() == "reset OnIdle"
            async with foreign_station(url, station, version, password=secret.password, tls=rig.client_tls()):
                await wait_for(lambda: outcome(rig, operation).state is OperationState.DONE)

    run_on("asyncio", story())
    assert rig.inventory.get_station(station).security_profile == 2
    entries = [entry for entry in rig.inventory.list_audit() if entry.subject == station]
    (lowered,) = [entry.details for entry in entries if entry.action == "station.change"]
    assert (lowered["before"], lowered["security_profile"]) == (3, 2)


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_a_foreign_station_gets_lists_and_loses_a_root_in_every_version(rig: Rig, version: str) -> None:
    """M03.FR.01, M04.FR.01, M05.FR.01 against the `ocpp` package alone, which computes its own hash data."""
    station, roots = f"ROOTS-{version}", InstalledRoots()
    rig.add_station(station)
    parameters: dict[str, object] = {"use": "manufacturer", "certificate": hashlib.sha256(rig.root_der).hexdigest()}

    async def story() -> None:
        store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            async with foreign_station(url, station, version, password=PASSWORD, tls=tls, roots=roots):
                for kind, more, held in (
                    (OperationKind.INSTALL_ROOT, {}, ["ManufacturerRootCertificate"]),
                    (OperationKind.DELETE_ROOT, {"last": True}, []),
                ):
                    now = datetime.now(UTC)
                    made = store.create(
                        kind, station, {**parameters, **more}, operation_id=new_operation_id(), actor=ACTOR, now=now,
                        deadline=now + timedelta(minutes=2),
                    ).id  # fmt: skip
                    await wait_for(lambda: outcome(rig, made).state.is_final)  # noqa: B023 - called within its round
                    assert outcome(rig, made).state is OperationState.DONE, outcome(rig, made)
                    assert [use for use, _ in roots.by_use] == held

    run_on("asyncio", story())
