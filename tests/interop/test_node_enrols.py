"""npm's ocpp-rpc, in strict mode, enrols with our CSMS, renews, and is cut off by revocation; all three versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.inventory.records import CertificateState
from testkit.csms_rig import Rig, run_on
from testkit.node_station import need_node, node_station
from testkit.station_files import StationFiles, queue_operation, serial_of

pytestmark = pytest.mark.foreign

RENEWAL = {"use": CertificateUse.CHARGING_STATION.value}
VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")


async def enrol_renew_and_cut_off(rig: Rig, protocol: str, folder: Path) -> None:
    files = StationFiles(rig, folder, "S1")
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

        queue_operation(rig, OperationKind.TRIGGER_RENEWAL, "S1", RENEWAL)
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
            closed = await station.expect("closed")
            assert closed["code"] == 1008
            assert await station.exit_code() == 0
        async with node_station(url, "S1", protocol, until="booted", options=identity) as station:
            assert await station.exit_code() == 1
            assert not station.told("booted")
            assert not station.told("connected")
    assert rig.inventory.get_certificate(record.id).state is CertificateState.REVOKED


@pytest.mark.parametrize("protocol", VERSIONS)
def test_foreign_station_enrols_renews_and_is_cut_off_by_revocation(protocol: str, tmp_path: Path) -> None:
    need_node()
    with Rig(tmp_path) as rig:
        run_on("uvloop", enrol_renew_and_cut_off(rig, protocol, tmp_path))
