"""Roots of stations from both ends: our CSMS installs, lists and deletes, our station decides, in every version."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from ocpp.v16 import call_result as result16
from ocpp.v21 import call_result as result21
from ocpp.v201 import call_result as result201

from chargepki.ocpp_security.campaign_kinds import KINDS
from chargepki.ocpp_security.campaign_store import CampaignStore
from chargepki.ocpp_security.campaigns import Pace
from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.trust_facts import add_root, known_certificates
from chargepki.ocpp_security.trust_reconcile import RootFinding, RootStatus, reconcile
from chargepki.ocpp_security.trust_store import TrustPolicy
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.errors import NotFound
from chargepki.pki.hashdata_defects import HashDefect
from chargepki.pki.inventory.campaign_records import CampaignStationState
from chargepki.pki.inventory.records import OperationRecord, OperationState
from chargepki.pki.inventory.trust_records import StationRootState
from chargepki.pki.pem import to_pem
from testkit.chains import DAY, Made, make
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import foreign_station

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
FAST = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.2))
NOW = datetime.now(UTC)
USES = {
    "ocpp1.6": ["csms", "manufacturer", "v2g", "mo"],
    "ocpp2.0.1": ["csms", "manufacturer", "v2g", "mo"],
    "ocpp2.1": ["csms", "manufacturer", "v2g", "mo", "oem"],
}


def root(name: str, issuer: Made | None = None, nth: int = 5, **options: Any) -> Made:
    return make(name, issuer, nth=nth, start=NOW - DAY, end=NOW + 30 * DAY, **options)


def order(
    rig: Rig, station: str, kind: OperationKind, made: Made | None = None, *, seconds: float = 120, **parameters: Any
) -> str:
    now = datetime.now(UTC)
    if made is not None:
        encoded = made.der

        def work(tx: Any) -> str:
            sha256 = add_root(tx, encoded, actor_name="tester", now=now)
            tx.audit(ACTOR, "root.add", sha256, now=now)
            return sha256

        parameters["certificate"] = rig.inventory.write(work)
    store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
    return store.create(
        kind, station, parameters, operation_id=new_operation_id(), actor=ACTOR, now=now,
        deadline=now + timedelta(seconds=seconds),
    ).id  # fmt: skip


async def done(rig: Rig, operation: str) -> OperationRecord:
    await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final)
    return rig.inventory.get_operation(operation)


def statuses(rig: Rig, station: str) -> list[RootStatus]:
    inventory = rig.inventory
    return reconcile(
        inventory.list_station_roots(station),
        inventory.list_root_reports(station),
        known_certificates(inventory, station),
        inventory.list_operations(station=station),
    )


def station_of(rig: Rig, url: str, identity: str, version: str, **options: Any) -> StationSimulator:
    store = StationStore(rig.folder / "stations" / identity)
    store.set_trust(rig.root_pem.encode())
    store.set_password(PASSWORD)
    return StationSimulator(url, identity, store, version, retry=FAST, enrol=False, **options)


class Running:
    """A station that runs for a block."""

    def __init__(self, station: StationSimulator) -> None:
        self.station = station

    async def __aenter__(self) -> StationSimulator:
        self._task: Any = asyncio.create_task(self.station.run())
        return self.station

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_roots_of_every_use_are_installed_listed_and_deleted(rig: Rig, version: str) -> None:
    """M03.FR.01 to FR.04, M04.FR.01 to FR.04, M05.FR.01 and FR.02; TC_M_01 to TC_M_04, TC_M_12 to TC_M_20, TC_M_101."""
    identity = f"ROOTS-{version}"
    rig.add_station(identity)
    wanted = {use: root(f"{version} {use} CA") for use in USES[version]}

    async def story() -> None:
        async with rig.server(2) as server, Running(station_of(rig, rig.url_of(server), identity, version)) as station:
            for use, made in wanted.items():
                record = await done(rig, order(rig, identity, OperationKind.INSTALL_ROOT, made, use=use))
                assert (record.state, record.outcome and record.outcome["defects"]) == (OperationState.DONE, [])
            again = await done(rig, order(rig, identity, OperationKind.INSTALL_ROOT, wanted["v2g"], use="v2g"))
            assert again.outcome is not None and again.outcome["already"]
            assert {each.der for each in station.roots.installed()} >= {made.der for made in wanted.values()}
            listing = await done(rig, order(rig, identity, OperationKind.LIST_ROOTS, uses=[]))
            assert listing.outcome == {"listed": len(wanted) + 1}
            found = {(each.use, each.finding) for each in statuses(rig, identity)}
            # The root that the station came with is recognised: it is a CA of ours.
            assert found == {("csms", RootFinding.UNMANAGED)} | {(use, RootFinding.IN_STEP) for use in wanted}
            for use in ("v2g", "mo"):
                record = await done(rig, order(rig, identity, OperationKind.DELETE_ROOT, wanted[use], use=use))
                assert (record.state, record.outcome) == (OperationState.DONE, {"attempts": 1})
            gone = await done(rig, order(rig, identity, OperationKind.DELETE_ROOT, wanted["mo"], use="mo"))
            assert gone.outcome == {"already": True}
            assert {wanted["v2g"].der, wanted["mo"].der}.isdisjoint(each.der for each in station.roots.installed())

    run_on("asyncio", story())
    kept = {each.use: each.state for each in rig.inventory.list_station_roots(identity)}
    assert kept["v2g"] is kept["mo"] is StationRootState.DELETED
    assert kept["csms"] is StationRootState.INSTALLED


@pytest.mark.parametrize(("version", "checks"), [*((version, True) for version in VERSIONS), ("ocpp2.1", False)])
def test_a_new_csms_root_replaces_the_old_one_only_if_that_signed_it(rig: Rig, version: str, checks: bool) -> None:
    """M05.FR.09 to FR.14 (1.6: FR.08 to FR.13); TC_M_09, TC_M_30, TC_M_31; what the CSMS knows is not even sent."""
    identity = f"CHECK-{version}-{checks}"
    rig.add_station(identity)
    stranger = root("Stranger CA", nth=6)
    told: list[Progress] = []

    async def story() -> None:
        async with rig.server(2) as server:
            url, policy = rig.url_of(server), TrustPolicy(additional_check=checks)
            station = station_of(rig, url, identity, version, trust_policy=policy, progress=told.append)
            async with Running(station):
                record = await done(rig, order(rig, identity, OperationKind.INSTALL_ROOT, stranger, use="csms"))
                actions = [each.action for each in rig.inventory.list_attempts(record.id)]
                if not checks:
                    assert record.state is OperationState.DONE
                    assert len(station.roots.csms()) == 2
                    return
                assert record.state is OperationState.FAILED
                assert "M05.FR.10" in str(record.outcome)
                assert not any(each.startswith("InstallCertificate") for each in actions)
                # A new root that the old one has signed, which our own server does not stand under.
                successor = signed_by_root(rig)
                record = await done(rig, order(rig, identity, OperationKind.INSTALL_ROOT, successor, use="csms"))
                assert record.state is OperationState.DONE, record.outcome
                assert (station.roots.csms(), station.roots.csms(fallback=True)) == ((successor.der,), (rig.root_der,))
                told.clear()
                station.reconnect("to try the new root")
                await wait_for(lambda: any(each.milestone is Milestone.BOOTED for each in told))
                # M05.FR.14: the server does not verify under the new root, so the old one is tried, and stays.
                assert any(each.milestone is Milestone.REFUSED for each in told)
                assert station.roots.csms(fallback=True) == (rig.root_der,)

    run_on("asyncio", story())


def signed_by_root(rig: Rig) -> Made:
    """A new root that carries the old one's signature (ocpp-security 12, row 64)."""
    ca = rig.inventory.get_ca("t-cso-root")
    key = rig.keystore.open(ca.key_uri).private_key
    return root("Successor CA", Made(x509.load_der_x509_certificate(rig.root_der), key), nth=7)


