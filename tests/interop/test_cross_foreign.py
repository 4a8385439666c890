"""Chains over cross-certificates before tools that are not ours: either generation of a root, and two roots of -20."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.pki.authority import Authority, CaOrder, IssueOrder, utc_now
from chargepki.pki.authority.rollover import RolloverOrder, cross_sign_cas, roll_over
from chargepki.pki.der import to_pem
from chargepki.pki.identifiers import Emaid
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.questions import list_authorities
from chargepki.pki.questions.paths import PathFinder
from testkit.authorities import MemoryKeyStore, make_authority, make_csr, make_key, ocpp_authority, open_inventory
from testkit.foreign import ChainCase, Tool, judge_chains, missing, need, run

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(180)]

CLIENT = "1.3.6.1.5.5.7.3.2"
STANDARD = "iso15118-20-a1"


@dataclass(frozen=True, slots=True)
class Question:
    """A leaf, the certificates between it and a root of the other side, and every list on the way."""

    name: str
    leaf: bytes
    path: tuple[bytes, ...]
    anchor: bytes
    lists: tuple[bytes, ...]
    """As the certificates point to them, the leaf's first."""
    revoked_lists: tuple[bytes, ...]
    """The same after the cross-certificate was revoked."""
    usage: str | None


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Question, ...]]:
    folder, keystore = tmp_path_factory.mktemp("cross"), MemoryKeyStore()
    # The tools know no other clock than the machine's; nothing may lie in its future.
    now = utc_now() - timedelta(minutes=2)
    with open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder) as inventory:
        authority = ocpp_authority(inventory, keystore=keystore, clock=lambda: now)
        old_leaf = station(authority, "CS-OLD")
        roll_over(authority, RolloverOrder("t-root"))
        roll_over(authority, RolloverOrder("t-sub"))
        new_leaf = station(authority, "CS-NEW")
        bare = make_authority(inventory, keystore=keystore, clock=lambda: now)
        contract = contract_below_two_roots(bare)
        asked = [
            ("new-with-old", new_leaf, "t-sub@2", "t-root@1", CLIENT),
            ("old-with-new", old_leaf, "t-sub@1", "t-root@2", CLIENT),
            ("emsp-below-v2g", contract, "e-sub2@1", "v-root@1", None),
        ]
        yield ask(authority, asked)


def ask(authority: Authority, asked: list[tuple[str, bytes, str, str, str | None]]) -> tuple[Question, ...]:
    inventory = authority.inventory
    finder = PathFinder(list_authorities(inventory))
    found = []
    for name, leaf, ca, root, usage in asked:
        anchor = inventory.get_ca(root).certificate_der or b""
        (path,) = finder.paths(ca, [anchor], authority.now())
        assert path.is_crossed
        # What the pointers of the certificates lead to, in their order: each names the generation that signed it.
        issuers = [ca]
        issuers += [
            label.partition(":")[0] if ":" in label else inventory.get_ca(label).issuer or "" for label in path.labels
        ]
        found.append((name, leaf, path.certificates, anchor, usage, issuers))
    before = lists(authority)
    for cross in [each for each in inventory.list_certificates() if each.profile.endswith("/cross")]:
        authority.revoke(cross.id, "superseded")
    after = lists(authority)
    return tuple(
        Question(name, leaf, path, anchor, pick(before, issuers), pick(after, issuers), usage)
        for name, leaf, path, anchor, usage, issuers in found
    )


def pick(lists: dict[str, bytes], issuers: list[str]) -> tuple[bytes, ...]:
    return tuple(lists[ca] for ca in issuers)


def lists(authority: Authority) -> dict[str, bytes]:
    return {ca.id: authority.publish_crl(ca.id).der for ca in authority.crl_issuers()}


def station(authority: Authority, name: str) -> bytes:
    order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr(name))
    return authority.issue(order).certificate_der


def contract_below_two_roots(authority: Authority) -> bytes:
    """A contract whose eMSP root the V2G root has certified: four certificates below it (V2G20-1003)."""
    for name, role, issuer in (
        ("v-root", "v2g-root", None), ("e-root", "emsp-root", None), ("e-sub1", "emsp-sub1", "e-root"),
        ("e-sub2", "emsp-sub2", "e-sub1"),
    ):  # fmt: skip
        subject = (("CN", name), ("O", "Example"), ("C", "DE"))
        authority.create_ca(CaOrder(name, f"{STANDARD}/{role}", issuer=issuer, subject=subject))
    cross_sign_cas(authority, "e-root", "v-root")
    emaid = Emaid.parse("DE8AAC1A2B3C4D")
    csr = make_csr(f"DE8AAC1A2B3C4D{emaid.expected_check_digit()}", key=make_key(KeyAlgorithm.SECP521R1))
    return authority.issue(IssueOrder(ca="e-sub2", profile=f"{STANDARD}/contract", csr=csr)).certificate_der


