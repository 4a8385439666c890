"""npm's ocpp-rpc, in strict mode, is given roots and a security profile by our CSMS; all three versions."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.trust_facts import add_root
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import OperationState
from testkit.csms_rig import ACTOR, Rig, run_on, wait_for
from testkit.hierarchy import make_node
from testkit.node_station import need_node, node_station
from testkit.station_files import StationFiles, queue_operation

pytestmark = pytest.mark.foreign

URL = "wss://csms.example/ocpp"


def listing(version: str, root: bytes | None) -> dict[str, Any]:
    """Return the answer of a station that holds *root*, or nothing."""
    if root is None:
        return {"status": "NotFound"}
    data = CertificateHashData.of(root, root).to_wire()
    if version == "ocpp1.6":
        return {"status": "Accepted", "certificateHashData": [data]}
    chain = {"certificateType": "CSMSRootCertificate", "certificateHashData": data}
    return {"status": "Accepted", "certificateHashDataChain": [chain]}


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_a_foreign_station_is_given_a_root_and_a_profile_and_loses_the_root(version: str, tmp_path: Path) -> None:
    """InstallCertificate, GetInstalledCertificateIds, DeleteCertificate; ChangeConfiguration or SetNetworkProfile."""
    need_node()
    root = make_node("Next Root", None, ca=True).certificate.public_bytes(Encoding.DER)
    accepted = [{"status": "Accepted"}]
    answers = {
        "values": {"NetworkConfigurationPriority": "1"},
        "GetInstalledCertificateIds": [
            listing(version, None), listing(version, root), listing(version, root), listing(version, None),
        ],
        "InstallCertificate": accepted, "DeleteCertificate": accepted, "SetNetworkProfile": accepted,
        "ChangeConfiguration": accepted, "Reset": accepted,
    }  # fmt: skip
    (tmp_path / "answers.json").write_text(json.dumps(answers))

    async def story(rig: Rig) -> None:
        files = StationFiles(rig, tmp_path, "S1")
        rig.add_station("S1", profile=1)

        def put_on_record(tx: Transaction) -> None:
            now = datetime.now(UTC)
            tx.audit(ACTOR, "root.add", add_root(tx, root, actor_name="tester", now=now), now=now)

        rig.inventory.write(put_on_record)
        about: dict[str, object] = {"use": "csms", "certificate": hashlib.sha256(root).hexdigest()}
        options: dict[str, str | Path] = {"password_file": files.password, "answers": tmp_path / "answers.json"}
        async with (
            rig.server(1) as server,
            node_station(f"{rig.url_of(server)}/ocpp", "S1", version, until="closed", options=options) as station,
        ):
            await station.expect("booted")
            for kind in (OperationKind.INSTALL_ROOT, OperationKind.DELETE_ROOT):
                extra = {"last": True} if kind is OperationKind.DELETE_ROOT else {}
                made = queue_operation(rig, kind, "S1", {**about, **extra})
                await wait_for(lambda: rig.inventory.get_operation(made).state.is_final, seconds=60)  # noqa: B023 - called within its round
                assert rig.inventory.get_operation(made).state is OperationState.DONE, rig.inventory.get_operation(made)
            parameters = profile_parameters(2, url=None if version == "ocpp1.6" else URL)
            made = queue_operation(rig, OperationKind.SET_PROFILE, "S1", parameters)
            steps = ["ChangeConfiguration"]
            if version != "ocpp1.6":
                steps = ["GetVariables", "SetNetworkProfile", "SetVariables", "Reset"]
            await wait_for(lambda: answered(rig, made) == steps, seconds=60)
            while steps[-1] not in [each["method"] for each in station.told("called")]:
                await station.expect("called")
        called = {each["method"] for each in station.told("called")}
        assert {"InstallCertificate", "DeleteCertificate", "GetInstalledCertificateIds", *steps} <= called
        assert station.told("invalid") == [] and station.told("unexpected") == []

    with Rig(tmp_path) as rig:
        run_on("uvloop", story(rig))


def answered(rig: Rig, operation: str) -> list[str]:
    """Return what the station has accepted."""
    return [each.action for each in rig.inventory.list_attempts(operation) if each.answered_at is not None]