DEFECTS = [
    {HashDefect.KEY_INFO},
    {HashDefect.NAME_REENCODED, HashDefect.SERIAL_DECIMAL},
    {HashDefect.FIELDS_SWAPPED, HashDefect.UPPER_CASE},
    {HashDefect.BASE64, HashDefect.SERIAL_64_BITS},
]


@pytest.mark.parametrize(("version", "defects"), list(zip([*VERSIONS, "ocpp2.1"], DEFECTS, strict=True)))
def test_a_station_that_hashes_wrongly_is_understood_and_spoken_to_in_its_own_form(
    rig: Rig, version: str, defects: set[HashDefect]
) -> None:
    """M04.FR.07: the reported strings are echoed; the outcome names the workaround."""
    identity = f"WRONG-{'-'.join(sorted(defects))}"
    rig.add_station(identity)
    made = root("Wrongly Hashed CA", nth=8, dc="V2G", serial=0xABCDEF0123456789ABCDEF + len(identity))
    names = [defect.value for defect in HashDefect if defect in defects]

    async def story() -> None:
        policy = TrustPolicy(hash_defects=frozenset(defects))
        async with rig.server(2) as server:
            station = station_of(rig, rig.url_of(server), identity, version, trust_policy=policy)
            async with Running(station):
                record = await done(rig, order(rig, identity, OperationKind.INSTALL_ROOT, made, use="manufacturer"))
                assert record.state is OperationState.DONE, record.outcome
                assert record.outcome is not None
                assert set(record.outcome["defects"]) == {*names}
                status = next(each for each in statuses(rig, identity) if each.use == "manufacturer")
                assert (status.finding, status.is_last, set(status.defects)) == (RootFinding.IN_STEP, True, {*names})
                refused = await done(rig, order(rig, identity, OperationKind.DELETE_ROOT, made, use="manufacturer"))
                assert "last manufacturer root" in str(refused.outcome)
                other = root("Another CA", nth=9)
                await done(rig, order(rig, identity, OperationKind.INSTALL_ROOT, other, use="manufacturer"))
                record = await done(rig, order(rig, identity, OperationKind.DELETE_ROOT, made, use="manufacturer"))
                assert record.state is OperationState.DONE, record.outcome
                assert record.outcome is not None
                assert set(record.outcome["workaround"]) == {*names}
                assert [each.der for each in station.roots.installed()] == [rig.root_der, other.der]

    run_on("asyncio", story())


