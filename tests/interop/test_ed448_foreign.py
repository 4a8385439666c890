"""Ed448 chains, which ISO 15118-20 names beside secp521r1, before the judges: root, sub-CAs, leaf and lists.

`fixtures/interop/expected.toml` names in ``[[ed448]]`` who cannot do it, in which words; a judge that passes what
stands there fails the test.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed448

from chargepki.pki.authority import Authority, CaOrder, IssueOrder, utc_now
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.keys import KeyAlgorithm
from testkit.authorities import make_authority, make_csr, make_key, open_inventory
from testkit.every_profile import SERVER
from testkit.foreign import ChainCase, Tool, Verdict, judge_by_nss, judge_by_strongswan, judge_chains, need
from testkit.layout import ROOT

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(180)]

ED448 = KeyAlgorithm.ED448
CHAIN = ("v2g-root", "cpo-sub1", "cpo-sub2")
CHECKS = ("valid", "not-revoked", "revoked", "cut")
EXPECTED = tomllib.loads((ROOT / "fixtures" / "interop" / "expected.toml").read_text(encoding="utf-8"))["ed448"]


def leaf(authority: Authority, name: str) -> tuple[bytes, str]:
    csr = make_csr(name, organization="Example", key=make_key(ED448))
    order = IssueOrder("cpo-sub2", "iso15118-20-a1/secc", csr=csr)
    made = authority.issue(order)
    return made.certificate_der, made.record.id


def made(folder: Path) -> list[ChainCase]:
    """Make the chain and its lists, all of Ed448, and return what is asked about it."""
    with open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder) as inventory:
        authority = make_authority(inventory, clock=utc_now)
        cas: list[CaRecord] = []
        for role in CHAIN:
            subject = (("CN", f"Ed448 {role}"), ("O", "Example"))
            issuer = cas[-1].id if cas else None
            order = CaOrder(role, f"iso15118-20-a1/{role}", issuer=issuer, subject=subject, key_algorithm=ED448)
            cas.append(authority.create_ca(order))
        good, _ = leaf(authority, "DEABCSECC0001")
        gone, gone_id = leaf(authority, "DEABCSECC0002")
        authority.revoke(gone_id, "superseded")
        lists = tuple(authority.publish_crl(ca.id).der for ca in reversed(cas))
        root, *above = [ca.certificate_der or b"" for ca in cas]
    path = tuple(reversed(above))
    for der in (good, root, *path):
        assert isinstance(x509.load_der_x509_certificate(der).public_key(), ed448.Ed448PublicKey)
    return [
        ChainCase("valid", (good, *path), root, None, SERVER),
        ChainCase("not-revoked", (good, *path), root, lists, SERVER),
        ChainCase("revoked", (gone, *path), root, lists, SERVER),
        ChainCase("cut", (good, *path[1:]), root, None, SERVER),
    ]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[ChainCase]:
    return made(tmp_path_factory.mktemp("ed448"))


def judge(who: str, cases: Sequence[ChainCase]) -> dict[str, Verdict]:
    if who == "strongswan":
        return judge_by_strongswan(cases)
    if who == "nss":
        # Its certutil takes no list for one question.
        return judge_by_nss([case for case in cases if case.crls is None], usage="V")
    need(Tool(who))
    return judge_chains(Tool(who), cases)


CI = ("openssl", "gnutls")
JUDGES = [
    pytest.param(each, marks=() if each in CI else pytest.mark.campaign)
    for each in (*CI, "openssl-strict", "java", "pyhanko", "strongswan", "nss")
]


@pytest.mark.parametrize("who", JUDGES)
def test_an_ed448_chain_is_judged_as_it_should_or_as_the_table_says(who: str, cases: list[ChainCase]) -> None:
    verdicts = judge(who, cases)
    rows = [row for row in EXPECTED if row["tool"] == who]
    for check, verdict in verdicts.items():
        told = [row["says"] for row in rows if check in row["checks"]]
        is_right = verdict.accepted is (check in ("valid", "not-revoked"))
        if check == "revoked":
            is_right = not verdict.accepted and "revoked" in verdict.reason.lower()
        if told:
            assert not is_right, f"{who} passes {check}: take it out of the table"
            assert not verdict.accepted and any(words in verdict.reason for words in told), f"{check}: {verdict}"
        else:
            assert is_right, f"{check}: {verdict}"