# The slower ones are asked in a campaign.
IN_CI = (Tool.OPENSSL, Tool.GNUTLS)
TOOLS = [pytest.param(each, marks=() if each in IN_CI else pytest.mark.campaign) for each in Tool]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_chain_over_a_cross_certificate_is_accepted_until_that_is_revoked(
    tool: Tool, questions: tuple[Question, ...]
) -> None:
    need(tool)
    cases = []
    for each in questions:
        chain = (each.leaf, *each.path)
        good, revoked = each.lists, each.revoked_lists
        if tool in (Tool.GNUTLS, Tool.JAVA) and each.usage:
            # Given the lists of both generations they choose by the issuer's name, whatever key signed which. Who
            # fetches what a certificate points to has the right one alone.
            good, revoked = (good[0], good[-1]), (revoked[0], revoked[-1])
        cases += [
            ChainCase(f"{each.name}|valid", chain, each.anchor, None, each.usage),
            ChainCase(f"{each.name}|checked", chain, each.anchor, good, each.usage),
            ChainCase(f"{each.name}|revoked", chain, each.anchor, revoked, each.usage),
            ChainCase(f"{each.name}|without", chain[:-1], each.anchor, None, each.usage),
        ]
    verdicts = judge_chains(tool, cases)
    wrong = {
        name: verdict
        for name, verdict in verdicts.items()
        if verdict.accepted is not name.endswith(("|valid", "|checked"))
    }
    assert not wrong, wrong
    assert all("revoked" in verdicts[f"{each.name}|revoked"].reason.lower() for each in questions)


def test_strongswan_follows_a_cross_certificate(questions: tuple[Question, ...], tmp_path: Path) -> None:
    if reason := missing("pki", "strongswan-pki"):
        pytest.skip(reason)
    for each in questions:
        files = write(tmp_path, each)
        if run("pki", "--print", "--type", "x509", "--in", files["anchor"]).returncode != 0:
            pytest.skip("no plugin for EC keys; on Debian: apt-get install libstrongswan-standard-plugins")
        above = [word for name in files if name != "leaf" for word in ("--cacert", files[name])]
        assert run("pki", "--verify", "--in", files["leaf"], *above).returncode == 0, each.name
        cross = files[f"path-{len(each.path) - 1}"]
        without = [
            word for name in files if files[name] != cross and name != "leaf" for word in ("--cacert", files[name])
        ]
        assert run("pki", "--verify", "--in", files["leaf"], *without).returncode != 0, each.name


def test_nss_follows_a_cross_certificate(questions: tuple[Question, ...], tmp_path: Path) -> None:
    if reason := missing("certutil", "libnss3-tools"):
        pytest.skip(reason)
    for each in (question for question in questions if question.usage):
        for with_cross in (True, False):
            store = tmp_path / f"{each.name}-{with_cross}"
            store.mkdir()
            files = write(store, each)
            database = f"sql:{store}"
            run("certutil", "-N", "-d", database, "--empty-password")
            cross = f"path-{len(each.path) - 1}"
            for name, file in files.items():
                if name == cross and not with_cross:
                    continue
                trust = "CT,C,C" if name == "anchor" else ",,"
                assert run("certutil", "-A", "-d", database, "-n", name, "-t", trust, "-i", file).returncode == 0
            done = run("certutil", "-V", "-d", database, "-n", "leaf", "-u", "C")
            assert (done.returncode == 0) is with_cross, (each.name, with_cross, done)


def write(folder: Path, question: Question) -> dict[str, Path]:
    """Write the certificates as files; the last of the path is the cross-certificate."""
    found = {"leaf": question.leaf, "anchor": question.anchor}
    found |= {f"path-{number}": der for number, der in enumerate(question.path)}
    paths = {name: folder / f"{name}.pem" for name in found}
    for name, path in paths.items():
        path.write_text(to_pem("CERTIFICATE", found[name]), encoding="ascii")
    return paths