class ForeignRoots:
    """What a station built on the plain `ocpp` package keeps: it hashes the SubjectPublicKeyInfo, in upper case."""

    def __init__(self, peer: Any, *, finds_right: bool = False) -> None:
        self.held: dict[str, x509.Certificate] = {}
        self.deleted: list[dict[str, str]] = []
        self._finds_right = finds_right
        module: Any = {"ocpp1.6": result16, "ocpp2.0.1": result201, "ocpp2.1": result21}[peer.version]
        self._module, self._old = module, peer.version == "ocpp1.6"
        for action in ("InstallCertificate", "DeleteCertificate", "GetInstalledCertificateIds"):
            peer.charge_point.route_map[action] = {"_on_action": getattr(self, f"_{action}")}

    def _hash(self, certificate: x509.Certificate) -> dict[str, str]:
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "hash_algorithm": "SHA256",
            "issuer_name_hash": hashlib.sha256(certificate.issuer.public_bytes()).hexdigest().upper(),
            "issuer_key_hash": hashlib.sha256(spki).hexdigest().upper(),
            "serial_number": f"{certificate.serial_number:X}",
        }

    def _InstallCertificate(self, certificate_type: str, certificate: str, **_: Any) -> Any:
        self.held[certificate_type] = x509.load_pem_x509_certificate(certificate.encode())
        return self._module.InstallCertificate("Accepted")

    def _GetInstalledCertificateIds(self, certificate_type: Any = None, **_: Any) -> Any:
        asked = [certificate_type] if isinstance(certificate_type, str) else certificate_type or list(self.held)
        found = [(name, self._hash(held)) for name, held in self.held.items() if name in asked]
        if not found:
            return self._module.GetInstalledCertificateIds("NotFound")
        if self._old:
            return self._module.GetInstalledCertificateIds("Accepted", [told for _, told in found])
        chain = [{"certificate_type": name, "certificate_hash_data": told} for name, told in found]
        return self._module.GetInstalledCertificateIds("Accepted", certificate_hash_data_chain=chain)

    def _DeleteCertificate(self, certificate_hash_data: dict[str, str], **_: Any) -> Any:
        self.deleted.append(certificate_hash_data)
        for name, held in self.held.items():
            right = certificate_hash_data["serial_number"].islower() or self._hash(held) != certificate_hash_data
            if right is self._finds_right:
                del self.held[name]
                return self._module.DeleteCertificate("Accepted")
        return self._module.DeleteCertificate("NotFound")


