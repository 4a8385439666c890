"""The station's part of Plug & Charge against our CSMS: V2G certificates, their status, drivers, a vehicle's chain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.ocpp_security.certificate_checks import CertificateRules
from chargepki.ocpp_security.contract_check import ContractTrust
from chargepki.ocpp_security.deliveries import list_pending
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.pnc_transfer import Dialect, read_transfer
from chargepki.ocpp_security.sign_certificate import InstalledCertificate, IssuePlan
from chargepki.ocpp_security.sign_certificate_station import StationCertificateConfig, StationCertificateFlow
from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.station.driver import Authorizer, Contract, DriverFacts, Token
from chargepki.ocpp_security.station.misbehaviour import HONEST, parse_conduct
from chargepki.ocpp_security.station.status_asking import Staples, StatusOutcome
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.authority import IssueOrder
from chargepki.pki.authority.creation import CaOrder
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import Delivery, OperationState
from chargepki.pki.pem import to_pem
from chargepki.pki.provisioning import create_contract
from testkit.authorities import ACTOR
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.station_files import queue_operation

V16, V201, V21 = OcppVersion
VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
FAST = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.2))
EMAID = "DEABC123456789"
LINK = CertificateUse.CHARGING_STATION
V2G = CertificateUse.V2G
SECC = {"ISO15118Ctrlr.SeccId": "DEABCEA00001", "ISO15118Ctrlr.CountryName": "DE"}


@dataclass(frozen=True)
class World:
    """Hierarchies for SECCs and contracts beside the rig's own."""

    rig: Rig
    v2g_root: bytes
    mo_root: bytes
    contract: tuple[bytes, ...]
    contract_id: str

    @property
    def plans(self) -> dict[CertificateUse, IssuePlan]:
        return {
            LINK: IssuePlan("t-cso-sub", "ocpp/charging-station"),
            V2G: IssuePlan("cpo-sub2", "iso15118-2/secc"),
            CertificateUse.COMBINED: IssuePlan("cpo-sub2", "iso15118-2/secc"),
        }

    def station(self, url: str, identity: str, version: str, **options: Any) -> StationSimulator:
        store = StationStore(self.rig.folder / "pnc" / identity)
        store.set_trust(self.rig.root_pem.encode())
        store.set_password(PASSWORD)
        for use, der in {"v2g": self.v2g_root, "mo": options.pop("mo", self.mo_root)}.items():
            if der is not None:
                store.set_roots(use, to_pem("CERTIFICATE", der).encode())
        settings: dict[str, Any] = {"enrol": False, "variables": SECC, "organization": "Example CSO", **options}
        return StationSimulator(url, identity, store, version, retry=FAST, **settings)


@pytest.fixture(scope="module")
def world(rig: Rig) -> World:
    for prefix, organization in (("v2g", "cpo"), ("mo", "mo")):
        issuer = None
        for name in (f"{prefix}-root", f"{organization}-sub1", f"{organization}-sub2"):
            subject = (("CN", name), ("O", "Example CSO"), ("C", "DE"))
            rig.authority.create_ca(CaOrder(name, f"iso15118-2/{name}", issuer=issuer, subject=subject))
            issuer = name
    spki = ec.generate_private_key(ec.SECP256R1()).public_key()
    order = IssueOrder(
        ca="mo-sub2",
        profile="iso15118-2/contract",
        spki=spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        subject=(("CN", EMAID), ("O", "MO")),
    )
    issued = rig.authority.issue(order)
    roots = [rig.inventory.get_ca(name).certificate_der for name in ("v2g-root", "mo-root")]
    assert roots[0] is not None and roots[1] is not None
    chain = tuple(der for der in issued.chain if der not in roots)
    return World(rig, roots[0], roots[1], chain, issued.record.id)


def reaches(milestone: Milestone, text: str = "") -> Callable[[Progress], bool]:
    return lambda event: event.milestone is milestone and text in event.text


