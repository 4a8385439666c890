"""npm's ocpp-rpc, in strict mode, enrols with our CSMS, renews, and is cut off by revocation; all three versions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import CertificateState, OperationRecord, OperationState
from testkit.csms_rig import ACTOR, ORGANIZATION, PASSWORD, Rig, run_on
from testkit.node_station import need_node, node_station
from testkit.ocpp_peers import Credential, build_station_csr

pytestmark = pytest.mark.foreign

VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")


class Files:
    """What a station has on disk: trust, password, and a new key with its request and its chain."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.folder = folder
        self.trust = self._write("root.pem", rig.root_pem)
        self.password = self._write("password", PASSWORD.decode())

    def _write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    def new_key(self, name: str) -> dict[str, str | Path]:
        """Make a key and a request; return them as options of the station."""
        credential = Credential()
        return {
            "csr": self._write(f"{name}.csr", build_station_csr(credential.key, "S1", ORGANIZATION)),
            "csr_key": self._write(f"{name}.key", credential.key_pem().decode()),
            "out": self.folder / f"{name}.pem",
        }


def queue_renewal(rig: Rig) -> None:
    now = datetime.now(UTC)
    record = OperationRecord(
        id="renew-1", kind=OperationKind.TRIGGER_RENEWAL.value, station="S1", requester=ACTOR.name,
        parameters={"use": CertificateUse.CHARGING_STATION.value}, state=OperationState.QUEUED,
        created_at=now, deadline=now + timedelta(minutes=1),
    )  # fmt: skip

    def work(tx: Transaction) -> None:
        tx.create_operation(record)
        tx.audit(ACTOR, "operation.create", record.id, now=now)

    rig.inventory.write(work)


def serial_of(chain: str | Path) -> str:
    leaf = x509.load_pem_x509_certificates(Path(chain).read_bytes())[0]
    return f"{leaf.serial_number:x}"


async def enrol_renew_and_cut_off(rig: Rig, protocol: str, folder: Path) -> None:
    files = Files(rig, folder)
    rig.add_station("S1")
    async with rig.server(2, 3) as server:
        url = f"{rig.url_of(server)}/ocpp"
        first = files.new_key("first")
        by_password: dict[str, str | Path] = {"trust": files.trust, "password_file": files.password}
        async with node_station(
            url, "S1", protocol, until="certificate", options={**by_password, **first}, ask=True
        ) as station:
            assert await station.exit_code() == 0, station.events
            assert not station.told("invalid")
        identity = {"trust": files.trust, "cert": first["out"], "key": first["csr_key"]}

        queue_renewal(rig)
        second = files.new_key("second")
        async with node_station(url, "S1", protocol, until="certificate", options={**identity, **second}) as station:
            assert await station.exit_code() == 0, station.events
            assert not station.told("invalid")
            assert station.told("triggered")
        assert serial_of(first["out"]) != serial_of(second["out"])

        identity = {"trust": files.trust, "cert": second["out"], "key": second["csr_key"]}
        (record,) = rig.inventory.find_certificates_by_serial(serial_of(second["out"]))
        async with node_station(url, "S1", protocol, until="closed", options=identity) as station:
            await station.expect("booted")
            rig.authority.revoke(record.id, "keyCompromise")
            revoked = asyncio.get_running_loop().time()
            closed = await station.expect("closed", timeout=5)
            assert asyncio.get_running_loop().time() - revoked < 2
            assert closed["code"] == 1008
            assert await station.exit_code() == 0
        async with node_station(url, "S1", protocol, until="booted", options=identity) as station:
            assert await station.exit_code() == 1
            assert not station.told("booted")
            assert not station.told("connected")
    assert rig.inventory.find_certificate(record.id).state is CertificateState.REVOKED  # type: ignore[union-attr]


@pytest.mark.parametrize("protocol", VERSIONS)
def test_foreign_station_enrols_renews_and_is_cut_off_by_revocation(protocol: str, tmp_path: Path) -> None:
    need_node()
    with Rig(tmp_path) as rig:
        run_on("uvloop", enrol_renew_and_cut_off(rig, protocol, tmp_path))