@pytest.mark.parametrize(("version", "finds_right"), [*((version, False) for version in VERSIONS), ("ocpp2.1", True)])
def test_a_foreign_station_with_its_own_hashes_is_managed(rig: Rig, version: str, finds_right: bool) -> None:
    """TC_M_20_CSMS: what was reported is sent, exactly; a station that mixes forms gets the right one next."""
    identity = f"FOREIGN-{version}-{finds_right}"
    rig.add_station(identity)
    made = root("Foreign Root CA", nth=10, serial=0xABCDEF0123456789 + VERSIONS.index(version) + 8 * finds_right)

    async def story() -> None:
        async with rig.server(2) as server:
            tls = rig.client_tls()
            async with foreign_station(rig.url_of(server), identity, version, password=PASSWORD, tls=tls) as peer:
                held = ForeignRoots(peer, finds_right=finds_right)
                record = await done(rig, order(rig, identity, OperationKind.INSTALL_ROOT, made, use="manufacturer"))
                assert record.state is OperationState.DONE, record.outcome
                assert record.outcome is not None
                assert record.outcome["defects"] == ["key-info", "upper-case"]
                reported = record.outcome["hash"]
                operation = order(rig, identity, OperationKind.DELETE_ROOT, made, use="manufacturer", last=True)
                record = await done(rig, operation)
                assert record.state is OperationState.DONE, record.outcome
                assert record.outcome == {
                    "attempts": 2 if finds_right else 1, "workaround": ["key-info", "upper-case"]
                }  # fmt: skip
                assert set(held.deleted[0].values()) == set(reported.values())
                assert not held.held
        assert statuses(rig, identity) == []

    run_on("asyncio", story())


def test_a_root_that_cannot_be_deleted_is_reported_so(rig: Rig) -> None:
    """A station that lists a root and finds it in no form (EVerest issue 2109 and others)."""
    rig.add_station("STUCK")
    made = root("Stuck CA", nth=11)

    async def story() -> None:
        async with rig.server(2) as server:
            tls = rig.client_tls()
            async with foreign_station(rig.url_of(server), "STUCK", "ocpp2.0.1", password=PASSWORD, tls=tls) as peer:
                held = ForeignRoots(peer)
                peer.charge_point.route_map["DeleteCertificate"] = {
                    "_on_action": lambda **_: result201.DeleteCertificate("NotFound")
                }
                await done(rig, order(rig, "STUCK", OperationKind.INSTALL_ROOT, made, use="v2g"))
                record = await done(rig, order(rig, "STUCK", OperationKind.DELETE_ROOT, made, use="v2g"))
                assert record.state is OperationState.FAILED
                assert "cannot be deleted" in str(record.outcome)
                assert held.held

    run_on("asyncio", story())
    assert [(each.finding, each.undeletable) for each in statuses(rig, "STUCK")] == [(RootFinding.IN_STEP, True)]