# --- V2G certificates and their status -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "dialect"),
    [("ocpp1.6", Dialect.OCA), ("ocpp1.6", Dialect.OLDER), ("ocpp2.0.1", Dialect.OCA), ("ocpp2.1", Dialect.OCA)],
)
def test_tc_a_12_and_tc_m_24_cs_a_v2g_certificate_comes_and_its_whole_chain_is_stapled(
    world: World, version: str, dialect: Dialect
) -> None:
    """A02.FR.13, A02.FR.27; M06.FR.06, FR.07; M03.FR.05; in 1.6 inside a DataTransfer, each way."""
    identity = f"SECC-{version}-{dialect.name}"
    world.rig.add_station(identity)
    is_triggered = (version, dialect) == ("ocpp1.6", Dialect.OCA)
    if is_triggered:
        queue_operation(world.rig, OperationKind.TRIGGER_RENEWAL, identity, {"use": V2G.value})
    sent: list[dict[str, Any]] = []

    async def story() -> None:
        signers = OcspAuthority(world.rig.authority)
        async with world.rig.server(2, plans=world.plans, ocsp_signers=signers) as server:
            told: list[Progress] = []
            station = world.station(
                world.rig.url_of(server), identity, version, enrol=not is_triggered, uses=frozenset({V2G}),
                progress=told.append, dialect=dialect,
            )  # fmt: skip
            send = station.flow._send
            station.flow._send = lambda request: _kept(sent, send(request))  # type: ignore[method-assign]  # looked at
            running = asyncio.create_task(station.run())
            await wait_for(lambda: [one for one in told if reaches(Milestone.STATUS, "good")(one)][2:])
            running.cancel()
            (held,) = station.flow.installed
            assert station.secc_certificate() == held
            stapled = station.staples.staples(held.chain_der, datetime.now(UTC))
            assert len(stapled) == 3 and all(stapled)
            # Kept over a restart, for a week at most.
            again = Staples(station.store.folder)
            assert again.staples(held.chain_der, datetime.now(UTC)) == stapled
            assert again.staples(held.chain_der, datetime.now(UTC) + timedelta(days=7, minutes=1)) == (None,) * 3

    run_on("asyncio", story())
    (payload,) = sent
    operations = world.rig.inventory.list_operations(station=identity)
    assert [each.state for each in operations] == [OperationState.DONE] * is_triggered
    (record,) = world.rig.inventory.list_certificates(station=identity)
    assert record.delivery is Delivery.DELIVERED

    # Another process that had to deliver it again would do so in the same dialect.
    def forget(tx: Transaction) -> None:
        tx.set_delivery(record.id, Delivery.PENDING)
        tx.audit(ACTOR, "certificate.send", record.id, now=now_utc())

    world.rig.inventory.write(forget)
    (pending,) = list_pending(world.rig.inventory, identity, world.plans, now_utc())
    assert pending.dialect == (dialect if version == "ocpp1.6" else None)
    if version == "ocpp1.6":
        assert payload["vendorId"] == dialect.value
        transfer = read_transfer(payload)
        assert transfer is not None
        payload = transfer.payload
    csr = x509.load_pem_x509_csr(str(payload["csr"]).encode())
    assert "CN=DEABCEA00001" in csr.subject.rfc4514_string() and "DC=CPO" in csr.subject.rfc4514_string()
    assert payload["certificateType"] == "V2GCertificate"
    named = CertificateHashData.of(world.v2g_root, world.v2g_root).to_wire()
    assert payload.get("hashRootCertificate") == (named if version == "ocpp2.1" else None)


def _kept(sent: list[dict[str, Any]], request: Any) -> Any:
    sent.append(request.payload)
    return request


def test_tc_a_13_cs_one_combined_certificate_serves_both(world: World) -> None:
    """A02, type omitted: it comes from the V2G hierarchy, and the station shows it to vehicles."""
    world.rig.add_station("COMBINED", serial_number="DEABCEA00002")
    wanted = frozenset({CertificateUse.COMBINED})

    async def story() -> None:
        async with world.rig.server(2, plans=world.plans) as server:
            station = world.station(
                world.rig.url_of(server), "COMBINED", "ocpp2.0.1", enrol=True, uses=wanted,
                serial_number="DEABCEA00002",
            )  # fmt: skip
            await station.run(reaches(Milestone.CERTIFICATE_INSTALLED))
            (held,) = station.flow.installed
            assert held.use is CertificateUse.COMBINED
            assert station.secc_certificate(CertificateUse.COMBINED) == held
            assert station.flow.client_certificate(datetime.now(UTC)) == held

    run_on("asyncio", story())


