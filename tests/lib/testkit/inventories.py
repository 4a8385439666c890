"""Sample records and a filled inventory for tests of the inventory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

from chargepki.pki import names
from chargepki.pki.der import to_pem
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.campaign_records import (
    CampaignRecord,
    CampaignState,
    CampaignStationRecord,
    CampaignStationState,
)
from chargepki.pki.inventory.contract_records import (
    ContractOfferRecord,
    ContractRecord,
    ContractState,
    OfferState,
    ProvisioningCertificateRecord,
    ProvisioningRecord,
    ProvisioningState,
    RoleRootRecord,
    RoleRootState,
    VehicleCertificateRecord,
    VehicleState,
)
from chargepki.pki.inventory.event_records import AlertRecord, AlertState, LogRequestState, RequestedLogRecord
from chargepki.pki.inventory.firmware_records import (
    FirmwareApprovalRecord,
    FirmwareApproverRecord,
    FirmwareReleaseRecord,
    FirmwareReleaseState,
    StationFirmwareRecord,
)
from chargepki.pki.inventory.import_records import FoundCertificate, ImportRunRecord
from chargepki.pki.inventory.query_records import SavedQueryRecord
from chargepki.pki.inventory.records import (
    Actor,
    ActorKind,
    CaRecord,
    CaState,
    CertificateRecord,
    CertificateState,
    CrlDeltaRecord,
    CrlRecord,
    CrlShardRecord,
    Delivery,
    EstAccountRecord,
    EstAccountState,
    EstRequestRecord,
    EstRequestState,
    IssuanceRecord,
    IssuanceState,
    OperationRecord,
    OperationState,
    StationRecord,
    StationState,
)
from chargepki.pki.inventory.restoration_records import RestorationRecord
from chargepki.pki.inventory.trust_records import (
    StationRootRecord,
    StationRootReportRecord,
    StationRootState,
    TrustRootRecord,
)
from chargepki.pki.inventory.verdict_forms import VerdictForm
from chargepki.pki.keys import spki_der
from testkit.chains import make

__all__ = [
    "ACTOR",
    "NOW",
    "add_ca",
    "add_station",
    "alert_record",
    "ca_record",
    "certificate_record",
    "crl_record",
    "do",
    "est_account_record",
    "est_request_record",
    "fill",
    "found_certificate",
    "import_run",
    "issuance_record",
    "issue",
    "operation_record",
    "requested_log_record",
    "station_record",
]

_T = TypeVar("_T")

NOW = datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=UTC)
ACTOR = Actor("alice", ActorKind.OS_USER, authenticated=False)


def ca_record(name: str = "t", generation: int = 1, issuer: str | None = None) -> CaRecord:
    """Make a reserved CA."""
    return CaRecord(
        id=f"{name}@{generation}",
        name=name,
        generation=generation,
        profile="ocpp/cso-root",
        issuer=issuer,
        subject=f"CN={name}",
        subject_der=b"\x30\x00",
        key_uri=f"file:{name}.key",
        state=CaState.PENDING,
        public_url=None,
        created_at=NOW,
    )


def certificate_record(serial: str = "5f", *, ca: str = "t@1", request_key: str = "request") -> CertificateRecord:
    """Make a reservation."""
    return CertificateRecord(
        id=f"{ca}:{serial}",
        ca=ca,
        serial=serial,
        profile="ocpp/charging-station",
        state=CertificateState.RESERVED,
        subject="CN=CS-1",
        subject_der=b"\x30\x01",
        spki_sha256="ab" * 32,
        not_before=NOW,
        not_after=NOW + timedelta(days=60),
        request_key=request_key,
        requester="alice",
        reserved_at=NOW,
        tbs=b"to be signed",
        csr=b"request",
        verdict={"accepted": True},
    )


def crl_record(number: int = 1, *, ca: str = "t@1") -> CrlRecord:
    """Make a CRL."""
    return CrlRecord(f"{ca}/{number}", ca, number, NOW, NOW + timedelta(days=7), 0, "cd" * 32, b"crl")


def station_record(station: str = "CS-1") -> StationRecord:
    """Make an active station."""
    return StationRecord(station, station, "Org", 2, StationState.ACTIVE, NOW, "hash")


def issuance_record(issuance_id: str = "i1") -> IssuanceRecord:
    """Make a queued issuance request."""
    return IssuanceRecord(
        issuance_id, "t@1", "ocpp/charging-station", b"csr", {}, "request", "csms", "CS-1", IssuanceState.QUEUED, NOW
    )


def operation_record(operation_id: str = "o1", *, station: str = "CS-1") -> OperationRecord:
    """Make a queued operation with a sealed secret."""
    return OperationRecord(
        id=operation_id,
        kind="set-password",
        station=station,
        parameters={"use": "charging-station"},
        state=OperationState.QUEUED,
        requester="alice",
        created_at=NOW,
        deadline=NOW + timedelta(hours=1),
        sealed=b"sealed",
    )


def do(inventory: Inventory, work: Callable[[Transaction], _T], action: str = "test.act", subject: str = "x") -> _T:
    """Run *work* and account for it."""

    def audited(tx: Transaction) -> _T:
        result = work(tx)
        tx.audit(ACTOR, action, subject, now=NOW)
        return result

    return inventory.write(audited)


def add_ca(inventory: Inventory, name: str = "t") -> None:
    """Store a CA."""
    do(inventory, lambda tx: tx.reserve_ca(ca_record(name)), "ca.create", f"{name}@1")


def add_station(inventory: Inventory, station: str = "CS-1") -> None:
    """Store a station."""
    do(inventory, lambda tx: tx.add_station(station_record(station)), "station.add", station)


def issue(inventory: Inventory, serial: str, *, station: str | None = None) -> CertificateRecord:
    """Reserve and record a certificate, with one entry each."""
    record = dataclasses.replace(certificate_record(serial, request_key=f"request-{serial}"), station=station)
    do(inventory, lambda tx: tx.reserve_certificate(record), "certificate.reserve", record.id)
    return do(inventory, lambda tx: tx.record_certificate(record.id, b"der" + serial.encode(), f"{serial:0>64}", NOW))


def est_account_record(name: str = "acme") -> EstAccountRecord:
    return EstAccountRecord(
        name, {"names": ["cso"]}, {"patterns": ["*"]}, EstAccountState.ACTIVE, NOW, password_hash="$argon2id$x"
    )


def est_request_record(request_id: str = "r1") -> EstRequestRecord:
    return EstRequestRecord(request_id, "cso", "acme", "CN=CS-1", b"\x30\x00", EstRequestState.WAITING, NOW)


def fill(inventory: Inventory) -> None:
    """Put at least one row into every audited table; at least a dozen entries."""
    add_ca(inventory)
    add_station(inventory)
    do(
        inventory,
        lambda tx: tx.change_station_terms(
            "CS-1",
            onboarding_ca="maker",
            onboarding_anchors=b"pem",
            accept_expired=True,
            password_grace_seconds=60,
            previous_password_hash="hash",
            previous_password_until=NOW,
        ),
    )
    issue(inventory, "5f", station="CS-1")
    issue(inventory, "60")
    do(inventory, lambda tx: tx.revoke_certificate("t@1:60", NOW, "keyCompromise"))
    do(inventory, lambda tx: tx.set_delivery("t@1:5f", Delivery.DELIVERED))
    do(inventory, lambda tx: tx.add_crl(crl_record()))
    shard = CrlShardRecord("t@1/1", "t@1", 1, "http://x", "http://x/crl/t@1/1.crl", NOW)
    do(inventory, lambda tx: tx.open_crl_shard(shard))
    delta = CrlDeltaRecord("t@1/2", "t@1", 2, 1, NOW, NOW + timedelta(days=1), 0, "cd" * 32, b"delta", 1)
    do(inventory, lambda tx: tx.add_delta_crl(delta))
    do(inventory, lambda tx: tx.queue_issuance(issuance_record()))
    do(inventory, lambda tx: tx.create_operation(operation_record()))
    leased = inventory.write(
        lambda tx: tx.lease_operation(owner="p", until=NOW + timedelta(minutes=1), now=NOW, station="CS-1")
    )
    assert leased is not None
    do(inventory, lambda tx: tx.record_attempt("o1", fence=leased.fence, action="ChangeConfiguration", now=NOW))
    do(inventory, lambda tx: tx.record_answer("o1", 1, fence=leased.fence, now=NOW, answer={"status": "Accepted"}))
    do(
        inventory,
        lambda tx: tx.add_security_event(
            station="CS-1",
            source="station",
            type="TamperDetection",
            critical=True,
            tech_info="",
            at=NOW,
            received_at=NOW,
        ),
    )
    do(inventory, lambda tx: tx.add_alert(alert_record()))
    do(inventory, lambda tx: tx.add_requested_log(requested_log_record()))
    do(inventory, lambda tx: tx.add_est_account(est_account_record()))
    do(inventory, lambda tx: tx.add_est_request(est_request_record()))
    _fill_firmware(inventory)
    _fill_trust(inventory)
    do(inventory, lambda tx: tx.add_campaign(campaign_record()))
    do(inventory, lambda tx: tx.add_campaign_station(campaign_station_record()))
    _fill_contracts(inventory)
    do(inventory, lambda tx: tx.save_query(SavedQueryRecord("soon", "not_after < now + 30d", "alice", NOW)))
    do(inventory, lambda tx: tx.import_certificates([found_certificate()], import_run(), now=NOW))
    form = VerdictForm.of(('{"content":"', '"}'))
    do(inventory, lambda tx: tx.keep_verdict_forms([form], ACTOR, now=NOW))
    restoration = RestorationRecord("rs1", NOW, "alice", "bk1", NOW, 1, 7)
    do(inventory, lambda tx: tx.add_restoration(restoration))


def import_run(name: str = "run-1") -> ImportRunRecord:
    """Return an import."""
    return ImportRunRecord(name, "/estate", "inventory import", "alice", NOW)


def found_certificate(serial: str = "1", *, issuer: str = "CN=Foreign", **changes: Any) -> FoundCertificate:
    """Return a certificate that an import found."""
    subject = names.name_der(names.parse_rdns("CN=foreign leaf"))
    der = f"{issuer} {serial}".encode()
    found = FoundCertificate(
        *(der, sha256(der).hexdigest(), serial, names.name_der(names.parse_rdns(issuer)), b"", subject, "ef" * 32),
        *(NOW, NOW + timedelta(days=60), f"/estate/{serial}.pem", "cd" * 32),
    )
    return dataclasses.replace(found, **changes)


def campaign_record(name: str = "spring") -> CampaignRecord:
    """Return a campaign that runs."""
    return CampaignRecord(
        *(name, "trigger-renewal", {"use": "V2GCertificate"}, {"waves": []}, CampaignState.RUNNING, "alice"),
        *(NOW, NOW + timedelta(days=7), NOW, 1, NOW),
    )


def campaign_station_record(campaign: str = "spring", station: str = "CS-1") -> CampaignStationRecord:
    """Return a station that waits for its turn."""
    return CampaignStationRecord(campaign, station, 1, 1, 0, CampaignStationState.WAITING, 1)


def _fill_firmware(inventory: Inventory) -> None:
    maker = make("Firmware")
    pem, spki = to_pem("CERTIFICATE", maker.der), spki_der(maker.key)
    release = FirmwareReleaseRecord(
        *("r1", "V", "M", "", "1.0", 3, "00", "c2ln", pem, maker.der, "", None, "", FirmwareReleaseState.PROPOSED),
        *("alice", NOW),
    )
    approver = FirmwareApproverRecord("bob", spki, "01", True, "alice", NOW)
    do(inventory, lambda tx: tx.add_release(release))
    do(inventory, lambda tx: tx.add_approver(approver))
    do(inventory, lambda tx: tx.add_approval(FirmwareApprovalRecord("r1", "bob", "02", b"signature", NOW)))
    do(inventory, lambda tx: tx.add_firmware_status("o1", "Downloading", at=NOW))
    do(inventory, lambda tx: tx.put_station_firmware(StationFirmwareRecord("CS-1", "V", "M", "0.9", NOW)))


def _fill_trust(inventory: Inventory) -> None:
    root = TrustRootRecord("ab" * 32, b"der", None, "CN=Root", "alice", NOW)
    installed = StationRootRecord("CS-1", "csms", root.id, StationRootState.INSTALLED, "o1", NOW)
    do(inventory, lambda tx: tx.put_trust_root(root))
    do(inventory, lambda tx: tx.put_station_root(installed))
    do(inventory, lambda tx: tx.put_root_report(StationRootReportRecord("CS-1", "csms", {"entries": []}, NOW)))


def _fill_contracts(inventory: Inventory) -> None:
    pcid, account = "WAUABC12345678901D", "DE8AA001234567"
    root = RoleRootRecord("cd" * 32, "oem", b"der", "CN=OEM", "letter", "WAU", RoleRootState.TRUSTED, "alice", NOW)
    vehicle = ProvisioningCertificateRecord(
        *("ef" * 32, pcid, "iso15118-2", b"leaf", b"", f"CN={pcid}", NOW + timedelta(days=9), VehicleState.ACTIVE),
        *("alice", NOW),
    )
    client = VehicleCertificateRecord(
        *("ab" * 32, "WMIV1234567890ABCDEX", b"leaf", b"", "CN=WMIV1234567890ABCDEX", NOW + timedelta(days=9)),
        *(VehicleState.ACTIVE, "alice", NOW),
    )
    contract = ContractRecord(account, f"{account}7", ContractState.ACTIVE, None, "alice", NOW)
    offer = ContractOfferRecord(account, pcid, OfferState.OFFERED, 0, "alice", NOW)
    begun = ProvisioningRecord(
        "p1", "01" * 32, "install", "iso15118-2", account, pcid, "CS-1", ProvisioningState.BEGUN, NOW
    )
    do(inventory, lambda tx: tx.put_role_root(root))
    do(inventory, lambda tx: tx.put_provisioning_certificate(vehicle))
    do(inventory, lambda tx: tx.put_vehicle_certificate(client))
    do(inventory, lambda tx: tx.add_contract(contract))
    do(inventory, lambda tx: tx.put_offer(offer))
    do(inventory, lambda tx: tx.begin_provisioning(begun))
    do(inventory, lambda tx: tx.finish_provisioning("p1", certificate="t@1:5f", response=b"exi", round=1, now=NOW))


def alert_record(alert: str = "al-1", **changes: Any) -> AlertRecord:
    """Return an alert as a rule raises it."""
    record = AlertRecord(
        id=alert,
        rule="tampering",
        scope="CS-1",
        cause=1,
        summary="CS-1: TamperDetection",
        details={"station": "CS-1"},
        state=AlertState.OPEN,
        raised_at=NOW,
    )
    return dataclasses.replace(record, **changes)


def requested_log_record(log: str = "o9", **changes: Any) -> RequestedLogRecord:
    """Return a log as it is asked for."""
    record = RequestedLogRecord(
        id=log,
        station="CS-1",
        request_id=1,
        log_type="SecurityLog",
        token_sha256=f"{log}-digest",
        max_bytes=1000,
        state=LogRequestState.REQUESTED,
        created_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
    return dataclasses.replace(record, **changes)