def test_drift_is_found_when_a_station_loses_and_regains_roots(rig: Rig) -> None:
    rig.add_station("DRIFT")
    first, second, third = (root(f"Drift {n} CA", nth=12 + n) for n in range(3))

    async def story() -> None:
        async with rig.server(2) as server:
            station = station_of(rig, rig.url_of(server), "DRIFT", "ocpp2.0.1")
            async with Running(station):
                for made in (first, second):
                    await done(rig, order(rig, "DRIFT", OperationKind.INSTALL_ROOT, made, use="mo"))
                await done(rig, order(rig, "DRIFT", OperationKind.DELETE_ROOT, second, use="mo"))
                # Somebody works on the station: one root is gone, a deleted one is back, and one nobody knows is new.
                text = "".join(to_pem("CERTIFICATE", made.der) for made in (second, third))
                (station.store.folder / "roots-mo.pem").write_text(text)
                await done(rig, order(rig, "DRIFT", OperationKind.LIST_ROOTS, uses=["mo"]))

    run_on("asyncio", story())
    found = {each.label[:10]: each.finding for each in statuses(rig, "DRIFT")}
    assert found == {
        "CN=Drift 0": RootFinding.MISSING, "CN=Drift 1": RootFinding.RETURNED, "": RootFinding.UNEXPLAINED
    }  # fmt: skip


def test_a_root_is_rolled_over_a_fleet_of_mixed_versions(rig: Rig) -> None:
    """A new manufacturer root everywhere, then the old one away: two campaigns, and nobody without a root between."""
    old, new = root("Old Maker CA", nth=15), root("New Maker CA", nth=16)
    stations = {f"FLEET-{version}": version for version in VERSIONS}
    for identity in (*stations, "FLEET-away"):
        rig.add_station(identity)
    store = CampaignStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)

    def begin(name: str, kind: str, made: Made) -> None:
        now = datetime.now(UTC)
        given = {"use": "manufacturer", "root": hashlib.sha256(made.der).hexdigest()}
        parameters = KINDS[kind].parse(given)
        end = now + timedelta(minutes=5)
        store.create(name, kind, parameters, [*stations, "FLEET-away"], Pace(waves=(1,)), now=now, ends_at=end)

    def count(name: str) -> int:
        found = rig.inventory.list_campaign_stations(name)
        return sum(item.state is CampaignStationState.DONE for item in found)

    async def story() -> None:
        async with rig.server(2) as server, contextlib.AsyncExitStack() as stack:
            running = [
                await stack.enter_async_context(Running(station_of(rig, rig.url_of(server), identity, version)))
                for identity, version in stations.items()
            ]
            with pytest.raises(NotFound, match="no root"):
                begin("too-soon", "install-root", old)
            for each in running:
                each.store.set_manufacturer_trust(to_pem("CERTIFICATE", old.der).encode())
            # Both are known by having been tried on one station.
            for made in (old, new):
                await done(rig, order(rig, "FLEET-ocpp2.1", OperationKind.INSTALL_ROOT, made, use="manufacturer"))
            begin("new-root", "install-root", new)
            await wait_for(lambda: count("new-root") >= 2, seconds=60)
            begin("old-root", "delete-root", old)
            await wait_for(lambda: count("old-root") == 3, seconds=60)
            for each in running:
                makers = [item.der for item in each.roots.installed() if item.use is RootUse.MANUFACTURER]
                assert makers == [new.der]
        away = [item.state for item in rig.inventory.list_campaign_stations("old-root") if item.station == "FLEET-away"]
        assert away == [CampaignStationState.WAITING]

    run_on("asyncio", story())