def test_without_a_secc_id_the_trigger_is_rejected(world: World) -> None:
    station = world.station("ws://localhost:1", "NO-SECC", "ocpp2.1", uses=frozenset({LINK, V2G}), variables={})
    answer, effects = station.flow.triggered(
        "TriggerMessage", {"requestedMessage": "SignV2GCertificate"}, datetime.now(UTC)
    )
    assert (answer["status"], effects) == ("Rejected", [])
    assert answer["statusInfo"]["reasonCode"] == "MissingDevModelInfo"  # type: ignore[index]  # an object
    with pytest.raises(InputError, match="has no V2G20Certificate"):
        world.station("ws://localhost:1", "NO-V2G20", "ocpp1.6", uses=frozenset({CertificateUse.V2G20}))


def test_a02_fr_21_a_rejected_v2g_request_switches_plug_and_charge_off(world: World) -> None:
    world.rig.add_station("NO-PLAN")

    async def story() -> None:
        async with world.rig.server(2, plans={LINK: world.plans[LINK]}) as server:
            station = world.station(world.rig.url_of(server), "NO-PLAN", "ocpp2.0.1", enrol=True, uses=frozenset({V2G}))
            await station.run(reaches(Milestone.CSR_REFUSED))
            assert not station.device.is_on("ISO15118Ctrlr.PnCEnabled")

    run_on("asyncio", story())


def test_tc_m_25_cs_what_does_not_verify_never_replaces_an_answer(world: World, tmp_path: Path) -> None:
    """M06.FR.04; ocpp-security 5.3, rules 3 and 5."""
    pair, now = (world.rig.sub_der, world.rig.root_der), datetime.now(UTC)
    staples = Staples(tmp_path)
    failed = {"status": "Failed"}
    assert staples.wanted([pair], now) == [pair]
    assert staples.take(pair, failed, now) is StatusOutcome.FAILED
    # Not asked for again at once, but it is again.
    assert staples.wanted([pair], now) == [] and staples.wanted([pair], now + timedelta(hours=2)) == [pair]
    for garbage in ("", "AAAA", "not base64!", 7):
        assert staples.take(pair, {"status": "Accepted", "ocspResult": garbage}, now) is StatusOutcome.FAILED
    assert staples.staples([pair[0]], now) == (None,)
    (tmp_path / "staples.json").write_text("[]")
    with pytest.raises(InputError, match="cannot be read"):
        Staples(tmp_path)


# --- drivers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_tc_c_50_to_tc_c_53_cs_a_contract_is_judged_here_or_by_the_csms(world: World, version: str) -> None:
    """C07.FR.01, FR.02, FR.06; C08.FR.01."""
    name = f"DRIVER-{version}"
    for each in ("", "-C", "-N", "-O", "-OC", "-T", "-S"):
        world.rig.add_station(name + each)
    driver, trust = Contract(EMAID, world.contract), ContractTrust()
    if world.rig.inventory.find_contract(EMAID) is None:
        create_contract(world.rig.inventory, EMAID, actor=ACTOR, now=now_utc())

    async def story() -> None:
        signers = OcspAuthority(world.rig.authority)
        async with world.rig.server(2, contract=trust, ocsp_signers=signers) as server:

            async def decided(identity: str, **options: Any) -> Progress:
                station = world.station(world.rig.url_of(server), identity, version, **options)
                ends = {Milestone.AUTHORIZED, Milestone.NOT_AUTHORIZED}
                found = await station.run(lambda event: event.milestone in ends)
                assert found is not None
                return found

            # Root, sub-CAs and contract are on record here; nothing else was configured.
            # With the root, by hash data; without it, by the chain, unless that is forbidden.
            here = await decided(name, driver=driver)
            assert here.milestone is Milestone.AUTHORIZED, here
            if version == "ocpp1.6":
                older = await decided(f"{name}-O", driver=driver, dialect=Dialect.OLDER)
                assert older.milestone is Milestone.AUTHORIZED, older
                central = await decided(f"{name}-OC", driver=driver, mo=None, dialect=Dialect.OLDER)
                assert "hash data alone" in central.text
            central = await decided(f"{name}-C", driver=driver, mo=None)
            assert central.milestone is Milestone.AUTHORIZED, central
            no = {"ISO15118Ctrlr.CentralContractValidationAllowed": "false"}
            forbidden = await decided(f"{name}-N", driver=driver, mo=None, variables=no)
            assert "CentralContractValidationAllowed" in forbidden.text
            stranger = await decided(f"{name}-S", driver=Contract(EMAID, (world.rig.sub_der,)), mo=None)
            assert stranger.milestone is Milestone.NOT_AUTHORIZED and "CertChainError" in stranger.text
            token = await decided(f"{name}-T", driver=Token("DEADBEEF"))
            assert token.milestone is Milestone.NOT_AUTHORIZED
            assert ("Invalid" if version == "ocpp1.6" else "Unknown") in token.text

    run_on("asyncio", story())


