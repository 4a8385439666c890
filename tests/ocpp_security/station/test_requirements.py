"""What A00 and A01 ask of a station and nothing else of these tests shows, by requirement id."""

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chargepki.ocpp_security.certificate_checks import CertificateRules
from chargepki.ocpp_security.sign_certificate import InstalledCertificate
from chargepki.ocpp_security.sign_certificate_station import StationCertificateConfig, StationCertificateFlow
from chargepki.ocpp_security.tls import client_context
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from testkit.csms_rig import run_on
from testkit.desk import desk_with
from testkit.hierarchy import make_node

NEW = "a-new-password-of-2x"
SET_PASSWORD = {
    "setVariableData": [
        {
            "component": {"name": "SecurityCtrlr"},
            "variable": {"name": "BasicAuthPassword"},
            "attributeValue": NEW,
        }
    ]
}


def test_a00_fr_319_and_fr_422_the_station_offers_both_mandated_pairs_no_old_tls_and_no_compression() -> None:
    context = client_context([make_node("Root", None, ca=True).der])
    offered = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert offered == {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
    }
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION and context.options & ssl.OP_NO_RENEGOTIATION


def test_a00_fr_430_a_station_with_an_expired_certificate_still_tries_to_connect_with_it() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    expired = InstalledCertificate(
        CertificateUse.CHARGING_STATION, (b"leaf",), "00", "11", now - timedelta(days=2), now - timedelta(days=1),
        now - timedelta(days=2), proven=True,
    )  # fmt: skip
    flow = StationCertificateFlow(
        OcppVersion.V201, StationCertificateConfig(CertificateRules("CS-1")), pending=(), installed=(expired,)
    )
    assert flow.client_certificate(now) is expired


def test_a01_fr_10_to_fr_12_the_change_is_in_the_security_log_and_the_password_in_a_private_file_alone(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with desk_with(tmp_path) as (desk, _station, _):
            await desk.expect("StatusNotification")
            answer = await desk.call("SetVariables", SET_PASSWORD)
            assert answer["setVariableResult"][0]["attributeStatus"] == "Accepted"
            # It comes back with the new one.
            while len(desk.arrivals) < 2:
                await asyncio.sleep(0.02)

    run_on("asyncio", story())
    log = (tmp_path / "security.log").read_text()
    assert "ReconfigurationOfSecurityParameters" in [json.loads(line)["type"] for line in log.splitlines()]
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and NEW.encode() in path.read_bytes()]
    assert holding and all(path.stat().st_mode & 0o077 == 0 and path.name != "security.log" for path in holding)
