"""testssl.sh and sslyze look at the TLS endpoint: nothing old, nothing weak, the four mandated suites and TLS 1.3."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.tls import TlsIdentity, server_context
from chargepki.pki.authority import IssueOrder
from chargepki.pki.keys import KeyAlgorithm, generate_private_key, spki_der
from testkit.csms_rig import ORGANIZATION, Rig
from testkit.foreign import missing

pytestmark = [pytest.mark.foreign, pytest.mark.campaign, pytest.mark.timeout(300)]

MANDATED = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384",
}  # fmt: skip
# What testssl rates down although the standard demands it.
ACCEPTED = {"FS", "cipherlist_OBSOLETED", "cipherlist_AVERAGE"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("scanned")) as opened:
        yield opened


def scan(rig: Rig, *command: str | Path) -> None:
    """Run a scanner against an endpoint with an EC and an RSA certificate; ``{port}`` in it is the port."""
    key = generate_private_key(KeyAlgorithm.RSA3072)
    subject = (("CN", "localhost"), ("O", ORGANIZATION))
    order = IssueOrder(
        ca="t-cso-sub", profile="ocpp/csms", spki=spki_der(key), subject=subject, dns_names=("localhost",)
    )
    rsa = TlsIdentity(rig.authority.issue(order).chain, key)

    async def story() -> None:
        async with rig.server(2) as server:
            server.reload(tls=server_context([SecurityProfile.TLS_BASIC], [rig.server_identity, rsa]))
            words = [str(word).replace("{port}", str(server.port)) for word in command]
            process = await asyncio.create_subprocess_exec(
                *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            await asyncio.wait_for(process.wait(), 280)

    asyncio.run(story())


def test_testssl_finds_nothing_old_and_nothing_vulnerable(rig: Rig, tmp_path: Path) -> None:
    if reason := missing("testssl", "testssl.sh"):
        pytest.skip(reason)
    report = tmp_path / "report.json"
    options = ("--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1")
    checks = ("-p", "-s", "-H", "-I", "-T", "-R", "-C", "-Z", "-F", "-J")  # the others take minutes each
    scan(rig, "testssl", *options, *checks, "--jsonfile", report, "https://localhost:{port}/")
    found: list[dict[str, Any]] = json.loads(report.read_text())
    by_id = {item["id"]: item["finding"] for item in found}
    for old in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        assert by_id[old] == "not offered", old
    assert "offered" in by_id["TLS1_2"] and "offered" in by_id["TLS1_3"]
    bad = {item["id"]: item for item in found if item["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL")}
    assert {name: item for name, item in bad.items() if name not in ACCEPTED} == {}


def test_sslyze_sees_exactly_the_mandated_suites_and_tls_1_3(rig: Rig, tmp_path: Path) -> None:
    # It needs an older `cryptography` than ours, so it lives in an environment of its own.
    ours = Path(__file__).parents[2] / ".scanners" / "bin" / "sslyze"
    sslyze = os.environ.get("SSLYZE") or shutil.which("sslyze") or (str(ours) if ours.exists() else None)
    if sslyze is None:
        pytest.skip("sslyze is not installed: run make .scanners/.ready")
    report = tmp_path / "report.json"
    scans = ("--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--compression", "--reneg")
    more = ("--heartbleed", "--robot", "--openssl_ccs", "--fallback", "--early_data")
    scan(rig, sslyze, *scans, *more, "--json_out", report, "localhost:{port}")
    (result,) = json.loads(report.read_text())["server_scan_results"]
    found = {name: item["result"] for name, item in result["scan_result"].items() if item.get("result")}

    def accepted(name: str) -> set[str]:
        return {suite["cipher_suite"]["name"] for suite in found[name]["accepted_cipher_suites"]}

    for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert accepted(f"{old}_cipher_suites") == set()
    assert accepted("tls_1_2_cipher_suites") == MANDATED
    assert accepted("tls_1_3_cipher_suites") == {
        "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    }  # fmt: skip
    assert found["tls_compression"]["supports_compression"] is False
    assert found["heartbleed"]["is_vulnerable_to_heartbleed"] is False
    assert found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False
    assert found["robot"]["robot_result"].startswith("NOT_VULNERABLE")
    assert found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"] is False
    assert found["tls_1_3_early_data"]["supports_early_data"] is False