def now_utc() -> datetime:
    return datetime.now(UTC)


class Facts:
    """What an authorizer depends on."""

    def __init__(self, world: World, *on: str, roots: bool = True) -> None:
        self.on, self.roots = on, (world.mo_root,) if roots else ()

    def read(self) -> DriverFacts:
        return DriverFacts(
            lambda name: name.partition(".")[2] in self.on, lambda: self.roots, lambda: datetime.now(UTC)
        )


VALID = ("ContractValidationOffline", "LocalAuthorizeOffline")
OFFLINE = [
    pytest.param((), True, {}, False, id="C07.FR.07"),
    pytest.param(VALID, False, {}, False, id="C07.FR.08-no-root"),
    pytest.param(("ContractValidationOffline",), True, {EMAID: "Accepted"}, False, id="C07.FR.09-not-locally"),
    pytest.param(VALID, True, {EMAID: "Accepted"}, True, id="C07.FR.10-FR.11-known"),
    pytest.param(VALID, True, {EMAID: "Blocked"}, False, id="C07.FR.10-FR.11-blocked"),
    pytest.param(VALID, True, {}, False, id="C07.FR.12-unknown"),
    pytest.param((*VALID, "OfflineTxForUnknownIdEnabled"), True, {}, True, id="C07.FR.12-unknown-allowed"),
]


@pytest.mark.parametrize(("on", "roots", "known", "charges"), OFFLINE)
def test_tc_c_54_and_tc_c_55_cs_offline_the_station_decides_by_its_variables(
    world: World, tmp_path: Path, on: tuple[str, ...], roots: bool, known: dict[str, str], charges: bool
) -> None:
    """C07.FR.07 to FR.12."""
    for place in ("listed", "cached"):
        folder = tmp_path / place
        folder.mkdir()
        facts = Facts(world, *on, roots=roots).read()
        authorizer = Authorizer(folder, V201, HONEST, facts)
        setattr(authorizer, place, known)
        authorizer._save()
        again = Authorizer(folder, V201, HONEST, facts)
        decision = asyncio.run(again.decide(Contract(EMAID, world.contract), None))
        assert decision.may_charge is charges, decision


def test_a_local_list_comes_as_a_whole_and_in_changes(world: World, tmp_path: Path) -> None:
    authorizer = Authorizer(tmp_path, V21, HONEST, Facts(world).read())

    def item(token: str, status: str | None) -> dict[str, Any]:
        return {
            "idToken": {"idToken": token, "type": "eMAID"},
            **({"idTokenInfo": {"status": status}} if status else {}),
        }

    def sent(kind: str, number: int, *items: dict[str, Any]) -> str:
        payload = {"updateType": kind, "versionNumber": number, "localAuthorizationList": list(items)}
        return str(authorizer.take_list(payload)["status"])

    assert sent("Full", 3, item("A", "Accepted"), item("B", "Blocked")) == "Accepted"
    assert sent("Differential", 3, item("C", "Accepted")) == "VersionMismatch"
    assert sent("Differential", 4, item("C", "Accepted"), item("A", None)) == "Accepted"
    kept = Authorizer(tmp_path, V21, HONEST, Facts(world).read())
    assert (kept.listed, kept.list_version) == ({"B": "Blocked", "C": "Accepted"}, 4)


