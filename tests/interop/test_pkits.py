"""NIST's path validation suite: every case about certificates and revocation lists gets NIST's verdict."""

from __future__ import annotations

import hashlib
import tomllib
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import pytest

from chargepki.pki.chain import PolicyInputs, Revocation, RevocationMode, verify_chain
from chargepki.pki.errors import ChainError
from testkit.layout import ROOT

FOLDER = ROOT / "fixtures" / "chain"
TABLE = tomllib.loads((FOLDER / "pkits.toml").read_text(encoding="utf-8"))
DATA = files("cryptography_vectors") / "x509" / "PKITS_data"
AT = datetime(2022, 5, 1, tzinfo=UTC)
TEST_POLICIES = "2.16.840.1.101.3.2.1.48"
CASES: list[dict[str, Any]] = TABLE["cases"]


def certificate(name: str) -> bytes:
    return (DATA / "certs" / f"{name}.crt").read_bytes()


def judge(case: dict[str, Any], mode: RevocationMode = RevocationMode.REQUIRE) -> ChainError | None:
    acceptable = frozenset(f"{TEST_POLICIES}.{number}" for number in case.get("policies", ())) or {"2.5.29.32.0"}
    lists = ["TrustAnchorRootCRL", *case.get("crls", ())]
    try:
        verify_chain(
            certificate(case["leaf"]),
            [certificate(name) for name in case.get("with", ())],
            [certificate("TrustAnchorRootCertificate")],
            at=AT,
            inputs=PolicyInputs(
                frozenset(acceptable),
                explicit_policy=case.get("explicit", False),
                inhibit_any_policy=case.get("inhibit_any", False),
                inhibit_mapping=case.get("inhibit_mapping", False),
            ),
            revocation=Revocation(
                mode, tuple((DATA / "crls" / f"{name}.crl").read_bytes() for name in lists), allow_indirect=True
            ),
        )
    except ChainError as error:
        return error
    return None


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_case_gets_the_verdict_of_nist(case: dict[str, Any]) -> None:
    error = judge(case)
    expected = "reject" if case["id"] in TABLE["refused_though_valid"] else case["expect"]
    assert ("reject" if error else "accept") == expected, error
    if error:
        assert error.why and error.fix


def test_the_table_is_complete_and_only_dsa_is_excepted() -> None:
    numbers = {case["id"].rstrip("abcdefghij") for case in CASES}
    sections = {section: sum(1 for n in numbers if n.startswith(f"4.{section}.")) for section in range(1, 17)}
    assert sections == {
        1: 6, 2: 8, 3: 11, 4: 21, 5: 8, 6: 17, 7: 5, 8: 20, 9: 8, 10: 14, 11: 11, 12: 10, 13: 38, 14: 35, 15: 10, 16: 2
    }  # fmt: skip
    assert all("DSA" in why for why in TABLE["refused_though_valid"].values())
    assert all("DSA" in next(c["leaf"] for c in CASES if c["id"] == number) for number in TABLE["refused_though_valid"])


def test_every_file_of_the_folder_is_the_one_that_the_manifest_names() -> None:
    entries = tomllib.loads((FOLDER / "manifest.toml").read_text(encoding="utf-8"))["vector"]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.iterdir()}
    del found["manifest.toml"]
    assert found == {entry["file"]: entry["sha256"] for entry in entries}


def test_without_revocation_only_the_cases_about_it_change() -> None:
    off = RevocationMode.OFF
    changed = {case["id"].split(".")[1] for case in CASES if case["expect"] == "reject" and judge(case, off) is None}
    assert changed == {"4", "5", "7", "14", "15"}