def test_a_driver_who_comes_before_the_connection_is_decided_about_offline(world: World) -> None:
    async def story() -> None:
        station = world.station(
            "wss://localhost:1", "EARLY", "ocpp2.1", driver=Contract(EMAID, world.contract), drives_in_offline=True
        )
        found = await station.run(reaches(Milestone.NOT_AUTHORIZED))
        assert found is not None and "ContractValidationOffline is false" in found.text

    run_on("asyncio", story())


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("authorize-both", lambda sent: {"certificate", "iso15118CertificateHashData"} <= set(sent)),
        ("authorize-with-root", lambda sent: sent["certificate"].count("BEGIN") == 4),
        (
            "authorize-unordered",
            lambda sent: sent["certificate"].count("BEGIN") == 3,
        ),
        ("status-joined-urls", lambda sent: sent["iso15118CertificateHashData"][0]["responderURL"].count("http") > 1),
        ("status-private-url", lambda sent: "169.254" in sent["iso15118CertificateHashData"][0]["responderURL"]),
        ("serial-padded", lambda sent: sent["iso15118CertificateHashData"][0]["serialNumber"].startswith("0")),
    ],
)
def test_mistakes_in_authorize_are_made_by_name(
    world: World, tmp_path: Path, name: str, check: Callable[[dict[str, Any]], bool]
) -> None:
    needs_root = not name.startswith("authorize") or name == "authorize-both"
    facts = Facts(world, "CentralContractValidationAllowed", roots=needs_root)
    if name == "authorize-with-root":
        facts.roots = (world.v2g_root,)
    sent: list[dict[str, Any]] = []

    async def call(action: str, payload: dict[str, Any]) -> dict[str, Any]:
        sent.append(payload)
        return {"idTokenInfo": {"status": "Accepted"}, "certificateStatus": "CertificateRevoked"}

    authorizer = Authorizer(tmp_path, V201, parse_conduct([name]), facts.read())
    decision = asyncio.run(authorizer.decide(Contract(EMAID, world.contract), call))
    assert not decision.may_charge
    assert check(sent[0]), sent[0]
    if name == "authorize-unordered":
        first = x509.load_pem_x509_certificates(sent[0]["certificate"].encode())[0]
        assert first.public_bytes(Encoding.DER) == world.contract[-1]


# --- a vehicle's chain (2.1) -----------------------------------------------------------------------------------------


def test_m07_the_chain_of_a_vehicle_is_asked_for_once_and_again_when_it_is_due(world: World) -> None:
    """M07.FR.09 to FR.11, by the station."""
    world.rig.add_station("M07")

    async def story() -> None:
        signers = OcspAuthority(world.rig.authority)
        async with world.rig.server(2, ocsp_signers=signers) as server:
            # Any chain under a root that the station has will do: the messages are the same.
            station = world.station(
                world.rig.url_of(server), "M07", "ocpp2.1", vehicle_chain=(world.rig.sub_der,), mo=None
            )
            station.store.set_roots("oem", world.rig.root_pem.encode())
            station = world.station(
                world.rig.url_of(server), "M07", "ocpp2.1", vehicle_chain=(world.rig.sub_der,), mo=None
            )
            found = await station.run(reaches(Milestone.STATUS))
            assert found is not None and found.text.endswith("chain: Good")

            async def nobody(action: str, payload: dict[str, Any]) -> dict[str, Any]:
                raise AssertionError("asked again")

            assert await station.vehicle.status(nobody, datetime.now(UTC)) == "Good"
            with pytest.raises(AssertionError, match="asked again"):
                await station.vehicle.status(nobody, datetime.now(UTC) + timedelta(days=8))

    run_on("asyncio", story())


@pytest.mark.parametrize("use", [CertificateUse.V2G, CertificateUse.V2G20])
def test_a02_fr_15_of_several_v2g_certificates_vehicles_see_the_newest_that_is_valid(
    tmp_path: Path, use: CertificateUse
) -> None:
    """By notBefore, whatever came last; one of the other edition of ISO 15118 is another certificate."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    station = StationSimulator("ws://localhost:1", "CS1", StationStore(tmp_path), OcppVersion.V21, clock=lambda: now)
    other = CertificateUse.V2G20 if use is CertificateUse.V2G else CertificateUse.V2G

    def held(name: str, begins: int, of: CertificateUse = use, *, ends: int = 60) -> InstalledCertificate:
        first, last = now + timedelta(days=begins), now + timedelta(days=ends)
        return InstalledCertificate(of, (b"",), name, name, first, last, now + timedelta(days=-begins))

    newest = held("newest", -1)
    held_now = [held("old", -30), newest, held("older", -60), held("ended", 0, ends=-1), held("other", 0, other)]
    station.flow = StationCertificateFlow(
        OcppVersion.V21, StationCertificateConfig(CertificateRules("CS1")), installed=held_now
    )
    assert station.secc_certificate(use) == newest
    assert station.secc_certificate(other) == held_now[-1]
